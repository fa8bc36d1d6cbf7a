"""A published reward model as the search's `Score`: a baseline for the PPM."""

import contextlib
import functools
import threading
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rstar_jax.inference import buckets
from rstar_jax.inference.weights import Busy, Weights
from rstar_jax.models.transformer import Transformer
from rstar_jax.steps import grammar as steps_lib
from rstar_jax.steps.tokenizer import HfTokenizer
from rstar_jax.types import Prefix, Score

# Rows of a device call; their length is padded to a multiple of `_MULTIPLE`.
_ROWS = 16
_MULTIPLE = 128


@functools.partial(jax.jit, static_argnames="graphdef")
def _values(
  params: Any, tokens: jax.Array, last: jax.Array, *, graphdef: nnx.GraphDef
) -> jax.Array:
  """Returns float32 [B], the values at column `last` of tokens [B, T]."""
  model = nnx.merge(graphdef, params)
  hidden = model.hidden(tokens)
  hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
  return model.values(hidden)


class RewardModel(Weights):
  """Scores partial solutions, each read from its start; threads may share it.

  The model sees a dialogue in its own chat template: the question, and the
  solution so far without the markers. (Without a template it sees the two with
  a blank line between them.) Steps share no prefix, unlike in the PPM's
  `Scorer`, since a template may add text at the end.

  Attributes:
    lock: taken during device calls.
    busy: runs while the device does.
    calls: device calls so far.
    scored: steps scored so far.
  """

  def __init__(
    self,
    model: Transformer,
    tokenizer: HfTokenizer,
    *,
    unread_id: int | None = None,
    busy: Busy | None = None,
    lock: contextlib.AbstractContextManager | None = None,
  ):
    """Makes a scorer.

    Args:
      model: with a scalar head.
      tokenizer: the model's own, without added markers.
      unread_id: the pad_token_id of the model's config.json, if it has one.
        `transformers` takes the value at the last token that is another, even
        where the template ends with that id.
      busy: None makes one.
      lock: None makes one.
    """
    super().__init__(model)
    self.lock = lock or threading.Lock()
    self._tokenizer = tokenizer
    self._unread_id = unread_id
    self.busy = busy or Busy()
    self.calls = 0
    self.scored = 0

  def begin(self, group: int) -> Score:
    """Returns itself: it caches no prefixes."""
    del group
    return self

  def __call__(
    self,
    questions: Sequence[str],
    prefixes: Sequence[Prefix],
    steps: Sequence[Sequence[str]],
  ) -> list[np.ndarray]:
    """Scores prefix + step for each step; see `types.Score`.

    Args:
      questions: B questions.
      prefixes: B prefixes.
      steps: B lists of node texts, of any length.

    Returns:
      B float32 arrays in [-1, 1], the value at the dialogue's last token.
    """
    rows = [
      self._read(self._dialogue(question, (*prefix, step)))
      for question, prefix, row in zip(questions, prefixes, steps, strict=True)
      for step in row
    ]
    with self.lock, self.busy:
      values = self._score(rows)
    ends = np.cumsum([len(row) for row in steps])
    return np.split(values, ends[:-1]) if len(steps) else []

  def _dialogue(self, question: str, nodes: Prefix) -> str:
    solution = steps_lib.MARKER.sub("", "".join(nodes)).strip()
    chat = self._tokenizer.chat(question, solution)
    return chat or f"{question}\n\n{solution}"

  def _read(self, dialogue: str) -> list[int]:
    """Returns the ids up to the token whose value is read."""
    ids = self._tokenizer.encode(dialogue)
    while ids and ids[-1] == self._unread_id:
      ids.pop()
    return ids

  def _score(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
    values = np.zeros(len(rows), np.float32)
    # Rows of similar length share a call; ties keep the order of the search.
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for first in range(0, len(order), _ROWS):
      chosen = order[first : first + _ROWS]
      longest = len(rows[chosen[-1]])
      length = -(-longest // _MULTIPLE) * _MULTIPLE
      tokens, lengths = buckets.pad_rows(
        [rows[i] for i in chosen], (_ROWS, length), self._tokenizer.pad_id
      )
      last = np.maximum(lengths - 1, 0)
      out = _values(self.params, tokens, last, graphdef=self.graphdef)
      values[chosen] = np.asarray(out)[: len(chosen)]
      self.calls += 1
    self.scored += len(rows)
    return values
