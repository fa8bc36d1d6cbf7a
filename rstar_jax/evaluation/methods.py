"""The ways to answer: which of a problem's trajectories a method chooses.

Solving writes one record per problem and source, of which this is read (what
else there is, `evaluation/solutions.py` says):

  problem_id, split, gold: text; level: int or null
  source: "greedy" (one solution, temperature 0), "samples" or "mcts"
  trajectories: in order of sampling, each with
    answer: text, or null where there is none
    verdict: "equal", "different", "undecided" (the grader gave up) or "failed"
      (no answer: code failed, or a limit was hit)
    value: the PPM's score of the whole trajectory, or null
    tokens: generated for it
  tokens: all that were generated for the problem, abandoned steps included

Methods (paper section 4.1): "policy" is the greedy solution; "pass@k" says
whether any of k samples is right, the ceiling of "majority" and "best_of_n",
which choose among the same k samples by vote and by the PPM; "mcts" chooses
among the trajectories of the search.
"""

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from rstar_jax.grading.voting import vote_key

Record = Mapping[str, Any]
Select = Literal["best", "majority", "weighted", "top_k"]
Normalise = Callable[[str], Hashable]

# Method -> the source of the records that it reads.
METHODS = {
  "policy": "greedy",
  "pass@k": "samples",
  "majority": "samples",
  "best_of_n": "samples",
  "mcts": "mcts",
}
VERDICTS = ("equal", "different", "undecided", "failed")


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What one method made of one problem.

  Attributes:
    problem_id, level: the problem's.
    verdict: of the answer that the method chose; "failed" without one.
    tokens: generated for it.
  """

  problem_id: str
  level: int | None
  verdict: str
  tokens: int

  @property
  def right(self) -> bool:
    return self.verdict == "equal"


def by_split(
  records: Iterable[Record],
) -> dict[str, dict[str, list[Record]]]:
  """Groups records: split -> source -> records.

  Raises:
    ValueError: for a record twice, or with an unknown source or verdict.
  """
  splits: dict[str, dict[str, list[Record]]] = {}
  seen = set()
  for record in records:
    key = record["problem_id"], record["split"], record["source"]
    if record["source"] not in METHODS.values():
      raise ValueError(
        f"record of {key[0]!r} has source {key[2]!r}, not one of "
        f"{', '.join(sorted(set(METHODS.values())))}"
      )
    for each in record["trajectories"]:
      if each["verdict"] not in VERDICTS:
        raise ValueError(
          f"record of {key[0]!r} has verdict {each['verdict']!r}, not one of "
          f"{', '.join(VERDICTS)}"
        )
    if key in seen:
      raise ValueError(
        f"problem {key[0]!r} of split {key[1]!r} has two {key[2]} records"
      )
    seen.add(key)
    splits.setdefault(key[1], {}).setdefault(key[2], []).append(record)
  return splits


def selection(records: Sequence[Record], select: Select) -> Select:
  """Returns `select`, or "majority" for what needs values and has none."""
  if select in ("best", "top_k") and not valued(records):
    return "majority"
  return select


def valued(records: Sequence[Record]) -> bool:
  """Says whether any trajectory has the PPM's value."""
  return any(
    each["value"] is not None
    for record in records
    for each in record["trajectories"]
  )


def solve(
  records: Sequence[Record],
  method: str,
  samples: int,
  select: Select = "best",
  normalise: Normalise = vote_key,
  k: int = 4,
) -> list[Outcome]:
  """Lets a method answer each problem from its records.

  Args:
    records: of the method's source.
    method: one of `METHODS`.
    samples: how many samples the methods on samples take, the first ones.
    select: how "mcts" chooses; see `selection`.
    normalise: answers with the same normal form vote together.
    k: voters of "top_k".
  """
  outcomes = []
  select = selection(records, select)
  for record in records:
    trajectories, tokens = record["trajectories"], record["tokens"]
    if METHODS[method] == "samples":
      trajectories = trajectories[:samples]
      tokens = sum(each["tokens"] for each in trajectories)
    if method in ("policy", "pass@k"):
      verdict = ceiling(trajectories)
    elif method == "best_of_n" or (method == "mcts" and select == "best"):
      verdict = best(trajectories)
    else:
      if method == "mcts" and select == "top_k":
        trajectories = highest(trajectories, k)
      weighted = method == "mcts" and select == "weighted"
      verdict = vote(trajectories, normalise, weighted)
    outcomes.append(
      Outcome(record["problem_id"], record["level"], verdict, tokens)
    )
  return outcomes


def ceiling(trajectories: Sequence[Mapping]) -> str:
  """Returns the best verdict of all: what no choice can exceed."""
  return min(
    (each["verdict"] for each in trajectories),
    key=("equal", "undecided", "different", "failed").index,
    default="failed",
  )


def best(trajectories: Sequence[Mapping]) -> str:
  """Returns the verdict of the answer of highest value, the first of equals.

  Those that failed, and those without a value, are not chosen; "failed" if
  none is left.
  """
  able = [t for t in answered(trajectories) if t["value"] is not None]
  return max(able, key=lambda t: t["value"])["verdict"] if able else "failed"


def highest(trajectories: Sequence[Mapping], k: int) -> list[Mapping]:
  """Returns the k of highest value that have an answer, best first."""
  able = [t for t in answered(trajectories) if t["value"] is not None]
  return sorted(able, key=lambda each: -each["value"])[:k]


def vote(
  trajectories: Sequence[Mapping],
  normalise: Normalise = vote_key,
  weighted: bool = False,
) -> str:
  """Returns the verdict of the most frequent answer.

  Those that failed do not vote. Of equally frequent answers the one that came
  first wins. Equal normal forms may have been graded apart, since a grader may
  give up: a decided verdict stands for all of them.

  Args:
    trajectories: voters.
    normalise: answers with the same normal form vote together.
    weighted: see `weight`.
  """
  weights: dict[Hashable, float] = {}
  verdicts: dict[Hashable, str] = {}
  for each in answered(trajectories):
    name = normalise(each["answer"])
    weights[name] = weights.get(name, 0.0) + weight(each, weighted)
    if verdicts.get(name, "undecided") == "undecided":
      verdicts[name] = each["verdict"]
  # `max` takes the first of equals, and a dict keeps the order.
  return (
    verdicts[max(weights, key=weights.__getitem__)] if weights else "failed"
  )


def weight(trajectory: Mapping, weighted: bool) -> float:
  """Returns what a vote counts, in [0, 1].

  Weighted it is (1 + value) / 2, the PPM's value moved to [0, 1]; one without a
  value counts 1 / 2. Else it is 1.
  """
  return (1 + (trajectory["value"] or 0.0)) / 2 if weighted else 1.0


def match_budget(by_source: Mapping[str, Sequence[Record]]) -> int:
  """Returns how many samples cost about what the search costs.

  Args:
    by_source: the records of one split, by source.

  Returns:
    The largest number of samples whose mean tokens per problem are not above
    the search's, over the problems that have both; at least 1. Without such
    problems, all samples; 1 without any.
  """
  samples = {r["problem_id"]: r for r in by_source.get("samples", [])}
  search = {r["problem_id"]: r for r in by_source.get("mcts", [])}
  shared = sorted(samples.keys() & search.keys())
  most = max((len(r["trajectories"]) for r in samples.values()), default=0)
  if not shared:
    return max(most, 1)
  costs = np.zeros((len(shared), most))
  for row, name in zip(costs, shared, strict=True):
    tokens = [each["tokens"] for each in samples[name]["trajectories"]]
    row[: len(tokens)] = tokens
  # Sums of integers, hence exact.
  spent = costs.cumsum(axis=1).sum(axis=0)
  budget = sum(search[name]["tokens"] for name in shared)
  return max(int((spent <= budget).sum()), 1)


def answered(trajectories: Sequence[Mapping]) -> list[Mapping]:
  """Returns those that have a vote: with an answer, and not failed."""
  return [
    each
    for each in trajectories
    if each["answer"] is not None and each["verdict"] != "failed"
  ]
