"""A Qwen2 model as a Llama that computes the same, and back.

`transformers` reads any tokenizer beside a model of type "qwen2" as if it split
words as Qwen2's does. Where it does not, the model is written as a Llama, which
is the same network but for one bias.
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx

from rstar_jax.models.config import ModelConfig
from rstar_jax.models.transformer import Transformer


def from_qwen2(model: Transformer) -> Transformer:
  """Returns the same function as a Llama, whose `o_bias` are 0.

  Args:
    model: of family "qwen2" with no sliding window, which no Llama has; any
      head; its arrays are shared.
  """
  config = dataclasses.replace(model.config, family="llama", o_bias=True)
  return _with_config(model, config)


def to_qwen2(model: Transformer) -> Transformer:
  """Returns the Qwen2 model that `from_qwen2` was given.

  Args:
    model: of family "llama", with biases of attention; its arrays are shared.

  Returns:
    The model itself where it is no longer one: its `o_bias` were trained.
  """
  biases = [layer.attention.o_bias.get_value() for layer in model.layers]
  if any(bool(jnp.any(bias)) for bias in biases):
    return model
  config = dataclasses.replace(model.config, family="qwen2", o_bias=False)
  return _with_config(model, config)


def _with_config(model: Transformer, config: ModelConfig) -> Transformer:
  """Parameters that the model lacks are 0, and those too many are left out."""
  graphdef, params = nnx.split(
    nnx.eval_shape(
      lambda: Transformer(config, head=model.head, rngs=nnx.Rngs(0))
    )
  )
  old = dict(nnx.to_flat_state(nnx.split(model)[1]))
  for path, variable in nnx.to_flat_state(params):
    if path in old:
      variable.set_value(old[path].get_value())
    else:
      like = variable.get_value()
      variable.set_value(jnp.zeros(like.shape, like.dtype))
  return nnx.merge(graphdef, params)
