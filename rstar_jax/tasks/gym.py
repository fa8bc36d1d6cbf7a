"""Tasks of reasoning-gym: generated problems whose answers get scores.

The library generates each problem from its number, offline, and scores an
answer from 0 to 1, since e.g. a countdown has many right answers.
"""

import functools
import re
from collections.abc import Iterator
from typing import Any

from rstar_jax.config.plugins import PluginError
from rstar_jax.grading import answers
from rstar_jax.tasks.task import Task
from rstar_jax.types import Problem

PREFIX = "reasoning_gym:"
# Number of problems of a split, and the seed of each split's first problem. The
# library seeds a problem by seed + number, so splits share no problem.
SIZE = 1_000_000
SEEDS = {"train": 0, "test": SIZE}
# A number may be written in many ways; of a fraction or a list, the question
# may ask for one.
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


def task(name: str) -> Task:
  """Returns the task of a data set, e.g. "countdown" or "gsm_symbolic".

  Raises:
    PluginError: the library is not installed, or has no such data set.
  """
  label = f"config.task={PREFIX + name!r}"
  try:
    import reasoning_gym
  except ImportError as error:
    raise PluginError(
      f"{label} needs the library reasoning_gym ({error}): pip install "
      "'rstar_jax[reasoning_gym]'"
    ) from error

  @functools.cache
  def data(split: str) -> Any:
    if split not in SEEDS:
      raise PluginError(
        f"{label} has no split {split!r}, only {', '.join(SEEDS)}"
      )
    return reasoning_gym.create_dataset(name, size=SIZE, seed=SEEDS[split])

  def problems(split: str) -> Iterator[Problem]:
    found = data(split)
    for number in range(SIZE):
      entry = found[number]
      yield Problem(
        id=f"{name}/{split}/{number}",
        question=entry["question"],
        answer=entry["answer"],
        source=PREFIX + name,
      )

  def reward(problem: Problem, answer: str) -> float:
    # A question of `solve` is not a problem of the data set.
    if problem.source != PREFIX + name:
      return -1.0
    _, split, number = problem.id.split("/")
    entry = data(split)[int(number)]
    score = data(split).score_answer(answer, entry)
    return worth(score, str(entry["answer"]), answer)

  try:
    data("train")
  except ValueError as error:
    raise PluginError(f"{label}: {error}") from error
  return Task(problems=problems, reward=reward)


def worth(score: float, gold: str, answer: str) -> float:
  """Returns an answer's reward, above 0 only if the answer is right.

  The library gives parts of a point to wrong answers, such as 0.75 to one of
  four digits that contains the right three.

  Args:
    score: the library's, from 0 to 1.
    gold: the library's own answer.
    answer: the answer.

  Returns:
    1 for a full score, or for the same number as the library's; else the score
    minus 1.
  """
  same = _NUMBER.fullmatch(gold) and answers.decide(gold, answer)
  return 1.0 if score >= 1 or same else score - 1.0
