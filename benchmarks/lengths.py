"""How much of what a reward model knows is the number of steps.

  python -m benchmarks.lengths docs/results/gsm8k_search.jsonl.zst
  python -m benchmarks.lengths WORKDIR/round_1/eval,WORKDIR/round_1/study
  python -m benchmarks.lengths docs/results/gsm8k_search.jsonl.zst \\
    --first="ppm of round 2" --second="ppm of round 1"

Reads the records of an evaluation or a study (`evaluation/solutions.py`). Each
argument is one run: files of records or folders, separated by commas. Several
runs differ in their seed, and the problems count that all have searched.
--out=FILE.jsonl.zst keeps one run's records as one file in which each step is
empty, so that its number is left and not its text.

Prints three tables for each set of problems:

- the share of the solutions that have an answer and so many steps (the answer's
  sentence is one), and in parentheses how many of these are right;
- what is chosen among the samples, as many as cost what the search costs, and
  among the solutions of each search: by vote, by value, or by a vote of those
  with the fewest steps; whether any is right; and by how much choosing in the
  tree by value ("mcts") leads;
- how often the model puts a right solution above a wrong one of the same
  problem, of any length and of the same one, and a shorter above a longer. A
  problem counts once. Chance has 50.

Intervals are 95%, a bootstrap over problems; of several runs, over these too,
and each run's own figure follows in parentheses.

With --first and --second, two reward models that have valued the same samples
of a run, it prints one table over all sets in their place: those shares, and
whether the best sample is right by either model, or by the vote of all samples
and of those with the fewest steps; and by how much the first model leads. Of
several runs, each with its own two models of these names, it is over the sets
that all have.
"""

import collections
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from absl import app, flags

from rstar_jax.evaluation import choices, cost, intervals
from rstar_jax.evaluation.solutions import Record
from rstar_jax.storage import records
from rstar_jax.storage.formatting import grid

_OUT = flags.DEFINE_string("out", "", "File for records without texts.")
_FIRST = flags.DEFINE_string("first", "", "Reward model of samples.")
_SECOND = flags.DEFINE_string("second", "", "Reward model of the same samples.")

Solution = Mapping[str, object]
# Source, and the reward model of a study's -> problem -> record.
Found = dict[str, dict[str, Record]]


def read(paths: Iterable[str]) -> Iterator[Record]:
  """Yields the records of files, and of all shards below folders."""
  for path in map(pathlib.Path, paths):
    shards = sorted(path.rglob("shard-*.jsonl.zst"))
    for file in shards if path.is_dir() else [path]:
      for row in records.read_shard(file):
        if "trajectories" in row:
          yield row


def without_texts(row: Record) -> Record:
  """Returns a record whose steps are empty, and values of four digits."""
  kept = [
    each
    | {
      "steps": [""] * len(each["steps"]),
      "value": None if each["value"] is None else round(each["value"], 4),
    }
    for each in row["trajectories"]
  ]
  return {**row, "trajectories": kept}


def by_set(rows: Iterable[Record]) -> dict[str, Found]:
  """Groups records; a search by a named reward model is "mcts, NAME"."""
  sets: dict[str, Found] = collections.defaultdict(dict)
  for row in rows:
    name = ", ".join(filter(None, (row["source"], row.get("reward"))))
    keep(row, sets[row["split"]].setdefault(name, {}))
  return sets


def keep(row: Record, group: dict[str, Record]) -> None:
  """Adds a record to those of its source, by problem.

  A study's samples without a reward model are called as an evaluation's are: of
  two records of a problem, the last one with values counts, else the first.
  """
  if row["problem_id"] not in group or choices.valued([row]):
    group[row["problem_id"]] = row


def by_steps(found: Iterable[Record]) -> dict[int, tuple[float, float]]:
  """Returns, by steps, the share of all solutions and how many are right."""
  every = [each for row in found for each in row["trajectories"]]
  groups: dict[int, list[bool]] = collections.defaultdict(list)
  for each in every:
    if each["answer"] is not None:
      groups[len(each["steps"])].append(each["verdict"] == "equal")
  return {
    steps: (len(group) / len(every), float(np.mean(group)))
    for steps, group in sorted(groups.items())
  }


def fewest(row: Record, units: int | None = None) -> Record:
  """Returns a record with only the answered solutions of fewest steps."""
  found = [
    each
    for each in choices.voters(row, "majority", units)
    if each["answer"] is not None
  ]
  least = min((len(each["steps"]) for each in found), default=0)
  kept = [each for each in found if len(each["steps"]) == least]
  return {**row, "trajectories": kept}


def ordered(row: Record, first: Callable[[Solution, Solution], bool]) -> float:
  """Returns how often one of two solutions has the higher value.

  Args:
    row: of a problem.
    first: whether a solution should be above another.

  Returns:
    A share in [0, 1], equal values counting half; nan without such pairs.
  """
  valued = [
    each
    for each in row["trajectories"]
    if each["answer"] is not None and each["value"] is not None
  ]
  wins = [
    (a["value"] > b["value"]) + 0.5 * (a["value"] == b["value"])
    for a in valued
    for b in valued
    if first(a, b)
  ]
  return float(np.mean(wins)) if wins else float("nan")


def _right_above_wrong(a: Solution, b: Solution) -> bool:
  return (a["verdict"], b["verdict"]) == ("equal", "different")


def _of_equal_length(a: Solution, b: Solution) -> bool:
  return _right_above_wrong(a, b) and len(a["steps"]) == len(b["steps"])


def _shorter(a: Solution, b: Solution) -> bool:
  return len(a["steps"]) < len(b["steps"])


ORDERS = {
  "right above wrong": _right_above_wrong,
  "of equal steps": _of_equal_length,
  "shorter above longer": _shorter,
}


def equal_samples(found: Found) -> int:
  """Returns how many samples cost what the search of a set costs."""
  samples = [found["samples"][problem] for problem in sorted(found["mcts"])]
  return cost.equal_samples(samples, list(found["mcts"].values()))


def chosen(found: Found) -> dict[str, tuple[np.ndarray, float]]:
  """Returns whether each way's answers are right, and its mean tokens.

  Args:
    found: of one set; the problems of "mcts" are looked at.

  Returns:
    For each way, float [problems] in [0, 1], problems in sorted order. Ways
    that choose among samples have `equal_samples` of them.
  """
  problems = sorted(found["mcts"])
  ways: dict[str, tuple[np.ndarray, float]] = {}

  def choose(name: str, source: str, choice: str, units=None, of=None):
    rows = [found[source][problem] for problem in problems]
    tokens = cost.mean_tokens(rows, units)
    rows = [of(row, units) for row in rows] if of else rows
    right = [choices.choose(row, choice, units).right for row in rows]
    ways[name] = np.array(right, np.float64), tokens

  if "greedy" in found:
    choose("greedy", "greedy", "first")
  if "samples" in found:
    samples = [found["samples"][problem] for problem in problems]
    count = equal_samples(found)
    every = [
      [each["verdict"] == "equal" for each in row["trajectories"]]
      for row in samples
    ]
    one = cost.mean_tokens(samples) / cost.units_of(samples)
    ways["mean of samples"] = np.array([*map(np.mean, every)]), one
    choose("majority", "samples", "majority", count)
    choose("best-of-N", "samples", "best", count)
    choose("fewest steps", "samples", "majority", count, fewest)
    choose("any of N", "samples", "pass", count)
  for source in sorted(found):
    # A study that is under way has fewer problems.
    whole = found[source].keys() >= found["mcts"].keys()
    if source.partition(",")[0] == "mcts" and whole:
      choose(source, source, "best")
      choose(f"{source}: vote", source, "majority")
      choose(f"{source}: fewest steps", source, "majority", None, fewest)
      choose(f"{source}: any", source, "pass")
  return ways


def _percent(values: np.ndarray) -> str:
  """Returns the mean of values [runs, problems], NaN for none, in percent."""
  if len(values) == 1:
    values = values[~np.isnan(values)]
    return intervals.percent(values.mean(), *intervals.bootstrap(values, 0))
  mean = intervals.percent(np.nanmean(values), *intervals.crossed(values, 0))
  return f"{mean} ({by_run(100 * np.nanmean(values, axis=1), '.1f')})"


def by_run(figures: Iterable[float], form: str = "") -> str:
  """Returns "21", or "21, 22" of several runs."""
  return ", ".join(format(each, form) for each in figures)


def render(name: str, runs: Sequence[Found]) -> list[str]:
  """Returns the tables of a set, over the problems that all runs searched.

  Raises:
    ValueError: there are none.
  """
  problems = set.intersection(*(set(each["mcts"]) for each in runs))
  if not problems:
    raise ValueError(f"the runs have searched no problem of {name} in common")
  runs = [
    {
      source: {one: row for one, row in group.items() if one in problems}
      for source, group in each.items()
    }
    for each in runs
  ]
  common = [
    source
    for source in runs[0]
    if source != "greedy" and all(source in each for each in runs)
  ]
  shares = {
    source: by_steps(row for each in runs for row in each[source].values())
    for source in common
  }
  lengths = sorted({steps for each in shares.values() for steps in each})
  steps_rows = [
    [
      source,
      *(
        f"{100 * each[steps][0]:.1f} ({100 * each[steps][1]:.1f})"
        if steps in each
        else ""
        for steps in lengths
      ),
    ]
    for source, each in shares.items()
  ]
  lines = [f"## {name}, {len(problems)} problems", ""]
  if all("samples" in each for each in runs):
    lines += [f"N, the samples: {by_run(map(equal_samples, runs))}.", ""]
  head = [f"{steps} steps" for steps in lengths]
  lines += [*grid(["% (of these right)", *head], steps_rows), ""]
  ways = [chosen(each) for each in runs]
  best = np.array([each["mcts"][0] for each in ways])
  way_rows = []
  for way in ways[0]:
    if all(way in each for each in ways):
      right = np.array([each[way][0] for each in ways])
      tokens = f"{np.mean([each[way][1] for each in ways]):.0f}"
      leads = "" if way == "mcts" else _percent(best - right)
      way_rows.append([way, _percent(right), tokens, leads])
  lines += grid(["way", "right, %", "tokens", "mcts leads by"], way_rows)
  order_rows = []
  for source in common:
    row = [source]
    names = list(dict.fromkeys(one for each in runs for one in each[source]))
    for order in ORDERS.values():
      values = np.array(
        [
          [
            ordered(each[source][one], order) if one in each[source] else np.nan
            for one in names
          ]
          for each in runs
        ]
      )
      values = values[:, ~np.isnan(values).all(axis=0)]
      some = values.size and not np.isnan(values).all(axis=1).any()
      count = values.shape[1]
      row.append(f"{_percent(values)}, n {count}" if some else "-")
    order_rows.append(row)
  return [*lines, "", *grid(["values of", *ORDERS], order_rows), ""]


def compare(
  runs: Sequence[Iterable[Record]], first: str, second: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Compares two reward models by their values of the same samples.

  Args:
    runs: records of each run; those of samples with one of these reward models
      count, in the sets that all runs have.
    first: name of a reward model, each run's own.
    second: likewise.

  Returns:
    For each of `ORDERS`, float [runs, problems] in [0, 1] of either model, NaN
    where a run has no such pair; problems without any are left out. Likewise
    whether the first model's best sample is right, beside the second model's,
    the majority's, and that of the samples with the fewest steps.

  Raises:
    ValueError: a model is not there, the two have not valued the same, or the
      runs have no set in common.
  """
  found = [_both(rows, first, second) for rows in runs]
  sets = set.intersection(*({each for each, _ in one} for one in found))
  if not sets:
    raise ValueError("the runs have valued no set of problems in common")
  problems = sorted({p for one in found for p in one if p[0] in sets})

  def table(
    of: Callable[[Record, Record], tuple[float, float]],
  ) -> tuple[np.ndarray, np.ndarray]:
    none = (np.nan, np.nan)
    a, b = np.array(
      [[of(*one[p]) if p in one else none for p in problems] for one in found]
    ).transpose(2, 0, 1)
    there = ~np.isnan(a).all(axis=0)
    return a[:, there], b[:, there]

  def right(row: Record, choice: str) -> float:
    return float(choices.choose(row, choice).right)

  def by_order(above: Callable[[Solution, Solution], bool]):
    return table(lambda a, b: (ordered(a, above), ordered(b, above)))

  def best_and(other: Callable[[Record, Record], float]):
    return table(lambda a, b: (right(a, "best"), other(a, b)))

  return {what: by_order(above) for what, above in ORDERS.items()} | {
    "best": best_and(lambda a, b: right(b, "best")),
    "best, majority": best_and(lambda a, b: right(a, "majority")),
    "best, vote of the fewest steps": best_and(
      lambda a, b: right(fewest(a), "majority")
    ),
  }


def _both(
  rows: Iterable[Record], first: str, second: str
) -> dict[tuple[str, str], tuple[Record, Record]]:
  """Returns the samples of each problem as two models value them.

  Raises:
    ValueError: see `compare`.
  """
  found: dict[str, dict[tuple[str, str], Record]] = {first: {}, second: {}}
  names = set()
  for row in rows:
    name = row.get("reward")
    if row["source"] == "samples" and name:
      names.add(name)
      found.get(name, {})[row["split"], row["problem_id"]] = row
  if missing := {first, second} - names:
    raise ValueError(
      f"no samples with values of {min(missing)!r}, only of {sorted(names)}"
    )

  def told(row: Record) -> list[tuple[object, ...]]:
    return [(t["answer"], len(t["steps"])) for t in row["trajectories"]]

  one, other = found[first], found[second]
  if one.keys() != other.keys() or any(
    told(one[each]) != told(other[each]) for each in one
  ):
    raise ValueError(f"{first!r} and {second!r} have valued other samples")
  return {each: (one[each], other[each]) for each in one}


def main(argv: Sequence[str]) -> None:
  if len(argv) < 2:
    raise app.UsageError("give the records of one run or more")
  runs = [list(read(each.split(","))) for each in argv[1:]]
  if len(runs) > 1 and _OUT.value:
    raise app.UsageError("--out: give one run")
  if _FIRST.value or _SECOND.value:
    try:
      compared = compare(runs, _FIRST.value, _SECOND.value)
    except ValueError as error:
      raise app.UsageError(f"--first, --second: {error}") from None
    table = [
      [what, str(a.shape[1]), *map(_percent, (a, b, a - b))]
      for what, (a, b) in compared.items()
      if a.size
    ]
    print("\n".join(grid(["%", "n", "first", "second", "less"], table)))
    return
  sets = [by_set(rows) for rows in runs]
  names = [name for name in sets[0] if all(name in each for each in sets)]
  if not names:
    raise app.UsageError("the runs have no set of problems in common")
  for name in names:
    if any("mcts" not in each[name] for each in sets):
      raise app.UsageError(
        f"{name} has no search of an evaluation (source mcts): give the eval "
        "folder of a round with a PPM, too"
      )
  if _OUT.value:
    records.write_shard(_OUT.value, map(without_texts, runs[0]))
  for name in names:
    try:
      lines = render(name, [each[name] for each in sets])
    except ValueError as error:
      raise app.UsageError(str(error)) from None
    print("\n".join(lines))


if __name__ == "__main__":
  app.run(main)
