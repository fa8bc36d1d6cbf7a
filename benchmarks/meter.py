"""How busy other programs keep the machine while one is measured.

Linux only: the numbers are those of /proc. Seconds of CPU that processes of a
lower priority (nice) use are counted apart, since they take what is left over.
"""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import time
from collections.abc import Iterator
from typing import IO

_HZ = os.sysconf("SC_CLK_TCK")
# Seconds between two turns.
_PAUSE = 1.0
_PROC = pathlib.Path("/proc")


@dataclasses.dataclass
class Load:
  """What was used while something ran.

  Attributes:
    seconds: of wall time.
    cores: mean number of cores that the measured processes used.
    foreign: mean number of cores that others of normal priority used, the
      system's own work for all included.
    niced: mean number of cores that programs of lower priority used.
  """

  seconds: float = 0.0
  cores: float = 0.0
  foreign: float = 0.0
  niced: float = 0.0


@contextlib.contextmanager
def measure(pid: int) -> Iterator[Load]:
  """Gives a load that is filled in at the end.

  Args:
    pid: of the program under test; its children are measured with it, and
      have its priority.
  """
  load = Load()
  nice = os.getpriority(os.PRIO_PROCESS, pid) > 0
  before, start = _now(pid), time.perf_counter()
  yield load
  load.seconds = time.perf_counter() - start
  user, system, busy, niced = (
    (new - old) / max(load.seconds, 1e-9)
    for new, old in zip(_now(pid), before, strict=True)
  )
  load.cores = user + system
  # Only what programs compute themselves counts as nice, not the system's work
  # for them.
  load.foreign = max(0.0, busy - system - (0.0 if nice else user))
  load.niced = max(0.0, niced - (user if nice else 0.0))


class Turns:
  """A file's lock, so that programs that share a machine measure in turn."""

  def __init__(self, path: str | None, seconds: float = 150.0):
    """Makes turns of at least so many seconds; None is a machine of one's own.

    A turn ends with the first call that ends after them.
    """
    self._path, self._seconds = path, seconds
    self._file: IO | None = None
    self._began = 0.0

  @contextlib.contextmanager
  def mine(self) -> Iterator[None]:
    """Waits for a turn, unless this is still ours."""
    if self._path is not None and self._file is None:
      # Who waits would not get the lock if it were taken again at once.
      time.sleep(_PAUSE)
      self._file = open(self._path, "a")
      fcntl.flock(self._file, fcntl.LOCK_EX)
      self._began = time.perf_counter()
    yield
    if time.perf_counter() - self._began > self._seconds:
      self.end()

  def end(self) -> None:
    """Lets others have their turn."""
    if self._file is not None:
      self._file.close()
      self._file = None


def _now(pid: int) -> tuple[float, float, float, float]:
  """Returns CPU seconds.

  Returns:
    Of a tree of processes, in their own code and in the system; of all
    processes, but for the own code of nice ones; and that.
  """
  line = (_PROC / "stat").read_text().partition("\n")[0]
  user, nice, system, _, _, irq, soft = map(int, line.split()[1:8])
  busy = (user + system + irq + soft) / _HZ
  return *_tree_seconds(pid), busy, nice / _HZ


def _tree_seconds(pid: int) -> tuple[float, float]:
  """Returns the seconds of a process and all below it, user and system."""
  parents: dict[int, int] = {}
  ticks: dict[int, tuple[int, int]] = {}
  for folder in _PROC.iterdir():
    if not folder.name.isdigit():
      continue
    try:
      stat = (folder / "stat").read_text()
    except OSError:  # It has ended.
      continue
    # The fields after the program's name, which may hold spaces.
    fields = stat.rpartition(")")[2].split()
    parents[int(folder.name)] = int(fields[1])
    # With the children that it has waited for.
    user, system, waited_user, waited_system = map(int, fields[11:15])
    ticks[int(folder.name)] = user + waited_user, system + waited_system
  total_user, total_system = 0, 0
  for each, (user, system) in ticks.items():
    above = each
    while above and above != pid:
      above = parents.get(above, 0)
    if above == pid:
      total_user += user
      total_system += system
  return total_user / _HZ, total_system / _HZ
