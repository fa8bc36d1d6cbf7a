"""Writes metrics as JSON lines and for TensorBoard, and shows progress."""

import importlib.util
import json
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TextIO

from rstar_jax import outside
from rstar_jax.storage import formatting, layout, store, trackers
from rstar_jax.storage.append_only import Mirror

# Seconds until the first progress line where there is no terminal.
_SECONDS_TO_FIRST_LINE = 20.0
_SECONDS_BETWEEN_LINES = 600.0
# A rate is shown after this many units, but at most this share of all.
_FEW, _FEW_SHARE = 10, 0.05


class Writer(Protocol):
  """A destination of metrics."""

  def write(
    self, step: int, values: dict[str, float], prefix: str = ""
  ) -> None:
    """Writes the scalars of one step, named PREFIX/NAME."""
    ...

  def close(self) -> None: ...


class NullWriter:
  """Writes nothing."""

  def write(
    self, step: int, values: dict[str, float], prefix: str = ""
  ) -> None:
    pass

  def close(self) -> None:
    pass


class MetricsWriter:
  """Appends to metrics.jsonl, and writes the same to trackers.

  A resumed run may repeat a step; the later line counts.
  """

  def __init__(
    self,
    workdir: str | store.Path,
    names: Sequence[str] = ("tensorboard",),
    config: Mapping[str, Any] | None = None,
  ):
    """Opens the files.

    Args:
      workdir: the folder of metrics.jsonl, and of tensorboard/.
      names: trackers: "tensorboard", used if it is installed, and those of
        `trackers.PACKAGES`.
      config: the settings that trackers show.

    Raises:
      ValueError: a tracker is not installed, or refuses; one line.
    """
    self._began = time.monotonic()
    self._trackers = [
      trackers.Tracker(each, store.path(workdir), config or {})
      for each in names
      if each in trackers.PACKAGES
    ]
    self._mirror = Mirror(store.path(workdir))
    self._path = self._mirror.resume(layout.METRICS)
    self._lines = self._path.open("a", encoding="utf-8")
    if _is_cut(self._path):
      self._lines.write("\n")  # Goes out with the first line.
    self._events = None
    if "tensorboard" in names and importlib.util.find_spec("tensorboardX"):
      import tensorboardX

      self._events = tensorboardX.SummaryWriter(
        str(self._mirror.local / "tensorboard"), write_to_disk=True
      )

  def write(
    self, step: int, values: dict[str, float], prefix: str = ""
  ) -> None:
    """Writes the scalars of one step.

    Args:
      step: the x coordinate: a round, update or turn.
      values: scalars by name.
      prefix: goes before each name, e.g. "round_1_sft".
    """
    named = {
      f"{prefix}/{name}" if prefix else name: float(value)
      for name, value in values.items()
    }
    # Unix time of the line, and seconds since the file was opened.
    times = {
      "time": round(time.time(), 1),
      "elapsed": round(time.monotonic() - self._began, 1),
    }
    # One write per line, so that a killed run leaves no half line.
    line = json.dumps({"step": int(step), **named, **times}) + "\n"
    with store.writing(self._path):
      self._lines.write(line)
      self._lines.flush()
    if self._events:
      for name, value in named.items():
        self._events.add_scalar(name, value, int(step))
    for each in self._trackers:
      each.write(int(step), named)

  def close(self) -> None:
    """Closes the files, and copies them to the bucket if there is one."""
    with store.writing(self._path):
      self._lines.close()
    if self._events:
      self._events.close()
    for each in self._trackers:
      each.close()
    self._mirror.close()

  def __enter__(self) -> "MetricsWriter":
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()


def _is_cut(path: pathlib.Path) -> bool:
  """Returns whether the last line lacks its end, as after a full disk."""
  with path.open("rb") as file:
    if not file.seek(0, os.SEEK_END):
      return False
    file.seek(-1, os.SEEK_END)
    return file.read() != b"\n"


class Progress:
  """A progress bar on a terminal; elsewhere a few lines, and a last one.

  A context manager, which closes it.
  """

  def __init__(
    self,
    total: int,
    desc: str,
    *,
    start: int = 0,
    unit: str = "it",
    file: TextIO | None = None,
    seconds: float = _SECONDS_TO_FIRST_LINE,
  ):
    """Shows the start.

    Args:
      total: number of units.
      desc: label of the work.
      start: number of units that are done already.
      unit: name of one.
      file: None is standard error.
      seconds: until the first line.
    """
    self._file = file or sys.stderr
    self._total, self._desc, self._unit = total, desc, unit
    self._done = self._start = start
    self._began = time.monotonic()
    # Each wait is twice the one before.
    self._wait, self._next = seconds, self._began + seconds
    self._note = ""
    self._bar = None
    if self._file.isatty():
      import tqdm

      self._bar = tqdm.tqdm(
        total=total, desc=desc, initial=start, unit=unit, file=self._file
      )

  def update(self, count: int = 1, **notes: Any) -> None:
    """Advances by `count` units, and shows the notes."""
    self._done += count
    if notes:
      self._note = ", ".join(
        f"{k.replace('_', ' ')} {_short(v)}" for k, v in notes.items()
      )
    if self._bar is not None:
      self._bar.update(count)
      if notes:
        self._bar.set_postfix_str(self._note, refresh=False)
      return
    now = time.monotonic()
    if now >= self._next and self._done < self._total:
      self._wait = min(2 * self._wait, _SECONDS_BETWEEN_LINES)
      self._next = now + self._wait
      rate, moved = self._rate(now), self._done - self._start
      left = "time left unknown"
      # The first units include compilation, which would distort the rate.
      if moved > min(_FEW, _FEW_SHARE * self._total):
        seconds = (self._total - self._done) / rate
        left = f"{rate:.3g} a second, {formatting.duration(seconds)} left"
      self._say(f"{self._done} of {self._total} {self._unit}s, {left}")

  def close(self, error: bool = False) -> None:
    """Prints the last line; after an error, the progress so far."""
    if self._bar is not None:
      self._bar.close()
    elif error:
      self._say(f"stopped at {self._done} of {self._total} {self._unit}s")
    elif self._total > self._start:
      now = time.monotonic()
      count, took = self._done - self._start, now - self._began
      pace = f", {self._rate(now):.3g} a second" if took >= 1 else ""
      self._say(f"{count} {self._unit}s in {formatting.duration(took)}{pace}")

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, kind: Any, *_: Any) -> None:
    self.close(error=kind is not None)

  def _rate(self, now: float) -> float:
    """Returns units per second."""
    return (self._done - self._start) / max(now - self._began, 1e-9)

  def _say(self, text: str) -> None:
    note = f", {self._note}" if self._note else ""
    outside.say(f"{self._desc}: {text}{note}", self._file)


def _short(value: Any) -> str:
  return f"{value:.4g}" if isinstance(value, float) else str(value)
