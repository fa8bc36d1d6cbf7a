"""The findings of checks of a run, as lines."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from rstar_jax import outside

Level = Literal["ok", "warning", "error"]
# Most characters of a line.
_LONGEST = 1000


@dataclasses.dataclass(frozen=True)
class Finding:
  """The finding of one check.

  Attributes:
    about: subject of the check, a word or two.
    said: the result and, unless it is ok, what to do.
  """

  level: Level
  about: str
  said: str

  def __str__(self) -> str:
    return (
      f"{self.level:<8}{outside.line(f'{self.about}: {self.said}', _LONGEST)}"
    )


Findings = Iterator[Finding]


def render(findings: Iterable[Finding], say: Callable[[str], None]) -> bool:
  """Prints each finding as it comes, then their numbers.

  Returns:
    Whether there was no error.
  """
  counts = dict.fromkeys(("ok", "warning", "error"), 0)
  for each in findings:
    counts[each.level] += 1
    say(str(each))
  say(
    f"{counts['error']} errors, {counts['warning']} warnings, {counts['ok']} ok"
  )
  return not counts["error"]
