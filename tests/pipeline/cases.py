"""A folder, problems and a scripted policy for tests of the stages."""

import pathlib
from unittest import mock

from absl.testing import parameterized

from rstar_jax.pipeline import (
  backends,
)
from rstar_jax.pipeline import context as session
from rstar_jax.storage import layout, manifests
from tests import tiny_run

# Two additions of 1, 2 or 3 give 2 to 6: all but "never" can be solved.
ANSWERS = {
  "two": "2",
  "three": "3",
  "four": "4",
  "five": "5",
  "never": "99",
  "six": "6",
  "again four": "4",
}


class StagesCase(parameterized.TestCase):
  """One folder for each test, and a scripted device."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.problems = tiny_run.write_problems(
      self.folder / "train.jsonl", ANSWERS
    )
    self.script()

  def script(self, policy=None):
    self.device = tiny_run.ScriptedBackend.scripted(policy)
    self.enter_context(mock.patch.object(backends, "ModelBackend", self.device))

  def context(self, name="run", **overrides) -> session.Context:
    config = tiny_run.make_config(self.problems, self.problems, **overrides)
    return tiny_run.make_context(config, self.folder / name)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  """Returns all files but checkpoints and caches of what was verified."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
    and "checkpoints" not in path.parts
    and not path.name.startswith(layout.VERIFIED)
  }


def flip(path: pathlib.Path) -> None:
  """Changes one bit in the middle of a file."""
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def finish(context: session.Context, round_: int, *names: str) -> None:
  for name in names:
    manifests.write(context.folder(round_, name), {}, [])
