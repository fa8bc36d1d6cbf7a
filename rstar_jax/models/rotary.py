"""Rotary position embeddings, and scalings of their frequencies.

Su et al. 2021 (RoFormer); Chen et al. 2023 (linear); Peng et al. 2023 (YaRN);
Ding et al. 2024 (LongRoPE, Phi-3); Llama 3.1's; and Llama 4's queries. Tests
compare them with `transformers` by golden files.
"""

import math

import jax
import jax.numpy as jnp

from rstar_jax.models.config import ModelConfig, RopeScaling

# Cosines and sines, float32 [..., 1, R / 2] each; R is the rotated width.
Angles = tuple[jax.Array, jax.Array]


def rotary(
  positions: jax.Array, config: ModelConfig, spans: jax.Array | None = None
) -> Angles:
  """Returns the cosines and sines of rotary positions.

  Args:
    positions: int32 [...].
    config: gives H, the base and the scaling of the frequencies.
    spans: int32, broadcastable to positions: length of the whole sequence of
      each token. Only LongRoPE needs them: it has one set of frequencies up to
      `original_length` and another above.

  Returns:
    Two float32 arrays [..., 1, R / 2], shared by all layers that are alike.

  Raises:
    ValueError: the scaling is LongRoPE, and there are no spans.
  """
  rope, dim = config.rope, int(config.head_dim * config.rotary_share)
  if rope.kind == "proportional":
    dim = config.head_dim
  exponents = jnp.arange(0, dim, 2, jnp.float32) / dim
  frequencies = config.rope_theta**-exponents
  match rope.kind:
    case "proportional":
      turned = jnp.arange(dim // 2) < int(config.rotary_share * dim // 2)
      frequencies = jnp.where(turned, frequencies / rope.factor, 0)
    case "linear":
      frequencies /= rope.factor
    case "llama3":
      frequencies = _llama3(frequencies, rope)
    case "yarn":
      frequencies = _yarn(frequencies, rope, dim, config.rope_theta)
    case "longrope":
      if spans is None:
        raise ValueError("longrope needs the length of each sequence")
      factors = jnp.where(
        (spans > rope.original_length)[..., None],
        jnp.asarray(rope.long_factor, jnp.float32),
        jnp.asarray(rope.short_factor, jnp.float32),
      )
      frequencies = frequencies / factors
  angles = positions[..., None].astype(jnp.float32) * frequencies
  cos, sin = (x[..., None, :] for x in _cos_and_sin(angles))
  if rope.attention_factor != 1:
    cos, sin = cos * rope.attention_factor, sin * rope.attention_factor
  return cos, sin


def position_kind(config: ModelConfig, span: int) -> int:
  """Returns which frequencies a sequence has; those of other kinds differ.

  Args:
    config: of a model; its layers may scale differently.
    span: length of the sequence; see `rotary`.
  """
  ropes = {each.rope for each in config.layers()}
  return sum(
    each.kind == "longrope" and span > each.original_length for each in ropes
  )


def of_layers(
  positions: jax.Array, config: ModelConfig, spans: jax.Array | None = None
) -> list[Angles]:
  """Returns the angles of each layer of a period; see `rotary`."""
  made: dict[tuple, Angles] = {}
  found = []
  for layer in config.layers():
    key = layer.rope_theta, layer.rope, layer.rotary_share, layer.head_dim
    if key not in made:
      made[key] = rotary(positions, layer, spans)
    found.append(made[key])
  return found


def rotate(x: jax.Array, angles: Angles) -> jax.Array:
  """Rotates the pairs (i, i + R/2) of x [..., heads, H], as HF does."""
  cos, sin = angles
  half = cos.shape[-1]
  wide = x.astype(jnp.float32)
  first, second = wide[..., :half], wide[..., half : 2 * half]
  rotated = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate([*rotated, wide[..., 2 * half :]], -1).astype(x.dtype)


def grown(q: jax.Array, positions: jax.Array, rope: RopeScaling) -> jax.Array:
  """Scales queries by their position; see `RopeScaling.query_growth`.

  Args:
    q: [..., N, H].
    positions: int32 [...]; those below 0 count as 0.
    rope: the layer's.
  """
  if not rope.query_growth:
    return q
  contexts = jnp.maximum(positions, 0) // rope.original_length
  factors = 1 + rope.query_growth * jnp.log1p(contexts.astype(jnp.float32))
  return (q.astype(jnp.float32) * factors[..., None, None]).astype(q.dtype)


def _cos_and_sin(angles: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns cosines and sines of the same shape.

  XLA on a CPU would fuse them into every use: in each layer, for each element
  of each head. It does not fuse results of a loop.
  """

  def plain(angles):
    return jnp.cos(angles), jnp.sin(angles)

  def looped(angles):
    of = lambda i: jax.lax.switch(i, (jnp.cos, jnp.sin), angles)  # noqa: E731
    return tuple(jax.lax.map(of, jnp.arange(2)))

  return jax.lax.platform_dependent(angles, cpu=looped, default=plain)


def _llama3(frequencies: jax.Array, rope: RopeScaling) -> jax.Array:
  """Scales low frequencies, keeps high ones, and interpolates between."""
  turns = rope.original_length * frequencies / (2 * math.pi)
  low, high = rope.low_freq_factor, rope.high_freq_factor
  kept = jnp.clip((turns - low) / (high - low), 0, 1)
  return kept * frequencies + (1 - kept) * frequencies / rope.factor


def _yarn(
  frequencies: jax.Array, rope: RopeScaling, dim: int, theta: float
) -> jax.Array:
  """Interpolates as Llama 3 does, but linearly in the frequency's index."""

  def index_of(turns: float) -> float:
    wavelength = rope.original_length / turns / (2 * math.pi)
    return dim * math.log(wavelength) / (2 * math.log(theta))

  low, high = index_of(rope.beta_fast), index_of(rope.beta_slow)
  if rope.truncate:
    low, high = math.floor(low), math.ceil(high)
  low, high = max(low, 0), min(high, dim - 1)
  # If both ends coincide, the ramp is a step.
  width = (high - low) or 1e-3
  stretched = jnp.clip((jnp.arange(dim // 2) - low) / width, 0, 1)
  return (1 - stretched) * frequencies + stretched * frequencies / rope.factor
