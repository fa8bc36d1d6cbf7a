"""Main module of a grader worker: compares answers in forks that it can kill.

`grader.py` starts it. It imports math-verify, tests it and warms it up once.
Comparisons run in a fork under the sandbox's limits, since their input is
untrusted model output. A comparison that takes too long is interrupted (soft
deadline) or its fork is killed (hard deadline); the next fork is ready within
milliseconds. The worker ends when the host closes the socket or kills it.
"""

import gc
import json
import os
import resource
import signal
import socket
import sys

from rstar_jax.grading import algebra, answers
from rstar_jax.sandbox import wire
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


class Fork:
  """A child process that compares answers.

  Args:
    options: "memory_bytes", "seconds", the hard deadline, and
      "percent_is_ratio".

  Attributes:
    pid: pid of the child.
  """

  def __init__(self, options: dict):
    self._options = options
    self._socket, theirs = socket.socketpair()
    parent = os.getpid()
    self.pid = os.fork()
    if self.pid == 0:
      try:
        self._socket.close()
        confinement.die_with_parent(parent)
        _confine(options["memory_bytes"])
        while (pair := wire.receive(theirs)) is not None:
          verdict = judge(
            *pair, options["seconds"] / 2, options["percent_is_ratio"]
          )
          theirs.sendall(wire.frame(verdict))
      finally:
        os._exit(1)
    theirs.close()
    self._socket.settimeout(options["seconds"])

  def ask(self, pair: list[str]) -> str | None:
    """Returns the verdict, None if the child ended; may raise TimeoutError."""
    try:
      self._socket.sendall(wire.frame(pair))
      return wire.receive(self._socket)
    except TimeoutError:
      raise
    except OSError:
      return None

  def end(self) -> None:
    """Kills and reaps the child."""
    os.kill(self.pid, signal.SIGKILL)
    os.waitpid(self.pid, 0)
    self._socket.close()


def _confine(memory_bytes: int) -> None:
  confinement.limit_worker(memory_bytes)
  confinement.confine_service(PACKAGES)
  confinement.refuse_spawn()


def answer(fork: Fork, pair: list[str], options: dict) -> tuple[Fork, str]:
  """Returns the verdict on a pair, and the fork to ask next."""
  for _ in range(2):  # Retries once if the fork was killed from outside.
    try:
      verdict = fork.ask(pair)
    except TimeoutError:
      fork.end()
      return Fork(options), "undecided"
    if verdict is not None:
      return fork, verdict
    fork.end()
    fork = Fork(options)
  return fork, "undecided"


def main() -> None:
  """Tests the library, sends the result of `self_test`, and serves."""
  options = json.loads(sys.argv[1])
  confinement.die_with_parent(options["parent"])
  connection = socket.socket(fileno=options["fd"])
  problem = self_test()
  if not problem:
    for pair in _WARM_UP:
      answers.equal(*pair)
    gc.freeze()
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  connection.sendall(wire.frame(problem))
  fork = Fork(options)
  while (pair := wire.receive(connection)) is not None:
    fork, verdict = answer(fork, pair, options)
    connection.sendall(wire.frame(verdict))
  fork.end()
