"""One search tree as the page has it: columns of numbers and texts, packed.

What the page computes from these is how the tree is drawn; what a node is worth
and which solution was chosen is said here, by the functions that the run used.

A tree of the page (`compact`):

  id, question, gold, level: the problem's
  parent, kind, terminal, correct, visits, q, ppm, logprob, text: a list each,
    root first, with the meaning of `search/tree.py`; q is Q(s)
  answer: {node: text} of the nodes that hold one
  tried: 0 or 1 a node, whether a rollout went through it
  growth: [tokens, nodes, end] after each rollout
  counted: whether the PPM's value was a node's first visit
  tokens, failed, dropped: of the whole search
  chosen: nodes of the solutions that were taken, the best first
  pairs: [kind, preferred node, other node, weight]
"""

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import Tree

# Decimals of Q and of values: what a person can use.
_DECIMALS = 3


def compact(
  tree: Tree,
  chosen: Sequence[int] = (),
  pairs: Sequence[Sequence[Any]] = (),
  counted: bool = False,
) -> dict[str, Any]:
  """Returns a tree as the page has it; see the module's docstring.

  Args:
    tree: searched.
    chosen: nodes of the answers that were taken, the best first.
    pairs: see `pairs_within`.
    counted: whether the PPM's value was a node's first visit.
  """
  problem = tree.problem
  return {
    "id": problem.id,
    "question": problem.question,
    "gold": problem.answer,
    "level": problem.level,
    "parent": tree.parent.tolist(),
    "kind": tree.kind.tolist(),
    "terminal": tree.terminal.tolist(),
    "correct": tree.correct.tolist(),
    "visits": tree.visits.tolist(),
    "q": [round(tree.q(node), _DECIMALS) for node in range(len(tree))],
    "ppm": _rounded(tree.ppm),
    "logprob": _rounded(tree.logprob),
    "text": list(tree.texts),
    "answer": {
      str(node): answer
      for node, answer in enumerate(tree.answers)
      if answer is not None
    },
    "tried": tried(tree, counted).astype(int).tolist(),
    "growth": [list(each) for each in tree.growth],
    "counted": counted,
    "tokens": tree.tokens,
    "failed": tree.failed_rollouts,
    "dropped": dict(sorted(tree.dropped.items())),
    "chosen": list(chosen),
    "pairs": [list(each) for each in pairs],
  }


def tried(tree: Tree, counted: bool) -> np.ndarray:
  """Says of each node whether a rollout went through it; bool [N].

  Args:
    tree: searched.
    counted: whether the PPM's value was a first visit, which is no rollout. An
      answer has none of those.
  """
  own = (tree.terminal != tree_lib.ANSWERED) & counted
  found = (tree.visits - own > 0) | (tree.num_children > 0)
  found[tree_lib.ROOT_INDEX] = True
  return found


def by_prefix(tree: Tree) -> dict[tuple[str, ...], int]:
  """Returns the node of each path of texts."""
  return {tree.prefix(node): node for node in range(len(tree))}


def taken(
  nodes: Mapping[tuple[str, ...], int], rows: Iterable[Mapping[str, Any]]
) -> list[int]:
  """Returns the nodes of the solutions that became training data.

  Args:
    nodes: see `by_prefix`.
    rows: the problem's SFT rows; those of other trees are passed over.
  """
  found = [nodes.get(tuple(row["steps"])) for row in rows]
  return [node for node in found if node is not None]


def pairs_within(
  nodes: Mapping[tuple[str, ...], int], rows: Iterable[Mapping[str, Any]]
) -> list[list[Any]]:
  """Returns the preference pairs of which both sides are in a tree.

  Args:
    nodes: see `by_prefix`.
    rows: the problem's pairs.

  Returns:
    [kind, preferred node, other node, weight] each.
  """
  found = []
  for row in rows:
    sides = [nodes.get(tuple(row[name])) for name in ("chosen", "rejected")]
    if None not in sides:
      found.append([row["kind"], *sides, round(row["weight"], _DECIMALS)])
  return found


def encode(value: Any) -> str:
  """Packs JSON for the page: zlib, then base64. Equal for equal values."""
  text = json.dumps(value, sort_keys=True, separators=(",", ":"))
  return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def decode(text: str) -> Any:
  """Inverse of `encode`."""
  return json.loads(zlib.decompress(base64.b64decode(text)))


def _rounded(column: np.ndarray) -> list[float | None]:
  return [
    None if np.isnan(value) else round(value, _DECIMALS)
    for value in column.tolist()
  ]
