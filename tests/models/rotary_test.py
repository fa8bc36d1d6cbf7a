"""Tests of rotary positions: as complex rotations, and by hand.

That every scaling is that of `transformers` is held by
tests/hf/folders_golden_test.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx
from jax import export

from rstar_jax.models import rotary
from rstar_jax.models.config import RopeScaling
from rstar_jax.models.transformer import Transformer
from rstar_jax.testing import tiny_model
from tests.models.arrays import normal


def frequencies(spans=None, **overrides):
  """Reads the frequencies off the angles of position 1."""
  config = tiny_model(**{"head_dim": 6, "rope_theta": 100.0} | overrides)
  cos, sin = rotary.rotary(jnp.array([1]), config, spans)
  return np.arctan2(sin, cos)[0, 0]


PLAIN = np.array([1, 100 ** (-1 / 3), 100 ** (-2 / 3)])


class RotaryTest(parameterized.TestCase):
  def test_is_a_rotation_of_pairs_half_apart(self):
    config = tiny_model(head_dim=6, rope_theta=100.0)
    x = normal(0, 1, 2, 6)
    out = rotary.rotate(jnp.asarray(x), rotary.rotary(jnp.array([11]), config))
    for i in range(3):
      angle = 11 * 100.0 ** (-2 * i / 6)
      turned = (x[..., i] + 1j * x[..., i + 3]) * np.exp(1j * angle)
      np.testing.assert_allclose(out[..., i], turned.real, atol=1e-5)
      np.testing.assert_allclose(out[..., i + 3], turned.imag, atol=1e-5)

  def test_a_share_of_the_width(self):
    config = tiny_model(head_dim=10, rotary_share=0.6, rope_theta=100.0)
    x = normal(0, 1, 2, 10)
    out = rotary.rotate(jnp.asarray(x), rotary.rotary(jnp.array([7]), config))
    whole = tiny_model(head_dim=6, rope_theta=100.0)
    np.testing.assert_allclose(
      out[..., :6],
      rotary.rotate(
        jnp.asarray(x[..., :6]), rotary.rotary(jnp.array([7]), whole)
      ),
      atol=1e-6,
    )
    np.testing.assert_array_equal(out[..., 6:], x[..., 6:])

  def test_default_and_linear(self):
    np.testing.assert_allclose(frequencies(), PLAIN, rtol=1e-5)
    scaling = RopeScaling(kind="linear", factor=4.0)
    np.testing.assert_allclose(frequencies(rope=scaling), PLAIN / 4, rtol=1e-5)

  def test_llama3_keeps_stretches_and_blends(self):
    # Turns in the original context: 3, 0.65 and 0.14; kept from 2, stretched
    # below 0.5, and between them a blend.
    length = 6 * math.pi
    scaling = RopeScaling(
      kind="llama3",
      factor=8.0,
      original_length=length,
      low_freq_factor=0.5,
      high_freq_factor=2.0,
    )
    share = (3 * PLAIN[1] - 0.5) / 1.5
    expected = [
      PLAIN[0],
      share * PLAIN[1] + (1 - share) * PLAIN[1] / 8,
      PLAIN[2] / 8,
    ]
    np.testing.assert_allclose(frequencies(rope=scaling), expected, rtol=1e-5)

  def test_yarn_ramp(self):
    # Frequency i turns 100 ** (-i / 3) * length / (2 pi) times; with a length
    # of 200 pi those are 100, 21.5 and 4.64. From 100 turns kept, from 4.64
    # stretched: the second is half way.
    scaling = RopeScaling(
      kind="yarn",
      factor=4.0,
      original_length=200 * math.pi,
      beta_fast=100.0,
      beta_slow=100 ** (1 / 3),
      truncate=False,
      attention_factor=1.5,
    )
    config = tiny_model(head_dim=6, rope_theta=100.0, rope=scaling)
    cos, sin = rotary.rotary(jnp.array([1]), config)
    np.testing.assert_allclose(cos**2 + sin**2, 1.5**2, rtol=1e-5)
    expected = PLAIN * [1, (1 + 1 / 4) / 2, 1 / 4]
    np.testing.assert_allclose(frequencies(rope=scaling), expected, rtol=1e-5)

  def test_longrope_goes_by_the_sequence(self):
    scaling = RopeScaling(
      kind="longrope",
      original_length=11,
      short_factor=(1.0, 2.0, 3.0),
      long_factor=(5.0, 7.0, 11.0),
    )
    for span, divisors in ((11, [1, 2, 3]), (12, [5, 7, 11])):
      found = frequencies(jnp.array([span]), rope=scaling)
      np.testing.assert_allclose(found, PLAIN / divisors, rtol=1e-5)
    with self.assertRaisesRegex(ValueError, "length of each sequence"):
      frequencies(rope=scaling)

  def test_a_kind_of_positions_for_each_scaling_that_is_passed(self):
    long = RopeScaling(kind="longrope", original_length=11)
    longer = dataclasses.replace(long, original_length=20)
    other = dataclasses.replace(longer, kind="yarn")
    kinds = tuple((("rope", each),) for each in (long, longer, other))
    config = tiny_model(kinds=kinds)
    found = [rotary.position_kind(config, span) for span in (1, 11, 12, 20, 21)]
    self.assertEqual(found, [0, 0, 1, 1, 2])

  def test_queries_grow_with_each_context(self):
    rope = RopeScaling(original_length=10, query_growth=0.5)
    q = normal(0, 4, 2, 6)
    positions = jnp.array([-1, 9, 10, 25])
    factors = [1, 1, 1 + 0.5 * math.log(2), 1 + 0.5 * math.log(3)]
    np.testing.assert_allclose(
      rotary.grown(jnp.asarray(q), positions, rope),
      q * np.array(factors)[:, None, None],
      rtol=1e-6,
    )

  def test_a_cpu_computes_angles_once_for_all_layers(self):
    config = tiny_model(num_layers=3)
    model = Transformer(config, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model)

    def logits(params, tokens, positions):
      return nnx.merge(graphdef, params)(tokens, positions=positions)

    ids = jax.ShapeDtypeStruct((2, 7), jnp.int32)
    program = jax.jit(logits).lower(params, ids, ids).compile().as_text()
    self.assertEqual(program.count(" cosine("), 1)
    self.assertEqual(program.count(" sine("), 1)

  def test_a_loop_on_a_cpu_only(self):
    config = tiny_model()
    positions = jax.ShapeDtypeStruct((2, 7), jnp.int32)

    def program(platform):
      angles = jax.jit(lambda positions: rotary.rotary(positions, config))
      found = export.export(angles, platforms=[platform])(positions)
      return found.mlir_module()

    self.assertIn("stablehlo.while", program("cpu"))
    self.assertNotIn("stablehlo.while", program("tpu"))


if __name__ == "__main__":
  absltest.main()
