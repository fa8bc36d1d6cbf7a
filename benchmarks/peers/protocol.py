"""An engine in a process of its own, asked by lines of JSON.

Engines need libraries that do not live in one environment, so each is a program
`benchmarks.peers.NAME` run by the Python that has its library. A line to it is
an object: "call", the name of a method, and the method's arguments. It answers
with "seconds", the wall time of the method, and "value". Nothing here needs
more than the standard library.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import meter

_ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Reply:
  """An engine's answer: what it returned, its seconds, and the machine's."""

  value: Any
  seconds: float
  load: meter.Load


class Worker:
  """An engine's process; close it, or use it in a `with` statement."""

  def __init__(self, name: str, python: str, *, threads: int, log: Any = None):
    """Starts an engine.

    Args:
      name: of its module here.
      python: the interpreter that has its library.
      threads: cores that it may use, the first ones.
      log: an open file for what it writes to stderr; None is our own.
    """
    self.name = name
    environment = os.environ | {
      "OMP_NUM_THREADS": str(threads),
      "PYTHONPATH": str(_ROOT),
      "TOKENIZERS_PARALLELISM": "false",
    }
    self._process = subprocess.Popen(
      [python, "-m", f"benchmarks.peers.{name}", str(threads)],
      cwd=_ROOT,
      env=environment,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=log,
      text=True,
    )

  def ask(self, call: str, **arguments: Any) -> Reply:
    """Calls a method of the engine.

    Raises:
      RuntimeError: the process ended.
    """
    with meter.measure(self._process.pid) as load:
      try:
        self._process.stdin.write(json.dumps({"call": call} | arguments) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
      except BrokenPipeError:
        line = ""
    if not line:
      raise RuntimeError(
        f"{self.name} ended with code {self._process.wait()} while it was "
        f"asked to {call}; its own message is above, or in its log"
      )
    answer = json.loads(line)
    return Reply(answer["value"], answer["seconds"], load)

  def close(self) -> None:
    """Ends the process."""
    self._process.stdin.close()
    try:
      self._process.wait(10)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._process.stdout.close()

  def __enter__(self) -> "Worker":
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()


def serve(make: Callable[..., Any]) -> None:
  """Answers requests until there are no more.

  Args:
    make: makes the engine; its arguments come with the call "open".
  """
  cores = sorted(os.sched_getaffinity(0))
  os.sched_setaffinity(0, cores[: int(sys.argv[1])])
  # What a library prints is no answer.
  out = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  engine: Any = None
  for line in sys.stdin:
    arguments = json.loads(line)
    call = arguments.pop("call")
    start = time.perf_counter()
    if call == "open":
      engine, value = make(**arguments), None
    else:
      value = getattr(engine, call)(**arguments)
    seconds = time.perf_counter() - start
    out.write(json.dumps({"seconds": seconds, "value": value}) + "\n")
    out.flush()
