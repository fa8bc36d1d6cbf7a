"""Tests of weights in 8 bits, against loops and plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.config.schema import MeshConfig
from rstar_jax.models import int8, meshes, products, sharding
from rstar_jax.models.int8 import Int8
from rstar_jax.models.kernels import build
from rstar_jax.models.step import stacked
from rstar_jax.models.transformer import Transformer, arrays_of
from rstar_jax.testing import tiny_model
from tests.inference import small
from tests.models import jitted
from tests.models.kernels.cpu_test import needs_compiler

jax.config.update("jax_num_cpu_devices", 4)


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def by_loops(weight, inputs):
  """Returns integers and scales of a weight, one output at a time."""
  outputs = weight.shape[: weight.ndim - inputs]
  values, scales = np.zeros(weight.shape), np.ones(outputs)
  for index in np.ndindex(*outputs):
    row = weight[index].astype(np.float64)
    if np.abs(row).max():
      scales[index] = np.abs(row).max() / 127
    values[index] = np.rint(row / scales[index])
  return values, scales


def quantized(model):
  graphdef, params = nnx.split(model)
  return nnx.merge(graphdef, int8.quantized(params))


class QuantizeTest(parameterized.TestCase):
  @parameterized.product(inputs=[1, 2], dtype=["float32", "bfloat16"])
  def test_as_by_loops(self, inputs, dtype):
    weight = normal(inputs, 7, 5, 6)
    # A scale is of one output, however large or small others are.
    weight[1] *= 1000
    weight[2] /= 1000
    weight[3] = 0
    weight = jnp.asarray(weight, dtype)
    found = int8.quantize(weight, inputs)
    values, scales = by_loops(np.asarray(weight, np.float32), inputs)
    self.assertEqual(
      (found.values.dtype, found.scales.dtype), ("int8", "float32")
    )
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_allclose(found.scales, scales, rtol=1e-6)
    self.assertEqual(np.abs(found.values).max(), 127)
    steps = scales.reshape(*scales.shape, *[1] * inputs)
    back = np.asarray(found.values) * steps
    off = np.abs(back - np.asarray(weight, np.float32))
    self.assertTrue(np.all(off <= 0.5001 * steps))

  @parameterized.parameters((2, 2), (1, 4))
  def test_a_mesh_gives_the_same_bits(self, fsdp, tensor):
    mesh = meshes.make(MeshConfig(fsdp=fsdp, tensor=tensor))
    model = Transformer(
      tiny_model(num_heads=4, num_kv_heads=2, mlp_dim=8), rngs=nnx.Rngs(0)
    )
    graphdef, params = nnx.split(model)
    places = sharding.shardings(params, mesh)
    cut = nnx.merge(graphdef, int8.quantized(jax.device_put(params, places)))
    want = arrays_of(quantized(model))
    places = dict(nnx.to_flat_state(places))
    seen = 0
    for path, found in arrays_of(cut).items():
      jax.tree.map(np.testing.assert_array_equal, found, want[path])
      if isinstance(found, Int8):
        spec = places[path].get_value().spec
        self.assertEqual(found.values.sharding.spec, spec)
        self.assertEqual(
          tuple(found.scales.sharding.spec), spec[: found.scales.ndim]
        )
        seen += 1
    self.assertEqual(seen, 2 * 7 + 1)


class QuantizedTest(parameterized.TestCase):
  @parameterized.parameters(
    ("lm", True, {"embedding"}),
    ("lm", False, {"lm_head"}),
    ("tanh", True, set()),
    ("logit", False, set()),
  )
  def test_what_a_step_reads_whole(self, head, tied, outside):
    config = tiny_model(
      tied_embeddings=tied, o_bias=True, mlp_bias=True, qk_norm="head"
    )
    found = arrays_of(
      quantized(Transformer(config, head=head, rngs=nnx.Rngs(0)))
    )
    names = {
      f"{path[2]}.{path[3]}" if path[0] == "layers" else path[0]
      for path, each in found.items()
      if isinstance(each, Int8)
    }
    self.assertEqual(
      names,
      {f"attention.{each}" for each in "qkvo"}
      | {f"mlp.{each}" for each in ("gate", "up", "down")}
      | outside,
    )
    # A scale for each number that comes out.
    n, h, d = config.num_heads, config.head_dim, config.embed_dim
    scales = {
      path[-1]: each.scales.shape
      for path, each in found.items()
      if isinstance(each, Int8)
    }
    self.assertEqual(scales["q"], (n, h))
    self.assertEqual((scales["o"], scales["down"]), ((d,), (d,)))
    self.assertEqual(scales["up"], (config.mlp_dim,))
    for name in outside:
      self.assertEqual(scales[name], (config.vocab_size,))

  def test_of_stacked_layers_and_twice(self):
    model = Transformer(tiny_model(), rngs=nnx.Rngs(0))
    one, other = stacked(quantized(model)), quantized(stacked(model))
    twice = quantized(other)
    for path, each in arrays_of(one).items():
      for found in (arrays_of(other)[path], arrays_of(twice)[path]):
        jax.tree.map(np.testing.assert_array_equal, each, found)

  def test_logits_are_of_the_dequantized_weights(self):
    for changes in ({}, {"tied_embeddings": False}):
      model = Transformer(tiny_model(**changes), rngs=nnx.Rngs(0))
      tokens = np.random.default_rng(0).integers(0, 260, (2, 9))
      np.testing.assert_allclose(
        jitted.call(quantized(model), tokens),
        jitted.call(small.rounded(model), tokens),
        atol=1e-5,
      )


class ProductsTest(parameterized.TestCase):
  def run_products(self, native, dtype):
    config = tiny_model(row_block=32, native=native)
    weights = [int8.quantize(normal(i, 5 + i, 64), 1) for i in (1, 2)]
    x = jnp.asarray(normal(3, 70, 64), dtype)
    run = jax.jit(lambda x: products.products(x, weights, config, dtype))
    found = run(x)
    for out, weight in zip(found, weights, strict=True):
      self.assertEqual(out.dtype, dtype)
      exact = (
        np.asarray(x, np.float64)
        @ (
          np.asarray(weight.values, np.float64)
          * np.asarray(weight.scales, np.float64)[:, None]
        ).T
      )
      error = 2e-6 if dtype == "float32" else 2**-7
      np.testing.assert_allclose(
        np.asarray(out, np.float64), exact, rtol=error, atol=1e-5
      )
    # A row has its bits whatever is beside it, and however much.
    some = run(jnp.concatenate([x[60:], 100 * x[:33], x[:1]]))
    for out, more in zip(found, some, strict=True):
      self.assertEqual(out[60:].tobytes(), more[:10].tobytes())
      self.assertEqual(out[0].tobytes(), more[-1].tobytes())

  @parameterized.parameters("float32", "bfloat16")
  def test_by_xla(self, dtype):
    self.run_products(False, dtype)

  @parameterized.parameters("float32", "bfloat16")
  @needs_compiler
  def test_by_cpp(self, dtype):
    build.load()
    self.run_products(True, dtype)


if __name__ == "__main__":
  absltest.main()
