"""Tests of what the host tells the programs, and of one call of each."""

import functools
import types

import jax
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx
from jax import export

from rstar_jax.inference import programs
from rstar_jax.inference.programs import DecodePlan, Options, PrefillPlan
from rstar_jax.inference.runs import Shard
from rstar_jax.models import pages as pages_lib
from rstar_jax.models.step import stacked
from tests.inference import small
from tests.models import plain

COUNT, WIDTH = 7, 3


def run_of(ids, span, first=0):
  """Returns a run with pages for its ids, of a cache that has some of them."""
  shard, of = Shard(COUNT, lambda span: 0), types.SimpleNamespace(runs=set())
  for length in (first, len(ids)):
    part = ids[:length]
    run = shard.start(of, part, reuse=length, pages=span, span=span)
    if length:
      shard.cover(run, length - 1)
    if length == first:
      run.next = first
      shard.end(run)
  return run


class StructureTest(absltest.TestCase):
  def test_equal_models_share_one_structure(self):
    of = lambda *args, **options: nnx.split(small.model(*args, **options))  # noqa: E731
    (one, _), (other, params), (ppm, _) = of(), of(seed=8), of("tanh")
    structure = programs.structure_of(one)
    # So that programs of one are those of the other, without a comparison.
    self.assertIs(structure, programs.structure_of(other))
    self.assertIsNot(structure, programs.structure_of(ppm))
    graphdef, merged = nnx.split(structure.merge(params))
    self.assertIs(programs.structure_of(graphdef), structure)
    jax.tree.map(np.testing.assert_array_equal, merged, params)


class PlansTest(absltest.TestCase):
  def test_an_empty_plan(self):
    plan = DecodePlan(slots=5, steps=2, width=WIDTH, count=COUNT)
    self.assertEqual(plan.array.shape, (6 + 5 + WIDTH, 5))
    for each in (plan.tokens, plan.positions):
      np.testing.assert_array_equal(each, np.full((2, 5), -1))
    np.testing.assert_array_equal(plan.spans, [1] * 5)
    np.testing.assert_array_equal(plan.copies, [[0] * 5, [COUNT] * 5])
    self.assertFalse(plan.draws.any() or plan.seeds.any())
    np.testing.assert_array_equal(plan.temperatures, np.ones(5))
    self.assertEqual(plan.live, 0)
    plan.positions[0, 3] = 0
    self.assertEqual(plan.live, 1)
    # Of three steps, one that is not used.
    plan = DecodePlan(slots=5, steps=3, width=WIDTH, count=COUNT, used=2)
    self.assertEqual(plan.array.shape, (9 + 5 + WIDTH, 5))
    plan.positions[:], plan.tokens[:], plan.draws[:] = 7, 8, 9
    self.assertEqual(plan.array[:9, 0].tolist(), [8, 8, -1, 7, 7, -1, 9, 9, 0])
    self.assertEqual(plan.live, 2)
    plan = PrefillPlan(slots=8, rows=4, width=WIDTH, count=COUNT, shards=2)
    np.testing.assert_array_equal(plan.positions, [-1] * 8)
    np.testing.assert_array_equal(plan.spans, [1] * 8)
    # Empty slots come last in their shard.
    np.testing.assert_array_equal(plan.rows, [1] * 8)
    np.testing.assert_array_equal(plan.copies, [[0, COUNT]] * 4)

  def test_a_run_is_put_with_its_copy_once(self):
    run = run_of(list(range(40)), 44, first=20)
    source, target = run.copy
    self.assertNotEqual(source, target)
    plan = DecodePlan(slots=5, steps=2, width=WIDTH, count=COUNT)
    for slot in (3, 4):
      plan.put(slot, run)
    np.testing.assert_array_equal(plan.copies[:, 3], [source, target])
    np.testing.assert_array_equal(plan.copies[:, 4], [0, COUNT])
    np.testing.assert_array_equal(plan.tables[:, 3], run.table)
    np.testing.assert_array_equal(plan.tables[:, 4], run.table)
    np.testing.assert_array_equal(plan.spans, [1, 1, 1, 44, 44])
    np.testing.assert_array_equal(plan.array[6 + 5 :, 3], run.table)

  def test_a_run_of_a_prefix(self):
    run = run_of(list(range(100, 140)), 44, first=20)
    copy = run.copy
    plan = PrefillPlan(slots=16, rows=4, width=WIDTH, count=COUNT, shards=2)
    plan.put(9, 3, 1, run, 5)
    np.testing.assert_array_equal(plan.tokens[9:14], range(120, 125))
    np.testing.assert_array_equal(
      plan.positions[8:15], [-1, *range(20, 25), -1]
    )
    np.testing.assert_array_equal(plan.spans[8:15], [1] + [44] * 5 + [1])
    np.testing.assert_array_equal(plan.rows[9:14], [1] * 5)
    np.testing.assert_array_equal(plan.tables[3], run.table)
    np.testing.assert_array_equal(plan.copies[3], copy)
    self.assertIsNone(run.copy)


class ProgramsTest(parameterized.TestCase):
  @parameterized.parameters(0.0, 0.5, 1.7)
  def test_a_call_of_each(self, temperature):
    """A prefix by one program, and what follows it by the other."""
    model, ids, steps = small.model(), small.prefix(21), 4
    options = Options(layers=2, steps=steps + 2)
    pages = pages_lib.empty(model.config, 2 * COUNT)
    run = run_of(ids, 40)
    plan = PrefillPlan(slots=32, rows=2, width=WIDTH, count=COUNT)
    plan.put(3, 1, 1, run, 20)
    plan.rows[:3] = 0
    pages, values = jax.jit(
      functools.partial(programs.prefill, options=options)
    )(model, pages, plan.array, plan.by_path)
    self.assertIsNone(values)
    run.next = 20
    decode = DecodePlan(6, steps + 2, WIDTH, COUNT, used=steps)
    decode.put(2, run)
    # All four sample, and the third token is known.
    decode.tokens[0, 2], decode.tokens[2, 2] = ids[20], 99
    decode.positions[:, 2] = 20 + np.arange(steps)
    decode.draws[:, 2] = np.arange(steps)
    decode.seeds[2], decode.temperatures[2] = -5, temperature
    _, tokens, logprobs = jax.jit(
      functools.partial(programs.decode, options=options)
    )(model, pages, decode.array)
    # Steps without slots are not run.
    self.assertTrue(np.all(logprobs[:steps] < 0))
    self.assertFalse(np.any(logprobs[steps:]))
    tokens, logprobs = (np.asarray(each)[:, 2] for each in (tokens, logprobs))
    path = [*ids, tokens[0], 99, tokens[2]]
    exact = plain.Decoder(model).logprobs(path, span=40)[20:24]
    with jax.threefry_partitionable(True):
      draws = jax.random.uniform(jax.random.key(np.uint32(2**32 - 5)), (4,))
    for i in range(steps):
      want = exact[i].argmax()
      if temperature:
        shares = np.exp(exact[i] / temperature)
        cdf = np.cumsum(shares) / shares.sum()
        want = np.searchsorted(cdf, float(draws[i]))
      self.assertEqual(tokens[i], want)
      # At temperature 1, whatever the method.
      self.assertAlmostEqual(logprobs[i], exact[i, tokens[i]], delta=1e-4)

  @parameterized.parameters("cuda", "tpu")
  def test_other_platforms_have_programs_too(self, platform):
    model = stacked(small.model())
    graphdef, params = nnx.split(model)
    options = Options(layers=2, steps=2)

    def run(params, pages, plan):
      return programs.decode(nnx.merge(graphdef, params), pages, plan, options)

    plan = DecodePlan(32, 2, WIDTH, COUNT).array
    pages = pages_lib.empty(model.config, 2 * COUNT)
    exported = export.export(jax.jit(run), platforms=[platform])
    text = exported(params, pages, plan).mlir_module()
    self.assertNotIn("stablehlo.custom_call", text)

  def test_values_of_a_scalar_head(self):
    model, ids = small.model("tanh"), small.prefix(21)
    pages = pages_lib.empty(model.config, 2 * COUNT)
    plan = PrefillPlan(slots=32, rows=2, width=WIDTH, count=COUNT)
    plan.put(0, 0, 0, run_of(ids, 21), 21)
    _, values = jax.jit(
      functools.partial(programs.prefill, options=Options(layers=2))
    )(model, pages, plan.array, plan.by_path)
    want = plain.Decoder(model).values(ids)
    np.testing.assert_allclose(values[:21], want, atol=2e-5)


if __name__ == "__main__":
  absltest.main()
