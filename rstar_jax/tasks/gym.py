"""Tasks of reasoning-gym: generated problems whose answers get scores.

The library generates each problem from its number, offline, and scores an
answer from 0 to 1, since e.g. a countdown has many right answers.
"""

import concurrent.futures
import functools
import logging
import re
import sys
import weakref
from collections.abc import Iterator
from typing import Any

from rstar_jax.config.plugins import PluginError
from rstar_jax.grading import answers
from rstar_jax.sandbox import process
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
_MEMORY = 4 << 30  # Address space of a process that scores, in bytes.
_CACHED = 1 << 16  # Scores that are kept.
# Time for a score, and until the worker that enforces it counts as hung.
_SECONDS, _HUNG_SECONDS = 10.0, 30.0


def task(name: str) -> Task:
  """Returns the task of a data set, e.g. "countdown" or "gsm_symbolic".

  Answers to problems of other sources are compared with the problem's own.

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

  scores = Scores(name)
  # Samples repeat answers.
  scored = functools.lru_cache(_CACHED)(scores.score)

  def problems(split: str) -> Iterator[Problem]:
    if split not in SEEDS:
      raise PluginError(
        f"{label} has no split {split!r}, only {', '.join(SEEDS)}"
      )
    for number in range(SIZE):
      question, answer = scores.problem(split, number)
      yield Problem(
        id=f"{name}/{split}/{number}",
        question=question,
        answer=answer,
        source=PREFIX + name,
      )

  def reward(problem: Problem, answer: str) -> float:
    if problem.source != PREFIX + name:  # The library cannot score it.
      golds = filter(None, (problem.answer, *problem.alternatives))
      same = any(answers.decide(gold, answer) for gold in golds)
      return 1.0 if same else -1.0
    _, split, number = problem.id.split("/")
    score = scored(split, int(number), answer)
    return worth(score, str(problem.answer), answer)

  try:
    reasoning_gym.create_dataset(**_arguments(name, "train"))
  except ValueError as error:
    raise PluginError(f"{label}: {error}") from error
  return Task(problems=problems, reward=reward)


def _arguments(name: str, split: str) -> dict[str, Any]:
  return {"name": name, "size": SIZE, "seed": SEEDS[split]}


class Scores:
  """The library's problems and scores, from a process that can be killed.

  Some problems depend on the hashes of texts, which are fixed there. The
  process starts with the first request, and ends with this object.

  Args:
    name: of the data set.
  """

  def __init__(self, name: str):
    self._name = name
    self._workers: list[process.Process] = []  # One at most.
    # A process ends with the thread that started it.
    self._thread = concurrent.futures.ThreadPoolExecutor(1)
    weakref.finalize(self, _end, self._workers)

  def problem(self, split: str, number: int) -> tuple[str, str | None]:
    """Returns question and answer of a problem.

    Raises:
      PluginError: the data set, or the problem, cannot be made in the process.
    """
    found = self._thread.submit(self._ask, [split, number]).result()
    if found is None:
      raise PluginError(f"reasoning_gym makes no problem {number} of {split}")
    return tuple(found)

  def score(self, split: str, number: int, answer: str) -> float:
    """Returns the score of an answer, from 0 to 1; 0 if there is none in time.

    Raises:
      PluginError: the data set cannot be made in the process.
    """
    question = [split, number, answer]
    found = self._thread.submit(self._ask, question).result()
    if found is None:
      logging.warning("no score of %.200r", question)
      return 0.0
    return found

  def _ask(self, question: list) -> Any:
    """Returns the process's answer, None if there is none."""
    for _ in range(2):  # Retries once if the process was killed from outside.
      if not self._workers:
        self._workers.append(self._started())
      try:
        self._workers[0].send(question)
        return self._workers[0].receive(_HUNG_SECONDS)
      except (process.Gone, TimeoutError):
        _end(self._workers)
    return None

  def _started(self) -> process.Process:
    worker = process.Process(
      "rstar_jax.tasks.scores",
      {
        "data": {split: _arguments(self._name, split) for split in SEEDS},
        "memory_bytes": _MEMORY,
        "seconds": _SECONDS,
      },
      ("-P",),
      env=process.ENV,
      path=sys.path,
    )
    if problem := worker.greeting["problem"]:
      worker.kill()
      raise PluginError(f"reasoning_gym: {problem}")
    process.warn_of(worker.greeting["missing"], "scores answers")
    return worker


def _end(workers: list[process.Process]) -> None:
  while workers:
    workers.pop().kill()


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
