"""The simulation of a host, against what is worked out by hand."""

import contextlib
import dataclasses
import io
import json

import numpy as np
from absl.testing import absltest, flagsaver, parameterized

from benchmarks import fleet
from benchmarks.fleet import Host, Pages, Simulation, Workers
from benchmarks.fleet_work import ROUNDS, Round, Source, Tick
from configs import qwen2_5_math_7b
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot import chips, plan, programs


class _Fixed(Host):
  """A host whose calls take a second each to sample, and ten to read."""

  def decode(self, keys, read):
    return 1.0

  def prefill(self, keys, read):
    return 10.0


def _host(**options):
  sizes = dict(rows=4, steps=8, slots=64, pages=1000, span=16, in_flight=1)
  where = chips.parse("v5e:2x2")
  return _Fixed(ModelConfig(), where, **(sizes | options))


class _Given:
  """A source of the same trees for each problem."""

  def __init__(self, *ticks):
    self._ticks = list(ticks)

  def problem(self):
    return [self._ticks]


def _tick(*lengths, path=40, after=-1, **options):
  return Tick(np.array(lengths), path, after, **options)


def _run(source, problems=1, **options):
  simulation = Simulation(_host(**options), source, problems)
  return simulation.run()


class SimulationTest(parameterized.TestCase):
  def test_one_expansion(self):
    found = _run(_Given(_tick(8, 16, 3, 24)))
    # The prompt, then as many calls as the longest candidate wants.
    self.assertEqual(found.seconds, 10 + 3)
    self.assertEqual((found.tokens, found.prefilled), (51, 40))
    self.assertEqual((found.rows, found.slots), (3 * 4 * 8, 64))

  def test_rows_are_refilled(self):
    # 3 x 4 candidates of a call each, and two more of one each.
    found = _run(_Given(_tick(*[8] * 12, 16, 16)))
    self.assertEqual(found.seconds, 10 + 5)
    self.assertEqual(found.tokens, 12 * 8 + 32)

  def test_trees_do_not_wait_for_a_slow_program(self):
    slow = _Given(_tick(8, programs=(100.0,)))
    for in_flight, seconds in ((1, 2 * 111), (2, 110 + 1)):
      found = _run(slow, problems=2, in_flight=in_flight)
      self.assertAlmostEqual(found.seconds, seconds, delta=10)
      self.assertEqual(found.tokens, 16)

  def test_scores(self):
    # 30 tokens of two candidates, and the prompt of 40, which takes two calls.
    found = _run(_Given(_tick(10, 20, 30, scored=2)))
    self.assertEqual(found.scored, 70)
    self.assertEqual(found.scoring, 20)
    self.assertEqual(found.seconds, 10 + 4 + 20)

  def test_what_was_sampled_is_not_read(self):
    ticks = _tick(8, 8), _tick(8, 8, path=48, after=0)
    found = _run(_Given(*ticks))
    self.assertEqual((found.prefilled, found.again), (40, 0))
    # The prompt has three pages, a candidate one: its first was dropped.
    found = _run(_Given(*ticks), pages=4)
    self.assertEqual((found.prefilled, found.again), (40 + 8, 8))

  @parameterized.parameters(False, True)
  def test_all_work_is_done(self, patient):
    source, again = (Source(Round(4, 8, ppm=True), seed=3) for _ in range(2))
    ticks = [t for _ in range(9) for tree in again.problem() for t in tree]
    options = dict(in_flight=4, rows=16, pages=10**6, patient=patient)
    found = _run(source, problems=9, **options)
    self.assertEqual(found.tokens, sum(int(t.lengths.sum()) for t in ticks))
    steps = sum(int(t.lengths[: t.scored].sum()) for t in ticks)
    self.assertGreaterEqual(found.scored, steps)
    self.assertLess(found.useful, 1)
    self.assertBetween(found.idle, 0, 1)

  def test_agrees_with_the_plan(self):
    where = chips.parse("v5e:4x4")
    config = qwen2_5_math_7b.get_config()
    model = programs.model_config(config.policy.path, config.policy.dtype)
    source = Source(ROUNDS["4"])
    host = fleet.host_of(where.host, source, patient=True)
    simulation = Simulation(host, source, 80)
    simulation.run()
    found = fleet.row_of(simulation.steady, host)
    a = dataclasses.replace(
      plan.Assumptions(), useful=found["rows_useful"], scored=found["scored"]
    )
    rates = plan.rates(config, model, where, a)
    seconds = 1 / rates["decode"] + a.scored / rates["score"]
    ratio = found["tokens_per_second_per_chip"] * seconds
    self.assertBetween(ratio, 0.85, 1.15)


class MainTest(parameterized.TestCase):
  @parameterized.parameters(
    (2, ["all problems"]), (3, ["all problems", "the middle"])
  )
  def test_the_middle_is_where_all_trees_are_in_flight(self, problems, parts):
    with (
      flagsaver.flagsaver(round="2", problems=problems, in_flight=2),
      contextlib.redirect_stdout(io.StringIO()) as out,
    ):
      fleet.main([])
    lines = [json.loads(each) for each in out.getvalue().splitlines()]
    self.assertEqual([each["of"] for each in lines], parts)
    for each in lines:
      self.assertGreater(each["tokens_per_second_per_chip"], 0)


class PagesTest(absltest.TestCase):
  def test_least_recently_used_are_dropped(self):
    # Prompts of 2 pages; the first has two candidates of one page each.
    pages = Pages(5)
    first = [_tick(9, 9, path=32), _tick(1, path=41, after=0, child=1)]
    self.assertEqual(pages.missing(0, first, 0), 32)
    pages.put(0, first, 0, np.array([9, 9]))
    self.assertEqual(pages.missing(0, first, 1), 0)
    # Another prompt of 2: the candidate that nobody went on with makes room.
    self.assertEqual(pages.missing(1, [_tick(1, path=32)], 0), 32)
    self.assertEqual(pages.missing(0, first, 1), 0)
    self.assertEqual(pages.missing(2, [_tick(1, path=80)], 0), 80)
    # That took all five.
    self.assertEqual(pages.missing(0, first, 1), 41)


class WorkersTest(absltest.TestCase):
  def test_first_come_first_served(self):
    workers = Workers(2)
    self.assertEqual(workers.run(0.0, [3.0, 1.0, 1.0]), 3.0)
    self.assertEqual(workers.run(1.0, [5.0]), 7.0)
    self.assertEqual(workers.run(9.0, []), 9.0)


if __name__ == "__main__":
  absltest.main()
