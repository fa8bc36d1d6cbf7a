"""The configuration of a decoder: sizes and switches."""

import dataclasses
from typing import Literal

# Tokens of a page of keys and values; `kernels/plan.h` has it too.
PAGE = 16


@dataclasses.dataclass(kw_only=True, frozen=True)
class RopeScaling:
  """How rotary frequencies are scaled; see `models/rotary.py`."""

  # The method, by the name that `transformers` gives it.
  kind: Literal["default", "linear", "yarn", "longrope", "llama3"] = "default"
  # Ratio of the extended context to the original one.
  factor: float = 1.0
  # Original context, in tokens.
  original_length: int = 0
  # Factor of cosines and sines (yarn, longrope).
  attention_factor: float = 1.0
  # llama3: wavelengths above original_length / low_freq_factor are scaled.
  low_freq_factor: float = 1.0
  # llama3: wavelengths below original_length / high_freq_factor are unchanged.
  high_freq_factor: float = 4.0
  # yarn: frequencies with more turns in original_length are unchanged.
  beta_fast: float = 32.0
  # yarn: frequencies with fewer turns in original_length are scaled.
  beta_slow: float = 1.0
  # yarn: whether the ends of the ramp between the two are rounded.
  truncate: bool = True
  # longrope: divisors of the H / 2 frequencies up to original_length tokens.
  short_factor: tuple[float, ...] = ()
  # longrope: divisors for longer sequences.
  long_factor: tuple[float, ...] = ()


@dataclasses.dataclass(kw_only=True, unsafe_hash=True)
class ModelConfig:
  """A decoder of the Qwen2, Qwen3, Llama or Phi-3 family.

  It is hashable, since modules with a config are static in `jax.jit`.
  """

  # Selects tensor names and file formats; see `hf/families.py`. The computation
  # depends on the fields below alone.
  family: Literal["qwen2", "qwen3", "llama", "phi3"] = "qwen2"
  # Rows of the embedding, padding included.
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
  # Scaling of the frequencies, for longer contexts.
  rope: RopeScaling = RopeScaling()
  # Share of a head's width that is rotated, in (0, 1].
  rotary_share: float = 1.0
  # Tokens that a token attends to, itself included; 0 is no limit.
  sliding_window: int = 0
  # Epsilon of RMSNorm.
  rms_eps: float = 1e-6
  # Whether the q, k, v projections have a bias (Qwen2 does).
  qkv_bias: bool = True
  # Whether the projection after attention has a bias.
  o_bias: bool = False
  # Whether the three projections of the MLP have a bias.
  mlp_bias: bool = False
  # Whether each head's query and key are normalised (Qwen3 does).
  qk_norm: bool = False
  # Whether the LM head is the transposed embedding.
  tied_embeddings: bool = True
  # Longest sequence, in tokens.
  max_length: int = 512
  # dtype of activations.
  dtype: str = "float32"
  # dtype of parameters in memory.
  param_dtype: str = "float32"
  # What of a layer is computed again in the backward pass; see `TrainConfig`.
  remat: Literal["none", "elementwise", "mlp", "layer"] = "none"
  # What computes attention in whole rows: "pallas" is a TPU's kernel, which
  # "auto" takes there.
  attention: Literal["auto", "xla", "pallas"] = "auto"
  # Whether whole rows are run by a loop over layers, whose code does not grow
  # with them; None is on a TPU only.
  scan: bool | None = None
  # XLA: queries whose scores are in memory at once; 0 is all of a sequence.
  attention_block: int = 0
  # Rows that are computed at once, so that the bits of a row do not depend on
  # how many there are; 0 is all.
  row_block: int = 0
  # Whether the CPU kernels multiply; see `models/kernels/cpu.py`.
  native: bool = False
