"""Metrics to JSON lines and TensorBoard, and progress for people."""

import importlib.util
import json
import sys
import time
from typing import Any, Protocol, TextIO

from rstar_jax.storage import formatting, store
from rstar_jax.storage.append_only import Mirror

# Where there is no terminal.
_SECONDS_TO_FIRST_LINE = 20.0
_SECONDS_BETWEEN_LINES = 600.0
# Units of which no rate is told, and the share of all that they are at most.
_FEW, _FEW_SHARE = 10, 0.05


class Writer(Protocol):
  """Where metrics go."""

  def write(
    self, step: int, values: dict[str, float], prefix: str = ""
  ) -> None:
    """Writes scalars of one step; the prefix goes before each name."""
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
  """Appends to metrics.jsonl, and to TensorBoard events where it can.

  A resumed run may write a step again; the later line is the one that counts.
  """

  def __init__(self, workdir: str | store.Path):
    """Opens the files.

    Args:
      workdir: gets metrics.jsonl, and the folder tensorboard/ if the extra
        "tensorboard" is installed.
    """
    self._began = time.monotonic()
    self._mirror = Mirror(store.path(workdir))
    lines = self._mirror.resume("metrics.jsonl")
    self._lines = lines.open("a", encoding="utf-8")
    self._events = None
    if importlib.util.find_spec("tensorboardX"):
      import tensorboardX

      self._events = tensorboardX.SummaryWriter(
        str(self._mirror.local / "tensorboard"), write_to_disk=True
      )

  def write(
    self, step: int, values: dict[str, float], prefix: str = ""
  ) -> None:
    """Writes scalars of one step.

    Args:
      step: the x axis.
      values: name -> scalar.
      prefix: put before each name, as in "round_1/sft".
    """
    named = {
      f"{prefix}/{name}" if prefix else name: float(value)
      for name, value in values.items()
    }
    # Of this line, and since the file was opened: what took how long.
    times = {
      "time": round(time.time(), 1),
      "elapsed": round(time.monotonic() - self._began, 1),
    }
    # One write of a whole line: a killed run leaves no half line in between.
    self._lines.write(json.dumps({"step": int(step), **named, **times}) + "\n")
    self._lines.flush()
    if self._events:
      for name, value in named.items():
        self._events.add_scalar(name, value, int(step))

  def close(self) -> None:
    """Flushes both files."""
    self._lines.close()
    if self._events:
      self._events.close()
    self._mirror.close()

  def __enter__(self) -> "MetricsWriter":
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()


class Progress:
  """A bar on a terminal; elsewhere a line at the end, and a few before it."""

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
    self._file = file or sys.stderr
    self._total, self._desc, self._unit = total, desc, unit
    self._done = self._start = start
    self._began = time.monotonic()
    # Each wait is twice as long as the one before.
    self._wait, self._next = seconds, self._began + seconds
    self._note = ""
    self._bar = None
    if self._file.isatty():
      import tqdm

      self._bar = tqdm.tqdm(
        total=total, desc=desc, initial=start, unit=unit, file=self._file
      )

  def update(self, count: int = 1, **notes: Any) -> None:
    """Moves on by `count`; the notes are shown beside it."""
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
      # The first units wait for what is compiled, and say nothing of the rest.
      if moved > min(_FEW, _FEW_SHARE * self._total):
        seconds = (self._total - self._done) / rate
        left = f"{rate:.3g} a second, {formatting.duration(seconds)} left"
      self._say(f"{self._done} of {self._total} {self._unit}s, {left}")

  def close(self, error: bool = False) -> None:
    """Says the last word.

    Args:
      error: whether what is being done was given up.
    """
    if self._bar is not None:
      self._bar.close()
    elif error:
      self._say(f"ends at {self._done} of {self._total} {self._unit}s")
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
    """Returns units a second."""
    return (self._done - self._start) / max(now - self._began, 1e-9)

  def _say(self, text: str) -> None:
    note = f", {self._note}" if self._note else ""
    print(f"{self._desc}: {text}{note}", file=self._file, flush=True)


def progress(total: int, desc: str, **kwargs: Any) -> Progress:
  """Starts a progress display; use it as a context manager.

  Args:
    total: what `update` will add up to.
    desc: what is being done.
    **kwargs: start (already done), unit, file, seconds (to the first line).
  """
  return Progress(total, desc, **kwargs)


def _short(value: Any) -> str:
  return f"{value:.4g}" if isinstance(value, float) else str(value)
