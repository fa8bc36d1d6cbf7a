"""New rows for new tokens: the embeddings of a model, made larger."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from rstar_jax.models import sharding
from rstar_jax.models.transformer import Transformer, arrays_of, from_arrays

_NAMES = ("embedding", "lm_head")


def resize(
  model: Transformer, *, known: int, used: int, multiple: int = 1
) -> Transformer:
  """Gives the tokens that were added to a tokenizer rows of their own.

  A new row is the mean of the known ones: what the model thinks of a token of
  which it knows nothing, and the direction in which it is surprised least.

  Args:
    model: any head.
    known: tokens that the model was trained with, K; its first rows.
    used: tokens that there are now, at least K. Many models have rows to spare,
      for speed: tokens K to `used` get the spare ones first.
    multiple: the number of rows is rounded up to this, so that the axis can be
      cut into equal parts; a model that has enough rows keeps its number.

  Returns:
    The model itself where there is nothing to do, else one with V rows, V at
    least `used`, on the devices that the model is on.

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
  """Returns [size, D]: rows from `known` on are means, but spare ones."""
  mean = jnp.mean(matrix[:known].astype(jnp.float32), axis=0, keepdims=True)
  mean = mean.astype(matrix.dtype)
  added = jnp.broadcast_to(mean, (used - known, mean.shape[1]))
  # Rows to spare stay as they are; rows that only fill up are means too.
  spare = matrix[used:size]
  filling = jnp.broadcast_to(
    mean, (size - max(used, len(matrix)), mean.shape[1])
  )
  return jnp.concatenate([matrix[:known], added, spare, filling])
