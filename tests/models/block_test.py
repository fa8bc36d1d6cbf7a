"""Tests of a layer, by XLA and by the kernels for CPUs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.models import rotary
from rstar_jax.models.block import Block
from rstar_jax.models.config import Mixture
from rstar_jax.models.kernels import build
from rstar_jax.models.transformer import arrays_in
from rstar_jax.testing import tiny_model
from tests.models.kernels.cpu_test import needs_compiler


class BlockTest(parameterized.TestCase):
  @needs_compiler
  @parameterized.parameters("plain", "bias", "experts")
  def test_the_same_by_kernels(self, kind):
    build.load()
    bias = kind == "bias"
    config = tiny_model(mlp_bias=bias, o_bias=bias)
    if kind == "experts":
      config.mixture = Mixture(experts=5, chosen=2, dim=6)

    def run(x, native):
      changed = dataclasses.replace(config, native=native)
      block = Block(changed, nnx.Rngs(3))
      angles = rotary.rotary(jnp.arange(4)[None], config)
      return block(x, angles, lambda q, k, v: q)[0]

    run = jax.jit(run, static_argnums=1)
    x = np.random.default_rng(1).normal(size=(33, 4, config.embed_dim))
    x = jnp.asarray(x, jnp.float32)
    np.testing.assert_allclose(run(x, True), run(x, False), atol=1e-5)
    text = run.lower(x, True).as_text()
    self.assertIn("rstar_products", text)
    self.assertEqual("rstar_gated" in text, kind == "plain")

  def test_its_factor_is_no_parameter(self):
    config = tiny_model(layer_factor=True)
    x = np.random.default_rng(1).normal(size=(2, 4, config.embed_dim))
    x = jnp.asarray(x, jnp.float32)
    angles = rotary.rotary(jnp.arange(4)[None], config)
    block = Block(config, nnx.Rngs(3))
    graphdef, params = nnx.split(block)

    def attend(q, k, v):
      return q + jnp.repeat(k * v, 3, axis=-2)

    def run(params):
      return nnx.merge(graphdef, params)(x, angles, attend)[0]

    once = run(params)
    block.factor.set_value(block.factor.get_value() * 3)
    np.testing.assert_allclose(run(nnx.split(block)[1]), 3 * once, rtol=1e-6)
    found = arrays_in(
      jax.grad(lambda params: jnp.sum(run(params) ** 2))(params)
    )
    still = [path for path, each in found.items() if not np.any(each)]
    self.assertEqual(still, [("factor",)])


if __name__ == "__main__":
  absltest.main()
