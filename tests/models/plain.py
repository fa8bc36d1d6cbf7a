"""A slow decoder without state, which anything that caches is compared with.

It recomputes everything from the tokens of one sequence, in numpy's float64: no
cache, no batch, no padding, no compilation, and no function of
`rstar_jax.models`. Whatever an engine keeps between calls, its steps have to be
these. `transformer_plain_test` holds it to `transformers`.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from rstar_jax.models.config import Mixture, ModelConfig
from rstar_jax.models.transformer import Transformer, arrays_of


@dataclasses.dataclass(frozen=True)
class Step:
  """Tokens that follow a prefix.

  Attributes:
    token_ids: with the stop id, if one came.
    stopped: the stop id; -1 if the step is as long as it may be.
    logprob: of all tokens, in nats, at temperature 1.
  """

  token_ids: tuple[int, ...]
  stopped: int
  logprob: float


class Decoder:
  """A model's arrays, and what follows from them.

  Args:
    model: with any head.

  Attributes:
    arrays: float64, by dotted path; a test may replace them.
  """

  def __init__(self, model: Transformer):
    self.config, self.head = model.config, model.head
    self.arrays = {
      ".".join(map(str, path)): np.asarray(array, np.float64)
      for path, array in arrays_of(model).items()
    }

  def hidden(self, ids: Sequence[int], span: int = 0) -> np.ndarray:
    """Returns [T, D] after the final norm.

    Args:
      ids: the whole sequence, T tokens.
      span: length that LongRoPE goes by, where the sequence is to become
        longer; 0 is T.
    """
    config = self.config
    x = self.arrays["embedding"][np.asarray(ids)]
    x = x * config.embedding_multiplier
    for index in range(config.num_layers):
      name, layer = f"layers.{index}", config.layer(index)
      angles = np.outer(
        np.arange(len(ids)), frequencies(layer, span or len(ids))
      )
      out = self._norm(x, f"{name}.attention_norm", layer)
      out = self._attention(out, f"{name}.attention", angles, layer)
      out = self._norm(out, f"{name}.attention_post_norm", layer)
      x = x + layer.residual_multiplier * out
      out = self._norm(x, f"{name}.mlp_norm", layer)
      out = self._mlp(out, x, name, layer)
      out = self._norm(out, f"{name}.mlp_post_norm", layer)
      x = x + layer.residual_multiplier * out
      x = x * self.arrays.get(f"{name}.factor", 1)
    return self._norm(x, "norm", config)

  def logits(self, ids: Sequence[int], span: int = 0) -> np.ndarray:
    """Returns [T, V]; see `hidden`."""
    tied = self.config.tied_embeddings
    kernel = self.arrays["embedding" if tied else "lm_head"]
    logits = self.hidden(ids, span) @ kernel.T / self.config.logits_scaling
    return _capped(logits, self.config.logits_softcap)

  def logprobs(self, ids: Sequence[int], span: int = 0) -> np.ndarray:
    """Returns [T, V], the log-softmax of `logits`."""
    logits = self.logits(ids, span)
    wide = logits - logits.max(-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(-1, keepdims=True))

  def values(self, ids: Sequence[int], span: int = 0) -> np.ndarray:
    """Returns [T], the values of a scalar head after each token."""
    raw = self.hidden(ids, span) @ self.arrays["score"]
    return np.tanh(raw if self.head == "tanh" else raw / 5)

  def logprob(
    self, prefix: Sequence[int], token_ids: Sequence[int], span: int = 0
  ) -> float:
    """Returns the log-probability of tokens after a prefix, in nats."""
    found = self.logprobs([*prefix, *token_ids], span)[len(prefix) - 1 : -1]
    return float(found[np.arange(len(token_ids)), token_ids].sum())

  def step(
    self,
    prefix: Sequence[int],
    most: int,
    stop_ids: Collection[int] = (),
    uniforms: Sequence[float] | None = None,
    span: int = 0,
    temperature: float = 1.0,
  ) -> Step:
    """Returns the step after a prefix: the likeliest tokens, or drawn ones.

    Args:
      prefix: at least one token.
      most: tokens of the longest step.
      stop_ids: tokens that end a step.
      uniforms: [most], in [0, 1): token i is the first whose cumulated chance
        exceeds uniforms[i]. None takes the likeliest.
      span: see `hidden`; 0 is that of a step of `most` tokens.
      temperature: of the chances.
    """
    ids, total = [int(each) for each in prefix], 0.0
    span = span or len(ids) + most
    for i in range(most):
      last = self.logprobs(ids, span)[-1]
      if uniforms is None:
        token = int(last.argmax())
      else:
        shares = np.exp(last / temperature)
        drawn = uniforms[i] * shares.sum()
        token = int(np.searchsorted(np.cumsum(shares), drawn))
        token = min(token, len(last) - 1)
      ids.append(token)
      total += float(last[token])
      if token in stop_ids:
        return Step(tuple(ids[len(prefix) :]), token, total)
    return Step(tuple(ids[len(prefix) :]), -1, total)

  def _attention(
    self, x: np.ndarray, name: str, angles: np.ndarray, config: ModelConfig
  ) -> np.ndarray:
    projected = []
    for each, heads in zip(
      "qkv",
      (config.num_heads, config.num_kv_heads, config.num_kv_heads),
      strict=True,
    ):
      of = "k" if each == "v" and config.keys_as_values else each
      out = self._linear(x, f"{name}.{of}")
      if config.qk_norm == "head":
        out = out.reshape(len(x), heads, -1)
      # Values have no norm.
      out = self._norm(out, f"{name}.{each}_norm", config)
      if each == "v" and config.v_norm:
        square = np.mean(out * out, -1, keepdims=True)
        out = out / np.sqrt(square + config.rms_eps)
      projected.append(out.reshape(len(x), heads, config.head_dim))
    q, k, v = projected
    factor = config.rope.attention_factor
    if config.rotary_share:
      q, k = (_rotate(each, angles, factor) for each in (q, k))
    if growth := config.rope.query_growth:
      contexts = np.arange(len(x)) // config.rope.original_length
      q = q * (1 + growth * np.log(1 + contexts))[:, None, None]
    # How many tokens ago each key was, for each query.
    ago = np.subtract.outer(np.arange(len(x)), np.arange(len(x)))
    seen = (ago >= 0) & (ago < (config.sliding_window or len(x)))
    scale = config.attention_scale or 1 / math.sqrt(config.head_dim)
    mixed = np.zeros_like(q)
    for head in range(config.num_heads):
      group = head // (config.num_heads // config.num_kv_heads)
      scores = scale * q[:, head] @ k[:, group].T
      scores = _capped(scores, config.attention_softcap)
      weights = np.where(seen, np.exp(scores), 0)
      total = weights.sum(-1, keepdims=True)
      if config.sinks:
        total = total + np.exp(self.arrays[f"{name}.sinks"][head])
      mixed[:, head] = weights @ v[:, group] / total
    return self._linear(mixed.reshape(len(x), -1), f"{name}.o")

  def _mlp(
    self, x: np.ndarray, stream: np.ndarray, name: str, config: ModelConfig
  ) -> np.ndarray:
    """Returns [T, D] of the normalised x, and of the residual stream."""
    mixture = config.mixture
    if mixture and mixture.beside:
      out = self._dense(x, name, config)
      out = self._norm(out, f"{name}.mlp_own_norm", config)
      square = np.mean(stream * stream, -1, keepdims=True)
      routed = stream / np.sqrt(square + config.rms_eps)
      routed = routed * self.arrays[f"{name}.experts.router_scale"]
      routed = routed / math.sqrt(x.shape[-1])
      rows = self._norm(stream, f"{name}.experts_norm", config)
      more = self._experts(rows, routed, name, config)
      return out + self._norm(more, f"{name}.experts_post_norm", config)
    if mixture:
      return self._experts(x, x, name, config)
    return self._dense(x, name, config)

  def _experts(
    self, x: np.ndarray, routed: np.ndarray, name: str, config: ModelConfig
  ) -> np.ndarray:
    inside = f"{name}.experts."
    own = {
      path.removeprefix(inside): array
      for path, array in self.arrays.items()
      if path.startswith(inside)
    }
    activation = _ACTIVATIONS[config.activation]
    return experts(x, own, config.mixture, routed, activation)

  def _dense(self, x: np.ndarray, name: str, config: ModelConfig) -> np.ndarray:
    gate, up = (
      self._linear(x, f"{name}.mlp.{each}") for each in ("gate", "up")
    )
    gate = _ACTIVATIONS[config.activation](gate)
    return self._linear(gate * up, f"{name}.mlp.down")

  def _norm(self, x: np.ndarray, name: str, config: ModelConfig) -> np.ndarray:
    """Normalises the last axis, if there is such a norm."""
    scale = self.arrays.get(f"{name}.scale")
    if scale is None:
      return x
    square = np.mean(x * x, -1, keepdims=True)
    more = 1 if config.norm_form == "offset" else 0
    return x / np.sqrt(square + config.rms_eps) * (scale.reshape(-1) + more)

  def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
    """Returns [T, O] of [T, I]: times a weight, plus its bias."""
    out = x @ self.arrays[name].reshape(-1, x.shape[-1]).T
    bias = self.arrays.get(f"{name}_bias")
    return out if bias is None else out + bias.reshape(-1)


def experts(
  x: np.ndarray,
  arrays: Mapping[str, np.ndarray],
  mixture: Mixture,
  routed: np.ndarray | None = None,
  activation: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
  """Returns [T, D] of [T, D]: one token and one expert after the other.

  Args:
    x: float64.
    arrays: of `models.experts.Experts`, by their names.
    mixture: sizes, the shares and the bound of the activation.
    routed: [T, D], what the router is given; None is x.
    activation: without a bound; None is SiLU.
  """

  def linear(x, name, expert):
    bias = arrays[f"{name}_bias"][expert] if mixture.bias else 0
    return x @ arrays[name][expert] + bias

  out = np.zeros_like(x)
  for token, row in enumerate(x):
    logits = arrays["router"] @ (row if routed is None else routed[token])
    if mixture.bias:
      logits = logits + arrays["router_bias"]
    ranks = sorted(range(mixture.experts), key=lambda expert: -logits[expert])
    weights = np.exp(logits)
    best = ranks[: mixture.chosen]
    total = sum(weights[best if mixture.normalised else ranks])
    for expert in best:
      gate, up = (linear(row, name, expert) for name in ("gate", "up"))
      if limit := mixture.limit:
        gate, up = np.minimum(gate, limit), np.clip(up, -limit, limit) + 1
      if limit or activation is None:
        sharp = 1.702 if limit else 1
        gate = gate / (1 + np.exp(-sharp * gate))
      else:
        gate = activation(gate)
      share = weights[expert] / total
      if mixture.beside:
        share = share * arrays["share_scale"][expert]
      out[token] += share * linear(gate * up, "down", expert)
  return out


def frequencies(config: ModelConfig, span: int) -> np.ndarray:
  """Returns a token's angle by position 1, [R / 2], one at a time.

  Args:
    config: gives the base and the scaling.
    span: length of the whole sequence, for LongRoPE.
  """
  width = int(config.head_dim * config.rotary_share)
  rope, found = config.rope, []
  if rope.kind == "proportional":
    width, turned = config.head_dim, int(width // 2)

  def index_of(turns: float) -> float:
    """Returns the index whose frequency turns so often in the context."""
    wavelength = rope.original_length / turns
    return (
      width
      / 2
      * math.log(wavelength / (2 * math.pi))
      / math.log(config.rope_theta)
    )

  for i in range(width // 2):
    plain = config.rope_theta ** (-2 * i / width)
    match rope.kind:
      case "linear":
        plain /= rope.factor
      case "proportional":
        plain = plain / rope.factor if i < turned else 0
      case "llama3":
        wavelength = 2 * math.pi / plain
        if wavelength > rope.original_length / rope.low_freq_factor:
          plain /= rope.factor
        elif wavelength > rope.original_length / rope.high_freq_factor:
          smooth = rope.original_length / wavelength - rope.low_freq_factor
          smooth /= rope.high_freq_factor - rope.low_freq_factor
          plain = (1 - smooth) * plain / rope.factor + smooth * plain
      case "yarn":
        low, high = index_of(rope.beta_fast), index_of(rope.beta_slow)
        if rope.truncate:
          low, high = int(low // 1), -int(-high // 1)
        low, high = max(low, 0), min(high, width - 1)
        if low == high:
          high += 1e-3
        share = min(max((i - low) / (high - low), 0), 1)
        plain = plain / rope.factor * share + plain * (1 - share)
      case "longrope":
        longer = span > rope.original_length
        plain /= (rope.long_factor if longer else rope.short_factor)[i]
    found.append(plain)
  return np.array(found)


def _rotate(x: np.ndarray, angles: np.ndarray, factor: float) -> np.ndarray:
  """Turns the pairs (i, i + R / 2) of [T, heads, H], as complex numbers."""
  half = angles.shape[-1]
  pairs = x[..., :half] + 1j * x[..., half : 2 * half]
  turned = pairs * (factor * np.exp(1j * angles))[:, None]
  rest = x[..., 2 * half :]
  return np.concatenate([turned.real, turned.imag, rest], -1)


def _capped(x: np.ndarray, cap: float) -> np.ndarray:
  return cap * np.tanh(x / cap) if cap else x


def _gelu(x: np.ndarray) -> np.ndarray:
  return x / (1 + np.exp(-math.sqrt(8 / math.pi) * (x + 0.044715 * x**3)))


_ACTIVATIONS = {
  "silu": lambda x: x / (1 + np.exp(-x)),
  "gelu_pytorch_tanh": _gelu,
}
