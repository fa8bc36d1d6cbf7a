"""Metrics to JSON lines and TensorBoard, and progress for people."""

import json
import sys
import time
from typing import Any, Protocol, TextIO

from rstar_jax.io import store
from rstar_jax.io.growing import Mirror

_SECONDS_BETWEEN_LINES = 10.0


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
  """Appends to metrics.jsonl and to TensorBoard events in one folder.

  A resumed run may write a step again; the later line is the one that counts.
  """

  def __init__(self, workdir: str | store.Path):
    """Opens the files.

    Args:
      workdir: gets metrics.jsonl and the folder tensorboard/.
    """
    import tensorboardX

    self._mirror = Mirror(store.path(workdir))
    lines = self._mirror.resume("metrics.jsonl")
    self._lines = lines.open("a", encoding="utf-8")
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
    # One write of a whole line: a killed run leaves no half line in between.
    self._lines.write(json.dumps({"step": int(step), **named}) + "\n")
    self._lines.flush()
    for name, value in named.items():
      self._events.add_scalar(name, value, int(step))

  def close(self) -> None:
    """Flushes both files."""
    self._lines.close()
    self._events.close()
    self._mirror.close()

  def __enter__(self) -> "MetricsWriter":
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()


class Progress:
  """A bar on a terminal; elsewhere a line now and then."""

  def __init__(
    self,
    total: int,
    desc: str,
    *,
    start: int = 0,
    unit: str = "it",
    file: TextIO | None = None,
    seconds: float = _SECONDS_BETWEEN_LINES,
  ):
    self._file = file or sys.stderr
    self._total, self._desc, self._unit = total, desc, unit
    self._done = self._start = start
    self._seconds = seconds
    self._began = self._spoke = time.monotonic()
    self._note = ""
    self._bar = None
    if self._file.isatty():
      import tqdm

      self._bar = tqdm.tqdm(
        total=total, desc=desc, initial=start, unit=unit, file=self._file
      )
    else:
      self._say("starts")

  def update(self, count: int = 1, **notes: Any) -> None:
    """Moves on by `count`; the notes are shown beside it."""
    self._done += count
    if notes:
      self._note = ", ".join(f"{k}={_short(v)}" for k, v in notes.items())
    if self._bar is not None:
      self._bar.update(count)
      if notes:
        self._bar.set_postfix_str(self._note, refresh=False)
    elif time.monotonic() - self._spoke >= self._seconds:
      self._say("")

  def close(self) -> None:
    """Says the last word."""
    if self._bar is not None:
      self._bar.close()
    else:
      self._say("ends")

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()

  def _say(self, word: str) -> None:
    now = time.monotonic()
    self._spoke = now
    elapsed = now - self._began
    rate = (self._done - self._start) / elapsed if elapsed > 0 else 0.0
    parts = [
      f"{self._desc}{' ' + word if word else ''}: {self._done}/{self._total}"
    ]
    if self._done > self._start:
      parts.append(f"{rate:.3g} {self._unit}/s, {elapsed:.0f} s")
    if self._note:
      parts.append(self._note)
    print(", ".join(parts), file=self._file, flush=True)


def progress(total: int, desc: str, **kwargs: Any) -> Progress:
  """Starts a progress display; use it as a context manager.

  Args:
    total: what `update` will add up to.
    desc: what is being done.
    **kwargs: start (already done), unit, file, seconds (between lines).
  """
  return Progress(total, desc, **kwargs)


def _short(value: Any) -> str:
  return f"{value:.4g}" if isinstance(value, float) else str(value)
