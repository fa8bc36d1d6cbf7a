"""Chooses the number of inner steps of an engine's call."""

import collections
import math
import statistics

# Calls whose median is used, so that calls that compile or are disturbed do not
# count.
_CALLS = 9


class Pace:
  """Weighs the host's time for a call against slots that stay empty.

  A call of k inner steps of b seconds loses h / (k b) of the device's time to
  the host's h seconds. A candidate that ends leaves its slot empty until the
  end of the call, for (k - 1) / 2 steps on average after L tokens. The sum of
  both is least for k = sqrt(2 L h / b). No result depends on k.
  """

  def __init__(self, most: int):
    """Begins with `most` steps, until there are measurements."""
    self._most = most
    self._host: collections.deque[float] = collections.deque(maxlen=_CALLS)
    self._step: collections.deque[float] = collections.deque(maxlen=_CALLS)

  def add(self, host: float, device: float, steps: int) -> None:
    """Adds a call: seconds of the host and of the device, and its steps."""
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
