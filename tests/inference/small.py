"""Small models and prefixes of the tests of this room."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rstar_jax.inference.paged_model import PagedModel
from rstar_jax.inference.runs import Shard
from rstar_jax.models import int8
from rstar_jax.models.kernels import build
from rstar_jax.models.transformer import Transformer
from rstar_jax.testing import tiny_model

# What computes on this machine, and in which dtypes.
KINDS = tuple(
  (kernels, dtype)
  for kernels in (("xla", "cpp") if build.available() else ("xla",))
  for dtype in ("float32", "bfloat16")
)


@functools.cache
def model(
  head: str = "lm", dtype: str = "float32", seed: int = 7, **changes
) -> Transformer:
  """Returns a model whose logits differ much; heads fit the C++ kernels."""
  sizes = {
    "embed_dim": 32,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 32,
    "mlp_dim": 48,
    "dtype": dtype,
    "param_dtype": dtype,
  }
  config = tiny_model(**sizes | changes)
  graphdef, params = nnx.split(
    Transformer(config, head=head, rngs=nnx.Rngs(seed))
  )
  # Not the norms: what they scale up are the last bits as well.
  params = jax.tree.map(lambda x: x * 10 if x.ndim > 1 else x, params)
  return nnx.merge(graphdef, params)


def rounded(model: Transformer) -> Transformer:
  """Returns a model of floats that are what `int8` makes of a model's."""
  graphdef, params = nnx.split(model)
  is_int8 = lambda x: isinstance(x, int8.Int8)  # noqa: E731

  def floats(x):
    if not is_int8(x):
      return x
    last = range(x.scales.ndim, x.ndim)
    return x.values * jnp.expand_dims(x.scales, tuple(last))

  rounded = jax.tree.map(floats, int8.quantized(params), is_leaf=is_int8)
  return nnx.merge(graphdef, rounded)


def prefix(length: int, seed: int = 0) -> list[int]:
  """Returns ids of bytes; of one seed, a longer prefix begins with a shorter.

  Args:
    length: number of ids.
    seed: which ids.
  """
  drawn = np.random.default_rng(seed).integers(10, 260, 512)
  return drawn[:length].tolist()


def leaks(engine: PagedModel) -> list[Shard]:
  """Waits for an engine, and returns the shards that still hold something."""
  thread = engine._thread
  if thread is not None:
    thread.join(120)
  return [
    shard
    for shard in engine.memory.shards
    if shard.reserved
    or shard.requests
    or shard.waiting
    or shard.prefills
    or any(getattr(shard, name, ()) for name in ("ready", "active"))
    or shard.cache.available != shard.cache.count
  ]
