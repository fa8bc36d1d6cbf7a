"""Tests of the device's programs, against the plain forward of whole paths."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.inference import programs
from rstar_jax.models import cache
from rstar_jax.models.config import RopeScaling
from rstar_jax.models.transformer import Transformer
from rstar_jax.testing import tiny_model

SLOTS, LENGTH = 6, 23


@functools.cache
def model_of(head="lm", **overrides):
  return Transformer(tiny_model(**overrides), head=head, rngs=nnx.Rngs(3))


def tokens(seed, *shape):
  rng = np.random.default_rng(seed)
  return rng.integers(6, 260, shape).astype(np.int32)


def plain(model, ids):
  """Returns the hidden state at the last of ids, run as one sequence."""
  padded = np.zeros((1, 16), np.int32)
  padded[0, : len(ids)] = ids
  return np.asarray(_hidden(model, padded))[0, len(ids) - 1]


def empty_pool(model):
  """Returns a pool of rubbish, which nothing may be made of."""
  return jax.tree.map(
    lambda x: x + 1e3, cache.empty_pool(model.config, SLOTS, LENGTH)
  )


_prefill = nnx.jit(programs.prefill, static_argnames=("path", "data_shards"))
_score = nnx.jit(programs.score, static_argnames=("path", "data_shards"))
_hidden = nnx.jit(lambda model, ids: model.hidden(ids))


def prefill(model, pool, slots, starts, tails, data_shards=1, path=0, size=7):
  padded = np.zeros((len(slots), size), np.int32)
  for row, tail in zip(padded, tails, strict=True):
    row[: len(tail)] = tail
  counts = np.array([len(tail) for tail in tails], np.int32)
  starts = np.array(starts, np.int32)
  return _prefill(
    model,
    pool,
    np.array(slots, np.int32),
    starts,
    padded,
    counts,
    starts + counts,
    path=path,
    data_shards=data_shards,
  )


class ProgramsTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(), dict(sliding_window=5), dict(qkv_bias=False, qk_norm=True)
  )
  def test_tails_after_what_is_there_are_the_whole_path(self, **overrides):
    model, pool = model_of(**overrides), None
    paths = [tokens(0, 13), tokens(1, 3), tokens(2, 9)]
    pool = empty_pool(model)
    slots = [4, 0, 2]
    pool = prefill(model, pool, slots, [0] * 3, [x[:7] for x in paths])
    pool = prefill(
      model,
      pool,
      [4, SLOTS, 2],
      [7, 0, 7],
      [paths[0][7:], (), paths[2][7:]],
      path=11,
    )
    for slot, ids in zip(slots, paths, strict=True):
      np.testing.assert_allclose(
        pool.hidden[slot], plain(model, ids), atol=2e-5
      )
    # Rows of padding wrote nowhere.
    for slot in (1, 3, 5):
      self.assertEqual(float(jnp.min(pool.hidden[slot])), 1e3)
      self.assertEqual(float(jnp.min(pool.keys[0][slot])), 1e3)

  def test_data_shards_only_renumber_the_slots(self):
    model = model_of()
    tails = [tokens(i, 5) for i in range(4)]
    one = prefill(model, empty_pool(model), [1, 0, 5, 3], [0] * 4, tails)
    two = prefill(
      model, empty_pool(model), [1, 0, 2, 0], [0] * 4, tails, data_shards=2
    )
    jax.tree.map(np.testing.assert_array_equal, one, two)

  @parameterized.parameters(1, 2)
  def test_an_appended_candidate_equals_a_prefilled_tail(self, data_shards):
    model = model_of()
    base, steps = tokens(7, 6), tokens(8, 4, 3, 5)
    lengths = np.array([2, 5, 3], np.int32)[None].repeat(4, 0)
    half = SLOTS // data_shards
    slots = np.arange(4) if data_shards == 1 else np.array([0, 1, 0, 1])
    pool = prefill(
      model, empty_pool(model), slots, [0] * 4, [base] * 4, data_shards
    )
    ends = np.full(4, 6, np.int32)
    _, cached = _score(
      model_of("tanh"),
      pool,
      slots.astype(np.int32),
      ends,
      ends,
      steps,
      lengths,
      path=7,
      data_shards=data_shards,
    )
    columns = np.array([1, 0, 2, 1], np.int32)
    rows = np.array(
      [2, 0, 1, 3] if data_shards == 1 else [1, 0, 1, 0], np.int32
    )
    appended = programs.append(
      pool,
      cached,
      slots.astype(np.int32),
      rows,
      columns,
      ends,
      data_shards=data_shards,
    )
    part = 4 // data_shards
    for i in range(4):
      step = steps[i // part * part + rows[i], columns[i]]
      slot = slots[i] + i // part * half
      again = prefill(
        model, empty_pool(model), [0], [0], [[*base, *step]], size=11
      )
      for layer in range(2):
        np.testing.assert_allclose(
          appended.keys[layer][slot, :, :11],
          again.keys[layer][0, :, :11],
          atol=2e-5,
        )

  def test_fork_copies_whole_paths(self):
    model = model_of()
    pool = prefill(model, empty_pool(model), [0, 4], [0, 0], [tokens(1, 5)] * 2)
    copied = programs.fork(
      pool, np.array([0, 0, 1], np.int32), np.array([2, SLOTS, 3], np.int32)
    )
    for before, after in zip(
      jax.tree.leaves(pool), jax.tree.leaves(copied), strict=True
    ):
      np.testing.assert_array_equal(after[2], before[0])
      np.testing.assert_array_equal(after[3], before[1])
      for slot in (0, 1, 4, 5):
        np.testing.assert_array_equal(after[slot], before[slot])

  def test_no_path_is_made_float32_to_be_moved(self):
    config = tiny_model(dtype="bfloat16")
    pool = jax.eval_shape(lambda: cache.empty_pool(config, SLOTS, LENGTH))
    cached = jax.eval_shape(lambda: cache.empty(config, (3, 2), 5))
    ids = jax.ShapeDtypeStruct((3,), jnp.int32)
    for program, arguments in (
      (programs.fork, (pool, ids, ids)),
      (programs.append, (pool, cached, ids, ids, ids, ids)),
    ):
      compiled = jax.jit(program).lower(*arguments).compile().as_text()
      self.assertNotIn("f32[", compiled)

  def test_values_of_steps_are_those_of_whole_sequences(self):
    ppm = model_of("tanh")
    paths = [tokens(0, 7), tokens(1, 2)]
    steps = tokens(3, 2, 3, 5)
    lengths = np.array([[5, 1, 3], [2, 4, 5]], np.int32)
    slots = np.array([3, 1], np.int32)
    pool = prefill(ppm, empty_pool(ppm), slots, [0, 0], paths)
    ends = np.array([7, 2], np.int32)
    values, _ = _score(ppm, pool, slots, ends, ends + 5, steps, lengths, path=9)
    for i, ids in enumerate(paths):
      for j in range(3):
        whole = np.concatenate([ids, steps[i, j, : lengths[i, j]]])
        expected = ppm.values(plain(ppm, whole))
        self.assertAlmostEqual(float(values[i, j]), float(expected), delta=1e-5)

  def test_longrope_takes_the_frequencies_of_the_span(self):
    rope = RopeScaling(
      kind="longrope",
      original_length=8,
      short_factor=(1.0, 1.0),
      long_factor=(2.0, 7.0),
    )
    model = model_of(rope=rope)
    ids = tokens(5, 11)
    pool = empty_pool(model)
    # The first piece alone is short, but its span is not.
    for start in (0, 5):
      pool = _prefill(
        model,
        pool,
        np.array([2]),
        np.array([start]),
        np.pad(ids[start:], (0, start))[None, : 6 if start else 5],
        np.array([6 if start else 5]),
        np.array([11]),
        path=start,
      )
    whole = model.hidden(jnp.asarray(ids)[None])[0, -1]
    np.testing.assert_allclose(pool.hidden[2], whole, atol=2e-5)


if __name__ == "__main__":
  absltest.main()
