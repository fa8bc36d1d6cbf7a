"""Lower bounds, against sums written out by hand and a published model."""

import dataclasses

from absl.testing import absltest

from rstar_jax.hf import model_config, published
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot import chips, lower_bound
from rstar_jax.tools.aot.shapes import Shapes

# D=10, N=6, K=2, H=3, F=14, V=50, 5 layers, float32.
_TINY = ModelConfig(
  vocab_size=50,
  num_layers=5,
  embed_dim=10,
  num_heads=6,
  num_kv_heads=2,
  head_dim=3,
  mlp_dim=14,
)
# q 180, k and v 60 each, o 180, MLP 3 x 140.
_LAYER = 180 + 60 + 60 + 180 + 420


class LowerBoundTest(absltest.TestCase):
  def test_parameters(self):
    self.assertEqual(lower_bound.matrix_parameters(_TINY), _LAYER)
    self.assertEqual(lower_bound.head_parameters(_TINY), 500)
    self.assertEqual(lower_bound.parameters(_TINY), 5 * _LAYER + 500)

  def test_parameters_of_a_published_model(self):
    model = model_config.from_fields(
      published.MODELS["Qwen/Qwen2.5-Math-7B"], ""
    )
    # All but biases and norms, which are under 0.01%.
    self.assertAlmostEqual(
      lower_bound.parameters(model) / 7_615_616_512, 1, delta=1e-4
    )

  def test_cache(self):
    # 5 layers, keys and values of 2 heads of 3 numbers of 4 bytes.
    self.assertEqual(lower_bound.cache_bytes(_TINY), 5 * 2 * 2 * 3 * 4)
    half = dataclasses.replace(_TINY, dtype="bfloat16")
    self.assertEqual(lower_bound.cache_bytes(half), 5 * 2 * 2 * 3 * 2)

  def test_decode(self):
    found = lower_bound.decode(_TINY, leaves=3, candidates=7, path=11, step=3)
    # Two steps run the layers and the head; the first token only the head, once
    # a leaf. Tokens see 11 + 1 and 11 + 2 others, with 2 products a head.
    products = 2 * 21 * 2 * (5 * _LAYER + 500) + 3 * 2 * 500
    attention = 21 * 5 * 6 * (2 * 2 * 3) * (12 + 13)
    self.assertEqual(found.flops, products + attention)
    weights = 4 * (2 * (5 * _LAYER + 500) + 500)
    token = 240
    paths = 3 * 11 * 2 * token
    own = 21 * (1 + 2) * token + 21 * 2 * token
    self.assertEqual(found.bytes, weights + paths + own)

  def test_replicas_each_read_the_weights(self):
    sizes = dict(leaves=4, candidates=7, path=11, step=2)
    one = lower_bound.decode(_TINY, **sizes)
    two = lower_bound.decode(_TINY, **sizes, replicas=2)
    self.assertEqual(two.flops, one.flops)
    self.assertEqual(two.bytes - one.bytes, 4 * (5 * _LAYER + 500 + 500))

  def test_forward(self):
    found = lower_bound.forward(_TINY, rows=6, length=3, before=11, shared=2)
    attention = 6 * 5 * 6 * (2 * 2 * 3) * (12 + 13 + 14)
    self.assertEqual(found.flops, 6 * 3 * 2 * 5 * _LAYER + attention)
    # Three paths of 11, and what is written of 6 x 3 tokens.
    self.assertEqual(found.bytes, 4 * 5 * _LAYER + 240 * (3 * 11 + 18))

  def test_training_is_three_forward_passes(self):
    found = lower_bound.training(_TINY, rows=6, length=3, head=True)
    once = lower_bound.forward(_TINY, rows=6, length=3).flops
    self.assertEqual(found.flops, 3 * (once + 2 * 18 * 500))
    self.assertEqual(found.bytes, 32 * (5 * _LAYER + 500))

  def test_seconds_are_those_of_the_slower_peak(self):
    # Four chips of 197 TFLOP/s and 819 GB/s.
    where = chips.parse("v5e:2x2")
    for flops, size, seconds in ((4 * 197e12, 819e9, 1), (1, 8 * 819e9, 2)):
      bound = lower_bound.LowerBound(flops, size)
      self.assertAlmostEqual(bound.seconds(where), seconds)

  def test_copies_compute_nothing(self):
    sizes = Shapes(moved=3, step=7, room=11)
    for name, tokens in (("commit", 6), ("fork", 11)):
      found = lower_bound.search(name, _TINY, sizes, 1)
      self.assertEqual((found.flops, found.bytes), (0, 2 * 3 * tokens * 240))

  def test_programs_of_the_search_run_their_tokens(self):
    sizes = Shapes(path=11, moved=6, tail=3, scored=2, columns=3, scored_step=3)
    # Six tails after six paths; six steps after two paths.
    for name, shared in (("advance", 1), ("score", 3)):
      self.assertEqual(
        lower_bound.search(name, _TINY, sizes, 1),
        lower_bound.forward(_TINY, rows=6, length=3, before=11, shared=shared),
      )


if __name__ == "__main__":
  absltest.main()
