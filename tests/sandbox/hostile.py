"""Hostile programs, with the status that each must get.

A case is a name, the program's steps and the statuses that are right; more than
one where the interpreter's version or the layers of the machine decide.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Case:
  """A program.

  Attributes:
    group: what it is about.
    name: unique in its group.
    steps: of the program; the verdict is on the last.
    statuses: that are right.
    stdout: what it prints, None where that is not to be known.
  """

  group: str
  name: str
  steps: tuple[str, ...]
  statuses: tuple[str, ...]
  stdout: str | None = None


def cases(group: str, status: str, /, **programs) -> list[Case]:
  """Makes cases; a program is a step, a list of steps, or (these, stdout)."""
  made = []
  for name, program in programs.items():
    steps, stdout = program if isinstance(program, tuple) else (program, None)
    steps = (steps,) if isinstance(steps, str) else tuple(steps)
    made.append(Case(group, name, steps, tuple(status.split()), stdout))
  return made
