"""Main module of a worker that has the problems of reasoning-gym, and scores.

`gym.py` starts it. Some scores evaluate the answer as Python, and some never
end. So each answer is scored in a confined fork of its own
(`sandbox/service.py`), and whatever that started ends with it.
"""

import functools
import gc
import json
import math
import numbers
import socket
import sys

from rstar_jax.sandbox import children, service, wire
from rstar_jax.sandbox.isolation import confinement


def score(data: dict, question: list) -> float:
  """Returns the library's score of an answer; 0 if it cannot score it.

  Args:
    data: data set by split.
    question: split, number of the problem, and answer.
  """
  split, number, answer = question
  try:
    return float(data[split].score_answer(answer, data[split][number]))
  except Exception:
    return 0.0


def problem(data: dict, split: str, number: int) -> list[str | None]:
  """Returns the question and the answer of a problem."""
  entry = data[split][number]
  answer = entry["answer"]
  return [entry["question"], None if answer is None else str(answer)]


def checked(found: object) -> float:
  """Returns a score that a fork has sent; 0 if it is none."""
  number = isinstance(found, numbers.Real) and math.isfinite(found)
  return min(max(float(found), 0.0), 1.0) if number else 0.0


def main() -> None:
  """Makes the data sets, and serves.

  The first message says why there are none, and which layers its forks lack.
  """
  options = json.loads(sys.argv[1])
  confinement.die_with_parent(options["parent"])
  connection = socket.socket(fileno=options["fd"])
  try:
    import reasoning_gym

    data = {
      split: reasoning_gym.create_dataset(**arguments)
      for split, arguments in options["data"].items()
    }
  except Exception as error:
    why = f"{type(error).__name__}: {error}"
    connection.sendall(wire.frame({"problem": why}))
    return
  confinement.adopt_orphans()
  gc.freeze()
  make = functools.partial(
    service.Fork,
    functools.partial(score, data),
    ("reasoning_gym",),
    options["memory_bytes"],
    options["seconds"],
  )
  missing = service.missing(make)
  connection.sendall(wire.frame({"problem": "", "missing": missing}))
  while (question := wire.receive(connection)) is not None:
    if len(question) == 2:
      connection.sendall(wire.frame(problem(data, *question)))
      continue
    fork, found = service.answer(make(), question, make, 0.0)
    fork.end()
    children.end_orphans(())
    connection.sendall(wire.frame(checked(found)))
