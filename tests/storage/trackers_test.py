"""Trackers: packages that are not installed, and stand-ins with their calls.

The calls are those of wandb 0.31 and trackio 0.43, with which this was tried.
"""

import importlib.machinery
import pathlib
import sys
import types
from unittest import mock

from absl.testing import absltest

from rstar_jax.storage import metrics, trackers


class WandbRun:
  """Takes what a run of wandb takes, and keeps it."""

  def __init__(self):
    self.axes, self.rows, self.finished = {}, [], 0

  def define_metric(self, name, *, step_metric):
    self.axes[name] = step_metric

  def log(self, data):
    self.rows.append(data)

  def finish(self):
    self.finished += 1


class TrackioRun:
  """Takes what a run of trackio takes, and keeps it."""

  def __init__(self):
    self.rows, self.finished = [], 0

  def log(self, metrics, step):
    self.rows.append((step, metrics))

  def finish(self):
    self.finished += 1


class TrackersTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path) / "tiny"
    self.begun = []

  def install(self, name_: str, run, fails: str = "") -> None:
    """Puts a module with the calls of a package where it would be."""
    module = types.ModuleType(name_)
    module.__spec__ = importlib.machinery.ModuleSpec(name_, None)

    def init(*, project, name, config, resume, **more):
      # One keeps files in a folder, and wants an id.
      self.assertEqual(set(more), {"id", "dir"} if name_ == "wandb" else set())
      if fails:
        raise RuntimeError(f"{fails}\nand more")
      self.begun.append((project, name, config, resume, more.get("id")))
      return run

    module.init = init
    self.enter_context(mock.patch.dict(sys.modules, {name_: module}))

  def write(self, *names: str) -> None:
    with metrics.MetricsWriter(self.folder, names, {"seed": 7}) as writer:
      writer.write(12, {"loss": 0.5}, prefix="round_1_sft")
      writer.write(1, {"test/pass_at_1": 0.25}, prefix="eval")
      writer.write(13, {"loss": 0.25}, prefix="round_1_sft")

  def test_wandb_counts_rounds_and_updates_apart(self):
    run = WandbRun()
    self.install("wandb", run)
    self.write("wandb")
    self.assertEqual(
      run.rows,
      [
        {"round_1_sft/loss": 0.5, "round_1_sft/step": 12},
        {"eval/test/pass_at_1": 0.25, "eval/step": 1},
        {"round_1_sft/loss": 0.25, "round_1_sft/step": 13},
      ],
    )
    self.assertEqual(
      run.axes,
      {"round_1_sft/*": "round_1_sft/step", "eval/*": "eval/step"},
    )
    self.assertEqual(run.finished, 1)

  def test_trackio_takes_any_step(self):
    run = TrackioRun()
    self.install("trackio", run)
    self.write("trackio")
    self.assertEqual(
      run.rows,
      [
        (12, {"round_1_sft/loss": 0.5}),
        (1, {"eval/test/pass_at_1": 0.25}),
        (13, {"round_1_sft/loss": 0.25}),
      ],
    )
    self.assertEqual(run.finished, 1)

  def test_a_resumed_run_is_the_same_one_and_no_other_is(self):
    self.install("wandb", WandbRun())
    self.write("wandb")
    self.write("wandb")
    first, second = self.begun
    self.assertEqual(first, second)
    project, name, config, resume, id_ = first
    self.assertEqual(
      (project, config, resume), ("rstar_jax", {"seed": 7}, "allow")
    )
    self.assertEqual(name, id_)
    self.assertStartsWith(name, "tiny-")
    self.folder = pathlib.Path(self.create_tempdir().full_path) / "tiny"
    self.write("wandb")
    self.assertNotEqual(self.begun[-1][1], name)

  def test_both_at_once(self):
    runs = WandbRun(), TrackioRun()
    for name, run in zip(trackers.PACKAGES, runs, strict=True):
      self.install(name, run)
    self.write("tensorboard", *trackers.PACKAGES)
    self.assertEqual([len(each.rows) for each in runs], [3, 3])
    self.assertTrue((self.folder / "tensorboard").exists())

  def test_one_that_is_not_installed_is_a_line(self):
    for name in trackers.PACKAGES:
      with (
        mock.patch.object(trackers.importlib.util, "find_spec") as find,
        self.assertRaisesRegex(
          ValueError,
          f"^config.trackers has '{name}', which is not installed: pip install "
          rf"'rstar_jax\[{name}\]', or leave it out$",
        ),
      ):
        find.return_value = None
        trackers.check(("tensorboard", name))
    trackers.check(("tensorboard",))
    self.assertFalse(self.folder.exists())

  def test_one_that_cannot_begin_is_a_line(self):
    self.install("wandb", None, fails="no API key")
    with self.assertRaisesRegex(
      ValueError, r"wandb cannot begin \(RuntimeError: no API key\): log in"
    ):
      self.write("wandb")

  def test_one_that_fails_later_ends_no_run(self):
    run = TrackioRun()
    self.install("trackio", run)
    with (
      mock.patch.object(run, "log", side_effect=OSError("no network")) as log,
      self.assertLogs(level="ERROR"),
    ):
      self.write("trackio")
    log.assert_called_once()
    lines = (self.folder / "metrics.jsonl").read_text().splitlines()
    self.assertLen(lines, 3)


if __name__ == "__main__":
  absltest.main()
