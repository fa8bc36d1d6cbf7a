"""Tests of sampling, against an engine that keeps nothing."""

import concurrent.futures
import functools
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference import engine as engine_lib
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.generated import Generated, Stop
from rstar_jax.models import sharding
from rstar_jax.models.config import RopeScaling
from rstar_jax.models.transformer import (
  arrays_in,
  arrays_of,
  from_arrays,
  reconfigured,
)
from tests.inference import small
from tests.inference.plain_engine import PlainEngine

STEP = 9
# Every seventh id ends a step.
STOP = Stop(STEP, frozenset(range(0, 265, 7)))
FREE = Stop(STEP)
# LongRoPE's border, in tokens.
BORDER = 40
FACTORS = {
  "short_factor": (1.0,) * 16,
  "long_factor": tuple(2.0 + i for i in range(16)),
}
MODELS = {
  "full": {},
  "window": {"sliding_window": 11},
  "longrope": {
    "rope": RopeScaling(kind="longrope", original_length=BORDER, **FACTORS)
  },
}


def make(of="full", **config):
  sizes = {
    "kernels": "xla",
    "rows": 32,
    "inner_steps": 4,
    "prefill_tokens": 64,
    "max_prefix_tokens": 64,
    "max_step_tokens": STEP,
    "max_block_tokens": STEP,
  }
  return Engine(small.model(**MODELS[of]), EngineConfig(**sizes | config))


@functools.cache
def shared(*config):
  """Returns an engine of all tests; `empty` empties its pages."""
  return make(**dict(config))


def empty():
  engine = shared()
  engine.load(small.model())
  engine.generated_tokens = engine.prefilled_tokens = engine.prefix_tokens = 0
  engine.slots = engine.useful = engine.too_long = 0
  return engine


@functools.cache
def plain(of="full"):
  return PlainEngine(small.model(**MODELS[of]))


def seeds(rows, columns, start=0):
  count = np.arange(start, start + rows * columns, dtype=np.uint32)
  return count.reshape(rows, columns)


class EngineTest(parameterized.TestCase):
  def same(self, rows, others):
    for one, other in zip(sum(rows, []), sum(others, []), strict=True):
      self.assertEqual(one.token_ids, other.token_ids)
      self.assertEqual(one.stopped, other.stopped)
      self.assertAlmostEqual(one.logprob, other.logprob, delta=5e-4)

  @parameterized.parameters(
    *(dict(of=of, kernels="xla") for of in MODELS),
    *(
      dict(of=of, kernels=kind)
      for kind, dtype in small.KINDS[2::2]
      for of in MODELS
    ),
  )
  def test_steps_are_those_of_a_decoder_without_pages(self, of, kernels):
    engine = make(of, kernels=kernels)
    # Borders of pages; and of LongRoPE: a path and the longest step just reach
    # it, and go beyond.
    lengths = (1, 2, 15, 16, 17, BORDER - STEP, BORDER - STEP + 1)
    prefixes = [small.prefix(length, length % 2) for length in lengths]
    for warm in (0.6, 0.0):
      got = engine.expand(prefixes, seeds(7, 2), STOP, temperature=warm)
      want = plain(of).expand(prefixes, seeds(7, 2), STOP, temperature=warm)
      self.same(got, want)
    # Children cross the borders, from pages of their parents.
    children = [
      [*prefix, *row[0].token_ids]
      for prefix, row in zip(prefixes, got, strict=True)
    ]
    got = engine.expand(children, seeds(7, 2, 50), STOP)
    self.same(got, plain(of).expand(children, seeds(7, 2, 50), STOP))
    self.assertEmpty(small.leaks(engine))

  def test_longrope_keeps_kinds_of_positions_apart(self):
    engine = make("longrope")
    ids = small.prefix(BORDER - STEP, 3)
    engine.expand([ids], seeds(1, 1), FREE)
    before = engine.prefilled_tokens
    self.assertEqual(before, len(ids) - 1)
    # One token more, and all positions are other ones.
    engine.expand([small.prefix(BORDER - STEP + 1, 3)], seeds(1, 1), FREE)
    self.assertEqual(engine.prefilled_tokens - before, len(ids))

  def test_a_step_depends_on_its_seed_and_not_on_its_column(self):
    prefixes = [small.prefix(20, i) for i in range(3)]
    rows = empty().expand(prefixes, seeds(3, 4), FREE)
    turned = empty().expand(prefixes[::-1], seeds(3, 4)[::-1, ::-1], FREE)
    self.assertEqual(rows, [row[::-1] for row in turned[::-1]])
    self.assertNotEqual(rows, empty().expand(prefixes, seeds(3, 4, 99), FREE))

  @parameterized.parameters(1, 5, 33, 70)
  def test_as_many_candidates_as_wanted(self, count):
    (row,) = empty().expand([small.prefix(18)], seeds(1, count), STOP)
    one = empty().expand([small.prefix(18)] * 2, [[count - 1], [0]], STOP)
    self.assertLen(row, count)
    self.assertEqual([[row[-1]], [row[0]]], one)

  def test_a_limit_of_one(self):
    (free,) = empty().expand([small.prefix(16)], seeds(1, 3), FREE)
    (row,) = empty().expand([small.prefix(16)], seeds(1, 3), Stop(1))
    for one, whole in zip(row, free, strict=True):
      self.assertEqual(one.token_ids, whole.token_ids[:1])
      self.assertEqual(one.stopped, -1)
      self.assertLess(one.logprob, 0)
      self.assertGreater(one.logprob, whole.logprob)

  def test_a_step_ends_with_its_first_stop_id(self):
    """An ended step is the free one up to there, whatever the call's size."""
    ids = [small.prefix(17)]
    ((free,),) = shared().expand(ids, seeds(1, 1), FREE)
    self.assertLen(free.token_ids, STEP)
    self.assertEqual(free.stopped, -1)
    for count in range(1, STEP + 1):
      stop = free.token_ids[count - 1]
      if stop in free.token_ids[: count - 1]:
        continue
      ((step,),) = shared().expand(
        ids, seeds(1, 1), Stop(STEP, frozenset([stop]))
      )
      # At the limit too: the step is stopped, not cut.
      self.assertEqual(
        (step.token_ids, step.stopped), (free.token_ids[:count], stop)
      )
      ((cut,),) = shared().expand(ids, seeds(1, 1), Stop(count))
      self.assertEqual(cut.logprob, step.logprob)
      self.assertEqual((cut.token_ids, cut.stopped), (step.token_ids, -1))
      ((both,),) = shared().expand(
        ids, seeds(1, 1), Stop(count, frozenset([stop]))
      )
      self.assertEqual(both, step)

  def test_stop_words_end_a_step_with_the_token_after(self):
    ids = [small.prefix(17)]
    ((free,),) = shared().expand(ids, seeds(1, 1), FREE)
    whole = free.token_ids
    # Calls end after 4 tokens: words lie before the border, and over it.
    for start in range(6):
      word = whole[start : start + 2]
      ((step,),) = shared().expand(
        ids, seeds(1, 1), Stop(STEP, frozenset(), (word, (1,) * STEP))
      )
      self.assertEqual(step.token_ids, whole[: start + 3])
      self.assertEqual(step.stopped, -1)
    # A word that begins before the step does is none.
    early = (ids[0][-1], whole[0])
    ((step,),) = shared().expand(
      ids, seeds(1, 1), Stop(STEP, frozenset(), (early,))
    )
    self.assertEqual(step, free)

  def test_logprob_is_that_of_temperature_1(self):
    engine = make(temperature=0.5, top_k=9)
    prefixes = [small.prefix(5), small.prefix(11)]
    rows = engine.expand(prefixes, seeds(2, 3), FREE)
    for ids, row in zip(prefixes, rows, strict=True):
      for step in row:
        exact = plain()._decoder.logprob(ids, step.token_ids)
        self.assertAlmostEqual(step.logprob, exact, delta=5e-4)
    self.assertNotEqual(rows, empty().expand(prefixes, seeds(2, 3), FREE))

  def test_too_long_a_prefix_gets_empty_steps(self):
    engine = empty()
    rows = engine.expand(
      [small.prefix(65), small.prefix(64)], seeds(2, 2), FREE
    )
    self.assertEqual(rows[0], [Generated((), (), -1)] * 2)
    self.assertEqual(engine.too_long, 1)
    self.same(rows[1:], plain().expand([small.prefix(64)], [[2, 3]], FREE))

  def test_bad_requests_raise(self):
    engine = shared()
    with self.assertRaisesRegex(ValueError, "the prefix is empty"):
      engine.submit([], [1], FREE)
    for limit in (0, STEP + 1):
      with self.assertRaisesRegex(ValueError, f"limit={limit} is not in 1..9"):
        engine.submit([5], [1], Stop(limit))
    self.assertEqual(engine.submit([5], [], FREE).result(), [])
    self.assertEqual(engine.expand([], np.zeros((0, 3)), FREE), [])

  def test_counts(self):
    engine = empty()
    dropped = engine.memory.dropped
    prefixes = [small.prefix(length, length) for length in (1, 16, 40)]
    rows = engine.expand(prefixes, seeds(3, 5), STOP)
    generated = sum(len(step.token_ids) for row in rows for step in row)
    self.assertEqual(engine.prefix_tokens, 57)
    # The last token of a prefix is each candidate's first.
    self.assertEqual(engine.prefilled_tokens, 54)
    self.assertEqual(engine.generated_tokens, generated)
    self.assertEqual(engine.useful, 54 + generated)
    self.assertGreaterEqual(engine.slots, engine.useful)
    self.assertGreater(engine.busy.seconds, 0)
    # Once more, and no prefix is computed; nor of a child but what is new.
    self.assertEqual(rows, engine.expand(prefixes, seeds(3, 5), STOP))
    self.assertEqual(engine.prefilled_tokens, 54)
    child = [*prefixes[2], *rows[2][0].token_ids, 30, 31, 32]
    engine.expand([child], seeds(1, 1), STOP)
    # The last token of the parent, and two of the three after it.
    self.assertEqual(engine.prefilled_tokens, 54 + 3)
    self.assertEqual(engine.memory.dropped, dropped)

  def test_candidates_take_room_where_others_ended(self):
    """Steps of one token leave their slots to others at once."""
    engine = empty()
    engine.expand([small.prefix(3)], seeds(1, 96), Stop(1))
    # The prefix, and three calls, each of the one step that is needed.
    self.assertEqual(engine.slots, 64 + 3 * 32)

  def test_prefixes_in_line_take_no_pages_from_steps(self):
    """More of them than there are pages for leave no slot empty."""
    engine = empty()
    prefixes = [small.prefix(64, seed) for seed in range(60)]
    self.assertGreater(60 * 4, engine.sizes.shard_pages)
    with engine.lock:
      # All are there when the thread begins.
      steps = [engine.submit(ids, range(5), FREE) for ids in prefixes]
    for each in steps:
      each.result()
    self.assertGreater(engine.useful / engine.slots, 0.8)

  def test_a_short_prefix_is_computed_beside_steps(self):
    engine = empty()
    ids = small.prefix(6, 5)
    with engine.lock:
      # The thread waits; both are in its first call.
      first = engine.submit([9], [1], FREE)
      second = engine.submit(ids, [2], FREE)
    first.result()
    self.same([second.result()], plain().expand([ids], [[2]], FREE))
    # Steps take three calls each; the second begins after two.
    self.assertLessEqual(engine.slots, 6 * 4 * 32)
    self.assertEqual(engine.useful, 2 * STEP + 5)

  def test_load_changes_weights_without_compiling(self):
    engine, ids = empty(), [small.prefix(20)]
    before = engine.expand(ids, seeds(1, 3), STOP)
    with jax.log_compiles(), self.assertNoLogs("jax", "WARNING"):
      engine.load(small.model(seed=8))
      after = engine.expand(ids, seeds(1, 3), STOP)
    self.same(
      after, PlainEngine(small.model(seed=8)).expand(ids, seeds(1, 3), STOP)
    )
    engine.load(small.model())
    self.assertEqual(before, engine.expand(ids, seeds(1, 3), STOP))

  @parameterized.parameters(
    *(("xla", True), ("cpp", False))[: len(small.KINDS) // 2]
  )
  def test_int8_is_a_decoder_of_the_rounded_weights(self, kernels, tied):
    model = functools.partial(small.model, tied_embeddings=tied)
    fields = {"kernels": kernels, "weights": "int8", "max_prefix_tokens": 64}
    fields |= {"max_step_tokens": STEP, "max_block_tokens": STEP}
    prefixes = [small.prefix(length, length % 2) for length in (1, 16, 17, 40)]
    engine = Engine(model(), EngineConfig(rows=96, inner_steps=5, **fields))
    got = engine.expand(prefixes, seeds(4, 3), STOP)
    want = PlainEngine(small.rounded(model())).expand(
      prefixes, seeds(4, 3), STOP
    )
    self.same(got, want)
    floats = PlainEngine(model()).expand(prefixes[:1], seeds(1, 3), STOP)
    off = [
      abs(one.logprob - other.logprob)
      for one, other in zip(*got[:1], *floats, strict=True)
      if one.token_ids == other.token_ids
    ]
    self.assertBetween(max(off), 2e-3, 1)
    # To the bit, whatever is beside a row.
    alone = Engine(model(), EngineConfig(rows=32, inner_steps=3, **fields))
    for ids, row, steps in zip(prefixes, seeds(4, 3), got, strict=True):
      alone.load(model())
      for seed, step in zip(row, steps, strict=True):
        self.assertEqual(alone.expand([ids], seed[None, None], STOP), [[step]])

  @parameterized.parameters(
    ({"mlp_dim": 41}, "mlp_dim"),
    # Of the same shapes.
    ({"rope_theta": 1e6}, "rope_theta"),
    ({"rms_eps": 1e-5, "sliding_window": 8}, "sliding_window, rms_eps"),
    ({"num_heads": 2, "num_kv_heads": 1, "head_dim": 64}, "num_heads"),
    ({"dtype": "bfloat16"}, "dtype"),
    ({"head": "tanh"}, "head"),
  )
  def test_load_refuses_a_model_that_computes_something_else(self, changes, of):
    engine = empty()
    before = engine.params
    with self.assertRaisesRegex(
      ValueError, f"loaded one in {of}.*: start the server with this model$"
    ):
      engine.load(small.model(**changes))
    self.assertIs(engine.params, before)

  def test_load_takes_a_model_that_differs_elsewhere(self):
    engine, ids = empty(), [small.prefix(20)]
    before = engine.expand(ids, seeds(1, 3), STOP)
    changes = {
      **{"family": "llama", "max_length": 7, "remat": "layer", "scan": False},
      **{"attention": "xla", "attention_block": 8, "balance": 0.1},
    }
    model = reconfigured(small.model(), **changes)
    with jax.log_compiles(), self.assertNoLogs("jax", "WARNING"):
      engine.load(model)
      self.assertEqual(before, engine.expand(ids, seeds(1, 3), STOP))

  def test_load_rounds_to_int8_anew(self):
    engine, ids = make(weights="int8"), [small.prefix(20)]
    before = engine.expand(ids, seeds(1, 3), STOP)
    with jax.log_compiles(), self.assertNoLogs("jax", "WARNING"):
      engine.load(small.model(seed=8))
      after = engine.expand(ids, seeds(1, 3), STOP)
    self.same(
      after,
      PlainEngine(small.rounded(small.model(seed=8))).expand(
        ids, seeds(1, 3), STOP
      ),
    )
    engine.load(small.model())
    self.assertEqual(before, engine.expand(ids, seeds(1, 3), STOP))

  @parameterized.product(
    backend=("cpu", "an accelerator"), weights=("float", "int8")
  )
  def test_a_policy_in_training_is_that_of_a_new_engine(self, backend, weights):
    training = small.model(seed=8)
    first = small.model(dtype="bfloat16")
    rounded = {k: x.astype("bfloat16") for k, x in arrays_of(training).items()}
    policy = from_arrays(first.config, "lm", rounded)
    config = EngineConfig(kernels="xla", weights=weights)
    with mock.patch.object(jax, "default_backend", return_value=backend):
      engine = Engine(first, config)
      # As `ModelBackend.load_policy` does.
      copies = sharding.copied(nnx.split(training)[1], None, "bfloat16")
      engine.load(from_arrays(policy.config, "lm", arrays_in(copies)))
      new = Engine(policy, config)
    self.assertEqual(engine.structure, new.structure)
    for one, other in zip(
      jax.tree.leaves(engine.params), jax.tree.leaves(new.params), strict=True
    ):
      np.testing.assert_array_equal(one, other)
      self.assertEqual(one.dtype, other.dtype)

  def test_nothing_compiles_after_the_warm_up(self):
    engine = make(rows=64)
    calls = engine.warm_up_calls()
    # Prefixes; steps of few slots, and of all.
    self.assertLen(calls, 3)
    for call in calls:
      call()
    with jax.log_compiles(), self.assertNoLogs("jax", "WARNING"):
      engine.expand([small.prefix(40)], seeds(1, 3), STOP)
      engine.expand([small.prefix(41)], seeds(1, 33), STOP)

  def test_an_error_reaches_all_who_wait_and_the_engine_works_on(self):
    engine = empty()
    want = engine.expand([small.prefix(9)], seeds(1, 2), STOP)
    with mock.patch.object(
      engine_lib, "_decode", side_effect=MemoryError("no pages")
    ):
      waiting = [
        engine.submit(small.prefix(9, i), [1, 2], STOP) for i in range(40)
      ]
      for each in waiting:
        with self.assertRaisesRegex(MemoryError, "no pages"):
          each.result(timeout=60)
    self.assertEqual(want, engine.expand([small.prefix(9)], seeds(1, 2), STOP))
    self.assertEmpty(small.leaks(engine))

  def test_a_cancelled_request_leaves_nothing(self):
    engine = empty()
    want = engine.expand([small.prefix(33)], seeds(1, 2), STOP)
    done = 0
    for turn in range(12):
      waiting = [
        engine.submit(small.prefix(50, 7 * turn + i), range(20), FREE)
        for i in range(7)
      ]
      # After nothing, some or most of it is computed.
      if turn % 3:
        waiting.pop(0).result()
      done += sum(not each.cancel() for each in waiting)
    self.assertEqual(want, engine.expand([small.prefix(33)], seeds(1, 2), STOP))
    self.assertLess(done, 70)
    self.assertEmpty(small.leaks(engine))

  @parameterized.parameters(1, 5)
  def test_the_fewest_pages_are_enough(self, limit):
    """Whatever is cached, a path and its page to copy find their room."""
    engine = make(pages=1, max_prefix_tokens=17)
    engine.max_new_tokens = limit
    rng = np.random.default_rng(limit)
    waiting = []
    for _ in range(40):
      ids = small.prefix(int(rng.integers(1, 18)), int(rng.integers(2)))
      draws = rng.integers(0, 2**32, 2).tolist()
      waiting.append((ids, draws, engine.submit(ids, draws, Stop(limit))))
    for ids, draws, each in waiting[::7]:
      want = plain().expand([ids], [draws], Stop(limit))
      self.same([each.result(timeout=120)], want)
    concurrent.futures.wait([each for *_, each in waiting], timeout=120)
    self.assertGreater(engine.memory.dropped, 0)
    self.assertEmpty(small.leaks(engine))


if __name__ == "__main__":
  absltest.main()
