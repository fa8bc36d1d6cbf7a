"""A random checkpoint of a gigabyte, the same each time, to load and to write.

Of the shape of Qwen2.5-0.5B: 494 million parameters in 24 layers, 988 MB in
bfloat16. Its largest tensor, the embedding, is 272 MB of them.
"""

import pathlib

import gguf
import numpy as np
from flax import nnx

from rstar_jax.hf import saving, tensors
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.transformer import Transformer

CONFIG = ModelConfig(
  vocab_size=151_936,
  num_layers=24,
  embed_dim=896,
  num_heads=14,
  num_kv_heads=2,
  head_dim=64,
  mlp_dim=4864,
  rope_theta=1_000_000.0,
  max_length=32_768,
  dtype="bfloat16",
  param_dtype="bfloat16",
)
# Five files or so.
SHARD_BYTES = 250_000_000


def write(folder: pathlib.Path) -> int:
  """Writes the checkpoint as a Hugging Face folder of several files.

  Returns:
    The number of parameters.
  """
  model = Transformer(CONFIG, rngs=nnx.Rngs(0))
  saving.save_policy(model, folder, shard_bytes=SHARD_BYTES)
  weights = tensors.SafetensorsFolder(folder)
  return sum(int(np.prod(weights.shape(name))) for name in weights.names())


def write_gguf(folder: pathlib.Path, file: pathlib.Path) -> None:
  """Writes the same model as one GGUF file: F16, with a vocabulary of its size.

  Args:
    folder: that `write` wrote.
    file: to write; its folder exists.
  """
  weights = tensors.SafetensorsFolder(folder)
  names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, CONFIG.num_layers)
  writer = gguf.GGUFWriter(file, "qwen2")
  writer.add_block_count(CONFIG.num_layers)
  writer.add_context_length(CONFIG.max_length)
  writer.add_embedding_length(CONFIG.embed_dim)
  writer.add_feed_forward_length(CONFIG.mlp_dim)
  writer.add_head_count(CONFIG.num_heads)
  writer.add_head_count_kv(CONFIG.num_kv_heads)
  writer.add_layer_norm_rms_eps(CONFIG.rms_eps)
  writer.add_rope_freq_base(CONFIG.rope_theta)
  writer.add_tokenizer_model("gpt2")
  writer.add_token_list([f"token{i}" for i in range(CONFIG.vocab_size)])
  for name in weights.names():
    shape = weights.shape(name)
    value = weights.read(name, (slice(None),) * len(shape))
    # llama.cpp keeps vectors in float32.
    value = value.astype(np.float16 if len(shape) == 2 else np.float32)
    writer.add_tensor(
      names.get_name(name, try_suffixes=(".weight", ".bias")), value
    )
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
