"""Runs to study, with a scripted policy and reward models."""

import pathlib
from unittest import mock

from absl.testing import absltest

from rstar_jax.config import schema as config_lib
from rstar_jax.pipeline import backends, ppm, rollout
from rstar_jax.storage import layout, manifests
from tests import tiny_run

ANSWERS = {"four": "4", "five": "5", "never": "99", "six": "6", "two": "2"}
# One problem of ten is held out; of twenty some are.
MORE = {f"make {i}": str(2 + i % 5) for i in range(20)}


class StudyingCase(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    test = tiny_run.write_problems(self.folder / "test.jsonl", ANSWERS)
    train = tiny_run.write_problems(self.folder / "train.jsonl", MORE)
    self.config = tiny_run.make_config(train, test)
    self.config.study = config_lib.StudyConfig(
      rewards=("ppm", "orm"),
      trajectories=3,
      samples=3,
      beam_width=4,
      beam_groups=2,
    )
    self.device = tiny_run.ScriptedBackend.scripted()
    self.enter_context(mock.patch.object(backends, "ModelBackend", self.device))
    # Models are trained elsewhere; here they are scripted.
    self.trained = []
    self.enter_context(
      mock.patch.object(
        ppm,
        "train",
        lambda *args, updates: self.trained.append((*args, updates)),
      )
    )

  def context(self, name="run"):
    context = tiny_run.make_context(self.config, self.folder / name)
    rollout.rollout(context, 1)
    for each in ("policy", "ppm", "orm"):
      manifests.write(context.folder(1, each), {}, [])
    return context

  def files(self, context) -> dict[str, bytes]:
    return {
      str(path.relative_to(context.workdir)): path.read_bytes()
      for path in context.folder(1, "study").rglob("*")
      if path.is_file() and not path.name.startswith(layout.VERIFIED)
    }
