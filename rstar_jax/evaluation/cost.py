"""Counts the cost of solutions, in generated tokens and in seconds.

A record's `spent` has the tokens generated up to each of its units; a unit is a
sample, a rollout of a search, or a search. It leaves out tokens of prompts and
of scored steps. Times are not in records, whose bytes must not depend on the
machine: they are measured as `Work` and written with the metrics.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from rstar_jax.config.schema import Config
from rstar_jax.evaluation.solutions import Record


@dataclasses.dataclass
class Work:
  """The work of a method on one machine, summed over problems.

  Attributes:
    problems: number of problems.
    wall_seconds: elapsed time, compilation excluded.
    device_seconds: the part of these in which a model computed.
    compile_seconds: time of compilation, in neither of the others.
    generated_tokens: written by the policy.
    scored_tokens: computed by the reward model.
  """

  problems: float = 0.0
  wall_seconds: float = 0.0
  device_seconds: float = 0.0
  compile_seconds: float = 0.0
  generated_tokens: float = 0.0
  scored_tokens: float = 0.0

  def of_problem(self) -> "Work":
    """Returns the mean per problem."""
    fields = dataclasses.asdict(self)
    return Work(**{k: v / self.problems for k, v in fields.items()})


def work(
  before: Mapping[str, float], after: Mapping[str, float], problems: int
) -> Work:
  """Returns the work between two readings of a backend's usage.

  Args:
    before: the first reading of `ModelBackend.usage`.
    after: the last one.
    problems: number of problems solved between them.
  """
  taken = {name: after[name] - before.get(name, 0.0) for name in after}
  compiling = taken.get("compile_seconds", 0.0)
  return Work(
    problems=problems,
    # A program compiles during its first call, so compiling is in both times.
    wall_seconds=max(taken["seconds"] - compiling, 0.0),
    device_seconds=max(taken.get("device_seconds", 0.0) - compiling, 0.0),
    compile_seconds=compiling,
    generated_tokens=taken.get("generated_tokens", 0.0),
    scored_tokens=taken.get("scored_tokens", 0.0),
  )


def measured(
  lines: Iterable[Mapping[str, float]], prefix: str, round_: int
) -> dict[str, Work]:
  """Adds up the work of each method from lines of metrics.

  Args:
    lines: lines of metrics.jsonl; a method that was resumed has several.
    prefix: prefix of the metrics' names, e.g. "study/".
    round_: step of the lines that count.

  Returns:
    Work by the part of the name between the prefix and the field.
  """
  names = [each.name for each in dataclasses.fields(Work)]
  by_method: dict[str, Work] = {}
  for line in lines:
    for key, problems in line.items():
      name, _, field = key.rpartition("/")
      if field != "problems" or not name.startswith(prefix):
        continue
      if line.get("step") == round_ and problems:
        total = by_method.setdefault(name.removeprefix(prefix), Work())
        for each in names:
          done = line.get(f"{name}/{each}") or 0.0
          setattr(total, each, getattr(total, each) + done)
  return by_method


def tokens(record: Record, units: int | None = None) -> int:
  """Returns the tokens that the first units generated; None is all units."""
  spent = record["spent"]
  return spent[-1 if units is None else min(units, len(spent)) - 1]


def units_of(records: Sequence[Record]) -> int:
  """Returns the largest number of units of any record."""
  return max(len(record["spent"]) for record in records)


def mean_tokens(records: Sequence[Record], units: int | None = None) -> float:
  """Returns the mean number of generated tokens per problem."""
  return float(np.mean([tokens(record, units) for record in records]))


def units_within(
  records: Sequence[Record],
  budget: float,
  tokens_of: Callable[[Record, int], float] = tokens,
) -> int:
  """Returns the largest number of units within a budget, at least 0.

  Args:
    records: at least one.
    budget: tokens per problem, averaged over the records.
    tokens_of: returns the tokens of that many units of a record.
  """
  units = 0
  while units < units_of(records):
    if np.mean([tokens_of(each, units + 1) for each in records]) > budget:
      break
    units += 1
  return units


def equal_samples(samples: Sequence[Record], searches: Sequence[Record]) -> int:
  """Returns the number of samples that costs about as much as a search.

  Args:
    samples: records of source "samples" of one split.
    searches: records of source "mcts" of the same split.

  Returns:
    The largest number of samples, at least 1, whose mean tokens do not exceed
    the search's, over problems that have both. Without such problems, the
    number of all samples; 1 if there are none.
  """
  sampled = {record["problem_id"]: record for record in samples}
  searched = {record["problem_id"]: record for record in searches}
  shared = sampled.keys() & searched.keys()
  if not shared:
    return max((len(record["trajectories"]) for record in samples), default=1)
  budget = mean_tokens([searched[each] for each in shared])
  return max(units_within([sampled[each] for each in shared], budget), 1)


def samples_of_evaluation(config: Config) -> int:
  """Returns how many solutions of a problem an evaluation samples.

  By default rollouts x candidates: a rollout expands at most one leaf per
  depth, so a search costs no more than that many solutions.
  """
  search = config.eval.search
  return config.eval.samples or search.rollouts * search.candidates


def samples_of_study(config: Config) -> int:
  """Returns how many solutions of a problem a study samples."""
  study = config.study
  return study.samples or study.trajectories * config.eval.search.candidates


def flops(parameters: int, tokens: float) -> float:
  """Returns the FLOPs of generating tokens: 2 per parameter and token.

  See Kaplan et al. 2020.
  """
  return 2.0 * parameters * tokens
