"""Tests of expansion, against a decoder that runs whole sequences."""

import functools
import itertools

import jax
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference.engine import Engine
from rstar_jax.models.transformer import Transformer
from rstar_jax.testing import tiny_model
from tests.inference.plain_engine import PlainEngine
from tests.models import plain
from tests.models.kernels.cpu_test import needs_compiler

STEP = 7
STOP = (3, 5)


@functools.cache
def model(seed=7):
  graphdef, params = nnx.split(Transformer(tiny_model(), rngs=nnx.Rngs(seed)))
  # Ten times the usual initialisation, so that logits differ much.
  params = jax.tree.map(lambda x: x * 10 if x.ndim > 1 else x, params)
  return nnx.merge(graphdef, params)


@functools.cache
def decoder():
  return plain.Decoder(model())


def same_steps(test, one, other):
  """Fails unless rows of steps are the same, up to rounding."""
  for first, second in zip(sum(one, []), sum(other, []), strict=True):
    test.assertEqual(first.token_ids, second.token_ids)
    test.assertEqual(first.stopped, second.stopped)
    test.assertAlmostEqual(first.logprob, second.logprob, delta=2e-4)


def prefix(length, seed=0):
  rng = np.random.default_rng(1000 * length + seed)
  return rng.integers(6, 260, length).astype(np.int32)


def engine(
  stop_ids=STOP,
  max_new_tokens=STEP,
  slots=0,
  reuse=True,
  mesh=None,
  of=None,
  **config,
):
  shapes = {
    "prefix_buckets": (32,),
    "leaf_buckets": (7,),
    "tail_buckets": (4, 16),
    "least_rows": 5,
  }
  return Engine(
    of or model(),
    EngineConfig(**shapes | config),
    stop_ids=stop_ids,
    max_new_tokens=max_new_tokens,
    pad_id=0,
    slots=slots,
    reuse=reuse,
    mesh=mesh,
  )


def seeds(leaves, candidates, start=0):
  count = leaves * candidates
  ids = np.arange(start, start + count, dtype=np.uint32) * 2_654_435
  return ids.reshape(leaves, candidates)


PREFIXES = [prefix(n) for n in (3, 17, 1, 8, 9, 31, 5)]


class EngineTest(parameterized.TestCase):
  @needs_compiler
  @parameterized.parameters("float32", "bfloat16")
  def test_kernels_for_cpus_are_in_the_program(self, dtype):
    # Heads as wide as the kernel wants; weights as small as they begin, so
    # that few tokens are nearly as likely as others.
    config = tiny_model(
      head_dim=32, mlp_dim=38, sliding_window=13, dtype=dtype, param_dtype=dtype
    )
    of = Transformer(config, rngs=nnx.Rngs(3))
    engines = [
      engine(of=of, slots=11, native=native) for native in (False, True)
    ]
    ids = PREFIXES
    for start in (0, 100):
      # The second time they go on from candidates; rows are halved in both.
      plain, ours = (each.expand(ids, seeds(7, 3, start)) for each in engines)
      pairs = list(
        zip(itertools.chain(*plain), itertools.chain(*ours), strict=True)
      )
      same = [a.token_ids == b.token_ids for a, b in pairs]
      # In bfloat16 a rounding makes another token of a few.
      self.assertGreaterEqual(
        sum(same), len(same) if dtype == "float32" else 0.7 * len(same)
      )
      close = 1e-4 if dtype == "float32" else 0.05
      for (a, b), equal in zip(pairs, same, strict=True):
        if equal:
          self.assertAlmostEqual(a.logprob, b.logprob, delta=close)
      ids = [
        np.concatenate([each, np.array(row[1].token_ids, np.int32)])[:32]
        for each, row in zip(ids, plain, strict=True)
      ]

  def test_steps_are_those_of_a_plain_decoder(self):
    for greedy in (True, False):
      out = engine(temperature=float(not greedy)).expand(PREFIXES, seeds(7, 3))
      slow = PlainEngine(model(), STOP, STEP, greedy)
      same_steps(self, out, slow.expand(PREFIXES, seeds(7, 3)))

  def test_logprob_is_untempered(self):
    out = engine(temperature=0.5, top_k=9).expand(PREFIXES[:2], seeds(2, 3))
    for ids, row in zip(PREFIXES, out, strict=False):
      for candidate in row:
        total = decoder().logprob(ids, candidate.token_ids)
        self.assertAlmostEqual(candidate.logprob, total, delta=1e-4)

  @parameterized.parameters(
    dict(leaf_buckets=(1,)),
    dict(leaf_buckets=(2, 5), prefix_buckets=(8, 37)),
    dict(tail_buckets=(3,), least_rows=64),
    dict(least_rows=1),
  )
  def test_tokens_depend_on_prefix_and_seed_only(self, **other):
    expected = engine().expand(PREFIXES, seeds(7, 3))
    order = [4, 0, 6, 2, 5, 1, 3]
    out = engine(**other).expand(
      [PREFIXES[i] for i in order], seeds(7, 3)[order][:, ::-1]
    )
    for i, row in zip(order, out, strict=True):
      for first, second in zip(expected[i], row[::-1], strict=True):
        self.assertEqual(first.token_ids, second.token_ids)
        self.assertEqual(first.stopped, second.stopped)
        self.assertAlmostEqual(first.logprob, second.logprob, delta=1e-4)

  def test_same_call_same_result(self):
    shared = engine()
    first = shared.expand(PREFIXES, seeds(7, 3))
    self.assertEqual(first, shared.expand(PREFIXES, seeds(7, 3)))
    self.assertNotEqual(first, shared.expand(PREFIXES, seeds(7, 3, start=50)))

  def test_first_token_frequencies(self):
    ids, count = PREFIXES[0], 8009
    out = engine(max_new_tokens=1, leaf_buckets=(1,)).expand(
      [ids], seeds(1, count)
    )
    logits = decoder().logits(ids)[-1]
    share = np.exp(logits) / np.exp(logits).sum()
    picked = np.bincount([c.token_ids[0] for c in out[0]], minlength=len(share))
    likely = share > 0.01
    error = np.abs(picked - share * count)[likely]
    self.assertGreater(likely.sum(), 3)
    bound = 4.5 * np.sqrt(count * share * (1 - share))[likely]
    np.testing.assert_array_less(error, bound)

  def test_stops(self):
    # Every third id stops, so that steps of all lengths come up.
    stop_ids = tuple(range(2, 267, 3))
    out = engine(stop_ids=stop_ids).expand(PREFIXES, seeds(7, 3))
    lengths = set()
    for candidate in (each for row in out for each in row):
      *before, last = candidate.token_ids
      lengths.add(len(candidate.token_ids))
      self.assertNoCommonElements(before, stop_ids)
      if candidate.stopped == -1:
        self.assertLen(candidate.token_ids, STEP)
        self.assertNotIn(last, stop_ids)
      else:
        self.assertEqual(candidate.stopped, last)
        self.assertIn(last, stop_ids)
    self.assertGreater(len(lengths), 4)

  def test_steps_are_cut_only_at_stops(self):
    """A stopping run is the unstopped one up to its first stop id."""
    free = engine(stop_ids=()).expand(PREFIXES, seeds(7, 3))
    stop_ids = tuple(range(2, 267, 3))
    stopping = engine(stop_ids=stop_ids).expand(PREFIXES, seeds(7, 3))
    for first, second in zip(sum(free, []), sum(stopping, []), strict=True):
      self.assertLen(first.token_ids, STEP)
      count = len(second.token_ids)
      self.assertEqual(first.token_ids[:count], second.token_ids)

  def test_stop_words_end_a_step_with_the_token_after(self):
    ids, row_seeds = [prefix(5), prefix(11)], seeds(2, 3)
    free = engine(stop_ids=()).expand(ids, row_seeds)
    whole = free[1][2].token_ids
    # A run that is there, one that begins before the step does, and others.
    words = (whole[2:4], (int(ids[1][-1]), whole[0]), (1,) * STEP)
    rows = Engine(
      model(),
      EngineConfig(prefix_buckets=(32,), leaf_buckets=(7,)),
      stop_ids=(),
      stop_words=words,
      max_new_tokens=STEP,
      pad_id=0,
    ).expand(ids, row_seeds)
    self.assertEqual(rows[1][2].token_ids, whole[:5])
    self.assertEqual(rows[1][2].stopped, -1)
    for i, row in enumerate(free):
      for j, each in enumerate(row):
        if words[0] not in zip(
          each.token_ids, each.token_ids[1:], strict=False
        ):
          self.assertEqual(rows[i][j], each)

  def test_too_long_a_prefix_gets_empty_candidates(self):
    counted = engine()
    out = counted.expand([prefix(33), PREFIXES[0]], seeds(2, 3))
    self.assertEqual(counted.too_long, 1)
    for candidate in out[0]:
      self.assertEqual(
        (candidate.token_ids, candidate.logprob, candidate.stopped), ((), 0, -1)
      )
    alone = engine().expand([PREFIXES[0]], seeds(2, 3)[1:])
    self.assertEqual(
      [c.token_ids for c in out[1]], [c.token_ids for c in alone[0]]
    )

  def test_bad_calls_raise(self):
    with self.assertRaisesRegex(ValueError, "prefix 1 is empty"):
      engine().expand([PREFIXES[0], prefix(0)], seeds(2, 3))
    with self.assertRaisesRegex(ValueError, r"not uint32 \(1, candidates\)"):
      engine().expand(PREFIXES[:1], seeds(2, 3))
    self.assertEqual(engine().expand([], np.zeros((0, 3), np.uint32)), [])

  def test_counts(self):
    counted = engine(stop_ids=())
    counted.expand(PREFIXES, seeds(7, 3))
    total = sum(map(len, PREFIXES))
    self.assertEqual(counted.prefix_tokens, total)
    self.assertEqual(
      counted.path_tokens, {"reused": 0, "appended": 0, "prefilled": total}
    )
    self.assertEqual(counted.generated_tokens, 7 * 3 * STEP)
    self.assertGreater(counted.busy.seconds, 0)
    calls, shapes = counted.programs.calls, list(counted.programs.shapes)
    self.assertLen(set(shapes), len(shapes))
    counted.forget(0)
    counted.expand(PREFIXES, seeds(7, 3, start=50))
    self.assertEqual(counted.programs.calls, 2 * calls)
    self.assertEqual(counted.programs.shapes, shapes)
    # Once more, and nothing of the prefixes has to be run.
    counted.expand(PREFIXES, seeds(7, 3, start=99))
    self.assertEqual(
      counted.path_tokens,
      {"reused": total, "appended": 0, "prefilled": 2 * total},
    )

  def test_load_changes_weights_without_compiling(self):
    swapped = engine()
    before = swapped.expand(PREFIXES, seeds(7, 3))
    with jax.log_compiles(), self.assertNoLogs("jax", "WARNING"):
      swapped.load(nnx.split(model(8))[1])
      after = swapped.expand(PREFIXES, seeds(7, 3))
    self.assertNotEqual(before, after)
    swapped.load(nnx.split(model())[1])
    self.assertEqual(before, swapped.expand(PREFIXES, seeds(7, 3)))
    other = Transformer(tiny_model(mlp_dim=41), rngs=nnx.Rngs(0))
    with self.assertRaisesRegex(ValueError, "new parameters"):
      swapped.load(nnx.split(other)[1])


if __name__ == "__main__":
  absltest.main()
