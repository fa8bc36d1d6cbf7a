"""Weights in 8 bits for a search: a scale for each output, products in float.

A decode step reads every matrix once, and with few rows that takes most of its
time. Int8 halves the bytes of bfloat16. Products stay as they are: bfloat16 and
float32 hold the integers of a weight exactly, and a scale belongs to a whole
output, so that it multiplies the float32 sums.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rstar_jax.models.config import ModelConfig

# Symmetric: -128 is not used.
_MOST = 127
_DENSE = (
  "engine.weights='int8' is of dense models, and this one has experts: set it "
  "to 'float' in another --workdir"
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8:
  """A weight [*O, *I], which is about values * scales.

  Attributes:
    values: int8 [*O, *I].
    scales: float32 [*O].
  """

  values: jax.Array
  scales: jax.Array

  @property
  def shape(self) -> tuple[int, ...]:
    return self.values.shape

  @property
  def ndim(self) -> int:
    return self.values.ndim


def quantize(weight: jax.Array, inputs: int) -> Int8:
  """Rounds a weight to the 255 steps between its outputs' largest elements.

  Args:
    weight: [*O, *I], of any float dtype and sharding, which stays.
    inputs: number of axes of I.
  """
  outputs = weight.ndim - inputs
  place = getattr(weight, "sharding", None)
  if not isinstance(place, jax.sharding.NamedSharding):
    return _quantize(weight, outputs)
  scales = jax.sharding.NamedSharding(place.mesh, jax.P(*place.spec[:outputs]))
  run = jax.jit(_quantize, static_argnums=1, out_shardings=Int8(place, scales))
  return run(weight, outputs)


@functools.partial(jax.jit, static_argnums=1)
def _quantize(weight: jax.Array, outputs: int) -> Int8:
  wide = weight.astype(jnp.float32)
  inputs = tuple(range(outputs, weight.ndim))
  scales = jnp.max(jnp.abs(wide), axis=inputs) / _MOST
  # An output of zeros.
  scales = jnp.where(scales > 0, scales, 1.0)
  values = jnp.round(wide / jnp.expand_dims(scales, inputs))
  return Int8(jnp.clip(values, -_MOST, _MOST).astype(jnp.int8), scales)


def check(config: ModelConfig) -> None:
  """Raises the ValueError of `quantized`, if it would, by a model's config."""
  if config.experts():
    raise ValueError(_DENSE)


def quantized(params: Any) -> Any:
  """Returns parameters with `Int8` in the place of matrices that steps read.

  These are the matrices of the layers and of the LM head. An embedding that is
  no head stays, since few of its rows are read; so do norms, biases and scalar
  heads.

  Args:
    params: from `nnx.split` of a model; layers may be stacked, and what is
      `Int8` stays.

  Raises:
    ValueError: the model has experts.
  """
  flat = nnx.to_flat_state(params)
  names = {path[0] for path, _ in flat}
  head = "lm_head" if "lm_head" in names else "embedding"
  read = {"layers"} if "score" in names else {"layers", head}
  return nnx.from_flat_state(
    [
      (path, _quantized(each) if path[0] in read else each)
      for path, each in flat
    ]
  )


def _quantized(variable: nnx.Variable) -> nnx.Variable:
  axes, weight = variable.get_metadata()["axes"], variable.get_value()
  if "experts" in axes:
    raise ValueError(_DENSE)
  if "embed" not in axes or len(axes) == 1 or isinstance(weight, Int8):
    return variable
  # Of a matrix, the model's width is all of the outputs or all of the inputs.
  inputs = len(axes) - 1 if axes[0] == "embed" else 1
  return variable.replace(quantize(weight, inputs))
