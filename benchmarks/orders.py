"""How much one way to train a policy gains on another, over problems and seeds.

  python -m benchmarks.orders docs/results/gsm8k_rates.jsonl search,cold \\
    search+search_anew,cold+cold_anew+cold_third

The file has a JSON object for each policy and set of problems: "policy", "seed"
and "set"; "samples", how many solutions of a problem were sampled; "right",
a digit for each problem in the order of the set: how many of them are right;
"greedy", likewise for the solution at temperature 0, where it was asked for;
and "tokens", of a sample.
`benchmarks.pass_rates --out` has the same by problem.

Each further argument names two policies to compare; "cold_anew+cold_third" has
the seeds of both. Prints a table with a row for each set that both have: how
many samples of either are right, with the seeds' own shares in parentheses; the
difference, and its 95% bootstrap interval over problems, which both share, and
over the seeds of each. With one seed each the interval is over problems alone.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import app

from benchmarks import lengths
from rstar_jax.evaluation import intervals
from rstar_jax.storage.formatting import grid


def rates(
  lines: Sequence[dict[str, Any]], policy: str, problems: str
) -> np.ndarray:
  """Returns the shares of right samples, [seeds, problems].

  Args:
    lines: of the file.
    policy: name of a policy, or names joined by "+".
    problems: name of a set.

  Raises:
    ValueError: there is no such policy, or no such set.
  """
  found = []
  for name in policy.split("+"):
    one = [
      [int(digit) / each["samples"] for digit in each["right"]]
      for each in sorted(lines, key=lambda each: each["seed"])
      if (each["policy"], each["set"]) == (name, problems)
    ]
    if not one:
      known = sorted({f"{each['policy']} on {each['set']}" for each in lines})
      raise ValueError(f"no {name} on {problems}, only {', '.join(known)}")
    found += one
  return np.array(found)


def compare(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
  """Compares two sides.

  Args:
    first: shares in [0, 1], [seeds, problems].
    second: likewise of the same problems, with seeds of its own.

  Raises:
    ValueError: they are of different numbers of problems.
  """
  if first.shape[1] != second.shape[1]:
    raise ValueError(
      f"the first policy has {first.shape[1]} problems and the second "
      f"{second.shape[1]}: give rates of the same set"
    )
  low, high = intervals.crossed(first, 0, less=second)
  return {
    "problems": first.shape[1],
    "first": first.mean(),
    "first_seeds": first.mean(axis=1).tolist(),
    "second": second.mean(),
    "second_seeds": second.mean(axis=1).tolist(),
    "less": first.mean() - second.mean(),
    "low": low,
    "high": high,
  }


def rows(
  lines: Sequence[dict[str, Any]], first: str, second: str
) -> list[list[str]]:
  """Returns the table of two policies, a row for each set that both have.

  Raises:
    ValueError: they have no set in common.
  """
  found = []
  # In the order of the file.
  for problems in dict.fromkeys(each["set"] for each in lines):
    try:
      sides = rates(lines, first, problems), rates(lines, second, problems)
    except ValueError:
      continue
    one = compare(*sides)
    less = intervals.percent(one["less"], one["low"], one["high"])
    shares = [_shares(one[f"{side}_seeds"]) for side in ("first", "second")]
    found.append([f"{first}, {second}", problems, *shares, less])
  if not found:
    for policy in (first, second):
      rates(lines, policy, lines[0]["set"])  # Says which policies there are.
    raise ValueError(f"{first} and {second} have no set in common")
  return found


def _shares(seeds: Sequence[float]) -> str:
  """Returns "7.5 (7.0, 8.0)", the mean and each seed's share in percent."""
  mean = f"{100 * np.mean(seeds):.1f}"
  if len(seeds) == 1:
    return mean
  return f"{mean} ({lengths.by_run(100 * np.array(seeds), '.1f')})"


def main(argv: list[str]) -> None:
  pairs = [each.split(",") for each in argv[2:]]
  if not pairs or any(len(each) != 2 for each in pairs):
    raise app.UsageError("give a file of rates, and then FIRST,SECOND")
  text = pathlib.Path(argv[1]).read_text()
  lines = [json.loads(each) for each in text.splitlines()]
  try:
    table = [row for pair in pairs for row in rows(lines, *pair)]
  except ValueError as error:
    raise app.UsageError(str(error)) from error
  head = ["% right", "set", "first", "second", "first less second"]
  print("\n".join(grid(head, table)))


if __name__ == "__main__":
  app.run(main)
