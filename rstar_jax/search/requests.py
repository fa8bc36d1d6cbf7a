"""Requests of a search, and the callables that answer them.

A search of one problem is a generator. It yields a request, or a list of
independent requests, and is sent the answer, or the list of answers. It returns
its tree or its samples. Since it calls nothing itself, `driver.py` can run many
searches at once.
"""

import dataclasses
from collections.abc import Generator, Sequence
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from rstar_jax.grading import judging
from rstar_jax.types import Expand, Grade, Prefix, Problem, Score, Verify

Kind = Literal["expand", "verify", "score", "judge"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclasses.dataclass(frozen=True)
class Request:
  """A request to one of the callables.

  Attributes:
    to: names the callable; "judge" is `Calls.grade`, or `Calls.verify` for
      problems with tests, or `Calls.reward` in the place of both.
    args: the arguments; those of one row if the callable takes a batch.
  """

  to: Kind
  args: tuple[Any, ...]


_Result = TypeVar("_Result")
# A search, by the type of its result.
Search = Generator[Request | list[Request], Any, _Result]


def expand(question: str, prefix: Prefix, seeds: np.ndarray) -> Request:
  """Asks for a candidate per seed, uint32 [C]; answered by C `Candidate`s."""
  return Request("expand", (question, prefix, seeds))


def verify(programs: Sequence[Sequence[str]]) -> Request:
  """Asks to run programs; answered by an `ExecResult` each."""
  return Request("verify", (programs,))


def score(question: str, prefix: Prefix, steps: Sequence[str]) -> Request:
  """Asks for the PPM's value of prefix + step each; answered by float32 [C]."""
  return Request("score", (question, prefix, steps))


def judge(answered: Sequence[tuple[Problem, str]]) -> Request:
  """Asks to judge (problem, answer) pairs; answered as by `judging.judge`."""
  return Request("judge", (answered,))


@dataclasses.dataclass(frozen=True)
class Calls:
  """The callables of a search.

  `expand` and `score` are called by one thread at a time, with all rows that
  wait for them. If they have a method `submit(*row)` that returns a
  `concurrent.futures.Future`, it is called with each row instead. `verify`,
  `grade` and `reward` are called from several threads at once.

  Attributes:
    expand: samples next steps.
    verify: runs programs, followed by the problem's tests if it has any.
    grade: compares answers.
    score: scores steps with the PPM; None if the search uses no PPM.
    reward: returns the reward of an answer, in the place of `grade` and of
      tests, which problems do not need then.
  """

  expand: Expand
  verify: Verify
  grade: Grade
  score: Score | None = None
  reward: judging.Reward | None = None

  def replace(self, **fields: Any) -> "Calls":
    """Returns the callables with some of them replaced."""
    return dataclasses.replace(self, **fields)
