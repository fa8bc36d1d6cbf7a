"""The model of cost against the compiler's counts, and sums made by hand."""

import dataclasses
import math
import re

import jax
from absl.testing import absltest, parameterized

from rstar_jax.config.schema import MeshConfig, TrainConfig
from rstar_jax.models import meshes
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot import chips, cost, programs
from rstar_jax.tools.aot.cost import Work
from tests.tools.aot import small

jax.config.update("jax_num_cpu_devices", 4)

# Sizes whose products are worked out in one's head.
_TINY = ModelConfig(
  vocab_size=10,
  num_layers=3,
  embed_dim=4,
  num_heads=2,
  num_kv_heads=1,
  head_dim=2,
  mlp_dim=5,
  tied_embeddings=False,
)


def _mesh(tensor, fsdp=1):
  config = MeshConfig(data=1, fsdp=fsdp, tensor=tensor)
  return meshes.make(config, jax.devices()[: tensor * fsdp])


class StepTest(parameterized.TestCase):
  @parameterized.product(name=programs.SEARCH, tensor=(1, 4))
  def test_as_the_compiler_counts(self, name, tensor):
    program = programs.search_program(
      name, small.MODEL, small.config(), _mesh(tensor)
    )
    compiled = program.lower().compile()
    # It counts the body of a scan once: one layer, and one block of keys.
    # A quarter of the 64 rows is less than a block.
    tokens = 32 if name == "few" else 64
    least = cost.step(
      dataclasses.replace(small.MODEL, num_layers=1),
      tokens=tokens,
      keys=tokens * 128,
      read=0,
      sampled=tokens if name in ("decode", "few") else 0,
      tensor=tensor,
    )
    # It also counts sums and exponentials.
    ratio = compiled.cost_analysis()["flops"] / least.flops
    self.assertBetween(ratio, 1, 1.03)
    # Two sums of activations in a layer, and one of the embedding's rows.
    sums = [
      math.prod(map(int, shape.split(",")))
      for shape in re.findall(
        r" = \w+\[([\d,]+)\]\S* all-reduce\(", compiled.as_text()
      )
    ]
    large = [each for each in sums if each == tokens * small.MODEL.embed_dim]
    self.assertLen(large, 3 if tensor > 1 else 0)
    ring = 2 * (tensor - 1) / tensor
    self.assertEqual(least.wire, ring * 4 * sum(large))

  @parameterized.parameters((False, 1.01), (True, 1.04))
  def test_weights_are_those_of_the_program(self, int8, most):
    config = small.config()
    config.engine.weights = "int8" if int8 else "float"
    program = programs.search_program("decode", small.MODEL, config, _mesh(4))
    held = programs.bytes_of(program.arguments[0])
    least = cost.step(
      small.MODEL, tokens=0, keys=0, read=0, sampled=1, tensor=4, int8=int8
    )
    # The embedding is not read whole; what is left are biases, norms, scales.
    embedding = 4 * cost.head_parameters(small.MODEL) / 4
    logits = 2 * 4 * small.MODEL.vocab_size / 4
    self.assertBetween(held / (least.bytes - logits + embedding), 1, most)

  def test_by_hand(self):
    found = cost.step(_TINY, tokens=7, keys=11, read=13, sampled=5)
    # q and o 4 x 4, k and v 4 x 2, three of 4 x 5.
    layer = 2 * 16 + 2 * 8 + 60
    self.assertEqual(cost.layer_parameters(_TINY), layer)
    self.assertEqual(
      found.flops, 2 * (7 * 3 * layer + 5 * 40) + 4 * 3 * 2 * 2 * 11
    )
    # A head of 2 takes 128 numbers of a page.
    keys_and_values = 2 * 3 * 128 * 4 * (13 + 7)
    self.assertEqual(cost.token_bytes(_TINY), 2 * 3 * 128 * 4)
    logits = 2 * 4 * 5 * 10
    self.assertEqual(
      found.bytes, 4 * (3 * layer + 40) + logits + keys_and_values
    )
    self.assertEqual(found.wire, 0)

  def test_heads_that_do_not_divide_are_on_every_chip(self):
    one, two = (
      cost.step(_TINY, tokens=0, keys=0, read=read, tensor=2)
      for read in (0, 100)
    )
    self.assertEqual(two.bytes - one.bytes, 100 * cost.token_bytes(_TINY))


class UpdateTest(absltest.TestCase):
  def test_as_the_compiler_counts(self):
    config = small.config()
    config.sft = TrainConfig(batch_size=8, length=128, accumulate=1)
    program = programs.training_program("sft", small.MODEL, config, _mesh(1))
    flops = program.lower().compile().cost_analysis()["flops"]
    least = cost.update(small.MODEL, rows=8, length=128, head=True, chips=1)
    # Attention is to all keys of a row, masked or not, and logits are computed
    # again; see `sft_loss`.
    self.assertBetween(flops / least.flops, 1, 1.35)

  def test_by_hand(self):
    layers = 3 * (2 * 16 + 2 * 8 + 60)
    sizes = dict(rows=6, length=3, head=False)
    found = cost.update(_TINY, **sizes, chips=1)
    # 18 tokens, which attend to 1, 2 and 3.
    forward = 2 * 18 * layers + 4 * 3 * 2 * 2 * 36
    self.assertEqual(found.flops, 3 * forward)
    self.assertEqual(found.wire, 0)
    again = dataclasses.replace(_TINY, remat="layer")
    # All but the last product of the MLP.
    more = 2 * 18 * (layers - 3 * 20) + 4 * 3 * 2 * 2 * 36
    flops = cost.update(again, **sizes, chips=1).flops
    self.assertEqual(flops, 3 * forward + more)
    again = dataclasses.replace(_TINY, remat="mlp")
    flops = cost.update(again, **sizes, chips=1).flops
    self.assertEqual(flops, 3 * forward + 2 * 18 * 3 * 40)
    self.assertEqual(cost.useful(again, **sizes), 3 * forward)
    many = cost.update(_TINY, **sizes, chips=4, tensor=2)
    self.assertEqual(many.flops, found.flops / 4)
    # Half of the weights' half comes from the other shard, twice, and as much
    # of the gradient goes back; two sums a layer of 9 rows in three passes.
    parameters = layers + 40
    gathered = parameters / 2 / 2 * 3 * 4
    self.assertEqual(many.wire, gathered + 2 * 3 * 3 * 9 * 4 * 4)


class SecondsTest(absltest.TestCase):
  def test_links_come_on_top(self):
    where = chips.parse("v5e:2x2")
    work = Work(flops=197e12, bytes=819e9 / 2, wire=100e9 / 4)
    self.assertAlmostEqual(work.seconds(where), 1.25)
    self.assertAlmostEqual((work + work).seconds(where), 2.5)

  def test_so_do_other_slices(self):
    where = chips.parse("2x v5e:2x2")
    # 25 Gbit/s of a chip.
    work = Work(flops=197e12, between=25e9 / 8)
    self.assertEqual(work.parts(where)["dcn"], 1.0)
    self.assertAlmostEqual((work + work).seconds(where), 4.0)
    self.assertNotIn("dcn", Work(flops=1).parts(where))


if __name__ == "__main__":
  absltest.main()
