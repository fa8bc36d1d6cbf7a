"""Converts a search tree to the page's format: columns of numbers and texts.

The page computes the layout alone. Q-values and chosen solutions are computed
here, by the functions that the run used.

A tree of the page (`compact`):

  id, question, gold, level, tests: fields of the problem
  parent, kind, terminal, correct, visits, q, ppm, logprob, text: a list each,
    root first, with the meaning of `search/tree.py`; q is Q(s)
  answer: {node: text} of the nodes with an answer
  tried: 0 or 1 for each node, whether a rollout went through it
  growth: [tokens, nodes, end] after each rollout
  own_visits, own_sum: for each node, visits that no end of a rollout explains
    and the sum of their values: the PPM's value, where it counts as a visit,
    and failed rollouts of AB-MCTS
  tokens, failed, dropped: counts of the whole search
  chosen: answer nodes of the chosen solutions, the best first
  pairs: [kind, preferred node, other node, weight]
"""

import base64
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from rstar_jax.grading.choose import Select
from rstar_jax.search import answer
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import Tree
from rstar_jax.storage.records import each_row

# Decimals of Q and of values.
_DECIMALS = 3


def records(path: epath.Path) -> Iterator[dict[str, Any]]:
  """Yields records of trees; raises ValueError for an unknown schema."""
  for record in each_row(path):
    try:
      tree_lib.check_schema(record)
    except ValueError as error:
      raise ValueError(f"{path}: {error}") from None
    yield record


def choice(evaluation: Mapping[str, Any]) -> tuple[Select, int]:
  """Returns an evaluation's choice of answers, and the voters of "top_k".

  Args:
    evaluation: `eval` of a config as JSON; any field may be missing.
  """
  return evaluation.get("answer_select", "best"), evaluation.get("top_k", 4)


def given(tree: Tree, evaluation: Mapping[str, Any]) -> int | None:
  """Returns the node of the answer that an evaluation gave; see `choice`."""
  select, k = choice(evaluation)
  how = evaluation.get("search", {}).get("trajectory_value", "last")
  return answer.answer_node(tree, select, how, k)


def compact(
  tree: Tree,
  chosen: Sequence[int] = (),
  pairs: Sequence[Sequence[Any]] = (),
) -> dict[str, Any]:
  """Returns a tree in the page's format; see the module's docstring.

  Args:
    tree: a searched tree.
    chosen: answer nodes of the chosen solutions, the best first.
    pairs: see `pairs_within`.
  """
  problem = tree.problem
  return {
    "id": problem.id,
    "question": problem.question,
    "gold": problem.answer,
    "level": problem.level,
    "tests": problem.tests,
    **grown(tree),
    "terminal": tree.terminal.tolist(),
    "visits": tree.visits.tolist(),
    "tried": tried(tree).astype(int).tolist(),
    "chosen": list(chosen),
    "pairs": [list(each) for each in pairs],
  }


def grown(tree: Tree, nodes: int = 0, rollouts: int = 0) -> dict[str, Any]:
  """Returns a tree's new nodes and rollouts, in the page's format.

  Q is given for answers, which every rollout that ends there backs up; the page
  computes other nodes' Q and visits from the ends of rollouts.

  Args:
    tree: a growing tree.
    nodes: number of nodes that the page has already.
    rollouts: number of rollouts that the page has already.
  """
  new = range(nodes, len(tree))
  own_visits, own_sum = _own(tree)
  return {
    "parent": tree.parent[nodes:].tolist(),
    "kind": tree.kind[nodes:].tolist(),
    "correct": tree.correct[nodes:].tolist(),
    "q": [round(tree.q(node), _DECIMALS) for node in new],
    "ppm": _rounded(tree.ppm[nodes:]),
    "logprob": _rounded(tree.logprob[nodes:]),
    "text": tree.texts[nodes:],
    "answer": {
      str(node): tree.answers[node]
      for node in new
      if tree.answers[node] is not None
    },
    "growth": [list(each) for each in tree.growth[rollouts:]],
    "own_visits": own_visits[nodes:].tolist(),
    "own_sum": _rounded(own_sum[nodes:]),
    "tokens": tree.tokens,
    "failed": tree.failed_rollouts,
    "dropped": dict(sorted(tree.dropped.items())),
  }


def tried(tree: Tree) -> np.ndarray:
  """Returns whether a rollout went through each node, bool [N].

  A rollout goes on to children, or ends at an answer. Other visits may be the
  PPM's.
  """
  ended = (tree.terminal == tree_lib.ANSWERED) & (tree.visits > 0)
  through = ended | (tree.num_children > 0)
  through[tree_lib.ROOT_INDEX] = True
  return through


def by_prefix(tree: Tree) -> dict[tuple[str, ...], int]:
  """Returns path of node texts -> node."""
  return {tree.prefix(node): node for node in range(len(tree))}


def taken(
  nodes: Mapping[tuple[str, ...], int], rows: Iterable[Mapping[str, Any]]
) -> list[int]:
  """Returns the nodes of the solutions that became training data.

  Args:
    nodes: see `by_prefix`.
    rows: the problem's SFT rows; those of other trees are ignored.
  """
  places = [nodes.get(tuple(row["steps"])) for row in rows]
  return [node for node in places if node is not None]


def pairs_within(
  nodes: Mapping[tuple[str, ...], int], rows: Iterable[Mapping[str, Any]]
) -> list[list[Any]]:
  """Returns the preference pairs with both sides in a tree.

  Args:
    nodes: see `by_prefix`.
    rows: the problem's pairs.

  Returns:
    [kind, preferred node, other node, weight] each.
  """
  pairs = []
  for row in rows:
    sides = [nodes.get(tuple(row[name])) for name in ("chosen", "rejected")]
    if None not in sides:
      pairs.append([row["kind"], *sides, round(row["weight"], _DECIMALS)])
  return pairs


def encode(value: Any) -> str:
  """Packs a value as JSON, zlib and base64; equal values give equal text."""
  text = json.dumps(value, sort_keys=True, separators=(",", ":"))
  return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def decode(text: str) -> Any:
  """Inverse of `encode`."""
  return json.loads(zlib.decompress(base64.b64decode(text)))


def _own(tree: Tree) -> tuple[np.ndarray, np.ndarray]:
  """Returns `own_visits` and `own_sum` of all nodes, [N] each.

  What the ends of rollouts backed up is taken away from visits and values.
  """
  visits, values = tree.visits.copy(), tree.value_sum.copy()
  for *_, end in tree.growth:
    if end != tree_lib.NO_END:
      path = tree.path(end)
      visits[path] -= 1
      values[path] -= tree.q(end)
  return visits, values


def _rounded(column: np.ndarray) -> list[float | None]:
  return [
    None if np.isnan(value) else round(value, _DECIMALS)
    for value in column.tolist()
  ]
