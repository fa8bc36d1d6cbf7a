"""Computes each method's accuracy, with intervals, from records alone.

Every number and table of results.json comes from the records of `solutions.py`
and the methods of `methods.py`; no model is needed.
"""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rstar_jax import rng
from rstar_jax.evaluation import choices, cost, intervals
from rstar_jax.evaluation.choices import Outcome, Record
from rstar_jax.evaluation.methods import METHODS, by_split, samples_of, solve
from rstar_jax.grading.choose import Select
from rstar_jax.storage.formatting import grid

# Split -> problem -> whether it is solved.
Right = Mapping[str, Mapping[str, bool]]

# Methods that a search is compared with.
_COMPARED = ("policy", "majority", "best_of_n")
# Methods that have a column in tables.
_COLUMNS = (*_COMPARED, "mcts")
# Why a search does not solve a problem; see `_failures`.
_MISSED = ("choice", "search", "policy")


def table(
  records: Iterable[Record],
  *,
  round_: int,
  seed: int = 0,
  select: Select = "best",
  k: int = 4,
  base: Right | None = None,
) -> list[dict[str, Any]]:
  """Computes a row for each split and method that has records.

  Majority, best-of-N and pass@k have as many samples as cost what the search
  costs; see `cost.equal_samples`.

  Args:
    records: the records of one round; see `solutions.py`.
    round_: the round, 0 for the bootstrap model.
    seed: the run's seed; names the bootstrap's resamples.
    select: how the search's answer is chosen. Without values (no PPM yet) the
      majority is chosen, and the row's "select" is "majority".
    k: number of solutions that vote in "top_k", at least 1.
    base: problems that the policy of round 0 solves; see `alone`.

  Returns:
    Rows with round, method, split; accuracy, low, high in [0, 1] (95%
    bootstrap interval over problems); n, the number of problems, and of these
    wrong, undecided, failed; tokens_per_problem; samples (null for mcts);
    select (null except for mcts); levels {level: {"accuracy", "n"}}. With
    `base`, policy has "less": {"base": `intervals.Difference`}. mcts has "less"
    {method: `intervals.Difference`}, and "missed", see `_failures`.

  Raises:
    ValueError: a record is given twice, or has an unknown source or verdict.
  """
  rows = []
  for split, by_source in by_split(records).items():
    count = cost.equal_samples(
      by_source.get("samples", []), by_source.get("mcts", [])
    )
    by_method: dict[str, list[Outcome]] = {}
    of_split: dict[str, dict[str, Any]] = {}
    for method, how in METHODS.items():
      group = by_source.get(how.source, [])
      valued = choices.valued(group)
      if not group or (how.needs_values and not valued):
        continue
      by_method[method] = solve(group, method, count, select, k)
      of_split[method] = {
        "round": round_,
        "method": method,
        "split": split,
        **_measured(
          by_method[method],
          rng.seed_for(seed, "bootstrap", round_, split, method),
        ),
        "samples": samples_of(how.source, count),
        "select": None if how.choice else select if valued else "majority",
      }
    if base and "policy" in by_method:
      grown = intervals.compare(
        _right(by_method["policy"]),
        base.get(split, {}),
        rng.seed_for(seed, "base", round_, split),
      )
      if grown is not None:
        of_split["policy"]["less"] = {"base": dataclasses.asdict(grown)}
    if "mcts" in by_method:
      of_split["mcts"]["less"] = _gains(
        by_method, rng.seed_for(seed, "less", round_, split)
      )
      if "pass@k" in by_method:
        of_split["mcts"]["missed"] = _failures(by_method, by_source["mcts"])
    rows += of_split.values()
  return rows


def _measured(outcomes: Sequence[Outcome], seed: int) -> dict[str, Any]:
  """Returns a method's accuracy, verdicts and cost over its problems."""
  right = np.array([each.right for each in outcomes], np.float64)
  low, high = intervals.bootstrap(right, seed)
  verdicts = collections.Counter(each.verdict for each in outcomes)
  return {
    "accuracy": float(right.mean()),
    "low": low,
    "high": high,
    "n": len(outcomes),
    "wrong": verdicts["different"],
    "undecided": verdicts["undecided"],
    "failed": verdicts["failed"],
    "tokens_per_problem": float(np.mean([each.tokens for each in outcomes])),
    "levels": _levels(outcomes),
  }


def alone(records: Iterable[Record]) -> Right:
  """Returns split -> problem -> whether its greedy solution is right."""
  return {
    split: _right(solve(by_source.get("greedy", []), "policy", 1))
    for split, by_source in by_split(records).items()
  }


def _right(outcomes: Sequence[Outcome]) -> dict[str, bool]:
  return {each.problem_id: each.right for each in outcomes}


def _gains(
  by_method: Mapping[str, Sequence[Outcome]], seed: int
) -> dict[str, dict[str, Any]]:
  right = {method: _right(outcomes) for method, outcomes in by_method.items()}
  pairs = {
    method: intervals.compare(right["mcts"], right[method], seed)
    for method in _COMPARED
    if method in right
  }
  return {
    method: dataclasses.asdict(each)
    for method, each in pairs.items()
    if each is not None
  }


def _failures(
  by_method: Mapping[str, Sequence[Outcome]], searches: Sequence[Record]
) -> dict[str, int]:
  """Counts the problems that the search did not solve, by cause.

  Returns:
    "choice": the tree has a right answer, and another was chosen; "search": it
    has none, but one of the samples of equal cost is right; "policy": neither
    has one. Problems without samples are left out.
  """
  sampled = {each.problem_id: each.right for each in by_method["pass@k"]}
  missed = dict.fromkeys(_MISSED, 0)
  for outcome, record in zip(by_method["mcts"], searches, strict=True):
    if outcome.right or outcome.problem_id not in sampled:
      continue
    if choices.choose(record, "pass").right:
      missed["choice"] += 1
    else:
      missed["search" if sampled[outcome.problem_id] else "policy"] += 1
  return missed


def _levels(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
  right: dict[str, list[bool]] = {}
  for outcome in sorted(
    outcomes, key=lambda o: (o.level is None, o.level or 0)
  ):
    right.setdefault(str(outcome.level), []).append(outcome.right)
  return {
    level: {"accuracy": sum(each) / len(each), "n": len(each)}
    for level, each in right.items()
  }


def solved(round_: int, trees: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the share of training problems that a round solved.

  Args:
    round_: from 1.
    trees: the manifest of its trees.
  """
  # Older runs' manifests lack some of these.
  names = ("levels", "easy", "medium", "hard", "generated_tokens")
  return {
    "round": round_,
    "share": trees["solved"],
    **{name: trees[name] for name in names if name in trees},
  }


def markdown(results: Mapping[str, Any]) -> str:
  """Renders results.json, one table per split and one row per round.

  Columns are those of the paper's Tables 3 and 6, and the share of training
  problems solved (Table 2).

  Args:
    results: {"rows": rows of `table`, "solved": [{"round", "share"}]}, and
      "config", whose `eval.search.method` may name a search plugin.
  """
  search = results.get("config", {}).get("eval", {}).get("search", {})
  plugin = search.get("method", "mcts")
  columns = {each: METHODS[each].column for each in _COLUMNS}
  if plugin != "mcts":
    columns["mcts"] = plugin
  solved = {each["round"]: each["share"] for each in results["solved"]}
  lines = []
  for split in dict.fromkeys(row["split"] for row in results["rows"]):
    rows = {
      (row["round"], row["method"]): row
      for row in results["rows"]
      if row["split"] == split
    }
    rounds = sorted({number for number, _ in rows})
    counts = sorted({row["n"] for row in rows.values()})
    lines += [
      f"### {split}",
      "",
      f"Right answers in % of {' or '.join(map(str, counts))} problems, with "
      "95% bootstrap intervals over problems.",
      "",
      *grid(
        ["Round", *columns.values(), "Training problems solved"],
        [
          [
            str(number),
            *(interval(rows.get((number, method))) for method in columns),
            f"{100 * solved[number]:.1f}" if number in solved else "-",
          ]
          for number in rounds
        ],
      ),
      "",
      "Generated tokens per problem; in parentheses the number of samples, "
      "which is the search's budget or all there are.",
      "",
      *grid(
        ["Round", *columns.values()],
        [
          [
            str(number),
            *(_tokens(rows.get((number, method))) for method in columns),
          ]
          for number in rounds
        ],
      ),
      "",
      *_search_gain_lines(rows, columns),
      *_policy_gain_lines(rows, results),
    ]
  return "\n".join(lines)


def _search_gain_lines(
  rows: Mapping[tuple[int, str], Mapping[str, Any]],
  columns: Mapping[str, str],
) -> list[str]:
  """Returns a table of each round's gain by search; [] without searches."""
  searches = {
    number: row
    for (number, method), row in sorted(rows.items())
    # Results of older runs lack it.
    if method == "mcts" and row.get("less")
  }
  if not searches:
    return []
  return [
    f"{columns['mcts']} less each of the others, in points, paired by problem, "
    "with 95% intervals and McNemar's verdict; and why it does not solve the "
    "rest, in %: its tree holds a right answer and another is chosen (choice); "
    "one of the samples is right (search); none is (policy).",
    "",
    *grid(
      ["Round", *(columns[method] for method in _COMPARED), *_MISSED],
      [
        [
          str(number),
          *(_points(row["less"].get(method)) for method in _COMPARED),
          *_shares(row),
        ]
        for number, row in searches.items()
      ],
    ),
    "",
  ]


def _policy_gain_lines(
  rows: Mapping[tuple[int, str], Mapping[str, Any]], results: Mapping[str, Any]
) -> list[str]:
  """Returns the newest policy's gain over round 0, and its training data."""
  last = max(number for number, _ in rows)
  less = rows.get((last, "policy"), {}).get("less")
  # Results of older runs lack it.
  if not less:
    return []
  text = (
    f"The policy alone, round {last} less round 0, paired by problem: "
    f"{_points(less['base'])}."
  )
  solved = [each for each in results["solved"] if each["round"] <= last]
  if solved:
    shares = {each["round"]: each["share"] for each in (solved[0], solved[-1])}
    shares_text = " and ".join(
      f"{100 * share:.1f}% in round {number}"
      for number, share in shares.items()
    )
    text += f" Of the training problems searches solved {shares_text}"
    pairs = [each.get("pairs") for each in results.get("ppm", [])]
    text += (
      f"; the PPM learnt from {pairs[-1]} pairs." if any(pairs[-1:]) else "."
    )
  return [text, ""]


def _points(less: Mapping[str, Any] | None) -> str:
  if less is None:
    return "-"
  return intervals.Difference(**less).points


def _shares(row: Mapping[str, Any]) -> list[str]:
  missed = row.get("missed")
  if missed is None:
    return ["-"] * len(_MISSED)
  return [f"{100 * missed[each] / row['n']:.1f}" for each in _MISSED]


def interval(row: Mapping[str, Any] | None) -> str:
  """Formats a row's accuracy and interval, in %; "-" for None."""
  if row is None:
    return "-"
  accuracy, low, high = (100 * row[k] for k in ("accuracy", "low", "high"))
  return f"{accuracy:.1f} [{low:.1f}, {high:.1f}]"


def _tokens(row: Mapping[str, Any] | None) -> str:
  if row is None:
    return "-"
  samples = f" ({row['samples']})" if row["samples"] else ""
  return f"{row['tokens_per_problem']:.0f}{samples}"
