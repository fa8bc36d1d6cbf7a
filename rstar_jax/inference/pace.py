"""How many inner steps a call of the engine has."""

import collections
import math
import statistics

# Calls whose median counts: those that compile, or are disturbed, do not.
_CALLS = 9


class Pace:
  """Weighs the host's time for a call against the slots that stay empty.

  With k inner steps of b seconds, the h seconds of the host for a call lose
  h / (k b) of the device's time. A candidate that ends leaves its slot empty
  until the call has ended, (k - 1) / 2 steps on average after its L tokens. The
  sum is least for k = sqrt(2 L h / b). No result depends on it.
  """

  def __init__(self, most: int):
    """Begins with `most` steps, until there is something to go by."""
    self._most = most
    self._host: collections.deque[float] = collections.deque(maxlen=_CALLS)
    self._step: collections.deque[float] = collections.deque(maxlen=_CALLS)

  def add(self, host: float, device: float, steps: int) -> None:
    """Takes the seconds of host and device for a call of so many steps."""
    self._host.append(host)
    self._step.append(device / steps)

  def steps(self, length: float) -> int:
    """Returns the steps of the next call.

    Args:
      length: mean tokens of a candidate; 0 if none has ended.
    """
    if not self._host or not length:
      return self._most
    host, step = map(statistics.median, (self._host, self._step))
    best = math.sqrt(2 * length * host / max(step, 1e-9))
    return min(max(round(best), 1), self._most)
