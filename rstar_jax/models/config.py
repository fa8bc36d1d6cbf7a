"""What a decoder is: its sizes and switches, a comment above every field."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(kw_only=True, frozen=True)
class RopeScaling:
  """How rotary frequencies are stretched; see `models/rotary.py`."""

  # The method, by the name that `transformers` gives it.
  kind: Literal["default", "linear", "yarn", "longrope", "llama3"] = "default"
  # By how much the context was lengthened.
  factor: float = 1.0
  # The context before that, in tokens.
  original_length: int = 0
  # What cosines and sines are multiplied by (yarn, longrope).
  attention_factor: float = 1.0
  # llama3: wavelengths above original_length / low_freq_factor are stretched.
  low_freq_factor: float = 1.0
  # llama3: wavelengths below original_length / high_freq_factor are kept.
  high_freq_factor: float = 4.0
  # yarn: frequencies of more turns in original_length than this are kept.
  beta_fast: float = 32.0
  # yarn: frequencies of fewer turns than this are stretched.
  beta_slow: float = 1.0
  # yarn: whether the bounds of the ramp between them are whole numbers.
  truncate: bool = True
  # longrope: divisors of the H / 2 frequencies up to original_length tokens.
  short_factor: tuple[float, ...] = ()
  # longrope: divisors for longer sequences.
  long_factor: tuple[float, ...] = ()


@dataclasses.dataclass(kw_only=True, unsafe_hash=True)
class ModelConfig:
  """A decoder of the Qwen2, Qwen3, Llama or Phi-3 family.

  Hashable, since a module that holds one is a static argument of `jax.jit`.
  """

  # Whose names and files it has; see `hf/families.py`. What it computes is said
  # by the fields below alone.
  family: Literal["qwen2", "qwen3", "llama", "phi3"] = "qwen2"
  # Number of token embeddings, padding included.
  vocab_size: int = 512
  # Decoder layers.
  num_layers: int = 4
  # Width of the residual stream (D).
  embed_dim: int = 128
  # Query heads (N).
  num_heads: int = 4
  # Key/value heads (K); K divides N.
  num_kv_heads: int = 2
  # Width of one head (H).
  head_dim: int = 32
  # Width of the gated MLP (F).
  mlp_dim: int = 384
  # Base of the rotary frequencies.
  rope_theta: float = 10_000.0
  # How they are stretched, for contexts longer than the first training's.
  rope: RopeScaling = RopeScaling()
  # Share of a head's width that is rotated; the rest has no position.
  rotary_share: float = 1.0
  # Tokens that a token attends to, itself included; 0 is all before it.
  sliding_window: int = 0
  # Epsilon of RMSNorm.
  rms_eps: float = 1e-6
  # Whether the q, k, v projections have a bias (Qwen2 does).
  qkv_bias: bool = True
  # Whether the projection after attention has one.
  o_bias: bool = False
  # Whether the three projections of the MLP have one.
  mlp_bias: bool = False
  # Whether each head's query and key are normalised (Qwen3 does).
  qk_norm: bool = False
  # Whether the LM head is the transposed embedding.
  tied_embeddings: bool = True
  # Longest sequence the model is used with, in tokens.
  max_length: int = 512
  # dtype of activations.
  dtype: str = "float32"
  # dtype of parameters in memory.
  param_dtype: str = "float32"
  # Recompute each layer in the backward pass (saves memory, costs time).
  remat: bool = False
  # Queries of a sequence whose scores are held at once; 0 is all.
  attention_block: int = 0
  # Whether few rows are multiplied, and candidates' tokens attend, by kernels
  # for CPUs; see `models/kernels/cpu.py`.
  native: bool = False
