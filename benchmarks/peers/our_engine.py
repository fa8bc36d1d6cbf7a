"""The step engine of this package, as a worker among the others."""

import time

import jax.numpy as jnp
import numpy as np

from benchmarks import parts
from benchmarks.peers import protocol
from rstar_jax.config.schema import EngineConfig
from rstar_jax.hf import folders
from rstar_jax.inference.engine import Engine, Stop
from rstar_jax.models.transformer import reconfigured


class OurEngine:
  """Expansion by `rstar_jax.inference.engine`."""

  def __init__(self, folder: str, dtype: str, kernels: str = "auto", **_):
    self._model = folders.load_policy(folder, jnp.dtype(dtype))
    self._kernels = kernels

  def prepare(
    self,
    *,
    leaves: int,
    candidates: int,
    prefix: int,
    new: int,
    temperature: float,
    reuse: bool = True,
    **_,
  ) -> None:
    """Makes an engine.

    Args:
      leaves: of a call.
      candidates: of a leaf.
      prefix: its most tokens.
      new: most tokens of a step.
      temperature: 0 is greedy.
      reuse: whether what is on the device already is used.
    """
    config = EngineConfig(
      temperature=temperature,
      max_prefix_tokens=prefix,
      max_step_tokens=new,
      max_block_tokens=new,
      rows=leaves * candidates,
      kernels=self._kernels,
    )
    self._candidates, self._reuse = candidates, reuse
    self._engine = Engine(self._model, config)

  def expand(self, prefixes, limits, seed, **_):
    rng = np.random.default_rng(seed)
    shape = (len(prefixes), self._candidates)
    seeds = rng.integers(0, 2**32, shape, np.uint32)
    if not self._reuse:
      self._engine.load(self._engine.params)
    before = self._engine.prefilled_tokens
    waiting = [
      self._engine.submit(prefix, row, Stop(limit))
      for prefix, row, limit in zip(prefixes, seeds, limits, strict=True)
    ]
    rows = [each.result() for each in waiting]
    return {
      "tokens": [[list(each.token_ids) for each in row] for row in rows],
      "prefilled": self._engine.prefilled_tokens - before,
    }

  def parts(self, shape: list[int]) -> dict[str, float]:
    """Returns where the time of a prepared workload goes; see `parts`.

    Args:
      shape: leaves, candidates, tokens of a prefix, tokens of a step.
    """
    leaves, candidates, prefix, new = shape
    rng = np.random.default_rng(0)

    def seconds(limit: int) -> float:
      found = []
      for seed in range(4):
        ids = rng.integers(20, 49000, (leaves, prefix)).tolist()
        start = time.perf_counter()
        self.expand(ids, [limit] * leaves, seed)
        found.append(time.perf_counter() - start)
      return min(found[1:])

    whole, first = seconds(new), seconds(1)
    step = 1e3 * (whole - first) / (new - 1)
    model = reconfigured(self._model, native=self._kernels != "xla")
    alone = parts.of_step(model, leaves, candidates, prefix + new // 2)
    return {
      "seconds": whole,
      "prefill_share": first / whole,
      "step_milliseconds": step,
      **{f"{name}_milliseconds": value for name, value in alone.items()},
      "attention_milliseconds": step - sum(alone.values()),
    }

  def roofline(self) -> dict[str, float]:
    """Returns what large matrix products and copies reach."""
    return parts.roofline()


if __name__ == "__main__":
  protocol.serve(OurEngine)
