"""The configuration of a decoder: sizes and switches, of each layer its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

# Tokens of a page of keys and values; `kernels/plan.h` has it too.
PAGE = 16
# Factor within the sigmoid of GPT-OSS's activation.
STEEPNESS = 1.702


@dataclasses.dataclass(kw_only=True, frozen=True)
class RopeScaling:
  """How rotary frequencies are scaled; see `models/rotary.py`."""

  # The method, by the name that `transformers` gives it.
  kind: Literal[
    "default", "linear", "yarn", "longrope", "llama3", "proportional"
  ] = "default"
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
  # Any kind: a query at position p is multiplied by 1 + query_growth x ln(1 +
  # floor(p / original_length)) (Llama 4, Ministral 3); 0 leaves it as it is.
  query_growth: float = 0.0


@dataclasses.dataclass(kw_only=True, frozen=True)
class Mixture:
  """Experts in the place of a layer's MLP, or beside it; see `experts.py`."""

  # Experts of a layer.
  experts: int
  # Experts of each token.
  chosen: int
  # Width of an expert (F).
  dim: int
  # Whether the softmax of a token's shares is over its own experts, so that
  # they sum to 1, or over all experts.
  normalised: bool = True
  # Whether the router and the experts have biases.
  bias: bool = False
  # GPT-OSS's activation, whose gates and products are clipped to this; 0 is the
  # MLP's activation, without a bound.
  limit: float = 0.0
  # Whether the experts are beside an MLP (Gemma 4): the outputs of both are
  # normalised and added, the router reads the normalised residual stream times
  # a weight of its own, and each expert has a factor of its shares.
  beside: bool = False


@dataclasses.dataclass(kw_only=True, unsafe_hash=True)
class ModelConfig:
  """A decoder: what its layers have in common, and how they differ.

  It is hashable, since modules with a config are static in `jax.jit`. Each
  layer is made by a config of its own, from `layer`.
  """

  # Selects tensor names and file formats; see `hf/families.py`. The computation
  # depends on the fields below alone.
  family: str = "qwen2"
  # Rows of the embedding, padding included.
  vocab_size: int = 512
  # Decoder layers.
  num_layers: int = 4
  # Width of the residual stream (D).
  embed_dim: int = 128
  # Query heads (N).
  num_heads: int = 4
  # Key/value heads (K); K divides N. Where layers differ, the most of any.
  num_kv_heads: int = 2
  # Width of one head (H). Where layers differ, the widest.
  head_dim: int = 32
  # Width of the gated MLP (F).
  mlp_dim: int = 384
  # Experts in the place of the MLP; None is the MLP.
  mixture: Mixture | None = None
  # Base of the rotary frequencies.
  rope_theta: float = 10_000.0
  # Scaling of the frequencies, for longer contexts.
  rope: RopeScaling = RopeScaling()
  # Share of a head's width that is rotated, in [0, 1]; 0 is a layer without
  # positions. The first numbers of a head are rotated, or the first of each
  # half with the frequencies of a whole head ("proportional": Gemma 4).
  rotary_share: float = 1.0
  # Tokens that a token attends to, itself included; 0 is no limit.
  sliding_window: int = 0
  # Factor of attention's scores; 0 is 1 / sqrt(H).
  attention_scale: float = 0.0
  # Most that a score of attention can be: cap x tanh(score / cap); 0 is no cap.
  attention_softcap: float = 0.0
  # Whether each head has a sink: a learned score of no key, whose weight is
  # lost (GPT-OSS).
  sinks: bool = False
  # Epsilon of RMSNorm.
  rms_eps: float = 1e-6
  # How RMSNorm multiplies by its weight: after the cast to `dtype` (Llama),
  # before it ("wide": OLMo), or before it by weight + 1 ("offset": Gemma).
  norm_form: Literal["cast", "wide", "offset"] = "cast"
  # Where attention and the MLP are normalised: their input, their output (OLMo
  # 2) or both (Gemma).
  norms: Literal["pre", "post", "both"] = "pre"
  # Whether the q, k, v projections have a bias (Qwen2 does).
  qkv_bias: bool = True
  # Whether the projection after attention has a bias.
  o_bias: bool = False
  # Whether the three projections of the MLP have a bias.
  mlp_bias: bool = False
  # Whether queries and keys are normalised: each head (Qwen3), or all heads as
  # one vector (OLMo 2).
  qk_norm: Literal["none", "head", "all"] = "none"
  # Whether each head's values are normalised, without a weight (Gemma 4).
  v_norm: bool = False
  # Whether the values are the keys before norm and rotation (Gemma 4).
  keys_as_values: bool = False
  # Activation of the MLP's gate, by the name that `transformers` gives it.
  activation: Literal["silu", "gelu_pytorch_tanh"] = "silu"
  # Whether the output of a layer has a factor of its own, which is not trained
  # (Gemma 4).
  layer_factor: bool = False
  # Factor of the outputs of attention and of the MLP.
  residual_multiplier: float = 1.0
  # Factor of embeddings, rounded to `dtype`.
  embedding_multiplier: float = 1.0
  # Divisor of logits.
  logits_scaling: float = 1.0
  # Most that a logit can be, as with `attention_softcap`; 0 is no cap.
  logits_softcap: float = 0.0
  # Whether the LM head is the transposed embedding.
  tied_embeddings: bool = True
  # What differs between layers: in layer i, the fields of kinds[i % len(kinds)]
  # replace those here. Empty if all layers are alike. See `in_turns`.
  kinds: tuple[tuple[tuple[str, Any], ...], ...] = ()
  # Longest sequence, in tokens.
  max_length: int = 512
  # dtype of activations.
  dtype: str = "float32"
  # dtype of parameters in memory.
  param_dtype: str = "float32"
  # What of a layer is computed again in the backward pass; see `TrainConfig`.
  remat: Literal["none", "elementwise", "mlp", "layer"] = "none"
  # What computes attention in whole rows: "pallas" is a kernel for TPUs, which
  # "auto" takes on a TPU.
  attention: Literal["auto", "xla", "pallas"] = "auto"
  # Whether whole rows go through a loop over layers, whose code does not grow
  # with their number; None is on a TPU only.
  scan: bool | None = None
  # Attention by XLA: queries whose scores are in memory at once; 0 is all.
  attention_block: int = 0
  # Weight of the experts' auxiliary loss in training; see `TrainConfig`.
  balance: float = 0.0
  # Rows that are computed at once, so that the bits of a row do not depend on
  # the number of rows; 0 is all.
  row_block: int = 0
  # Whether the CPU kernels multiply; see `models/kernels/cpu.py`.
  native: bool = False

  @property
  def period(self) -> int:
    """Returns the number of layers after which the kinds repeat."""
    return max(1, len(self.kinds))

  def layer(self, index: int) -> "ModelConfig":
    """Returns the config of a layer, as of a model with only such layers."""
    if not self.kinds:
      return self
    fields = dict(self.kinds[index % self.period])
    return dataclasses.replace(self, kinds=(), **fields)

  def layers(self) -> "list[ModelConfig]":
    """Returns the config of each layer of a period."""
    return [self.layer(index) for index in range(self.period)]

  def experts(self) -> Mixture | None:
    """Returns the experts of the layers that have some, which are all alike."""
    return next((x.mixture for x in self.layers() if x.mixture), None)

  def windows(self) -> list[int]:
    """Returns the different windows of layers."""
    return sorted({each.sliding_window for each in self.layers()})


def in_turns(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Returns the fields of a model's config that describe its layers.

  Args:
    layers: for each layer the values of the same fields, e.g. sliding_window.

  Returns:
    The fields that are equal in all layers; and "kinds", the other fields in
    the layers of the shortest period.
  """
  first = layers[0]
  alike = {
    name: value
    for name, value in first.items()
    if all(each[name] == value for each in layers)
  }
  kinds = [
    tuple((name, each[name]) for name in sorted(first.keys() - alike.keys()))
    for each in layers
  ]
  count = len(kinds)
  period = next(
    size for size in range(1, count + 1) if kinds[size:] == kinds[:-size]
  )
  return alike | {"kinds": tuple(kinds[:period]) if any(kinds) else ()}
