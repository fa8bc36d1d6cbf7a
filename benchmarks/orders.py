"""How much one way to train a policy gains on another, over problems and seeds.

  python -m benchmarks.orders docs/results/gsm8k_rates.jsonl --set=asdiv \\
    --first=search --second=cold

The file has a JSON object for each policy and set of problems: "policy", "seed"
and "set"; "samples", how many solutions of a problem were sampled; "right",
a digit for each problem in the order of the set: how many of them are right;
"greedy", likewise for the solution at temperature 0, where it was asked for;
and "tokens", of a sample.
`benchmarks.pass_rates --out` has the same by problem.

Prints a JSON line: the mean over samples of each side, with the seeds' own
means; their difference, and its 95% bootstrap interval over problems, which
both sides share, and over the seeds of each side. With one seed a side the
interval is over problems alone. A side "cold_anew+cold_third" has the seeds of
both.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import app, flags

from rstar_jax.evaluation import intervals

_SET = flags.DEFINE_string("set", "gsm8k", "Set of problems.")
_FIRST = flags.DEFINE_string("first", "search", "First policy.")
_SECOND = flags.DEFINE_string("second", "cold", "Second policy.")


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


def main(argv: list[str]) -> None:
  if len(argv) != 2:
    raise app.UsageError("give one file of rates")
  text = pathlib.Path(argv[1]).read_text()
  lines = [json.loads(each) for each in text.splitlines()]
  try:
    sides = [
      rates(lines, each, _SET.value) for each in (_FIRST.value, _SECOND.value)
    ]
    found = compare(*sides)
  except ValueError as error:
    raise app.UsageError(str(error)) from error
  print(json.dumps(found, default=float))


if __name__ == "__main__":
  app.run(main)
