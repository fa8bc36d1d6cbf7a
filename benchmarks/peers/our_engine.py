"""The step engine of this package, as a worker among the others."""

import concurrent.futures
import queue
import time

import jax.numpy as jnp
import numpy as np

from benchmarks import parts
from benchmarks.peers import protocol, replay
from rstar_jax.config.schema import EngineConfig
from rstar_jax.hf import folders
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.generated import Stop
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
    rows: int | None = None,
  ) -> None:
    """Makes an engine.

    Args:
      leaves: of a call.
      candidates: of a leaf.
      prefix: its most tokens.
      new: most tokens of a step.
      temperature: 0 is greedy.
      rows: token slots; None is one for each candidate of a call.
    """
    config = EngineConfig(
      temperature=temperature,
      max_prefix_tokens=prefix,
      max_step_tokens=new,
      max_block_tokens=new,
      rows=rows or leaves * candidates,
      kernels=self._kernels,
    )
    self._candidates = candidates
    self._engine = Engine(self._model, config)

  def expand(self, prefixes, limits, seed):
    rng = np.random.default_rng(seed)
    before = self._engine.prefilled_tokens
    waiting = [
      self._submit(prefix, limit, rng)
      for prefix, limit in zip(prefixes, limits, strict=True)
    ]
    return {
      "tokens": [_tokens(each) for each in waiting],
      "prefilled": self._engine.prefilled_tokens - before,
    }

  def search(self, prompts, trees, seed, think, reuse=True):
    """Replays trees; see `replay`.

    Without reuse no two prefixes begin alike, so none is found in pages.
    """
    rng = np.random.default_rng(seed)
    going = replay.Replay(prompts, replay.of_json(trees), think)
    ended: queue.SimpleQueue = queue.SimpleQueue()
    before, expansions = self._engine.prefilled_tokens, 0
    while not going.over:
      for tree, prefix, limit in going.ready():
        expansions += 1
        if not reuse:
          prefix[0] = expansions
        self._submit(prefix, limit, rng).add_done_callback(
          lambda done, tree=tree: ended.put((tree, done))
        )
      try:
        tree, done = ended.get(timeout=going.pause())
      except queue.Empty:
        continue
      going.add(tree, _tokens(done))
    return {
      "prefilled": self._engine.prefilled_tokens - before,
      "decoded": going.decoded,
    }

  def _submit(self, prefix, limit, rng) -> concurrent.futures.Future:
    seeds = rng.integers(0, 2**32, self._candidates, np.uint32)
    return self._engine.submit(prefix, seeds, Stop(limit))

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


def _tokens(done: concurrent.futures.Future) -> list[list[int]]:
  return [list(each.token_ids) for each in done.result()]


if __name__ == "__main__":
  protocol.serve(OurEngine)
