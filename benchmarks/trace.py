"""What a search asks of its engine, without the text: an abstract trace.

The project's own MCTS runs on scripted callables, so its descents, failures and
changes of branch are those of real searches, and what it expands at each tick
is written down as paths of candidate numbers. An engine that replays the trace
goes on from the tokens that it sampled itself.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rstar_jax import rng, testing
from rstar_jax.config.schema import SearchConfig
from rstar_jax.grading import judging
from rstar_jax.search import mcts
from rstar_jax.search.requests import Request, Search
from rstar_jax.search.tree import Tree
from rstar_jax.steps import grammar
from rstar_jax.types import Problem

Path = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Leaf:
  """One expansion.

  Attributes:
    tree: number of the problem.
    path: which candidate was chosen at each depth, from the root.
    limit: tokens of each of its candidates.
    shown: tokens that follow the last step of its path and that no policy
      wrote: the interpreter's output.
  """

  tree: int
  path: Path
  limit: int
  shown: int


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
  """Runs a search; returns the leaves of each of its ticks, in order.

  Args:
    problems: trees; each has a leaf a tick until it is finished.
    rollouts: of each tree.
    candidates: of each leaf.
    depth: nodes of a solution: code steps, and the answer.
    lengths: least and most tokens of a step; each leaf draws its own.
    shown: tokens of the output after a program's last step.
    seed: of the search.
  """
  options = tuple(f"x += {i}" for i in range(97))
  policy = testing.ToySum(options, levels=depth - 1, offsets=(0, 1, 2))
  known: dict[tuple[str, tuple[str, ...]], Path] = {}
  ticks: list[list[Leaf]] = []
  numbers = {f"sum {i}": i for i in range(problems)}

  def expand(questions, prefixes, seeds):
    ticks.append([])
    rows = policy(questions, prefixes, seeds)
    for question, prefix, row in zip(questions, prefixes, rows, strict=True):
      written = tuple(map(_written, prefix))
      path = known[question, written] if written else ()
      for index, each in enumerate(row):
        known.setdefault(
          (question, (*written, _written(each.text))), (*path, index)
        )
      ended = bool(prefix) and grammar.OUTPUT in prefix[-1]
      draw = rng.seed_for(seed, "length", question, *path)
      limit = lengths[0] + draw % (lengths[1] - lengths[0] + 1)
      ticks[-1].append(
        Leaf(numbers[question], path, limit, shown if ended else 0)
      )
    return rows

  config = SearchConfig(
    rollouts=rollouts,
    candidates=candidates,
    annotation="ppm",
  )
  trees = [Tree(Problem(f"p{i}", f"sum {i}", "240")) for i in range(problems)]
  going = [(mcts.search_tree(each, config, seed), None) for each in trees]
  while going:
    asked = [(each, _asked(each, answer)) for each, answer in going]
    asked = [(each, request) for each, request in asked if request is not None]
    if not asked:
      break
    columns = zip(*(request.args for _, request in asked), strict=True)
    rows = expand(*map(list, columns))
    going = [(each, [row]) for (each, _), row in zip(asked, rows, strict=True)]
  return ticks


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


class Replay:
  """The prefixes of a trace, of what one engine sampled.

  Attributes:
    repeated: tokens of prefixes so far, run once for each candidate.
    unshared: tokens of prefixes so far, run once for each leaf.
    decoded: tokens sampled so far.
  """

  def __init__(self, prompts: Sequence[Sequence[int]]):
    """Begins a search.

    Args:
      prompts: ids of the questions, one list for each tree.
    """
    self._prompts = [list(each) for each in prompts]
    self._steps: dict[tuple[int, Path], list[int]] = {}
    self.repeated = self.unshared = self.decoded = 0

  def prefixes(self, tick: Sequence[Leaf]) -> list[list[int]]:
    """Returns the ids of the prefix of each leaf."""
    return [list(self._prefix(each)) for each in tick]

  def add(self, tick: Sequence[Leaf], tokens: Sequence[Sequence]) -> None:
    """Takes what was sampled: ids by leaf and candidate."""
    for leaf, row in zip(tick, tokens, strict=True):
      size = sum(1 for _ in self._prefix(leaf))
      self.unshared += size
      self.repeated += size * len(row)
      for index, ids in enumerate(row):
        if len(ids) != leaf.limit:
          raise ValueError(f"{leaf} wants other steps than {len(ids)} tokens")
        self.decoded += len(ids)
        self._steps[leaf.tree, (*leaf.path, index)] = list(ids)

  def _prefix(self, leaf: Leaf) -> Iterator[int]:
    yield from self._prompts[leaf.tree]
    for depth in range(1, len(leaf.path) + 1):
      yield from self._steps[leaf.tree, leaf.path[:depth]]
    # Any ids do, as long as they are the same each time.
    yield from range(100, 100 + leaf.shown)


def longest(ticks: Sequence[Sequence[Leaf]], prompt: int) -> int:
  """Returns the tokens of the longest prefix of a trace."""
  limits = {
    (leaf.tree, leaf.path): leaf.limit for tick in ticks for leaf in tick
  }
  return max(
    prompt
    + leaf.shown
    + sum(limits[leaf.tree, leaf.path[:d]] for d in range(len(leaf.path)))
    for tick in ticks
    for leaf in tick
  )


def switches(ticks: Sequence[Sequence[Leaf]]) -> float:
  """Returns the share of expansions that do not continue the tree's last."""
  last: dict[int, Path] = {}
  changed = []
  for leaf in (leaf for tick in ticks for leaf in tick):
    if leaf.tree in last:
      changed.append(leaf.path[:-1] != last[leaf.tree])
    last[leaf.tree] = leaf.path
  return float(np.mean(changed))
