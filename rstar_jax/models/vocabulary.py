"""Adds rows for new tokens to a model's embeddings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rstar_jax.models import sharding
from rstar_jax.models.transformer import Transformer, arrays_of, from_arrays

_NAMES = ("embedding", "lm_head")
# Size of a new row's offset, as a share of the deviation of the known rows.
_OFFSET = 0.1


def resize(
  model: Transformer, *, known: int, used: int, multiple: int = 1
) -> Transformer:
  """Gives tokens that were added to a tokenizer rows of their own.

  A new row is the mean of the known rows, which disturbs the model least, and a
  small offset of its own, so that the model can tell new tokens apart before it
  is trained. The offsets are always the same.

  Args:
    model: with any head.
    known: tokens that the model was trained with; its first rows.
    used: tokens of the tokenizer now, at least `known`. Many models have spare
      rows, for speed; new tokens get these first.
    multiple: rows are rounded up to a multiple of this, so that the axis can be
      sharded; a model with enough rows keeps their number.

  Returns:
    The model itself if nothing changes, else one with at least `used` rows, on
    the same devices.

  Raises:
    ValueError: the model has fewer rows than known tokens.
  """
  rows = model.config.vocab_size
  if known > rows:
    raise ValueError(
      f"the tokenizer has {known} tokens and the model rows for {rows}: they "
      "do not belong together"
    )
  if used <= known:
    return model
  size = rows if used <= rows else -(-used // multiple) * multiple
  config = dataclasses.replace(model.config, vocab_size=size)
  arrays = {
    path: _grow(array, known, used, size) if path[-1] in _NAMES else array
    for path, array in arrays_of(model).items()
  }
  grown = from_arrays(config, model.head, arrays)
  where = model.embedding.get_value().sharding
  if isinstance(where, jax.sharding.NamedSharding):
    graphdef, params = nnx.split(grown)
    grown = nnx.merge(graphdef, sharding.place(params, where.mesh))
  return grown


def _grow(matrix: jax.Array, known: int, used: int, size: int) -> jax.Array:
  """Returns [size, D]: rows from `known` on are near the mean, or spare."""
  rows = matrix[:known].astype(jnp.float32)
  mean = jnp.mean(rows, axis=0, keepdims=True)
  deviation = jnp.sqrt(jnp.mean(jnp.square(rows - mean)))
  random = np.random.default_rng(0)
  offsets = random.standard_normal((used - known, matrix.shape[1]), np.float32)
  added = (mean + _OFFSET * deviation * offsets).astype(matrix.dtype)
  mean = mean.astype(matrix.dtype)
  # Spare rows are unchanged; rows of padding are the mean too.
  spare = matrix[used:size]
  filling = jnp.broadcast_to(
    mean, (size - max(used, len(matrix)), mean.shape[1])
  )
  return jnp.concatenate([matrix[:known], added, spare, filling])
