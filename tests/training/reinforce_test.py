"""The loss of reinforcement against the formula of PPO, row by row."""

import dataclasses
import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax import testing
from rstar_jax.config.schema import ReinforceConfig
from rstar_jax.data import batches
from rstar_jax.data.experience import COLUMNS
from rstar_jax.models.transformer import Transformer
from rstar_jax.training import next_token, reinforce, state

CONFIG = ReinforceConfig(clip_low=0.2, clip_high=0.3, ratio_limit=3.0, kl=0.0)
MODEL = Transformer(testing.tiny_model(num_layers=1), rngs=nnx.Rngs(1))
GRAPHDEF, PARAMS = nnx.split(MODEL)
# Ids of the longest row.
LONGEST = 10
REFERENCE = Transformer(testing.tiny_model(num_layers=1), rngs=nnx.Rngs(2))


def rows_of(seed: int, spread: float = 2.0, count: int = 9):
  """Returns ids, length of the prefix, advantage and old log-probabilities.

  Rows share prefixes and what is written after them; a token that is shared has
  one old probability, which is up to exp(spread) times the new one.
  """
  rng = np.random.default_rng(seed)
  stem = rng.integers(0, 99, 6)
  rows = []
  for _ in range(count):
    ids = np.concatenate([stem[: rng.integers(2, 7)], rng.integers(0, 2, 4)])
    rows.append((ids.astype(np.int32), 2, float(rng.normal())))
  new = np.asarray(logprobs(PARAMS, filled(rows, 0)))
  return [
    (
      *row,
      each[: len(row[0]) - 1]
      - [
        spread
        * (hashlib.sha256(row[0][: n + 2].tobytes()).digest()[0] / 128 - 1)
        for n in range(len(row[0]) - 1)
      ],
    )
    for row, each in zip(rows, new, strict=True)
  ]


@functools.partial(jax.jit, static_argnames="graphdef")
def logprobs(params, ids, graphdef=GRAPHDEF):
  """Returns those of all ids but the first, of rows that are filled up."""
  logits = nnx.merge(graphdef, params)(ids[:, :-1])
  found = jax.nn.log_softmax(logits.astype(jnp.float32))
  return jnp.take_along_axis(found, ids[:, 1:, None], axis=2)[..., 0]


def filled(rows, place):
  """Returns one of the fields of rows as an array [R, ...], filled up."""
  if place in (1, 2):
    return np.array([row[place] for row in rows])
  size = LONGEST - (place == 3)
  return np.array(
    [np.pad(row[place], (0, size - len(row[place]))) for row in rows]
  )


def of_policy(rows):
  """Returns which of the log-probabilities are of what was written."""
  lengths = np.array([len(row[0]) for row in rows])[:, None]
  at = np.arange(1, LONGEST)
  return (filled(rows, 1)[:, None] <= at) & (at < lengths)


def plain(params, rows, config=CONFIG):
  """Returns the mean loss of tokens by the formula, row by row."""
  written = of_policy(rows)
  advantage = filled(rows, 2)[:, None]
  change = logprobs(params, filled(rows, 0)) - filled(rows, 3)
  ratio = jnp.exp(jnp.where(written, change, 0))
  clipped = jnp.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
  worth = jnp.minimum(ratio * advantage, clipped * advantage)
  limited = jnp.maximum(worth, config.ratio_limit * advantage)
  worth = jnp.where(advantage < 0, limited, worth)
  return -jnp.sum(worth * written) / written.sum()


def joined(rows, length=40):
  """Packs the rows, each prefix once."""
  group = []
  for ids, given, advantage, old in rows:
    mask = np.arange(len(ids)) >= given
    values = (1, max(advantage, 0), min(advantage, 0), np.append(0, old))
    group.append(
      (
        ids,
        {name: mask * each for name, each in zip(COLUMNS, values, strict=True)},
      )
    )
  arrays = batches.pack_columns([group], length, COLUMNS).arrays
  arrays["old"] /= np.maximum(arrays["weights"], 1)
  return arrays


@functools.partial(jax.jit, static_argnames="kl")
def graded(params, arrays, kl=0.0):
  """Returns the mean loss of a batch, its sums, and the gradient."""

  def mean(params):
    config = dataclasses.replace(CONFIG, kl=kl)
    total, sums = reinforce.Loss(config)(nnx.merge(GRAPHDEF, params), arrays)
    return total / sums["count"], sums

  (value, sums), gradient = jax.value_and_grad(mean, has_aux=True)(params)
  return value, sums, gradient


def same(one, other, rtol=2e-4, atol=2e-5):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol),
    one,
    other,
  )


def padded(arrays, rows, at_once):
  return reinforce.spread(arrays, rows, at_once)


class LossTest(parameterized.TestCase):
  @parameterized.parameters(range(4))
  def test_a_joined_batch_is_the_formula_row_by_row(self, seed):
    rows = rows_of(seed)
    arrays = joined(rows)
    shared = (arrays["gain"] > 0) & (arrays["cost"] < 0)
    self.assertTrue(shared.any())
    self.assertLess(
      np.count_nonzero(arrays["ends"]), sum(len(row[0]) for row in rows)
    )
    change = logprobs(PARAMS, filled(rows, 0)) - filled(rows, 3)
    ratios = np.sign(filled(rows, 2))[:, None] * np.exp(change)
    ratios = ratios[of_policy(rows)]
    # On both sides of each bound.
    for low, high in ((-99, -3), (-3, -1), (-0.8, 0), (0, 1), (1.3, 99)):
      self.assertTrue(((low < ratios) & (ratios < high)).any())
    found, sums, gradient = graded(PARAMS, arrays)
    expected, wanted = jax.value_and_grad(plain)(PARAMS, rows)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    same(gradient, wanted)
    self.assertEqual(sums["count"], len(ratios))
    np.testing.assert_allclose(sums["ratio"], np.abs(ratios).sum(), rtol=1e-4)
    self.assertEqual(sums["far"], 0)

  def test_clipped_counts_tokens_without_gradient(self):
    for advantage, ratios, clipped in (
      (2.0, (0.1, 1.29, 1.31, 5.0), 2),
      (-2.0, (0.1, 0.81, 2.99, 3.01), 2),
      (0.0, (0.1, 0.81, 1.31, 3.01), 0),
    ):
      ids = np.arange(5, dtype=np.int32)
      row = np.pad(ids, (0, LONGEST - len(ids)))
      new = np.asarray(logprobs(PARAMS, row[None])[0, : len(ids) - 1])
      row = ids, 1, advantage, new - np.log(ratios)
      _, sums, _ = graded(PARAMS, joined([row]))
      self.assertEqual(sums["clipped"], clipped)

  def test_on_policy_it_is_the_policy_gradient(self):
    rows = rows_of(5, spread=0.0)

    def policy_gradient(params):
      values = logprobs(params, filled(rows, 0)) * filled(rows, 2)[:, None]
      return -jnp.sum(values * of_policy(rows)) / of_policy(rows).sum()

    _, sums, gradient = graded(PARAMS, joined(rows))
    same(gradient, jax.grad(policy_gradient)(PARAMS))
    np.testing.assert_allclose(sums["ratio"] / sums["count"], 1, atol=1e-5)
    self.assertEqual(sums["clipped"], 0)

  @parameterized.product(old=(-1000.0, 1000.0), sign=(1, -1))
  def test_a_ratio_beyond_all_bounds_is_counted(self, old, sign):
    rows = rows_of(6)
    ids, given, advantage, before = rows[0]
    before = np.append(before[:-1], old)
    rows[0] = ids, given, sign * abs(advantage), before
    arrays = joined(rows)
    value, sums, gradient = graded(PARAMS, arrays)
    self.assertEqual(sums["far"], 1)
    self.assertTrue(np.isfinite(value))
    for each in jax.tree.leaves(gradient):
      self.assertTrue(np.isfinite(each).all())
    # It weighs nothing: as if that token had not been written.
    shorter = [(ids[:-1], given, sign * abs(advantage), before[:-1]), *rows[1:]]
    _, _, wanted = graded(PARAMS, joined(shorter))
    count = sums["count"]
    same(gradient, jax.tree.map(lambda g: g * (count - 1) / count, wanted))

  def test_padding_may_hold_anything(self):
    arrays = joined(rows_of(7))
    there = arrays["weights"] > 0
    changed = arrays | {"old": np.where(there, arrays["old"], np.nan)}
    same(*(graded(PARAMS, each)[2] for each in (arrays, changed)))

  def test_the_divergence_is_k3(self):
    rows = rows_of(8)
    graphdef, other = nnx.split(REFERENCE)
    arrays = joined(rows)
    arrays["reference"] = reinforce.reference(
      REFERENCE, arrays, len(arrays["tokens"])
    )

    def k3(params):
      ids = filled(rows, 0)
      apart = logprobs(other, ids, graphdef) - logprobs(params, ids)
      return jnp.sum((jnp.exp(apart) - apart - 1) * of_policy(rows))

    value, sums, gradient = graded(PARAMS, arrays, kl=0.7)
    np.testing.assert_allclose(sums["kl"], k3(PARAMS), rtol=1e-4)
    self.assertGreater(sums["kl"], 0.1)
    count = sums["count"]
    np.testing.assert_allclose(
      value, plain(PARAMS, rows) + 0.7 * k3(PARAMS) / count, rtol=1e-4
    )
    wanted = jax.grad(lambda p: plain(p, rows) + 0.7 * k3(p) / count)(PARAMS)
    same(gradient, wanted)


class UpdateTest(parameterized.TestCase):
  def test_rows_of_an_update(self):
    for rows in range(40):
      for size, parts in ((4, 1), (3, 2), (6, 4)):
        found = reinforce.rows_of_update(rows, size, parts)
        whole = next(n for n in range(size, 99) if n % parts == 0)
        fits = [whole * 2**n for n in range(9) if whole * 2**n >= rows]
        self.assertEqual(found, fits[0])

  def test_micro_batches_are_one_large_batch(self):
    rows = [row for seed in range(5) for row in rows_of(seed, count=3)]
    parts = [joined(rows[n : n + 3]) for n in range(0, 15, 3)]
    arrays = {
      name: np.concatenate([part[name] for part in parts]) for name in parts[0]
    }
    self.assertLen(arrays["tokens"], 5)
    tx = optax.sgd(1.0)

    def on_params(params, batch):
      return reinforce.Loss(CONFIG)(nnx.merge(GRAPHDEF, params), batch)

    step = jax.jit(state.make_step(on_params, tx, at_once=2))
    # Four parts: two whole ones, one that is filled up, and one of padding.
    found, metrics = step(state.init(PARAMS, tx), padded(arrays, 8, 2))
    wanted, gradient = jax.value_and_grad(plain)(PARAMS, rows)
    np.testing.assert_allclose(metrics["loss"], wanted, rtol=1e-4)
    self.assertEqual(metrics["count"], of_policy(rows).sum())
    same(found.params, jax.tree.map(jnp.subtract, PARAMS, gradient))

  def test_micro_batches_of_padding_are_not_computed(self):
    tx = optax.sgd(1.0)
    batch = {
      "ends": np.array([[1], [2], [3]], np.int32),
      "x": np.array([[1.0], [2.0], [4.0]], np.float32),
    }

    def divide(params, batch):
      # Not finite where it is computed for padding.
      total = jnp.sum(params / batch["x"])
      return total, {"count": jnp.sum(batch["x"])}

    step = jax.jit(state.make_step(divide, tx, at_once=1))
    after, metrics = step(state.init(jnp.float32(3.0), tx), padded(batch, 8, 1))
    np.testing.assert_allclose(after.params, 3 - (1 + 1 / 2 + 1 / 4) / 7)
    self.assertTrue(np.isfinite(metrics["loss"]))
    # All padding: nothing is computed, and nothing changes.
    nothing = {name: each[:0] for name, each in batch.items()}
    after, metrics = step(
      state.init(jnp.float32(3.0), tx), padded(nothing, 8, 1)
    )
    self.assertEqual(after.params, 3)
    self.assertEqual(metrics["loss"], 0)

  def test_at_another_temperature_the_gradient_is_of_what_was_sampled(self):
    rows = rows_of(2)
    arrays = joined(rows)
    written, advantage = of_policy(rows), filled(rows, 2)[:, None]

    def mean(params):
      config = dataclasses.replace(CONFIG, temperature=0.5)
      model = nnx.merge(GRAPHDEF, params)
      total, sums = reinforce.Loss(config)(model, arrays)
      return total / sums["count"]

    def plain_mean(params):
      ids = filled(rows, 0)
      logits = nnx.merge(GRAPHDEF, params)(ids[:, :-1]).astype(jnp.float32)
      weights = jax.nn.softmax(logits) ** 2
      picked = jnp.take_along_axis(weights, ids[:, 1:, None], axis=2)[..., 0]
      found = jnp.log(picked / weights.sum(-1))
      return -jnp.sum(found * advantage * written) / written.sum()

    value, gradient = jax.jit(jax.value_and_grad(mean))(PARAMS)
    # Whatever `old` says, the ratio is 1.
    wanted = -np.sum(advantage * written) / written.sum()
    np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-6)
    same(gradient, jax.jit(jax.grad(plain_mean))(PARAMS))

  def test_the_reference_is_computed_part_by_part(self):
    arrays = padded(joined(rows_of(3, count=3)), 8, 2)

    @functools.partial(jax.jit, static_argnames="temperature")
    def whole_batch(temperature):
      return next_token.logprobs(REFERENCE, arrays, temperature=temperature)[0]

    found = reinforce.reference(REFERENCE, arrays, 2)
    whole = whole_batch(1.0)
    there = arrays["weights"] > 0
    np.testing.assert_allclose(found[there], whole[there], rtol=1e-4)
    cold = reinforce.reference(REFERENCE, arrays, 2, temperature=0.5)
    whole = whole_batch(0.5)
    np.testing.assert_allclose(cold[there], whole[there], rtol=1e-4)
    self.assertGreater(np.abs(cold - found)[there].min(), 0.0)
    # Of padding alone nothing is computed.
    empty = [n for n in range(4) if not arrays["ends"][n::4].any()]
    self.assertNotEmpty(empty)
    for part in empty:
      self.assertFalse(found[part::4].any())


if __name__ == "__main__":
  absltest.main()
