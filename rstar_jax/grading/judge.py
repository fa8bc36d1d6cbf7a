"""Main module of a grader worker: compares answers in forks that it can kill.

`grader.py` starts it. It imports math-verify, tests it and warms it up once.
Comparisons run in a confined fork (`sandbox/service.py`), since their input is
untrusted model output. A comparison that takes too long is interrupted (soft
deadline) or its fork is killed (hard deadline). The worker ends when the host
closes the socket or kills it.
"""

import functools
import gc
import json
import resource
import signal
import socket
import sys

from rstar_jax.grading import algebra, answers
from rstar_jax.sandbox import service, wire
from rstar_jax.sandbox.isolation import confinement

# Packages that comparisons may still import.
PACKAGES = ("math_verify", "latex2sympy2_extended", "antlr4")
# Pairs compared before the first fork, so that imports happen only once.
_WARM_UP = (
  (r"\frac{1}{2}", "0.5"),
  (r"\sqrt{8}", r"2\sqrt{2}"),
  ("x^2-1", "(x-1)(x+1)"),
  (r"\sin^2 x", r"1-\cos^2 x"),
  (r"\ln 6", r"\ln 2+\ln 3"),
  ("y=2x+1", "2x-y+1=0"),
  (r"\binom{6}{3}+i", "20+i"),
)


class TooLong(BaseException):
  """Raised at the soft deadline; not an Exception, which libraries catch."""


def self_test() -> str:
  """Returns a problem with math-verify, "" if there is none.

  With another version of latex2sympy it calls any two numbers equal.
  """
  try:
    if algebra.same("5", "6"):
      return "it calls 5 and 6 equal"
    if not algebra.same(r"\frac{1}{2}", "0.5"):
      return "it calls 1/2 and 0.5 different"
    if not algebra.same(r"\sqrt{8}", r"2\sqrt{2}"):
      return "it calls sqrt(8) and 2 sqrt(2) different"
  except Exception as error:
    return f"{type(error).__name__}: {error}"
  return ""


def judge(
  gold: str, predicted: str, seconds: float, percent_is_ratio: bool = False
) -> str:
  """Compares two answers; call it in the main thread.

  Args:
    gold: the right answer.
    predicted: the answer to judge.
    seconds: soft deadline, which does not interrupt C code.
    percent_is_ratio: see `answers.equal`.

  Returns:
    The verdict; "undecided" if the comparison fails or takes too long.
  """
  try:
    before = signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
      equal = answers.equal(gold, predicted, percent_is_ratio)
      return "equal" if equal else "different"
    finally:
      signal.setitimer(signal.ITIMER_REAL, 0)
      signal.signal(signal.SIGALRM, before)
  except (TooLong, Exception):
    return "undecided"


def _interrupt(*_) -> None:
  raise TooLong


def main() -> None:
  """Tests the library, and serves.

  The first message has the result of `self_test`, and the layers that its forks
  lack.
  """
  options = json.loads(sys.argv[1])
  confinement.die_with_parent(options["parent"])
  connection = socket.socket(fileno=options["fd"])
  problem = self_test()
  if not problem:
    for pair in _WARM_UP:
      answers.equal(*pair)
    gc.freeze()
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  make = functools.partial(forked, options)
  missing = service.missing(make)
  connection.sendall(wire.frame({"problem": problem, "missing": missing}))
  fork = make()
  while (pair := wire.receive(connection)) is not None:
    fork, verdict = service.answer(fork, pair, make, "undecided")
    connection.sendall(wire.frame(verdict))
  fork.end()


def forked(options: dict) -> service.Fork:
  """Returns a process that compares pairs of answers.

  Args:
    options: "memory_bytes", "seconds", the hard deadline, and
      "percent_is_ratio".
  """
  seconds, ratio = options["seconds"], options["percent_is_ratio"]
  return service.Fork(
    lambda pair: judge(*pair, seconds / 2, ratio),
    PACKAGES,
    options["memory_bytes"],
    seconds,
  )
