"""Samples whole solutions without a search: greedy, majority vote, best-of-N.

A solution takes two calls: `expand` writes the whole code block, the block
runs, and `expand` writes the answer after its output. This `expand` stops only
at the ends of code and answer. Greedy decoding is n=1 with an `expand` of
temperature 0; `grading/choose.py` chooses among n solutions.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from rstar_jax import rng
from rstar_jax.config.schema import SearchConfig
from rstar_jax.grading import answers, choose, judging
from rstar_jax.search import values
from rstar_jax.search.expansion import Calls
from rstar_jax.search.tree import TrajectoryValue
from rstar_jax.steps import grammar
from rstar_jax.types import Candidate, Prefix, Problem, Verdict


@dataclasses.dataclass(frozen=True)
class Sample:
  """One sampled solution.

  Attributes:
    steps: node texts, oldest first, as far as they are well-formed.
    answer: the boxed answer, None if there is none.
    verdict: None without an answer, or with nothing to judge it by.
    tokens: number of tokens generated for it.
    status: "ok"; or why there is no answer: "length", "malformed", "no_answer",
      or the sandbox's status.
    value: the PPM's score of the whole trajectory, None without a PPM.
  """

  steps: Prefix
  answer: str | None
  verdict: Verdict | None
  tokens: int
  status: str
  value: float | None = None


def sample(
  problems: Sequence[Problem],
  n: int,
  calls: Calls,
  seed: int = 0,
  *,
  name: Sequence[int | str] = (),
  slots: int = 32,
  trajectory_value: TrajectoryValue = "last",
  first: int = 0,
) -> list[list[Sample]]:
  """Samples n solutions of each problem.

  Args:
    problems: the problems.
    n: number of solutions of each.
    calls: the callables; with `score`, solutions with an answer get a value.
    seed: the run's seed.
    name: identities of this sampling; seeds derive from them.
    slots: problems in one call for code blocks (n candidates each).
    trajectory_value: how the PPM's values of steps are combined; see
      `tree.trajectory_value`.
    first: number of the first sample, if earlier ones exist.

  Returns:
    n samples for each problem, in order.
  """
  calls = calls.of_group(0)
  samples: list[list[Sample]] = []
  for start in range(0, len(problems), slots):
    chunk = problems[start : start + slots]
    owners = [problem for problem in chunk for _ in range(n)]
    drafts = _blocks(chunk, range(first, first + n), calls, seed, name)
    drafts = _run(drafts, calls)
    drafts = _answers(owners, drafts, calls, seed, name)
    drafts = _scored(owners, drafts, calls, trajectory_value)
    _grade(owners, drafts, calls)
    samples += [drafts[i : i + n] for i in range(0, len(drafts), n)]
  return samples


def sample_until(
  problems: Sequence[Problem],
  n: int,
  calls: Calls,
  search: SearchConfig,
  **options: Any,
) -> list[list[Sample]]:
  """Samples until the majority cannot change, at most n solutions.

  Each call samples half of the remaining number, so that a majority that is
  clear early costs few samples. The samples are the first ones of `sample`.

  Args:
    problems, n, calls: as in `sample`.
    search: its slots and candidates bound the size of a call; see `slots_of`.
    **options: seed, name and trajectory_value of `sample`.

  Returns:
    1 to n samples for each problem, in order.
  """
  found: list[list[Sample]] = [[] for _ in problems]
  going, done = list(range(len(problems))), 0
  while going and done < n:
    count = (n - done + 1) // 2
    more = sample(
      [problems[i] for i in going],
      count,
      calls,
      first=done,
      slots=slots_of(search, count),
      **options,
    )
    done += count
    for i, each in zip(going, more, strict=True):
      found[i] += each
    going = [
      i
      for i in going
      if not choose.settled([each.answer for each in found[i]], n - done)
    ]
  return found


def slots_of(search: SearchConfig, n: int) -> int:
  """Returns how many problems with n solutions fill a call of a search.

  Args:
    search: config with the slots and candidates of a call.
    n: number of solutions of each problem.
  """
  return max(search.slots * search.candidates // n, 1)


def _blocks(
  problems: Sequence[Problem],
  numbers: range,
  calls: Calls,
  seed: int,
  name: Sequence[int | str],
) -> list[Sample]:
  """Samples code blocks; those with status "ok" have not run yet."""
  seeds = [
    [rng.seed_for(seed, *name, each.id, "block", i) for i in numbers]
    for each in problems
  ]
  written = calls.expand(
    [each.question for each in problems],
    [()] * len(problems),
    np.array(seeds, np.uint32).reshape(len(problems), len(numbers)),
  )
  drafts = []
  for each in (each for row in written for each in row):
    status, nodes = "ok", ()
    if each.finish == "length":
      status = "length"
    elif grammar.problem_with_block(each.text, each.finish):
      status = "malformed"
    else:
      nodes = grammar.split_block(each.text)
    drafts.append(Sample(nodes, None, None, len(each.token_ids), status))
  return drafts


def _run(drafts: list[Sample], calls: Calls) -> list[Sample]:
  """Runs the blocks and appends the output of each block's last step."""
  ready = [i for i, each in enumerate(drafts) if each.status == "ok"]
  if not ready:
    return drafts
  results = calls.verify([grammar.program(drafts[i].steps) for i in ready])
  drafts = list(drafts)
  for i, result in zip(ready, results, strict=True):
    *before, last = drafts[i].steps
    if result.status == "ok":
      last = grammar.with_output(last, result.stdout)
    drafts[i] = dataclasses.replace(
      drafts[i], steps=(*before, last), status=result.status
    )
  return drafts


def _answers(
  owners: Sequence[Problem],
  drafts: list[Sample],
  calls: Calls,
  seed: int,
  name: Sequence[int | str],
) -> list[Sample]:
  """Samples the answers of the blocks that ran.

  Equal solutions of a problem are answered once: the answer's seed derives from
  the text before it, so that each of them would get the same answer.
  """
  duplicates: dict[tuple[str, Prefix], list[int]] = {}
  for i, each in enumerate(drafts):
    if each.status == "ok":
      duplicates.setdefault((owners[i].id, each.steps), []).append(i)
  groups = list(duplicates.values())
  if not groups:
    return drafts
  firsts = [drafts[group[0]] for group in groups]
  problems = [owners[group[0]] for group in groups]
  seeds = [
    [rng.seed_for(seed, *name, problem.id, "answer", *draft.steps)]
    for problem, draft in zip(problems, firsts, strict=True)
  ]
  written = calls.expand(
    [problem.question for problem in problems],
    [draft.steps for draft in firsts],
    np.array(seeds, np.uint32),
  )
  drafts = list(drafts)
  for group, draft, candidates in zip(groups, firsts, written, strict=True):
    answered = _answered(draft, candidates[0])
    for i in group:
      # Equal texts may have different numbers of tokens.
      tokens = drafts[i].tokens + answered.tokens - draft.tokens
      drafts[i] = dataclasses.replace(answered, tokens=tokens)
  return drafts


def _answered(draft: Sample, candidate: Candidate) -> Sample:
  """Adds the text that follows the output."""
  tokens = draft.tokens + len(candidate.token_ids)
  if candidate.finish == "length":
    return dataclasses.replace(draft, tokens=tokens, status="length")
  reason = grammar.problem_with(draft.steps, candidate.text, candidate.finish)
  answer = None if reason else answers.final_answer(candidate.text)
  if candidate.finish != "answer" or (reason and "boxed" not in reason):
    return dataclasses.replace(draft, tokens=tokens, status="malformed")
  if answer is None:
    return dataclasses.replace(draft, tokens=tokens, status="no_answer")
  return dataclasses.replace(
    draft, steps=(*draft.steps, candidate.text), answer=answer, tokens=tokens
  )


def _scored(
  owners: Sequence[Problem],
  drafts: list[Sample],
  calls: Calls,
  how: TrajectoryValue,
) -> list[Sample]:
  """Sets the PPM's value of drafts that have an answer."""
  ready = [i for i, each in enumerate(drafts) if each.answer is not None]
  if calls.score is None or not ready:
    return drafts
  found = values.values_of(
    calls.score,
    (
      each
      for i in ready
      for each in values.wanted(owners[i].question, drafts[i].steps, how)
    ),
  )
  drafts = list(drafts)
  for i in ready:
    value = values.trajectory_value(
      found, owners[i].question, drafts[i].steps, how
    )
    drafts[i] = dataclasses.replace(drafts[i], value=value)
  return drafts


def _grade(
  owners: Sequence[Problem], drafts: list[Sample], calls: Calls
) -> None:
  """Sets the verdicts of answered drafts, in place."""
  ready = [i for i, each in enumerate(drafts) if each.answer is not None]
  answered = [(owners[i], drafts[i].answer) for i in ready]
  judged = judging.judge(answered, calls.grade, calls.reward)
  for i, found in zip(ready, judged, strict=True):
    if found is not None:
      drafts[i] = dataclasses.replace(drafts[i], verdict=found[0])
