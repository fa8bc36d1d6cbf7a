"""An engine without a cache, whose calls any engine's must equal."""

from collections.abc import Sequence

import jax
import numpy as np

from rstar_jax.models.transformer import Transformer
from tests.models import plain


class PlainEngine:
  """Writes steps by `plain.Decoder`, one token of one candidate at a time.

  `expand` takes what `Engine.expand` takes and is to return the same, up to
  the last bits of `logprob`. Tokens are drawn at temperature 1.

  Args:
    model: with an LM head.
    stop_ids: tokens that end a step.
    max_new_tokens: of the longest step.
    greedy: takes the likeliest tokens instead, whatever the seeds.
  """

  def __init__(
    self,
    model: Transformer,
    stop_ids: Sequence[int],
    max_new_tokens: int,
    greedy: bool = False,
  ):
    self._decoder = plain.Decoder(model)
    self._stop_ids, self._most = stop_ids, max_new_tokens
    self._greedy = greedy
    self._known: dict[tuple, plain.Step] = {}

  def expand(
    self, prefixes: Sequence[np.ndarray], seeds: np.ndarray, *, group: int = 0
  ) -> list[list[plain.Step]]:
    """Returns a step for each seed [leaves, candidates] after its prefix."""
    del group  # There is nothing to share.
    return [
      [self._step(tuple(map(int, prefix)), int(seed)) for seed in row]
      for prefix, row in zip(prefixes, seeds, strict=True)
    ]

  def _step(self, prefix: tuple[int, ...], seed: int) -> plain.Step:
    key = prefix, 0 if self._greedy else seed
    if key not in self._known:
      uniforms = None
      if not self._greedy:
        drawn = jax.random.uniform(jax.random.key(seed), (self._most,))
        uniforms = np.asarray(drawn, np.float64)
      self._known[key] = self._decoder.step(
        prefix, self._most, self._stop_ids, uniforms
      )
    return self._known[key]
