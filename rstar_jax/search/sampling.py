"""Samples whole solutions without a search: greedy, majority vote, best-of-N.

A solution takes two calls of `expand`: the first writes the whole code block,
which is run, and the second writes the answer after the output. This `expand`
stops only at the end of the code and of the answer. Greedy decoding is n=1 with
an `expand` of temperature 0; `grading/choose.py` chooses among n solutions.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from rstar_jax import rng
from rstar_jax.grading import choose, judging
from rstar_jax.search import driver, requests, values
from rstar_jax.search.requests import Calls, Search
from rstar_jax.search.tree import TrajectoryValue
from rstar_jax.steps import grammar
from rstar_jax.types import Candidate, Prefix, Problem, Verdict

# Ends of a text that no marker closed, for other reasons than the policy's.
_ENDED_EARLY = ("length", "lost")


@dataclasses.dataclass(frozen=True)
class Sample:
  """One sampled solution.

  Attributes:
    steps: node texts, oldest first, up to the first that is not well-formed.
    answer: see `judging.answer_of`; None if there is none.
    verdict: None if there is no answer, or nothing to judge it by.
    tokens: number of tokens generated for it.
    status: "ok"; or why there is no answer: "length" (token limit), "lost" (no
      answer of a server), "malformed", "no_answer", or the sandbox's status.
    value: the PPM's score of the whole trajectory, None without a PPM.
    reward: the answer's reward, in [-1, 1]; None where the verdict is.
    written: what the policy wrote: the code block, and the answer if the block
      ran without an error.
  """

  steps: Prefix
  answer: str | None
  verdict: Verdict | None
  tokens: int
  status: str
  value: float | None = None
  reward: float | None = None
  written: tuple[Candidate, ...] = ()


def sample(
  problems: Sequence[Problem],
  n: int,
  calls: Calls,
  seed: int = 0,
  *,
  in_flight: int = 32,
  **options: Any,
) -> list[list[Sample]]:
  """Samples n solutions of each problem; see `solutions`.

  Args:
    problems: the problems.
    n: number of solutions of each.
    calls: the callables; if there is `score`, solutions with an answer get a
      value.
    seed: the run's seed.
    in_flight: most problems at once.
    **options: `name`, `trajectory_value` and `first` of `solutions`.

  Returns:
    n samples for each problem, in order.
  """
  options |= {"scored": calls.score is not None}
  searches = [solutions(each, n, seed, **options) for each in problems]
  return driver.run_searches(searches, calls, in_flight)


def solutions(
  problem: Problem,
  n: int,
  seed: int = 0,
  *,
  name: Sequence[int | str] = (),
  scored: bool = False,
  trajectory_value: TrajectoryValue = "last",
  first: int = 0,
) -> Search[list[Sample]]:
  """Samples n solutions of a problem.

  Args:
    problem: the problem.
    n: number of solutions.
    seed: the run's seed.
    name: identities of this sampling; seeds derive from them.
    scored: whether solutions with an answer get a value.
    trajectory_value: combines the PPM's values of steps; see
      `tree.trajectory_value`.
    first: number of the first sample, above 0 if there are earlier samples.

  Returns:
    n samples.
  """
  numbers = range(first, first + n)
  drafts = yield from _blocks(problem, numbers, seed, name)
  drafts = yield from _run(drafts)
  drafts = yield from _answers(problem, drafts, seed, name)
  if scored:
    drafts = yield from _scored(problem, drafts, trajectory_value)
  return (yield from _judged(problem, drafts))


def solutions_until(
  problem: Problem,
  n: int,
  seed: int = 0,
  *,
  confidence: float = 1.0,
  **options: Any,
) -> Search[list[Sample]]:
  """Samples until the majority is settled, at most n solutions.

  Each turn samples the fewest solutions that can settle it, so that an early
  majority costs few samples. They are the first samples of `solutions`.

  Args:
    problem, n, seed: as of `solutions`.
    confidence: 1 if no further samples may change the majority; see
      `choose.ahead`.
    **options: `name`, `scored` and `trajectory_value` of `solutions`.

  Returns:
    1 to n samples.
  """
  found: list[Sample] = []
  while len(found) < n:
    answered = [each.answer for each in found]
    count = choose.fewest(answered, n - len(found), confidence=confidence)
    found += yield from solutions(
      problem, count, seed, first=len(found), **options
    )
    answered = [each.answer for each in found]
    if choose.settled(answered, n - len(found), confidence=confidence):
      break
  return found


def _blocks(
  problem: Problem, numbers: range, seed: int, name: Sequence[int | str]
) -> Search[list[Sample]]:
  """Samples code blocks; those of status "ok" have not been run yet."""
  seeds = [rng.seed_for(seed, *name, problem.id, "block", i) for i in numbers]
  written = yield requests.expand(
    problem.question, (), np.array(seeds, np.uint32)
  )
  drafts = []
  for each in written:
    status, nodes = "ok", ()
    if each.finish in _ENDED_EARLY:
      status = each.finish
    elif grammar.problem_with_block(each.text, each.finish):
      status = "malformed"
    else:
      nodes = grammar.split_block(each.text)
    drafts.append(
      Sample(nodes, None, None, len(each.token_ids), status, written=(each,))
    )
  return drafts


def _run(drafts: list[Sample]) -> Search[list[Sample]]:
  """Runs the blocks and appends the output of each block's last step."""
  ready = [i for i, each in enumerate(drafts) if each.status == "ok"]
  if not ready:
    return drafts
  ran = yield requests.verify([grammar.program(drafts[i].steps) for i in ready])
  drafts = list(drafts)
  for i, result in zip(ready, ran, strict=True):
    *before, last = drafts[i].steps
    if result.status == "ok":
      last = grammar.with_output(last, result.stdout)
    drafts[i] = dataclasses.replace(
      drafts[i], steps=(*before, last), status=result.status
    )
  return drafts


def _answers(
  problem: Problem,
  drafts: list[Sample],
  seed: int,
  name: Sequence[int | str],
) -> Search[list[Sample]]:
  """Samples the answers of the blocks that ran.

  Equal blocks are answered once: the answer's seed derives from the text before
  it, so that each of them would get the same answer.
  """
  equal: dict[Prefix, list[int]] = {}
  for i, each in enumerate(drafts):
    if each.status == "ok":
      equal.setdefault(each.steps, []).append(i)
  asked = []
  for steps in equal:
    own = rng.seed_for(seed, *name, problem.id, "answer", *steps)
    asked.append(
      requests.expand(problem.question, steps, np.array([own], np.uint32))
    )
  written = yield asked
  drafts = list(drafts)
  for group, (candidate,) in zip(equal.values(), written, strict=True):
    draft = drafts[group[0]]
    answered = _answered(problem, draft, candidate)
    for i in group:
      # Equal texts may have different numbers of tokens.
      tokens = drafts[i].tokens + answered.tokens - draft.tokens
      written = (*drafts[i].written, candidate)
      drafts[i] = dataclasses.replace(answered, tokens=tokens, written=written)
  return drafts


def _answered(problem: Problem, draft: Sample, candidate: Candidate) -> Sample:
  """Adds the answer, which follows the output."""
  tokens = draft.tokens + len(candidate.token_ids)
  if candidate.finish in _ENDED_EARLY:
    return dataclasses.replace(draft, tokens=tokens, status=candidate.finish)
  reason = grammar.problem_with(draft.steps, candidate.text, candidate.finish)
  answer = None
  if not reason:
    answer = judging.answer_of(problem, (*draft.steps, candidate.text))
  if candidate.finish != "answer" or reason not in (None, grammar.NO_BOX):
    return dataclasses.replace(draft, tokens=tokens, status="malformed")
  if answer is None:
    return dataclasses.replace(draft, tokens=tokens, status="no_answer")
  return dataclasses.replace(
    draft, steps=(*draft.steps, candidate.text), answer=answer, tokens=tokens
  )


def _scored(
  problem: Problem, drafts: list[Sample], how: TrajectoryValue
) -> Search[list[Sample]]:
  """Sets the PPM's value of drafts that have an answer."""
  found = yield from values.values_in_search(
    part
    for each in drafts
    if each.answer is not None
    for part in values.partials_of(problem.question, each.steps, how)
  )

  def value(each: Sample) -> float | None:
    if each.answer is None:
      return None
    return values.trajectory_value(found, problem.question, each.steps, how)

  return [dataclasses.replace(each, value=value(each)) for each in drafts]


def _judged(problem: Problem, drafts: list[Sample]) -> Search[list[Sample]]:
  """Sets the verdicts and rewards of answered drafts."""
  ready = [i for i, each in enumerate(drafts) if each.answer is not None]
  if not ready:
    return drafts
  judged = yield requests.judge([(problem, drafts[i].answer) for i in ready])
  drafts = list(drafts)
  for i, found in zip(ready, judged, strict=True):
    if found is not None:
      verdict, reward = found
      drafts[i] = dataclasses.replace(drafts[i], verdict=verdict, reward=reward)
  return drafts
