"""What a search asks of its engine, without the text: an abstract trace.

The project's own MCTS runs on scripted callables, so its descents, failures and
changes of branch are those of real searches, and what it expands is written
down, tree by tree, as paths of candidate numbers. Engines replay them as
`benchmarks.peers.replay` says.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.peers.replay import Leaf
from rstar_jax import rng, testing
from rstar_jax.config.schema import SearchConfig
from rstar_jax.grading import judging
from rstar_jax.search import mcts
from rstar_jax.search.requests import Request, Search
from rstar_jax.search.tree import Tree
from rstar_jax.steps import grammar
from rstar_jax.types import Problem

Path = tuple[int, ...]


def record(
  *,
  problems: int,
  rollouts: int,
  candidates: int,
  depth: int,
  lengths: tuple[int, int] = (20, 60),
  shown: int = 6,
  seed: int = 0,
) -> list[list[Leaf]]:
  """Runs a search; returns the leaves of each tree, in order.

  Args:
    problems: trees.
    rollouts: of each tree.
    candidates: of each leaf.
    depth: nodes of a solution: code steps, and the answer.
    lengths: least and most tokens of a step; each leaf draws its own.
    shown: tokens of the output after a program's last step.
    seed: of the search.
  """
  options = tuple(f"x += {i}" for i in range(97))
  policy = testing.ToySum(options, levels=depth - 1, offsets=(0, 1, 2))
  config = SearchConfig(
    rollouts=rollouts,
    candidates=candidates,
    annotation="ppm",
  )

  def leaves(number: int) -> Iterator[Leaf]:
    question = f"sum {number}"
    tree = Tree(Problem(f"p{number}", question, "240"))
    search, answer = mcts.search_tree(tree, config, seed), None
    paths: dict[tuple[str, ...], Path] = {(): ()}
    while (request := _asked(search, answer)) is not None:
      answer = policy(*([each] for each in request.args))
      prefix = request.args[1]
      written = tuple(map(_written, prefix))
      path = paths[written]
      for index, each in enumerate(answer[0]):
        paths.setdefault((*written, _written(each.text)), (*path, index))
      ended = bool(prefix) and grammar.OUTPUT in prefix[-1]
      draw = rng.seed_for(seed, "length", question, *path)
      limit = lengths[0] + draw % (lengths[1] - lengths[0] + 1)
      yield Leaf(path, limit, shown if ended else 0)

  return [list(leaves(number)) for number in range(problems)]


def _asked(search: Search, answer: Any) -> Request | None:
  """Moves a search on to its next expansion; None if it has ended."""
  try:
    while True:
      asked = search.send(answer)
      match asked:
        case [Request("expand") as request]:
          return request
        case Request("verify"):
          answer = testing.run_trusted(*asked.args)
        case Request("judge"):
          answer = judging.judge(*asked.args, testing.grade_equal)
        case _:
          rows = zip(*(request.args for request in asked), strict=True)
          answer = testing.score_by_hash(*rows)
  except StopIteration:
    return None


def _written(text: str) -> str:
  """Returns what the policy wrote of a node's text."""
  return text.partition(grammar.OUTPUT)[0].rstrip()


def prefix_sizes(tree: Sequence[Leaf], prompt: int) -> list[int]:
  """Returns the tokens of the prefix of each leaf of a tree.

  Args:
    tree: its leaves, in order.
    prompt: tokens of its question.
  """
  limits = {leaf.path: leaf.limit for leaf in tree}
  return [
    prompt
    + leaf.shown
    + sum(limits[leaf.path[:depth]] for depth in range(len(leaf.path)))
    for leaf in tree
  ]


def switches(trees: Sequence[Sequence[Leaf]]) -> float:
  """Returns the share of expansions that do not continue the tree's last."""
  return float(
    np.mean(
      [
        leaf.path[:-1] != last.path
        for tree in trees
        for last, leaf in itertools.pairwise(tree)
      ]
    )
  )
