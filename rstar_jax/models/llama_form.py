"""Converts a Qwen2 model to an equivalent Llama, and back.

`transformers` assumes Qwen2's word splitting, and NFC, for the tokenizer of a
"qwen2" model. A model with another tokenizer is therefore written as a Llama,
the same network up to one bias.
"""

import dataclasses

import jax.numpy as jnp

from rstar_jax.models.config import ModelConfig
from rstar_jax.models.transformer import Transformer, arrays_of, from_arrays


def config_of(config: ModelConfig) -> ModelConfig:
  """Returns the config of `from_qwen2` of a model with this config."""
  return dataclasses.replace(config, family="llama", o_bias=True)


def from_qwen2(model: Transformer) -> Transformer:
  """Returns an equivalent Llama, with zeros as `o_bias`.

  Args:
    model: of family "qwen2", without a sliding window, with any head. The
      result shares its arrays.
  """
  config = config_of(model.config)
  arrays = arrays_of(model)
  zeros = jnp.zeros(config.embed_dim, config.param_dtype)
  for i in range(config.num_layers):
    arrays["layers", i, "attention", "o_bias"] = zeros
  return from_arrays(config, model.head, arrays)


def to_qwen2(model: Transformer) -> Transformer:
  """Returns the Qwen2 model of a Llama that `from_qwen2` made.

  Args:
    model: of family "llama", with attention biases. The result shares its
      arrays.

  Returns:
    The model itself if its `o_bias` are not zero: they were trained.
  """
  biases = [layer.attention.o_bias.get_value() for layer in model.layers]
  if any(bool(jnp.any(bias)) for bias in biases):
    return model
  config = dataclasses.replace(model.config, family="qwen2", o_bias=False)
  return from_arrays(config, model.head, arrays_of(model))
