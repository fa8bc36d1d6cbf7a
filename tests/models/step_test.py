"""Tests of steps over pages, against whole sequences and `transformers`."""

import functools

import jax
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.models import pages as pages_lib
from rstar_jax.models.paths import Paths, Slots
from rstar_jax.models.step import stacked, step
from rstar_jax.models.transformer import Transformer
from rstar_jax.testing import tiny_model
from tests.models import plain
from tests.models.transformer_real_sizes_test import EXPECTED, layer_of
from tests.parity import real_sizes


@functools.partial(jax.jit, static_argnames=("graphdef", "layers"))
def run(params, pages, slots, *, graphdef, layers):
  return step(nnx.merge(graphdef, params), pages, slots, layers=layers)


def walk(model, ids, parts, layers=None, span=None):
  """Computes ids [T] in parts of so many tokens, in pages out of order."""
  layers = layers or model.config.num_layers
  count, most = 11, len(ids)
  tables = np.random.default_rng(0).permutation(count)[None].astype(np.int32)
  pages = pages_lib.empty(model.config, layers * count)
  hidden, start = [], 0
  graphdef, params = nnx.split(model)
  for size in parts:
    # Empty slots at the end, so that parts of any sizes are one program.
    tokens = np.zeros(most, np.int32)
    positions = np.full(most, -1, np.int32)
    tokens[:size] = ids[start : start + size]
    positions[:size] = np.arange(start, start + size)
    spans = np.full(most, span or len(ids), np.int32)
    rows = np.zeros(most, np.int32)
    slots = Slots(tokens, spans, Paths(tables, rows, positions))
    out, pages = run(params, pages, slots, graphdef=graphdef, layers=layers)
    hidden.append(np.asarray(out[:size], np.float32))
    start += size
  return np.concatenate(hidden)


# Two periods of layers and one more, which differ in all that a layer may.
KINDS = dict(
  num_layers=5,
  kinds=(
    (("rope_theta", 1e2), ("sliding_window", 5)),
    (("rotary_share", 0.0), ("sliding_window", 0)),
  ),
  norms="both",
  norm_form="offset",
  qk_norm="all",
  activation="gelu_pytorch_tanh",
  attention_scale=0.9,
  attention_softcap=2.0,
  sinks=True,
  embedding_multiplier=3.0,
  residual_multiplier=0.4,
  logits_scaling=1.7,
  logits_softcap=3.0,
)


def model_of_kinds():
  """Returns a model whose norms and sinks are not as they begin."""
  model = Transformer(tiny_model(**KINDS), rngs=nnx.Rngs(3))
  rng = np.random.default_rng(0)
  for path, variable in nnx.to_flat_state(nnx.state(model)):
    value = variable.get_value()
    scale = 0.3 if value.ndim == 1 or path[-1] == "scale" else 0.1
    noise = scale * rng.standard_normal(value.shape, np.float32)
    variable.set_value(value + noise)
  return model


class StepTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(),
    dict(sliding_window=5),
    dict(qk_norm="head", qkv_bias=False, rotary_share=0.5),
  )
  def test_is_the_whole_sequence_in_parts(self, **changes):
    model = Transformer(tiny_model(**changes), rngs=nnx.Rngs(3))
    ids = np.random.default_rng(1).integers(0, 260, 41).tolist()
    want = plain.Decoder(model).hidden(ids)
    for parts in ((41,), (1, 2, 13, 1, 24), (17, 16, 8)):
      got = walk(model, ids, parts)
      np.testing.assert_allclose(got, want, atol=2e-5)

  @parameterized.parameters(*real_sizes.LAYERS)
  def test_outputs_of_transformers(self, kind, width, length):
    model = layer_of(kind, width)
    (ids,) = real_sizes.tokens(length)
    got = walk(model, ids, (length - 20, 1, 19))
    name = f"layer_{kind}_{width}_{length}"
    want = EXPECTED[name]
    np.testing.assert_allclose(
      got[-real_sizes.KEPT :], want, atol=2e-4 * np.abs(want).max()
    )

  def test_kinds_of_layers_in_parts_and_scanned(self):
    model = model_of_kinds()
    ids = np.random.default_rng(1).integers(0, 260, 41).tolist()
    want = plain.Decoder(model)
    got = walk(model, ids, (1, 2, 13, 1, 24))
    np.testing.assert_allclose(got, want.hidden(ids), atol=2e-5)
    np.testing.assert_allclose(model.logits(got), want.logits(ids), atol=2e-5)
    periods = stacked(model)
    # Two layers twice, and the fifth.
    self.assertLen(periods.layers, 3)
    shapes = [x.attention.sinks.get_value().shape for x in periods.layers]
    self.assertEqual(shapes, [(2, 6), (2, 6), (6,)])
    got = walk(periods, ids, (24, 17), layers=5)
    np.testing.assert_allclose(got, want.hidden(ids), atol=2e-5)

  def test_layers_may_be_scanned(self):
    model = Transformer(tiny_model(num_layers=3), rngs=nnx.Rngs(3))
    one = stacked(model)
    self.assertLen(one.layers, 1)
    self.assertEqual(
      one.layers[0].mlp.up.get_value().shape,
      (3, *model.layers[0].mlp.up.get_value().shape),
    )
    ids = np.random.default_rng(1).integers(0, 260, 20).tolist()
    got = walk(one, ids, (15, 5), layers=3)
    want = plain.Decoder(model).hidden(ids)
    np.testing.assert_allclose(got, want, atol=2e-5)


if __name__ == "__main__":
  absltest.main()
