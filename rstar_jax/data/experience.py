"""Batches for reinforcement, made from a policy's own samples."""

import collections
from collections.abc import Sequence

import numpy as np

from rstar_jax.data import advantages, batches, prefix_trees
from rstar_jax.search.tree import Tree
from rstar_jax.steps import tokenizer as tokenizer_lib

# Per-token sums over the rows that have the token; see
# `training/reinforce.py`.
COLUMNS = ("weights", "gain", "cost", "old")

Row = tuple[np.ndarray, batches.Columns]

# Nats by which rows' log-probabilities of a shared token may differ.
_EVEN = 0.01


def batch(
  trees: Sequence[Tree],
  tokenizer: tokenizer_lib.Tokenizer,
  kind: advantages.Kind,
  *,
  normalize: bool,
  length: int,
) -> tuple[batches.Batch, dict[str, int]]:
  """Makes a batch of all samples in trees, with shared prefixes stored once.

  Args:
    trees: trees that keep draws.
    tokenizer: the sampling policy's.
    kind: formula of the advantage.
    normalize: see `advantages.of_tree`.
    length: T; rows with more tokens are dropped and counted.

  Returns:
    Arrays [N, T], N from 0: those of `batches.Packed`, and float32 `gain` and
    `cost`, sums of positive and of negative advantages over the rows that
    sampled the token, and `old`, the mean of their log-probabilities.
    And counts: "rows"; rows left out as "too_long", or as "open", since
    nothing below them has ended; shared tokens with "uneven"
    log-probabilities; and trees left out since all rewards are "equal".
  """
  counts = collections.Counter({"equal": 0, "open": 0, "uneven": 0})
  groups: dict[str, list[Row]] = {}
  for tree in trees:
    worth = advantages.of_tree(tree, kind, normalize)
    if not worth.any():
      counts["equal"] += 1
      continue
    known = ~np.isnan(worth)
    counts["open"] += int(np.sum(~known))
    rows = _rows(tree, tokenizer, np.flatnonzero(known), worth)
    counts["uneven"] += _uneven(rows)
    groups.setdefault(tree.problem.question, []).extend(rows)
  packed = batches.pack_columns(list(groups.values()), length, COLUMNS)
  arrays = packed.arrays
  # Rows that share a token sampled it after the same prefix, so with the same
  # probability; `uneven` counts exceptions.
  arrays["old"] /= np.maximum(arrays["weights"], 1)
  return arrays, {
    "rows": packed.solutions - packed.dropped,
    "too_long": packed.dropped,
    **counts,
  }


def _rows(tree: Tree, tokenizer, numbers, worth: np.ndarray) -> list[Row]:
  """Returns a row for each given draw: its prefix, then its own tokens."""
  prompt = tokenizer.prompt(tree.problem.question)
  before: dict[int, np.ndarray] = {}
  rows = []
  for number in numbers:
    draw, advantage = tree.draws[number], worth[number]
    if not draw.token_ids:
      continue  # A draw without tokens has nothing to train on.
    if draw.parent not in before:
      before[draw.parent] = np.asarray(
        tokenizer_lib.encode_solution(
          tokenizer, prompt, tree.prefix(draw.parent)
        ),
        np.int32,
      )
    prefix = before[draw.parent]
    written = np.asarray(draw.token_ids, np.int32)
    numbers_of = np.zeros((len(COLUMNS), len(prefix) + len(written)))
    numbers_of[:, len(prefix) :] = [
      np.ones(len(written)),
      np.full(len(written), max(advantage, 0.0)),
      np.full(len(written), min(advantage, 0.0)),
      draw.logprobs,
    ]
    rows.append(
      (
        np.concatenate([prefix, written]),
        dict(zip(COLUMNS, numbers_of.astype(np.float32), strict=True)),
      )
    )
  return rows


def _uneven(rows: Sequence[Row]) -> int:
  """Counts shared tokens whose rows sampled them at other probabilities."""
  if not rows:
    return 0
  tree = prefix_trees.join([ids for ids, _ in rows])
  least, most = np.full((2, len(tree.tokens)), [[np.inf], [-np.inf]])
  for places, (_, columns) in zip(tree.places, rows, strict=True):
    written = columns["weights"] > 0
    here, old = places[written], columns["old"][written]
    least[here] = np.minimum(least[here], old)
    most[here] = np.maximum(most[here], old)
  return int(np.sum(most - least > _EVEN))
