"""Tests of values of paths, against a decoder that runs each whole."""

import concurrent.futures
import functools
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference import paged_model
from rstar_jax.inference.scoring import ScoringEngine
from rstar_jax.models.config import RopeScaling
from tests.inference import small
from tests.models import plain

BORDER = 40
ROPE = RopeScaling(
  kind="longrope",
  original_length=BORDER,
  short_factor=(1.0,) * 16,
  long_factor=tuple(2.0 + i for i in range(16)),
)
# Slots of a call, and pages.
SIZES = (dict(prefill_tokens=96), dict(prefill_tokens=256, pages=20))


def make(kernels="xla", dtype="float32", head="tanh", changes=(), **config):
  sizes = {
    "kernels": kernels,
    "prefill_tokens": 32,
    "max_prefix_tokens": 64,
    "max_step_tokens": 20,
  }
  model = small.model(head, dtype, **dict(changes))
  return ScoringEngine(model, EngineConfig(**sizes | config))


@functools.cache
def shared(*kind):
  return make(*kind)


def empty(*kind):
  engine = shared(*kind)
  engine.memory.free()
  engine.prefilled_tokens = engine.prefix_tokens = engine.scored = 0
  engine.slots = engine.useful = 0
  return engine


def requests():
  """Returns lists of paths: trees of steps, at borders of pages and not."""
  found = []
  for length in (1, 14, 15, 16, 17, 31, 32, 33, 50):
    before = small.prefix(length, length % 3)
    steps = [small.prefix(n, 10 + n) for n in (1, 2, 16, 19)]
    found.append([[*before, *step] for step in steps[: 1 + length % 4]])
    # Of the step that was scored first.
    found.append([[*found[-1][0], *step] for step in steps[1:]])
  return [*found, [small.prefix(3)], [small.prefix(9)] * 2]


@functools.cache
def expected(*kind):
  """Returns the values of each request, in an engine with empty pages."""
  return [empty(*kind).submit(paths).result() for paths in requests()]


class ScoringEngineTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(),
    dict(head="logit"),
    dict(changes=(("sliding_window", 11),)),
    dict(changes=(("rope", ROPE),)),
    dict(weights="int8"),
    *(dict(kernels=kind) for kind, _ in small.KINDS[2::2]),
  )
  def test_values_are_those_of_whole_sequences(self, **options):
    engine = make(**options)
    exact = plain.Decoder(engine_model(options))
    waiting = [engine.submit(paths) for paths in requests()]
    for paths, each in zip(requests(), waiting, strict=True):
      want = [exact.values(path)[-1] for path in paths]
      self.assertEqual(each.result().dtype, np.float32)
      np.testing.assert_allclose(each.result(), want, atol=2e-5)
    everything = np.concatenate([each.result() for each in waiting])
    # Values that all agree would prove little.
    self.assertGreater(np.std(everything), 0.01)
    self.assertEqual(engine.scored, len(everything))
    self.assertEmpty(small.leaks(engine))

  @parameterized.product(kind=[*small.KINDS], sizes=[*SIZES])
  def test_bits_are_those_of_an_engine_with_empty_pages(self, kind, sizes):
    engine = make(*kind, **sizes)
    asked = requests()
    rng = np.random.default_rng(0)

    def some(order, cancels):
      waiting = [(i, engine.submit(asked[i])) for i in order]
      return {
        i: each.result().tobytes()
        for (i, each), cancel in zip(waiting, cancels, strict=True)
        if not (cancel and each.cancel())
      }

    want = [each.tobytes() for each in expected(*kind)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
      parts = [
        pool.submit(
          some, rng.permutation(len(asked)), rng.random(len(asked)) < 0.3
        )
        for _ in range(4)
      ]
      for part in parts:
        self.assertEqual(part.result(), {i: want[i] for i in part.result()})
    self.assertEqual(engine.memory.dropped > 0, "pages" in sizes)
    self.assertEmpty(small.leaks(engine))

  def test_what_is_in_pages_is_not_computed_again(self):
    engine = empty()
    before, steps = small.prefix(40), [small.prefix(n, n) for n in (5, 9)]
    paths = [[*before, *step] for step in steps]
    first = engine.submit(paths).result()
    self.assertEqual(engine.prefix_tokens, 45 + 49)
    self.assertEqual(engine.prefilled_tokens, 40 + 5 + 9)
    self.assertEqual(engine.useful, 54)
    self.assertGreaterEqual(engine.slots, 54)
    # Of what was scored the last token alone, for its value.
    again = engine.submit(paths).result()
    self.assertEqual(engine.prefilled_tokens, 54 + 2)
    self.assertEqual(first.tobytes(), again.tobytes())
    engine.submit([[*paths[0], 20, 21]]).result()
    self.assertEqual(engine.prefilled_tokens, 56 + 2)

  def test_paths_longer_than_any_page_table(self):
    engine = make()
    exact = plain.Decoder(small.model("tanh"))
    lengths = (30, 85, 200, 84)
    self.assertEqual(engine.sizes.path_pages, 6)
    waiting = [engine.submit([small.prefix(n, n)]) for n in lengths]
    for length, each in zip(lengths, waiting, strict=True):
      want = exact.values(small.prefix(length, length))[-1]
      np.testing.assert_allclose(each.result(), [want], atol=2e-5)
    self.assertGreaterEqual(engine.sizes.path_pages, 13)
    self.assertEmpty(small.leaks(engine))

  def test_more_steps_than_pages(self):
    """A request gets its pages, and again while the cache has its pages."""
    engine = make(pages=1)
    exact = plain.Decoder(small.model("tanh"))
    before = small.prefix(20)
    paths = [[*before, *small.prefix(15, i)] for i in range(30)]
    for turn in (paths, paths, paths[::-1], [each[:-1] for each in paths]):
      values = engine.submit(turn).result(timeout=120)
      self.assertEqual(engine.sizes.shard_pages, 2 + 30 * 2)
      want = [exact.values(path)[-1] for path in turn]
      np.testing.assert_allclose(values, want, atol=2e-5)
      self.assertEmpty(small.leaks(engine))
    dropped = engine.memory.dropped
    self.assertGreater(dropped, 0)
    # Other pages, or other weights: what was dropped was dropped.
    engine.submit([small.prefix(200)]).result(timeout=120)
    self.assertGreaterEqual(engine.memory.dropped, dropped)
    engine.memory.free()
    self.assertGreaterEqual(engine.memory.dropped, dropped)

  def test_cancelled_requests_leave_nothing(self):
    engine = empty()
    for turn in range(8):
      waiting = [
        engine.submit(
          [small.prefix(60, 9 * turn + i), small.prefix(70, 9 * turn + i)]
        )
        for i in range(8)
      ]
      waiting.pop(turn % 3).result()
      for each in waiting:
        each.cancel()
    engine.submit([[5, 6]]).result()
    self.assertEmpty(small.leaks(engine))

  def test_an_error_reaches_all_who_wait_and_the_engine_works_on(self):
    engine = empty()
    with mock.patch.object(
      paged_model, "_prefill", side_effect=MemoryError("no pages")
    ):
      waiting = [engine.submit([small.prefix(9, i)]) for i in range(9)]
      for each in waiting:
        with self.assertRaisesRegex(MemoryError, "no pages"):
          each.result(timeout=60)
    want = expected("xla", "float32")[0]
    np.testing.assert_array_equal(engine.submit(requests()[0]).result(), want)
    self.assertEmpty(small.leaks(engine))

  def test_one_too_long_for_the_device_fails_alone(self):
    engine = make()
    allocate = engine.memory._attention.empty

    def empty(config, layers, count):
      if count > 1000:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: x")
      return allocate(config, layers, count)

    tight = mock.Mock(wraps=engine.memory._attention)
    tight.empty.side_effect = empty
    engine.memory._attention = tight
    short = requests()[0]
    want = expected("xla", "float32")[0]
    for turn in range(2):
      # Those after it are in line behind it when it fails.
      long = [small.prefix(3000, turn)]
      waiting = [engine.submit(each) for each in (short, long, short, short)]
      with self.assertRaisesRegex(ValueError, "pages of keys and values take"):
        waiting.pop(1).result(timeout=60)
      for each in waiting:
        np.testing.assert_array_equal(each.result(timeout=60), want)
    self.assertEqual(engine.sizes.path_pages, 6)
    self.assertEmpty(small.leaks(engine))

  def test_other_weights(self):
    engine = make()
    paths = [small.prefix(20)]
    before = engine.submit(paths).result()
    engine.load(small.model("tanh", seed=8))
    want = plain.Decoder(small.model("tanh", seed=8)).values(paths[0])[-1]
    after = engine.submit(paths).result()
    np.testing.assert_allclose(after, [want], atol=2e-5)
    self.assertNotAlmostEqual(float(before[0]), float(after[0]), places=3)

  def test_nothing_to_score(self):
    engine = shared()
    self.assertEqual(engine.submit([]).result().shape, (0,))
    with self.assertRaisesRegex(ValueError, "a path has no tokens"):
      engine.submit([[1], []])


def engine_model(options):
  """Returns the model that an engine of `make` computes."""
  model = small.model(
    options.get("head", "tanh"), **dict(options.get("changes", ()))
  )
  return small.rounded(model) if "weights" in options else model


if __name__ == "__main__":
  absltest.main()
