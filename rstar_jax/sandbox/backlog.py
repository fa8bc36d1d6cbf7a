"""Programs that wait for a worker, in a queue for each slot.

A program is queued at the slot that ran its prefix, where the interpreter may
still be alive. A slot takes from its own queue first, then from the queue of
programs whose prefix no slot ran, then from the longest one.
"""

import collections
import threading
from typing import NamedTuple

from rstar_jax.sandbox.recent import Recent
from rstar_jax.types import ExecResult

BATCH = 32  # Most programs that a slot takes at once.


class Call:
  """A call of `Sandbox.run`: its unique programs and their results.

  Attributes:
    results: one for each program, None until it has run.
    error: why the call fails, None unless it does.
    done: set once all results are there, or the call fails.
  """

  def __init__(self, count: int):
    self.results: list[ExecResult | None] = [None] * count
    self.error: BaseException | None = None
    self._left = count
    self._lock = threading.Lock()
    self.done = threading.Event()

  def finish(self, index: int, result: ExecResult) -> None:
    """Sets a result."""
    with self._lock:
      self.results[index] = result
      self._left -= 1
      if self._left == 0:
        self.done.set()

  def fail(self, error: BaseException) -> None:
    """Ends the call, which raises the error."""
    self.error = error
    self.done.set()


class Job(NamedTuple):
  """A program of a call, by its number."""

  call: Call
  index: int
  steps: tuple[str, ...]

  def finish(self, result: ExecResult) -> None:
    """Sets the result of the program."""
    self.call.finish(self.index, result)


class Backlog:
  """The jobs that wait; its methods are called under a lock.

  Args:
    slots: number of slots.
    size: number of programs whose slot is remembered.
  """

  def __init__(self, slots: int, size: int):
    self._slots = slots
    # The last queue is of programs whose prefix no slot ran.
    self._queues: list[collections.deque[Job]] = [
      collections.deque() for _ in range(slots + 1)
    ]
    self._slot_of: Recent[tuple[str, ...], int] = Recent(size)

  def __bool__(self) -> bool:
    """Returns whether any job waits."""
    return any(self._queues)

  def add(self, job: Job) -> None:
    """Queues a job at the slot that ran its prefix, if there is one."""
    prefix = job.steps[:-1]
    slot = self._slot_of[prefix] if prefix in self._slot_of else -1
    self._queues[slot].append(job)

  def take(self, slot: int) -> list[Job]:
    """Removes and returns jobs for a slot, 1 to `BATCH`; some must wait."""
    own = self._queues[slot]
    longest = max(self._queues, key=len)
    queue = next(filter(None, (own, self._queues[-1], longest)))
    # Stolen batches are small, so that no slot idles beside a backlog.
    count = len(queue) if queue is own else len(queue) // (2 * self._slots)
    jobs = [queue.popleft() for _ in range(max(1, min(BATCH, count)))]
    for job in jobs:
      # Programs that are one step longer are queued here.
      self._slot_of[job.steps] = slot
    return jobs

  def drop(self, call: Call) -> None:
    """Removes the jobs of a call."""
    for queue in self._queues:
      left = [job for job in queue if job.call is not call]
      queue.clear()
      queue.extend(left)

  def fail(self, error: BaseException) -> None:
    """Fails the calls of all jobs."""
    for queue in self._queues:
      for job in queue:
        job.call.fail(error)
