"""Peak memory of a program, read from outside by a program beside it.

The measured program calls `mark("ready")` once what does not count is done,
then works, and calls `mark("end")`; a `mark("start")` in between leaves out the
peaks before it. Linux only: the numbers are those of /proc.
"""

import dataclasses
import os
import pathlib
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

# Seconds between two looks.
_INTERVAL = 0.001


@dataclasses.dataclass(frozen=True)
class Usage:
  """What a program held at most, above what it held at "ready".

  Attributes:
    anonymous: bytes of its own: arrays, objects, stacks.
    mapped: bytes of files mapped into memory. The system takes such pages back
      when it needs room, so they are counted apart.
    seconds: from the last mark before "end".
    cpu_seconds: of its threads in that time, for a machine that is shared.
  """

  anonymous: int
  mapped: int
  seconds: float
  cpu_seconds: float


def mark(name: str) -> None:
  """Marks a point of the measured program; returns when it has been noted.

  Args:
    name: "ready", "start" or "end".
  """
  print(name, flush=True)
  sys.stdin.readline()


def measure(command: Sequence[str], environment: Mapping[str, str]) -> Usage:
  """Runs a program that marks where it is.

  Args:
    command: of the program, which prints nothing but its marks.
    environment: all of its variables.

  Raises:
    RuntimeError: it ended before its mark "end".
  """
  with subprocess.Popen(
    command,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    env=environment,
  ) as child:
    base, mark = (0, 0), ""
    while mark != "end":
      start = time.perf_counter(), cpu_seconds(child.pid)
      peak = _watch(child)
      seconds = time.perf_counter() - start[0]
      cpu = cpu_seconds(child.pid) - start[1]
      mark = child.stdout.readline().strip()
      if not mark:
        raise RuntimeError(f"{command} ended before its last mark")
      if mark == "ready":
        base = resident(child.pid)
      child.stdin.write("\n")
      child.stdin.flush()
  return Usage(peak[0] - base[0], peak[1] - base[1], seconds, cpu)


def resident(pid: int) -> tuple[int, int]:
  """Returns the bytes that a process holds: anonymous, and of mapped files."""
  fields = dict(
    line.split(":", 1)
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
  )
  # A process that has ended has no such fields.
  return tuple(
    1024 * int(fields.get(name, "0 kB").split()[0])
    for name in ("RssAnon", "RssFile")
  )


def cpu_seconds(pid: int) -> float:
  """Returns the seconds of all cores that a process has used."""
  # The fields after the program's name, which may hold spaces.
  stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
  user, system = stat.split()[11:13]
  return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _watch(child: subprocess.Popen) -> tuple[int, int]:
  """Returns the most that a process held until it wrote a line, or ended."""
  peak = (0, 0)
  while True:
    anonymous, mapped = resident(child.pid)
    peak = max(peak[0], anonymous), max(peak[1], mapped)
    if select.select([child.stdout], [], [], _INTERVAL)[0]:
      return peak
