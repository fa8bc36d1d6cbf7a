"""Tiny random models, written to GGUF files as llama.cpp's converter does.

Names, the order of rotary rows and the meaning of blocks are spelled out here,
by hand, so that they are no echo of the library that reads them.
"""

import gguf
import numpy as np

LAYERS, HEADS, KV_HEADS = 2, 4, 2
# Multiples of 256, the largest block.
EMBED, MLP, VOCAB = 256, 512, 24
HEAD_DIMS = {"llama": 64, "qwen2": 64, "qwen3": 128, "phi3": 64}

OUTER = {
  "model.embed_tokens": "token_embd",
  "model.norm": "output_norm",
  "lm_head": "output",
}
INNER = {
  "input_layernorm": "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.qkv_proj": "attn_qkv",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  "self_attn.o_proj": "attn_output",
  "post_attention_layernorm": "ffn_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.gate_up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
}


def shapes(
  architecture: str, *, tied: bool = False, bias: bool = False
) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of a model's tensors, by Hugging Face's names."""
  head = HEAD_DIMS[architecture]
  q, kv = HEADS * head, KV_HEADS * head
  layer = {
    "input_layernorm.weight": (EMBED,),
    "post_attention_layernorm.weight": (EMBED,),
    "self_attn.o_proj.weight": (EMBED, q),
    "mlp.down_proj.weight": (EMBED, MLP),
  }
  if architecture == "phi3":
    layer["self_attn.qkv_proj.weight"] = (q + 2 * kv, EMBED)
    layer["mlp.gate_up_proj.weight"] = (2 * MLP, EMBED)
  else:
    for name, rows in (("q", q), ("k", kv), ("v", kv)):
      layer[f"self_attn.{name}_proj.weight"] = (rows, EMBED)
      if bias or architecture == "qwen2":
        layer[f"self_attn.{name}_proj.bias"] = (rows,)
    layer["mlp.gate_proj.weight"] = layer["mlp.up_proj.weight"] = (MLP, EMBED)
  if architecture == "qwen3":
    layer["self_attn.q_norm.weight"] = layer["self_attn.k_norm.weight"] = (
      head,
    )
  model = {"model.embed_tokens.weight": (VOCAB, EMBED)}
  model["model.norm.weight"] = (EMBED,)
  if not tied:
    model["lm_head.weight"] = (VOCAB, EMBED)
  for i in range(LAYERS):
    model |= {f"model.layers.{i}.{name}": layer[name] for name in layer}
  return model


def file_name(name: str) -> str:
  """Returns llama.cpp's name of a tensor."""
  module, _, kind = name.rpartition(".")
  if module in OUTER:
    return f"{OUTER[module]}.{kind}"
  _, _, layer, rest = module.split(".", 3)
  return f"blk.{layer}.{INNER[rest]}.{kind}"


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
  """Returns q's or k's rows in the order of llama.cpp's rotary embedding."""
  size = len(rows) // heads
  out = np.empty_like(rows)
  for head in range(heads):
    for i in range(size // 2):
      out[head * size + 2 * i] = rows[head * size + i]
      out[head * size + 2 * i + 1] = rows[head * size + size // 2 + i]
  return out


def _half(blocks: np.ndarray, at: int) -> np.ndarray:
  """Returns the float16 at a place of each block, as a float32 column."""
  return blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32)


def _nibbles(data: np.ndarray) -> np.ndarray:
  """Returns the low halves of a block's bytes, and then the high ones."""
  return np.concatenate([data & 15, data >> 4], axis=1)


def _q4_k(b: np.ndarray) -> np.ndarray:
  values = np.empty((len(b), 8, 32), np.float32)
  for j in range(8):
    # Six bits a scale: the first four in one byte, the others in two.
    if j < 4:
      scale, least = b[:, 4 + j] & 63, b[:, 8 + j] & 63
    else:
      scale = (b[:, 8 + j] & 15) | (b[:, j] >> 6 << 4)
      least = (b[:, 8 + j] >> 4) | (b[:, 4 + j] >> 6 << 4)
    start = 16 + 32 * (j // 2)
    data = b[:, start : start + 32] >> 4 * (j % 2) & 15
    values[:, j] = _half(b, 0) * scale[:, None] * data
    values[:, j] -= _half(b, 2) * least[:, None]
  return values


def _q6_k(b: np.ndarray) -> np.ndarray:
  scales = b[:, 192:208].view(np.int8)
  values = np.empty((len(b), 256), np.float32)
  for j in range(256):
    part, place = divmod(j, 128)
    quarter, column = divmod(place, 32)
    low = b[:, 64 * part + 32 * (quarter % 2) + column] >> 4 * (quarter // 2)
    high = b[:, 128 + 32 * part + column] >> 2 * quarter
    number = (low & 15 | (high & 3) << 4).astype(np.int8) - 32
    values[:, j] = _half(b, 208)[:, 0] * scales[:, j // 16] * number
  return values


# By type: bytes of a block, and its values by the rules of ggml.
BLOCKS = {
  "F32": (4, lambda b: b.view(np.float32)),
  "F16": (2, lambda b: _half(b, 0)),
  "BF16": (
    2,
    lambda b: (b.view(np.uint16).astype(np.uint32) << 16).view(np.float32),
  ),
  "Q8_0": (34, lambda b: _half(b, 0) * b[:, 2:].view(np.int8)),
  "Q4_0": (18, lambda b: _half(b, 0) * (_nibbles(b[:, 2:]) - np.float32(8))),
  "Q4_1": (20, lambda b: _half(b, 0) * _nibbles(b[:, 4:]) + _half(b, 2)),
  "Q4_K": (144, _q4_k),
  "Q6_K": (210, _q6_k),
}


def random_blocks(
  rng: np.random.Generator, shape: tuple[int, int], kind: str
) -> np.ndarray:
  """Returns a matrix of "Q4_K" or "Q6_K" with finite scales, (rows, bytes).

  The library reads these types but does not write them.
  """
  size = BLOCKS[kind][0]
  blocks = rng.integers(0, 256, (shape[0], shape[1] // 256, size), np.uint8)
  for high_byte in {"Q4_K": (1, 3), "Q6_K": (209,)}[kind]:
    blocks[..., high_byte] %= 0x30
  return blocks.reshape(shape[0], -1)


def values_of(matrix: np.ndarray, kind: str) -> np.ndarray:
  """Returns the float32 values of a matrix as it is stored."""
  size, rule = BLOCKS[kind]
  blocks = matrix.view(np.uint8).reshape(-1, size)
  return rule(blocks).reshape(len(matrix), -1)


def write(
  path,
  architecture: str = "llama",
  kind: str = "F32",
  *,
  tied: bool = False,
  bias: bool = False,
  metadata: dict | None = None,
  extra: dict[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
  """Writes a model.

  Args:
    path: of the file.
    architecture: a key of `HEAD_DIMS`.
    kind: name of the type of all matrices; vectors are F32, as always.
    tied: whether there is no head.
    bias: whether q, k and v have biases; those of qwen2 always do.
    metadata: values by key that replace the usual ones, None for absent.
    extra: further tensors, by the file's names.

  Returns:
    float32 values of the tensors, by Hugging Face's names and in its layout.
  """
  rng = np.random.default_rng(0)
  writer = gguf.GGUFWriter(path, architecture)
  values = {
    "block_count": LAYERS,
    "context_length": 1024,
    "embedding_length": EMBED,
    "feed_forward_length": MLP,
    "attention.head_count": HEADS,
    "attention.head_count_kv": KV_HEADS,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 1e5,
  }
  values = {f"{architecture}.{key}": values[key] for key in values}
  for key, value in (values | (metadata or {})).items():
    if isinstance(value, str):
      writer.add_string(key, value)
    elif isinstance(value, float):
      writer.add_float32(key, value)
    elif isinstance(value, list):
      writer.add_array(key, value)
    elif value is not None:
      writer.add_uint32(key, value)
  expected = {}
  for name, shape in shapes(architecture, tied=tied, bias=bias).items():
    value = rng.normal(size=shape).astype(np.float32)
    stored, stored_as = value, gguf.GGMLQuantizationType.F32
    if len(shape) == 2:
      stored_as = gguf.GGMLQuantizationType[kind]
      stored = (
        random_blocks(rng, shape, kind)
        if kind.endswith("_K")
        else gguf.quantize(value, stored_as)
      )
      value = values_of(stored, kind)
    expected[name] = value
    heads = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(name.split(".")[-2])
    if architecture == "llama" and heads:
      stored = interleave(stored, heads)
    writer.add_tensor(file_name(name), stored, raw_dtype=stored_as)
  for name, value in (extra or {}).items():
    writer.add_tensor(name, value)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return expected
