"""The package's own updates of policy and PPM, as a worker among the others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.peers import protocol
from rstar_jax.config.schema import TrainConfig
from rstar_jax.data import batches, sides
from rstar_jax.hf import folders
from rstar_jax.models import host_memory
from rstar_jax.models.transformer import ppm_from_policy
from rstar_jax.training import ppm, sft, state


class OurTraining:
  """SFT and PPM updates by `rstar_jax.train`, jitted as `loop.fit` does."""

  def __init__(self, folder: str, dtype: str, **_):
    host_memory.keep_freed()
    # Float32 masters, whatever is computed in.
    self._policy = folders.load_policy(
      folder, jnp.float32, compute_dtype=jnp.dtype(dtype)
    )

  def prepare(
    self, kind: str, score: list[float], rate: float, attention_block: int = 0
  ) -> None:
    model, loss = self._policy, sft.sft_loss
    model.config = dataclasses.replace(
      model.config, attention_block=attention_block
    )
    if kind == "ppm":
      model = ppm_from_policy(model, "tanh", rngs=nnx.Rngs(0))
      model.score.set_value(jnp.asarray(score, jnp.float32))
      loss = ppm.ppm_loss
    config = TrainConfig(learning_rate=rate, schedule="constant")
    tx = state.optimizer(config, 1000)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def on_params(params, batch):
      return loss(nnx.merge(graphdef, params, rest), batch)

    self._step = jax.jit(state.make_step(on_params, tx), donate_argnums=0)
    # A copy: the update takes what it is given.
    self._state = state.init(jax.tree.map(jnp.copy, params), tx)

  def sft(self, **batch: list) -> float:
    """Makes one update on packed rows; returns the loss before it."""
    weights = np.asarray(batch.pop("weights"), np.float32)
    rest = {name: np.asarray(each, np.int32) for name, each in batch.items()}
    return self._update(rest | {"weights": weights})

  def ppm(self, pairs: list) -> float:
    """Makes one update on pairs of ids, the preferred side first."""
    one, none = np.ones(1, np.float32), np.zeros(1, np.float32)
    encoded = sides.Encoded(
      [
        sides.Group(
          [tuple(np.asarray(ids, np.int32) for ids in pair)], one, none
        )
        for pair in pairs
      ]
    )
    longest = max(len(ids) for pair in pairs for ids in pair)
    batch_at, _ = sides.make_batches(
      encoded, len(pairs), 1, None, length=longest
    )
    return self._update(batch_at(0))

  def _update(self, batch: batches.Batch) -> float:
    self._state, metrics = self._step(self._state, batch)
    return float(jax.block_until_ready(metrics["loss"]))


if __name__ == "__main__":
  protocol.serve(OurTraining)
