"""A step's bits depend on its prefix and seed: shuffled, delayed, dropped."""

import concurrent.futures
import functools
import time

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.generated import Stop
from tests.inference import small

# Sizes of an engine whose pages are emptied before each request, and of others;
# with the last pages are dropped all the time.
FRESH = dict(rows=32, inner_steps=8, prefill_tokens=32)
SIZES = (
  dict(rows=64, inner_steps=1, prefill_tokens=96),
  dict(rows=128, inner_steps=3, prefill_tokens=64),
  dict(rows=96, inner_steps=16, prefill_tokens=256, pages=24),
)
# Prefixes at the borders of pages; some begin alike.
LENGTHS = (1, 15, 16, 17, 31, 32, 33, 70)
STOPS = (
  Stop(9, frozenset(range(0, 265, 7))),
  Stop(1),
  Stop(17, frozenset(range(0, 265, 23))),
  Stop(5, frozenset([3]), ((70, 71),)),
)


def make(kernels, dtype, **sizes):
  config = EngineConfig(
    kernels=kernels,
    max_prefix_tokens=120,
    max_step_tokens=17,
    max_block_tokens=17,
    **sizes,
  )
  return Engine(small.model(dtype=dtype, max_length=256), config)


def requests():
  """Returns (prefix, seeds, stop, temperature) of each request."""
  found = []
  for number, length in enumerate(LENGTHS):
    seeds = range(100 * number, 100 * number + (1, 3, 5, 40)[number % 4])
    found.append(
      (
        *(small.prefix(length, number // 4), seeds, STOPS[number % 4]),
        (None, 1.7)[number // 4],
      )
    )
  found.append((small.prefix(33), (1, 2), STOPS[0], 0.0))
  return found


def ask(engine, request):
  ids, seeds, stop, temperature = request
  return engine.submit(ids, seeds, stop, temperature=temperature)


def children(request, steps, most=2):
  """Returns requests that go on from a request's first candidates."""
  ids, _, stop, temperature = request
  return [
    (
      [*ids, *step.token_ids, *small.prefix(column % 3, 9)],
      (7, 8),
      stop,
      temperature,
    )
    for column, step in enumerate(steps[:most])
  ]


@functools.cache
def expected(kernels, dtype):
  """Returns requests with their steps, each of an engine with empty pages.

  Two generations of children are there too: what was sampled before, these
  compute as prefixes.
  """
  engine = make(kernels, dtype, **FRESH)
  found, generation = [], requests()
  for _ in range(3):
    after = []
    for request in generation:
      engine.memory.free()
      steps = ask(engine, request).result()
      found.append((request, steps))
      after += children(request, steps)
    generation = after[::3]
  return found


def check(test, kind, sizes):
  """Fails unless steps are those of an engine with empty pages.

  Args:
    test: a test case.
    kind: of `small.KINDS`.
    sizes: index of SIZES.
  """
  engine = make(*kind, **SIZES[sizes])
  asked = expected(*kind)
  rng = np.random.default_rng(sizes)

  def some(order, waits, cancels):
    """Asks in an order, from a thread of its own."""
    futures = []
    for index, wait, cancel in zip(order, waits, cancels, strict=True):
      time.sleep(wait)
      future = ask(engine, asked[index][0])
      if cancel:
        # A neighbour that goes at some moment.
        time.sleep(wait)
        future.cancel()
      else:
        futures.append((index, future))
    return [(index, future.result()) for index, future in futures]

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    parts = [
      pool.submit(
        some,
        rng.permutation(len(asked)),
        rng.choice([0, 0, 0, 0.002], len(asked)),
        rng.random(len(asked)) < 0.2,
      )
      for _ in range(2)
    ]
    for part in parts:
      for index, steps in part.result():
        test.assertEqual(steps, asked[index][1], asked[index][0])
  test.assertEqual(engine.memory.dropped > 0, "pages" in SIZES[sizes])
  test.assertEmpty(small.leaks(engine))


class BitsTest(parameterized.TestCase):
  @parameterized.product(kind=[*small.KINDS[:2]], sizes=[*range(len(SIZES))])
  def test_steps_are_those_of_an_engine_with_empty_pages(self, kind, sizes):
    check(self, kind, sizes)

  def test_requests_differ(self):
    steps = [each for _, row in expected("xla", "float32") for each in row]
    self.assertGreater(len({each.logprob for each in steps}), 100)
    self.assertGreater(len({len(each.token_ids) for each in steps}), 5)


if __name__ == "__main__":
  absltest.main()
