"""Searches one problem with the base model, and writes the tree as a page.

  python -m rstar_jax.tools.quick

`make quick` is the same. It needs no training: the first round of `make demo`
does this with each problem.
"""

import argparse
import collections
import dataclasses
import pathlib
import sys
import textwrap
from collections.abc import Callable, Sequence

from rstar_jax import outside
from rstar_jax.config import flag
from rstar_jax.data import problems
from rstar_jax.grading import choose
from rstar_jax.pipeline import backends, hosts, run
from rstar_jax.report import inline
from rstar_jax.search import mcts
from rstar_jax.search.tree import Tree, trajectories

PAGE = "tree.html"
# A generated problem with several right and several wrong answers.
PROBLEM, ROLLOUTS, CANDIDATES = 2, 16, 6


def main(arguments: Sequence[str]) -> None:
  """Searches, and prints the result.

  Raises:
    ValueError, OSError: there is no such problem, or no such folder can be.
  """
  parser = argparse.ArgumentParser(
    prog="python -m rstar_jax.tools.quick",
    description="Searches one generated problem with the base model.",
  )
  parser.add_argument("--workdir", default="runs/quick", help="output folder")
  for name, value, text in (
    ("--problem", PROBLEM, "number of the generated problem"),
    ("--rollouts", ROLLOUTS, "number of rollouts"),
    ("--candidates", CANDIDATES, "steps sampled per expansion"),
  ):
    text += " (default: %(default)s)"
    parser.add_argument(name, type=int, default=value, help=text)
  given = parser.parse_args(arguments)
  for name in ("rollouts", "candidates"):
    if getattr(given, name) < 1:
      raise ValueError(f"--{name}={getattr(given, name)} must be above 0")
  tree = _search(given)
  frame = inline.show_trees([tree])
  page = pathlib.Path(given.workdir).absolute() / PAGE
  page.write_text(frame.page, encoding="utf-8")
  tell(tree, f"{page.as_uri()}{frame.address}", outside.say)


def _search(given: argparse.Namespace) -> Tree:
  """Searches the problem of the arguments."""
  config = flag.load_config("configs/tiny.py")
  hosts.check_devices()
  if given.problem < 0:
    raise ValueError(f"--problem={given.problem}: they are numbered from 0")
  config.train.count = given.problem + 1
  problem = problems.load_problems(config.train)[given.problem]
  outside.say(f"The problem:\n{_indented(problem.question)}")
  outside.say("Loading the base model, compiling, searching ...")
  search = dataclasses.replace(
    config.search, rollouts=given.rollouts, candidates=given.candidates
  )
  pathlib.Path(given.workdir).mkdir(parents=True, exist_ok=True)
  with run.open_run(config, given.workdir, reads=True) as context:
    calls = backends.load_calls(context, 0)
    [tree] = mcts.search([problem], search, calls, config.seed)
  return tree


def tell(tree: Tree, page: str, say: Callable[[str], None]) -> None:
  """Prints the problem, the search's result, and next commands."""
  solutions = trajectories(tree)
  right = sum(bool(each.correct) for each in solutions)
  dropped = ", ".join(f"{n} {why}" for why, n in sorted(tree.dropped.items()))
  say(
    f"{tree.rollouts} rollouts, {tree.tokens} tokens: a tree of {len(tree)} "
    f"nodes, each a step whose code ran (not in it: {dropped or 'none'})."
  )
  say(f"{right} of its {len(solutions)} solutions are right.")
  chosen = choose.majority([each.answer for each in solutions])
  if chosen is None:
    say("No solution has an answer: try --rollouts=32, or another --problem.")
  else:
    answer = solutions[chosen].answer
    count = collections.Counter(each.answer for each in solutions)[answer]
    verdict = "right" if solutions[chosen].correct else "wrong"
    say(f"The answer of most, {count} of them: {answer}, which is {verdict}.")
  say(
    "The number of a node is its Q: how rollouts through it ended on average, "
    "from -1 (wrong) to +1 (right)."
  )
  say(f"Open {page}")
  say("Next: `make demo` trains on such trees, in four rounds.")


def _indented(text: str) -> str:
  return textwrap.fill(text, 76, initial_indent="  ", subsequent_indent="  ")


if __name__ == "__main__":
  with outside.program("rstar_jax.tools.quick"):
    main(sys.argv[1:])
