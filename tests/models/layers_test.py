"""Tests of the modules of a layer, against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.models import layers
from rstar_jax.testing import tiny_model
from tests.models.arrays import normal


class LayersTest(parameterized.TestCase):
  def test_norm_and_mlp(self):
    config = tiny_model()
    x = normal(0, 5, config.embed_dim) * 3
    norm = layers.RMSNorm(config, (config.embed_dim,), "embed")
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + config.rms_eps)
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected, rtol=1e-5)
    mlp = layers.Mlp(config, nnx.Rngs(0))
    gate, up, down = (
      np.asarray(w.get_value()) for w in (mlp.gate, mlp.up, mlp.down)
    )
    hidden = x @ gate.T
    expected = (hidden / (1 + np.exp(-hidden)) * (x @ up.T)) @ down.T
    np.testing.assert_allclose(mlp(jnp.asarray(x)), expected, atol=1e-6)

  def test_norm_is_float32_inside_bfloat16(self):
    x = jnp.full((1, 24), 300.0, jnp.bfloat16)
    out = layers.RMSNorm(tiny_model(), (24,), "embed")(x)
    self.assertEqual(out.dtype, jnp.bfloat16)
    np.testing.assert_array_equal(out, jnp.ones_like(x))


if __name__ == "__main__":
  jax.config.update("jax_default_matmul_precision", "float32")
  absltest.main()
