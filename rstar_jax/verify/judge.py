"""Program of a grader worker: compares answers, one after another.

Run as a file by `grader.py`. It imports math-verify, tests it, and serves until
the host closes the socket or kills it: a comparison may take forever.
"""

import json
import os
import resource
import socket
import sys

if __name__ == "__main__":
  # As a file there is no package around, and `-P` leaves this folder out.
  sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
  import answers
  import isolation
  import wire

  del sys.path[0]
else:
  from rstar_jax.verify import answers, isolation, wire


# What a comparison may still import.
_PACKAGES = ("math_verify", "latex2sympy2_extended", "antlr4")


def self_test() -> str:
  """Returns what is wrong with the library, "" if nothing.

  A math-verify that finds the wrong latex2sympy calls any two numbers equal.
  """
  try:
    if answers.by_library("5", "6"):
      return "it calls 5 and 6 equal"
    if not answers.by_library(r"\frac{1}{2}", "0.5"):
      return "it calls 1/2 and 0.5 different"
    if not answers.by_library(r"\sqrt{8}", r"2\sqrt{2}"):
      return "it calls sqrt(8) and 2 sqrt(2) different"
  except Exception as error:
    return f"{type(error).__name__}: {error}"
  return ""


def judge(gold: str, predicted: str) -> str:
  """Returns the verdict; "undecided" where the comparison broke down."""
  try:
    return "equal" if answers.equal(gold, predicted) else "different"
  except (Exception, RecursionError):
    return "undecided"


def main() -> None:
  """Boots, reports what is wrong (""), then serves."""
  options = json.loads(sys.argv[1])
  isolation.die_with_parent(options["parent"])
  sys.path += [path for path in options["path"] if path not in sys.path]
  connection = socket.socket(fileno=options["fd"])
  limit = options["memory_bytes"]
  resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
  fault = self_test()
  isolation.confine_service(_PACKAGES)
  connection.sendall(wire.frame(fault))
  while (pair := wire.receive(connection)) is not None:
    connection.sendall(wire.frame(judge(*pair)))


if __name__ == "__main__":
  main()
