"""Checkpoints of a training state, written by orbax in the background.

A checkpoint is written under a temporary name and renamed when complete (in a
bucket: marked as complete). So a killed run leaves whole checkpoints alone. No
other module imports orbax.
"""

import contextlib
import dataclasses
import json
import logging as std_logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from rstar_jax import outside
from rstar_jax.storage import store
from rstar_jax.storage.snapshot import COMMITTED

_KEEP = 2
# The file of a checkpoint that holds the metadata of `save`.
_METADATA = "_CHECKPOINT_METADATA"
# Errors that only missing, cut or overwritten files cause. JSONDecodeError and
# UnicodeDecodeError are of metadata, KeyError of a part that has no files.
_DAMAGE = (
  FileNotFoundError,
  json.JSONDecodeError,
  UnicodeDecodeError,
  KeyError,
)
# The same by tensorstore, which raises ValueError("CODE: ...") for everything.
_DAMAGE_CODES = ("DATA_LOSS: ", "NOT_FOUND: ", "OUT_OF_RANGE: ")
# Of FAILED_PRECONDITION, that of bytes that do not decompress.
_GARBLED = "ZSTD_decompressStream() failed"
# What the load of a checkpoint finds: all of it, less than was written, or
# nothing that tells the one from the other.
_WHOLE, _DAMAGED, _FAILED = range(3)


class Checkpoints:
  """The newest two checkpoints of a folder; a context manager."""

  def __init__(self, folder: str | store.Path):
    """Opens a folder with one subfolder per step; creates it if missing."""
    # The newest step that is known to be complete, and the one that is being
    # written, or could not be.
    self._complete: int | None = None
    self._begun: int | None = None
    self._writing: Any = None
    self._preserved = _Preserved()
    self._folder = store.path(folder)
    if not store.is_remote(folder):
      self._folder = self._folder.absolute()
      self._folder.mkdir(parents=True, exist_ok=True)
    try:
      self._checkpointer = self._open()
    except FileNotFoundError:
      # A folder in a bucket exists only through its objects: it vanishes if
      # another process removes a killed one's leftovers between two listings.
      self._checkpointer = self._open()

  def _open(self) -> ocp.training.Checkpointer:
    return ocp.training.Checkpointer(
      self._folder,
      preservation_policy=self._preserved,
      cleanup_tmp_directories=True,
    )

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def close(self) -> None:
    """Waits for the checkpoint that is being written; raises as `save`."""
    try:
      self.wait()
    finally:
      with self._errors_in_one_line(self._begun):
        self._checkpointer.close()

  def save(self, step: int, state: Any) -> None:
    """Starts to write a state; replaces a checkpoint of the same step.

    The state is copied to the host, and threads write it. One checkpoint is
    written at a time: this waits for the last one, and raises its error.

    Args:
      step: number of updates so far.
      state: pytree of arrays, which may be donated after this returns.

    Raises:
      OSError: this or the last checkpoint could not be written; one line.
    """
    self.wait()
    self._preserved.step = step
    with self._errors_in_one_line(step):
      self._writing = self._checkpointer.save_checkpointables_async(
        step,
        {"state": _flatten(state)},
        force=True,
        overwrite=step in self.steps(),
        custom_metadata={"shapes": _shapes(state)},
      )
    self._begun = step

  def wait(self) -> None:
    """Waits until the last `save` is complete; raises as `save`."""
    writing, self._writing = self._writing, None
    if writing is not None:
      with self._errors_in_one_line(self._begun):
        writing.result()
      self._complete, self._begun = self._begun, None

  @contextlib.contextmanager
  def _errors_in_one_line(self, step: int | None) -> Iterator[None]:
    """Turns orbax's errors into one line.

    Raises:
      OSError: a checkpoint could not be written, for whatever reason.
    """
    try:
      yield
    except Exception as error:  # orbax raises many kinds.
      # The reason is at the end, after long names.
      reason = str(error).rpartition(": ")[2][:200]
      raise OSError(
        f"{self._folder}: checkpoint {step} cannot be written "
        f"({reason}): run the same command again once it can"
      ) from error

  @property
  def whole(self) -> int | None:
    """The newest complete step that this process wrote or found."""
    if self._writing is None or self._checkpointer.is_saving_in_progress():
      return self._complete
    # No bucket is asked: this process may be about to end.
    remote = store.is_remote(self._folder)
    return self._begun if remote or self._is_there() else self._complete

  def steps(self) -> list[int]:
    """Returns the steps of the complete checkpoints, newest first."""
    steps = {each.step for each in self._checkpointer.checkpoints}
    # orbax lists a step as soon as its writing begins.
    if self._begun in steps and not self._is_there():
      steps.remove(self._begun)
    return sorted(steps, reverse=True)

  def _is_there(self) -> bool:
    """Returns whether the step that was begun is complete."""
    folder = self._folder / str(self._begun)
    return (folder / COMMITTED if store.is_remote(folder) else folder).exists()

  def restore_latest(self, start: Any) -> tuple[int, Any] | None:
    """Restores the newest checkpoint whose files are whole.

    All processes call this, and restore what the first one chooses.

    Args:
      start: pytree of arrays or jax.ShapeDtypeStruct, with the structure,
        shapes, dtypes and shardings to restore into. Arrays are deleted before
        a checkpoint is loaded, so that devices hold one state at a time.

    Returns:
      (step, state), or None if there is no checkpoint. One whose files are
      missing, cut or overwritten is skipped with a warning.

    Raises:
      OSError: a checkpoint cannot be read for another reason, such as a bucket
        that is out of reach or a device without memory; or by another process
        than the first, for any reason; or all are damaged. So a training with
        checkpoints never starts anew. One line.
      ValueError: the newest readable checkpoint has other names or shapes, so
        it is of another model or optimiser.
    """
    left, damaged = self.steps(), []
    while (step := _of_processes(max(left, default=-1))[0]) >= 0:
      left = [each for each in left if each < step]
      state, error = None, None
      try:
        state = self._load(step, start)
      except Exception as caught:  # orbax raises many kinds.
        error = caught
      found = _of_processes(_found(error))
      if not any(found):
        self._complete = step
        return step, state
      if isinstance(error, _AnotherState):
        raise error
      reason = _reason(error, found)
      if found[0] != _DAMAGED:
        raise OSError(
          f"{self._folder}: checkpoint {step} cannot be read ({reason}): run "
          "the same command again once it can, or delete "
          f"{self._folder / str(step)} to resume from an older one"
        ) from error
      warnings.warn(
        f"{self._folder}: checkpoint {step} cannot be read and is skipped "
        f"({reason})",
        stacklevel=2,
      )
      damaged.append(step)
    if damaged:
      raise OSError(
        f"{self._folder}: all checkpoints are damaged ({damaged}): restore "
        f"one, or delete {self._folder} to train anew"
      )
    return None

  def _load(self, step: int, start: Any) -> Any:
    """Returns the state of a checkpoint, instead of `start`.

    Waits for no other process, any of which may fail.

    Raises:
      _AnotherState: it has other names or shapes.
      Exception: it cannot be read; see `_found`.
    """
    folder = self._folder / str(step)
    # Not by orbax, which takes a file that it cannot read for an empty one.
    metadata = store.read(folder / _METADATA)
    shapes = json.loads(metadata or b"")["custom_metadata"]["shapes"]
    _check_shapes(self._folder, step, shapes, _shapes(start))
    wanted = {"state": _flatten(_abstract(start))}
    for each in jax.tree.leaves(start):
      if isinstance(each, jax.Array):
        each.delete()
    own = jax.process_index()
    alone = ocp.Context()
    alone.multiprocessing.primary_host = own
    alone.multiprocessing.active_processes = {own}
    with alone:
      loaded = ocp.load_checkpointables(folder, wanted)
    return _unflatten(loaded["state"], start)


@dataclasses.dataclass
class _Preserved(ocp.training.preservation_policies.PreservationPolicy):
  """Preserves the newest checkpoints up to the one that is being written.

  Newer ones are preserved too: a training that fell back to an older one has
  not reached them yet.

  Attributes:
    step: of the checkpoint that is being written.
  """

  step: int = 0

  def should_preserve(self, checkpoints: Sequence[Any], *, context) -> list:
    del context
    steps = [each.step for each in checkpoints]
    reached = sorted(step for step in steps if step <= self.step)
    gone = reached[:-_KEEP]
    return [step not in gone for step in steps]


class _AnotherState(ValueError):
  """A checkpoint is of another model or optimiser."""


def _of_processes(value: int) -> list[int]:
  """Returns the value of each process, all of which call this together."""
  if jax.process_count() == 1:
    return [value]
  values = multihost_utils.process_allgather(np.int32(value))
  return [int(each) for each in values]


def _found(error: Exception | None) -> int:
  """Returns what a load found: _WHOLE, _DAMAGED or _FAILED."""
  if error is None:
    return _WHOLE
  cause = _cause(error)
  text = str(cause) if isinstance(cause, ValueError) else ""
  if (
    isinstance(cause, _DAMAGE)
    or text.startswith(_DAMAGE_CODES)
    or _GARBLED in text
  ):
    return _DAMAGED
  return _FAILED


def _reason(error: Exception | None, found: Sequence[int]) -> str:
  """Returns why a checkpoint cannot be read, here or by another process."""
  if error is None:
    number = next(number for number, each in enumerate(found) if each)
    return f"by process {number}, whose log says why"
  cause = _cause(error)
  return f"{type(cause).__name__}: {outside.first_line(cause)}"


def _cause(error: BaseException) -> BaseException:
  """Returns the error that others were raised from."""
  while error.__cause__ is not None:
    error = error.__cause__
  return error


def _check_shapes(folder, step: int, saved: dict, wanted: dict) -> None:
  if saved == wanted:
    return
  names = sorted(set(saved) ^ set(wanted)) or [
    k for k in wanted if saved[k] != wanted[k]
  ]
  name = names[0]
  raise _AnotherState(
    f"{folder}: checkpoint {step} is of another model or optimiser: {name} is "
    f"{saved.get(name, 'absent')} there and {wanted.get(name, 'absent')} here "
    f"({len(names)} differ); use a new folder, or the config that wrote it"
  )


def _flatten(tree: Any) -> dict[str, Any]:
  """Returns a tree as a flat dict, so that orbax needs no custom types."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _unflatten(flat: dict[str, Any], like: Any) -> Any:
  names = [
    jax.tree_util.keystr(path)
    for path, _ in jax.tree_util.tree_flatten_with_path(like)[0]
  ]
  return jax.tree.unflatten(
    jax.tree.structure(like), [flat[name] for name in names]
  )


def _abstract(tree: Any) -> Any:
  # An array without a sharding goes to the first device.
  default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=getattr(x, "sharding", None) or default
    ),
    tree,
  )


def _shapes(tree: Any) -> dict[str, str]:
  return {
    name: f"{x.dtype}{list(x.shape)}" for name, x in _flatten(tree).items()
  }


def _tells(record: std_logging.LogRecord) -> bool:
  """Returns whether a log record is not about orbax's progress or failures.

  Failures are raised too; their records are hundreds of lines of tracebacks.
  """
  return record.levelno == std_logging.WARNING or "orbax" not in record.pathname


# The filter is for all threads, since orbax writes in threads of its own.
logging.get_absl_logger().addFilter(_tells)
