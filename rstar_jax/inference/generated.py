"""A sampled step, in ids, and when it ends."""

import dataclasses
import math
from collections.abc import Sequence

# In the place of a stop id: the step ended by its length; or a server gave no
# answer that can be read.
BY_LENGTH, LOST = -1, -2


@dataclasses.dataclass(frozen=True)
class Generated:
  """One sampled step.

  Attributes:
    token_ids: sampled ids, with the stop id.
    logprobs: their log-probabilities at temperature 1, in nats.
    stopped: the stop id that ended the step, or `BY_LENGTH` or `LOST`.
  """

  token_ids: tuple[int, ...]
  logprobs: tuple[float, ...]
  stopped: int

  @property
  def logprob(self) -> float:
    """Returns the log-probability of the whole step."""
    return sum(self.logprobs, 0.0)


@dataclasses.dataclass(frozen=True)
class Stop:
  """When a step ends.

  Attributes:
    limit: most tokens, at least 1.
    ids: ids that end a step, and belong to it.
    words: sequences of ids; a step ends with the token after one of them.
    texts: texts that end a step on servers; our own engine does not use them.
  """

  limit: int
  ids: frozenset[int] = frozenset()
  words: tuple[tuple[int, ...], ...] = ()
  texts: tuple[str, ...] = ()

  def ends(self, ids: Sequence[int], start: int) -> bool:
    """Returns whether the step from ids[start] on ends with the last id."""
    if ids[-1] in self.ids or len(ids) - start >= self.limit:
      return True
    return any(
      len(ids) - 1 - start >= len(word)
      and tuple(ids[-1 - len(word) : -1]) == word
      for word in self.words
    )


def check_request(
  prefix: Sequence[int], stop: Stop, longest: int, temperature: float
) -> None:
  """Checks what an engine is asked to sample; see `Engine.submit`.

  Args:
    prefix: ids.
    stop: when a step ends.
    longest: most tokens of a step.
    temperature: of samples.

  Raises:
    ValueError: an empty prefix, or a limit or a temperature out of range.
  """
  if len(prefix) == 0:
    raise ValueError("the prefix is empty: give at least one token")
  if not 1 <= stop.limit <= longest:
    raise ValueError(f"limit={stop.limit} is not in 1..{longest}")
  if not 0 <= temperature < math.inf:
    raise ValueError(f"temperature={temperature} is not 0 or above")
