"""How the ways to solve compare at equal tokens, over several runs' studies.

  python -m benchmarks.studies --source=puct --units=1 \\
    runs/0/round_4/study runs/1/round_4/study runs/2/round_4/study

The runs differ in their seed, and have the same test problems. Each argument is
one run: folders or files of its records (`evaluation/solutions.py`), separated
by commas.

Prints a table for each set of problems, of every source of solutions, reward
model and choice, with as many units (samples, rollouts) as cost at most what
the chosen way costs, and at least one: what is right in %, by run too, and by
how many points the chosen way leads, with a 95% interval that draws runs and
problems anew.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from absl import app, flags

from benchmarks import lengths
from rstar_jax import rng
from rstar_jax.evaluation import choices, cost, intervals, sources
from rstar_jax.evaluation.solutions import Record
from rstar_jax.storage.formatting import grid

_SOURCE = flags.DEFINE_string("source", "mcts", "Source of the chosen way.")
_REWARD = flags.DEFINE_string(
  "reward", "ppm", "Its reward model; empty if the records name none."
)
_CHOICE = flags.DEFINE_enum("choice", "best", choices.CHOICES, "Its choice.")
_UNITS = flags.DEFINE_integer("units", 1, "Its units.", 1)

# Source and reward model ("" is none) -> a run's records, by problem.
Found = dict[tuple[str, str], dict[str, Record]]


@dataclasses.dataclass(frozen=True)
class Way:
  """One way to solve, on the problems of a set.

  Attributes:
    units: number of samples, rollouts or the like.
    right: float [runs, problems], 1 where the answer is right.
    tokens: mean of a problem's generated tokens.
  """

  source: str
  reward: str
  choice: str
  units: int
  right: np.ndarray
  tokens: float


def by_set(rows: Iterable[Record]) -> dict[str, Found]:
  """Groups a run's records by set of problems."""
  sets: dict[str, Found] = {}
  for row in rows:
    key = row["source"], row.get("reward") or ""
    found = sets.setdefault(row["split"], {})
    lengths.keep(row, found.setdefault(key, {}))
  return sets


def way(
  runs: Sequence[Found], key: tuple[str, str], choice: str, units: int
) -> Way:
  """Chooses among the first units of a source, in all runs.

  Raises:
    ValueError: the runs have other problems.
  """
  problems = sorted(runs[0][key])
  if any(sorted(run[key]) != problems for run in runs):
    raise ValueError(f"the runs have not solved the same problems by {key[0]}")
  found = [
    [choices.choose(run[key][each], choice, units) for each in problems]
    for run in runs
  ]
  right = np.array([[each.right for each in run] for run in found], np.float64)
  tokens = np.mean([each.tokens for run in found for each in run])
  return Way(*key, choice, units, right, float(tokens))


def ways(
  runs: Sequence[Found], first: tuple[str, str], budget: float
) -> Iterator[Way]:
  """Yields all ways, each with as many units as cost at most `budget`.

  Choices that are right alike are one way, whose choice is "any". Sources that
  have solved only some of the problems of `first` are left out.
  """
  keys = set.intersection(*(set(run) for run in runs))
  for key in sorted(keys):
    if any(run[key].keys() != run[first].keys() for run in runs):
      continue
    records = [each for run in runs for each in run[key].values()]
    units = max(cost.units_within(records, budget), 1)
    names = ["pass", "majority"]
    if choices.valued(records):
      # All reward models value the same samples.
      again = sources.of(key[0]).shared and key[1] and (key[0], "") in keys
      names = [*([] if again else names), *choices.VALUED]
    found = [way(runs, key, each, units) for each in names]
    if all((each.right == found[0].right).all() for each in found):
      yield dataclasses.replace(found[0], choice="any")
    else:
      yield from found


def table(runs: Sequence[Found], first: Way) -> list[str]:
  """Returns a Markdown table of what `first` leads by."""
  rows = []
  for each in ways(runs, (first.source, first.reward), first.tokens):
    apart = first.right - each.right
    low, high = intervals.crossed(apart, rng.seed_for(0, "studies"))
    by_run = lengths.by_run(100 * each.right.mean(axis=1), ".1f")
    rows.append(
      [
        each.source,
        each.reward or "-",
        each.choice,
        str(each.units),
        f"{100 * each.right.mean():.1f} ({by_run})",
        f"{each.tokens:.0f}",
        intervals.percent(float(apart.mean()), low, high),
      ]
    )
  head = ["source", "reward", "choice", "units", "right, %", "tokens", "less"]
  return grid(head, rows)


def main(argv: Sequence[str]) -> None:
  if len(argv) < 2:
    raise app.UsageError("give the records of one run or more")
  runs = [by_set(lengths.read(each.split(","))) for each in argv[1:]]
  key = _SOURCE.value, _REWARD.value
  sets = [
    name for name in runs[0] if all(key in run.get(name, {}) for run in runs)
  ]
  if not sets:
    raise app.UsageError(
      f"not each run has records of --source={key[0]} with --reward={key[1]}"
    )
  for name in sets:
    found = [run[name] for run in runs]
    try:
      first = way(found, key, _CHOICE.value, _UNITS.value)
      lines = table(found, first)
    except ValueError as error:
      raise app.UsageError(str(error)) from None
    print(f"## {name}, {first.right.shape[1]} problems\n")
    print(
      f"Less: {' by '.join(filter(None, key))}, {first.choice} of "
      f"{first.units} ({first.tokens:.0f} tokens), less each.\n"
    )
    print("\n".join([*lines, ""]))


if __name__ == "__main__":
  app.run(main)
