"""The list of programs: compiled for simulated devices, counted, compared."""

import dataclasses
import functools

import jax
from absl.testing import absltest, parameterized

from rstar_jax.config.schema import Config, MeshConfig, TrainConfig
from rstar_jax.models import sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot import arrays, compiler, lower_bound, programs
from rstar_jax.tools.aot.shapes import Shapes

jax.config.update("jax_num_cpu_devices", 8)

_MODEL = ModelConfig(
  vocab_size=106,
  num_layers=1,
  embed_dim=20,
  num_heads=4,
  num_kv_heads=2,
  head_dim=6,
  mlp_dim=34,
  tied_embeddings=False,
)
_SHAPES = Shapes(
  slots=2,
  room=29,
  path=13,
  tail=5,
  moved=2,
  leaves=2,
  candidates=3,
  step=7,
  scored=1,
  columns=3,
  scored_step=7,
  value_room=29,
)


@functools.cache
def _mesh(data=1, fsdp=1, tensor=1):
  devices = jax.devices()[: data * fsdp * tensor]
  sizes = MeshConfig(data=data, fsdp=fsdp, tensor=tensor)
  return sharding.make_mesh(sizes, devices)


@functools.cache
def _search(name, layers=1, tensor=1):
  model = dataclasses.replace(_MODEL, num_layers=layers)
  program = programs.search_program(name, model, _SHAPES, _mesh(tensor=tensor))
  return compiler.compile_program(program)


@functools.cache
def _training(name, accumulate=1, fsdp=1, tensor=1, remat=False):
  model = dataclasses.replace(_MODEL, remat=remat)
  config = Config()
  training = TrainConfig(batch_size=4, length=24, accumulate=accumulate)
  setattr(config, name, training)
  mesh = _mesh(fsdp=fsdp, tensor=tensor)
  program = programs.training_program(name, model, config, mesh)
  return compiler.compile_program(program)


class SearchTest(parameterized.TestCase):
  def test_expand_computes_what_it_must(self):
    least = lower_bound.decode(_MODEL, leaves=2, candidates=3, path=13, step=7)
    found = _search("expand")
    ended = [runs for _, runs, known in found.cost.loops if not known]
    self.assertEqual(ended, [6])
    # Attention is to all rows that there are for a step's own tokens, not only
    # to those before the one at hand.
    seen = 6 * 6 - sum(range(1, 7))
    attention = 4 * 4 * 6 * 6 * seen
    self.assertEqual(found.cost.flops, least.flops + attention)
    self.assertGreater(found.cost.bytes, least.bytes)

  def test_layers_lie_on_a_line(self):
    line = compiler.extrapolate(
      _search("score"), _search("score", layers=2), (1, 2, 3), growing=False
    )
    found = _search("score", layers=3)
    self.assertEqual(line.cost.flops, found.cost.flops)
    self.assertEqual(line.arguments, found.arguments)

  @parameterized.parameters(*programs.SEARCH)
  def test_two_devices_share_the_work(self, name):
    one, two = _search(name), _search(name, tensor=2)
    self.assertEmpty(one.cost.collectives)
    self.assertLess(two.arguments, 0.6 * one.arguments)
    if name in ("commit", "fork"):
      self.assertEqual(two.cost.wire, 0)
    else:
      self.assertAlmostEqual(two.cost.flops / one.cost.flops, 0.5, delta=0.02)
      self.assertGreater(two.cost.wire, 0)

  def test_a_pool_is_written_in_place(self):
    pool = arrays.bytes_of(arrays.pool_of(_MODEL, 2, 29, _mesh()))
    # Keys and values: 2 slots, 2 heads, 29 tokens of 6 numbers; and the last
    # hidden states.
    self.assertEqual(pool, 4 * (2 * 2 * 2 * 29 * 6 + 2 * 20))
    for name in ("advance", "commit", "fork"):
      self.assertEqual(_search(name).aliased, pool)

  def test_advance_and_score_compute_what_they_must(self):
    # Tails of 5 after paths of 13; one leaf's 3 steps of 7.
    for name, rows, length in (("advance", 2, 5), ("score", 3, 7)):
      least = lower_bound.forward(_MODEL, rows=rows, length=length, before=13)
      masked = rows * (length * length - length * (length + 1) // 2)
      attention = 4 * 4 * 6 * masked
      # The scalar head, of each candidate.
      head = 2 * 3 * 20 * (name == "score")
      self.assertEqual(_search(name).cost.flops, least.flops + attention + head)

  def test_what_is_not_kept_is_not_returned(self):
    program = programs.search_program(
      "score", _MODEL, dataclasses.replace(_SHAPES, keep_scored=False), _mesh()
    )
    kept = arrays.bytes_of(arrays.candidates_of(_MODEL, (1, 3), 7, _mesh()))
    difference = (
      _search("score").outputs - compiler.compile_program(program).outputs
    )
    self.assertAlmostEqual(difference, kept, delta=200)

  def test_unknown_program(self):
    with self.assertRaisesRegex(ValueError, "'sft' is no program"):
      programs.search_program("sft", _MODEL, _SHAPES, _mesh())


class TrainingTest(parameterized.TestCase):
  def test_sft_computes_three_forward_passes(self):
    model = _MODEL
    least = lower_bound.training(model, rows=4, length=24, head=True)
    # Scores are made of all pairs of tokens, also of those that are masked.
    masked = 3 * 4 * 4 * 4 * 6 * (24 * 24 - 24 * 25 // 2)
    self.assertEqual(_training("sft").cost.flops, least.flops + masked)

  @parameterized.parameters(*programs.TRAINING)
  def test_accumulation_counts_each_part(self, name):
    whole, parts = _training(name), _training(name, accumulate=2)
    self.assertEqual(parts.cost.flops, whole.cost.flops)
    self.assertIn(2, [runs for _, runs, _ in parts.cost.loops])

  def test_recomputing_adds_a_forward_pass_of_the_layers(self):
    model = _MODEL
    plain, again = _training("sft"), _training("sft", remat=True)
    once = 2 * 4 * 24 * lower_bound.matrix_parameters(model)
    attention = 4 * 4 * 6 * 4 * 24 * 24
    # Of what is made again the last product is not needed.
    self.assertGreater(again.cost.flops, plain.cost.flops)
    self.assertLessEqual(again.cost.flops, plain.cost.flops + once + attention)

  def test_state_is_updated_in_place(self):
    found = _training("sft")
    # Masters and two moments, 4 bytes each.
    count = lower_bound.parameters(_MODEL)
    self.assertGreater(found.aliased, 12 * count)
    self.assertLess(found.outputs - found.aliased, 1000)

  def test_a_mesh_shares_the_state(self):
    one, four = _training("sft"), _training("sft", fsdp=2, tensor=2)
    self.assertLess(four.arguments, 0.3 * one.arguments)
    self.assertGreater(four.cost.wire, 0)

  def test_it_is_traced_in_its_mesh_as_the_trainer_does(self):
    config = Config()
    config.sft = TrainConfig(batch_size=4, length=24)
    mesh = _mesh(fsdp=2, tensor=2)
    program = programs.training_program("sft", _MODEL, config, mesh)
    # The activations' rows are held to both axes that cut a batch.
    self.assertIn('[{"data", "fsdp"}', program.lower().as_text())
    state, metrics = program.results
    begun = program.arguments[0]
    self.assertEqual(jax.tree.map(lambda one: one.sharding, begun), state)
    self.assertTrue(metrics.is_fully_replicated)


if __name__ == "__main__":
  absltest.main()
