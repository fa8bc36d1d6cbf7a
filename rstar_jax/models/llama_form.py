"""A Qwen2 model as a Llama that computes the same, and back.

`transformers` reads any tokenizer beside a model of type "qwen2" as if it split
words as Qwen2's does. Where it does not, the model is written as a Llama, which
is the same network but for one bias.
"""

import dataclasses

import jax.numpy as jnp

from rstar_jax.models.transformer import Transformer, arrays_of, from_arrays


def from_qwen2(model: Transformer) -> Transformer:
  """Returns the same function as a Llama, whose `o_bias` are 0.

  Args:
    model: of family "qwen2" with no sliding window, which no Llama has; any
      head; its arrays are shared.
  """
  config = dataclasses.replace(model.config, family="llama", o_bias=True)
  arrays = arrays_of(model)
  zeros = jnp.zeros(config.embed_dim, config.param_dtype)
  for i in range(config.num_layers):
    arrays["layers", i, "attention", "o_bias"] = zeros
  return from_arrays(config, model.head, arrays)


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
  return from_arrays(config, model.head, arrays_of(model))
