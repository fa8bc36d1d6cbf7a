"""Scripted searches that are paid for, on engines that only count."""

import collections
import types
from concurrent.futures import Future

import numpy as np
from absl.testing import absltest, flagsaver

from benchmarks import seconds, simulation
from rstar_jax.inference.generated import Generated
from rstar_jax.search import driver
from tests.benchmarks import worlds

# Ids from here on were written by the engine, the others were read.
OWN = 10**6


def done(result) -> Future:
  future: Future = Future()
  future.set_result(result)
  return future


class Devices:
  """Counts what is asked, and answers at once."""

  def __init__(self):
    self.tokenizer, self.asked, self.written = worlds.TOKENIZER, [], 0
    self.read = 0
    self.engine = types.SimpleNamespace(submit=self.sample)
    self.scorer = types.SimpleNamespace(submit=self.score)
    self.sandbox = types.SimpleNamespace(run=self.run)

  def sample(self, ids, seeds, stop):
    assert len(seeds) == 1
    self.asked.append((tuple(ids), stop.limit))
    first = OWN + self.written
    self.written += stop.limit
    step = tuple(range(first, OWN + self.written))
    return done([Generated(step, (0.0,) * len(step), -1)])

  def score(self, question, prefix, steps):
    del question, prefix
    self.read += len(steps)
    return done(np.zeros(len(steps), np.float32))

  def run(self, programs):
    return [self.checker.run(each) for each in programs]


class PaidTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(
      flagsaver.flagsaver(levels=["4"], rollouts=3, slip=0.3, flip=0.1)
    )
    self.totals = collections.Counter()
    (self.solved,) = simulation.drawn([4], 1, 0)

  def solve(self, method):
    """Returns what a search finds, paid for and not."""
    devices, world = Devices(), worlds.of(self.solved)
    devices.checker = world.checker
    paid = seconds.Paid(self.solved, devices, 1)
    search = seconds.searches_of(method, self.solved, 6, 1)
    (found,) = driver.run_searches(
      [seconds.counted(search, self.totals)],
      paid.calls(method in ("majority", "best")),
      1,
    )
    expected = world.run(
      seconds.searches_of(method, self.solved, 6, 1),
      blocks=method in ("majority", "best"),
    )
    return devices, found, expected

  def test_searches_find_what_the_simulation_s_find(self):
    for method in ("mcts", "beam_2"):
      self.totals.clear()
      devices, found, expected = self.solve(method)
      self.assertEqual(found.to_record(), expected.to_record(), method)
      # All tokens of the tree were written, and all values read.
      self.assertEqual(devices.written, found.tokens)
      self.assertGreaterEqual(devices.read, len(found) - 1)
      self.assertLen(devices.asked, 8 * self.totals["expansions"])
      # Each expansion's longest candidate, where none waits for another.
      longest = [
        max(size for _, size in devices.asked[i : i + 8])
        for i in range(0, len(devices.asked), 8)
      ]
      serial = self.totals["serial"]
      if method == "mcts":
        self.assertEqual(serial, sum(longest))
      else:
        self.assertBetween(serial, max(longest) + 1, sum(longest) - 1)

  def test_samples_are_those_of_the_simulation(self):
    for method in ("majority", "best"):
      devices, found, expected = self.solve(method)
      self.assertEqual(found, expected)
      self.assertEqual(devices.read > 0, method == "best")

  def test_what_the_engine_wrote_is_what_it_goes_on_from(self):
    devices, *_ = self.solve("mcts")
    tokenizer = worlds.TOKENIZER
    prompt = tokenizer.prompt(self.solved.problem.question)
    question = tokenizer.encode(prompt)
    size = len(question)
    longer = [ids for ids, _ in devices.asked if len(ids) > size]
    self.assertNotEmpty(longer)
    for ids, _ in devices.asked:
      self.assertEqual(list(ids[:size]), question)
    for ids in longer:
      self.assertGreaterEqual(ids[size], OWN)
    # Few first steps were gone on from, each as it was first written.
    self.assertLess(len({ids[size] for ids in longer}), len(longer))


class RatesTest(absltest.TestCase):
  def test_by_hand(self):
    turn = {"in_flight": 16, "device": 0.5, "cpu": 1.0, "read": 0.0}
    turns = [
      turn | {"method": "majority", "seconds": 2.0, "generated": 4000.0},
      turn | {"method": "majority", "seconds": 4.0, "generated": 4000.0},
      turn
      | {"method": "best", "seconds": 5.0, "generated": 4000.0}
      | {"read": 1000.0},
      turn
      | {"method": "best", "seconds": 5.0, "generated": 4000.0}
      | {"read": 1000.0},
      turn
      | {"method": "mcts", "seconds": 6.0, "generated": 3000.0}
      | {"read": 500.0},
    ]
    found = {each["method"]: each for each in seconds.rates(turns)}
    self.assertEqual([*found], ["majority", "read", "mcts"])
    self.assertEqual(found["majority"]["seconds"], 1e3 * 6 / 8000)
    self.assertEqual(found["read"]["seconds"], 1e3 * 4 / 2000)
    self.assertEqual(found["read"]["device"], 0.0)
    self.assertEqual(found["mcts"]["seconds"], 2.0)
    self.assertEqual(found["mcts"]["cpu"], 1e3 * 1 / 3000)


if __name__ == "__main__":
  absltest.main()
