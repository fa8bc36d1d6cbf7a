import pathlib
import shutil
import time
import warnings
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.storage import checkpoints
from tests import full_disk


def _state(value: float):
  return {
    "w": jnp.full((3, 5), value, jnp.bfloat16),
    "opt": (jnp.full((7,), -value), jnp.asarray(int(value), jnp.int32)),
  }


def _truncate_arrays(folder: pathlib.Path) -> None:
  for path in folder.rglob("*"):
    if path.is_file() and "METADATA" not in path.name:
      path.write_bytes(path.read_bytes()[:11])


def _arrays(folder: pathlib.Path) -> list[pathlib.Path]:
  return [path for path in folder.rglob("*") if path.parent.name == "d"]


def _zero_arrays(folder: pathlib.Path) -> None:
  for path in _arrays(folder):
    path.write_bytes(bytes(path.stat().st_size))


def _empty_arrays(folder: pathlib.Path) -> None:
  for path in _arrays(folder):
    path.write_bytes(b"")


def _drop_arrays(folder: pathlib.Path) -> None:
  for path in _arrays(folder):
    path.unlink()


def _drop_a_part(folder: pathlib.Path) -> None:
  shutil.rmtree(folder / "state")


def _drop_metadata(folder: pathlib.Path) -> None:
  for path in list(folder.rglob("*METADATA*")):
    path.unlink()


def _empty(folder: pathlib.Path) -> None:
  shutil.rmtree(folder)
  folder.mkdir()


def _zero_metadata(folder: pathlib.Path) -> None:
  for path in folder.rglob("*METADATA*"):
    path.write_bytes(bytes(path.stat().st_size))


def _garbage_metadata(folder: pathlib.Path) -> None:
  for path in folder.rglob("*METADATA*"):
    path.write_text("{")


class CheckpointsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def _save(self, *steps: int) -> None:
    with checkpoints.Checkpoints(self.folder) as saver:
      for step in steps:
        saver.save(step, _state(float(step)))

  def _restore(self, like=None):
    with checkpoints.Checkpoints(self.folder) as saver:
      return saver.restore_latest(_state(0.0) if like is None else like)

  def test_round_trip_and_keeps_newest_two(self):
    self._save(2, 3, 5, 11)
    with checkpoints.Checkpoints(self.folder) as saver:
      self.assertEqual(saver.steps(), [11, 5])
    step, state = self._restore(jax.eval_shape(lambda: _state(0.0)))
    self.assertEqual(step, 11)
    jax.tree.map(np.testing.assert_array_equal, state, _state(11.0))
    self.assertEqual(state["w"].dtype, jnp.bfloat16)
    self.assertEqual(jax.tree.structure(state), jax.tree.structure(_state(0.0)))

  def test_what_is_donated_meanwhile_is_saved_as_it_was(self):
    size = 1 << 20

    def add(state):
      return jax.tree.map(lambda each: each + 1, state)

    update = jax.jit(add, donate_argnums=0)
    state = {"a": jnp.zeros(size), "b": jnp.zeros(3, jnp.int32)}
    with checkpoints.Checkpoints(self.folder) as saver:
      for step in (1, 5):
        state = update(state)
        saver.save(step, state)
        for _ in range(3):
          state = update(state)
    step, found = self._restore({"a": jnp.ones(size), "b": jnp.ones(3, int)})
    self.assertEqual(step, 5)
    np.testing.assert_array_equal(found["a"], np.full(size, 5.0))
    np.testing.assert_array_equal(found["b"], np.full(3, 5))

  def test_what_is_whole(self):
    self._save(3)
    with checkpoints.Checkpoints(self.folder) as saver:
      self.assertIsNone(saver.whole)
      saver.restore_latest(_state(0.0))
      self.assertEqual(saver.whole, 3)
      saver.save(7, _state(7.0))
      with mock.patch.object(
        checkpoints.ocp.training.Checkpointer,
        "is_saving_in_progress",
        return_value=True,
      ):
        saver._writing.result()
        self.assertEqual(saver.whole, 3)
      # Nobody has waited for it.
      self.assertEqual(saver.whole, 7)
      saver.wait()
      self.assertEqual(saver.whole, 7)
      self.assertEqual(saver.steps(), [7, 3])
      saver.save(8, _state(8.0))
      with mock.patch.object(saver, "_is_there", return_value=False):
        self.assertEqual((saver.whole, saver.steps()), (7, [7]))

  def test_a_write_that_fails_is_said_by_the_next_call(self):
    with checkpoints.Checkpoints(self.folder) as saver:
      with mock.patch.object(saver, "_writing") as writing:
        writing.result.side_effect = OSError("no space")
        with self.assertRaisesRegex(OSError, "no space"):
          saver.save(7, _state(7.0))

  def test_a_write_that_failed_is_no_checkpoint(self):
    with (
      self.assertRaisesRegex(OSError, "checkpoint 7 "),  # As it is closed.
      checkpoints.Checkpoints(self.folder) as saver,
    ):
      saver.save(3, _state(3.0))
      saver.wait()
      with full_disk.full(), self.assertRaisesRegex(OSError, "checkpoint 7 "):
        saver.save(7, _state(7.0))
        while saver._checkpointer.is_saving_in_progress():
          time.sleep(0.01)
        found = [saver.whole]
        saver.wait()
      self.assertFalse((self.folder / "7").exists())
      found += [saver.whole, *saver.steps()]
      with mock.patch.object(checkpoints.store, "is_remote", lambda _: True):
        found.append(saver.whole)
    self.assertEqual(found, [3] * 4)

  def test_nothing_is_told_of_how_it_restores(self):
    self._save(3)
    with self.assertNoLogs(level="WARNING"):
      self._restore()

  def test_a_write_that_does_not_begin_is_a_line(self):
    self._save(3)
    with checkpoints.Checkpoints(self.folder) as saver:
      saver.restore_latest(_state(0.0))
      with (
        mock.patch.object(
          saver._checkpointer,
          "save_checkpointables_async",
          side_effect=jax.errors.JaxRuntimeError("ABORTED: no memory"),
        ),
        self.assertRaisesRegex(
          OSError, f"^{self.folder}: checkpoint 7 .* written .no memory.: run "
        ),
      ):
        saver.save(7, _state(7.0))
      self.assertEqual(saver.whole, 3)

  def test_a_disk_that_is_full_is_a_line(self):
    with (
      mock.patch.object(checkpoints.logging.get_absl_handler(), "emit") as told,
      self.assertRaisesRegex(
        OSError,
        f"^{self.folder}: checkpoint 7 cannot be written .*File too .*: run",
      ),
      full_disk.full(),
    ):
      self._save(7)
    told.assert_not_called()
    # In this process orbax's threads may still be at the save that failed.
    for wait in (0.1, 1.0, 5.0, 0.0):
      try:
        self._save(7)
        break
      except OSError:
        if not wait:
          raise
        time.sleep(wait)
    self.assertEqual(self._restore()[0], 7)

  def test_nothing_there(self):
    self.assertIsNone(self._restore())

  @parameterized.parameters(
    _truncate_arrays,
    _zero_arrays,
    _empty_arrays,
    _drop_arrays,
    _drop_a_part,
    _drop_metadata,
    _empty,
    _zero_metadata,
    _garbage_metadata,
  )
  def test_unreadable_is_skipped_with_a_warning(self, damage):
    self._save(3, 7)
    damage(self.folder / "7")
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter("always")
      step, state = self._restore()
    self.assertEqual(step, 3)
    jax.tree.map(np.testing.assert_array_equal, state, _state(3.0))
    texts = [str(w.message) for w in caught if "skipped" in str(w.message)]
    self.assertLen(texts, 1)
    self.assertIn("checkpoint 7 cannot be read", texts[0])
    # And the damaged step can be written again.
    self._save(7)
    self.assertEqual(self._restore()[0], 7)

  @parameterized.parameters((0.3, bytes(4096)), (0.0, b"noise" * 13))
  def test_what_is_overwritten_in_part_is_skipped(self, where, data):
    noise = np.random.default_rng(0).normal(size=(600, 600))
    state = {"w": jnp.asarray(noise, jnp.float32)}
    with checkpoints.Checkpoints(self.folder) as saver:
      for step in (10, 20):
        saver.save(step, state)
    arrays = _arrays(self.folder / "20")
    size, largest = max((path.stat().st_size, path) for path in arrays)
    with largest.open("r+b") as file:
      file.seek(int(where * size))
      file.write(data)
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      step, found = self._restore(state)
    self.assertEqual(step, 10)
    np.testing.assert_array_equal(found["w"], noise.astype(np.float32))

  def test_none_that_is_whole_is_a_line(self):
    self._save(3, 7)
    for step in (3, 7):
      _drop_arrays(self.folder / str(step))
    with (
      warnings.catch_warnings(),
      self.assertRaisesRegex(
        OSError, rf"^{self.folder}: all .* damaged \(\[7, 3\]\): .*, or delete "
      ),
    ):
      warnings.simplefilter("ignore")
      self._restore()

  @parameterized.parameters(
    OSError("503 Service Unavailable"),
    ValueError("UNAVAILABLE: Error reading gs://b/7: 503"),
    ValueError("PERMISSION_DENIED: NOT_FOUND: "),
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
  )
  def test_what_may_be_over_in_a_moment_is_no_damage(self, cause):
    self._save(3, 7)

    def load(*_):
      try:
        raise cause
      except Exception as error:
        # As orbax does, whatever the reason.
        raise KeyError("incompatible handler") from error

    def fail(*_):
      raise cause

    said = (
      rf"^{self.folder}: checkpoint 7 cannot be read \({type(cause).__name__}"
    )
    for where, name, broken in (
      (checkpoints.ocp, "load_checkpointables", load),
      (checkpoints.store, "read", fail),
    ):
      with (
        mock.patch.object(where, name, broken),
        self.assertRaisesRegex(
          OSError, f"{said}.*: run .* or delete {self.folder}/7 to resume"
        ),
      ):
        self._restore()
    self.assertEqual(self._restore()[0], 7)

  def test_files_that_cannot_be_opened_are_no_damage(self):
    self._save(3, 7)
    paths = _arrays(self.folder / "7")
    for path in paths:
      path.rename(path.with_suffix(".kept"))
      path.symlink_to(path)  # Too many links.
    with self.assertRaisesRegex(OSError, "checkpoint 7 cannot be read"):
      self._restore()
    for path in paths:
      path.with_suffix(".kept").rename(path)
    self.assertEqual(self._restore()[0], 7)

  def _restore_beside(self, *first: int, number: int = 1):
    """Restores beside a process that says these numbers, one after another."""
    said = iter(first)

    def of_processes(value: int) -> list[int]:
      return [next(said), value] if number else [value, next(said)]

    with mock.patch.object(checkpoints, "_of_processes", of_processes):
      found = self._restore()
    self.assertEmpty(list(said))
    return found

  def test_the_first_process_chooses(self):
    self._save(3, 7)
    whole, damaged = checkpoints._WHOLE, checkpoints._DAMAGED
    self.assertEqual(self._restore_beside(7, whole)[0], 7)
    self.assertEqual(self._restore_beside(3, whole)[0], 3)
    self.assertIsNone(self._restore_beside(-1))
    with self.assertWarnsRegex(UserWarning, r"7 .* skipped \(by process 0, "):
      step, state = self._restore_beside(7, damaged, 3, whole)
    self.assertEqual(step, 3)
    jax.tree.map(np.testing.assert_array_equal, state, _state(3.0))
    with self.assertRaisesRegex(OSError, r"checkpoint 7 .* \(by process 0, "):
      self._restore_beside(7, checkpoints._FAILED)

  def test_what_another_process_cannot_read_is_an_error(self):
    self._save(3, 7)
    with self.assertRaisesRegex(
      OSError, r"7 cannot .* \(by process 1, .*: run"
    ):
      self._restore_beside(7, checkpoints._DAMAGED, number=0)
    _drop_arrays(self.folder / "7")
    with self.assertRaisesRegex(OSError, r"7 cannot .* \(ValueError: .*: run"):
      self._restore_beside(7, checkpoints._WHOLE)
    with self.assertRaisesRegex(OSError, r"9 cannot .* \(JSONDecodeError: "):
      self._restore_beside(9, checkpoints._WHOLE)

  def test_newer_ones_are_kept_until_they_are_reached(self):
    self._save(100, 200)
    for step, kept in (
      (50, [200, 100, 50]),
      (60, [200, 100, 60, 50]),
      (150, [200, 150, 100]),
      (200, [200, 150]),
      (201, [201, 200]),
    ):
      with self.subTest(step):
        self._save(step)
        with checkpoints.Checkpoints(self.folder) as saver:
          self.assertEqual(saver.steps(), kept)
        there = [int(each.name) for each in self.folder.iterdir()]
        self.assertCountEqual(there, kept)

  def test_half_written_is_not_seen(self):
    self._save(3)
    (self.folder / "5.orbax-checkpoint-tmp-17").mkdir()
    self.assertEqual(self._restore()[0], 3)

  def test_another_state_is_an_error(self):
    self._save(3)
    other = _state(0.0) | {"w": jnp.zeros((3, 7), jnp.bfloat16)}
    with self.assertRaisesRegex(ValueError, r"'w'\] is bfloat16\[3, 5\] there"):
      self._restore(other)
    with self.assertRaisesRegex(ValueError, "'extra'] is absent there"):
      self._restore(_state(0.0) | {"extra": jnp.zeros(2)})


if __name__ == "__main__":
  absltest.main()
