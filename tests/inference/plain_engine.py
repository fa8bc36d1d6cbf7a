"""An engine without a cache, whose steps any engine's must equal."""

from collections.abc import Sequence

import jax
import numpy as np

from rstar_jax.inference.generated import Stop
from rstar_jax.models.transformer import Transformer
from tests.models import plain


class PlainEngine:
  """Writes steps by `plain.Decoder`, one token of one candidate at a time.

  `expand` takes what `Engine.expand` takes and is to return the same, up to
  the last bits of `logprob`.

  Args:
    model: with an LM head.
  """

  def __init__(self, model: Transformer):
    self._decoder = plain.Decoder(model)
    self._known: dict[tuple, plain.Step] = {}

  def expand(
    self,
    prefixes: Sequence[Sequence[int]],
    seeds: np.ndarray,
    stop: Stop,
    *,
    temperature: float = 1.0,
  ) -> list[list[plain.Step]]:
    """Returns a step for each seed [prefixes, candidates] after its prefix.

    Args:
      prefixes: sequences of at least one id.
      seeds: of draws.
      stop: without words.
      temperature: 0 takes the likeliest tokens, whatever the seeds.
    """
    return [
      [self._step(tuple(prefix), int(seed), stop, temperature) for seed in row]
      for prefix, row in zip(prefixes, seeds, strict=True)
    ]

  def _step(
    self, prefix: tuple[int, ...], seed: int, stop: Stop, temperature: float
  ) -> plain.Step:
    key = prefix, stop, temperature, seed if temperature else None
    if key not in self._known:
      uniforms = None
      if temperature:
        with jax.threefry_partitionable(True):
          drawn = jax.random.uniform(jax.random.key(seed), (stop.limit,))
        uniforms = np.asarray(drawn, np.float64)
      self._known[key] = self._decoder.step(
        *(prefix, stop.limit, stop.ids, uniforms),
        temperature=temperature or 1.0,
      )
    return self._known[key]
