import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax import testing
from rstar_jax.config.schema import TrainConfig
from rstar_jax.data import sides as sides_lib
from rstar_jax.models.transformer import Transformer, ppm_from_policy
from rstar_jax.steps import prompts
from rstar_jax.training import loop, ppm
from rstar_jax.types import PreferencePair, Trajectory
from tests.models import jitted

TOKENIZER = testing.ByteTokenizer()
SESSION = loop.Session("ppm", seed=1, progress=False)
CONFIG = TrainConfig(
  epochs=10,
  batch_size=7,
  length=192,
  learning_rate=2e-3,
  schedule="constant",
  weight_decay=0.0,
)


def _step(value: str) -> str:
  return f"<code>\nx = {value}\n<end_of_step>"


def _pairs(seed: int, count: int):
  """Steps that set an even digit are better than those that set an odd one."""
  rng = np.random.default_rng(seed)
  return [
    PreferencePair(
      problem_id=str(i),
      question=f"q{rng.integers(10)}?",
      chosen=(_step(rng.choice(list("02468"))),),
      rejected=(_step(rng.choice(list("13579"))),),
      weight=0.25,
      kind="step",
    )
    for i in range(count)
  ]


def _model(head="tanh") -> Transformer:
  config = testing.tiny_model(num_layers=1)
  policy = Transformer(config, rngs=nnx.Rngs(0))
  return ppm_from_policy(policy, head, rngs=nnx.Rngs(1))


def _value(model, question, nodes) -> float:
  """The value of one unpadded sequence."""
  ids = TOKENIZER.encode(prompts.prompt(question) + "".join(nodes))
  return float(jitted.call(model, np.array([ids]))[0, -1])


def _batch(pairs, batch_size):
  sides = sides_lib.encode_pairs(TOKENIZER, pairs, CONFIG.length)
  return sides_lib.make_batches(
    sides, batch_size, 1, None, length=CONFIG.length
  )[0](0)


class LossTest(parameterized.TestCase):
  @parameterized.parameters("tanh", "logit")
  def test_loss_by_hand_and_padding_pairs(self, head):
    model, pairs = _model(head), _pairs(3, 3)
    pairs[1] = dataclasses.replace(
      pairs[1], chosen=pairs[1].chosen + ("\ny = x\n<end_of_code>",), weight=0.5
    )
    total, sums = jax.jit(lambda b: ppm.ppm_loss(model, b))(_batch(pairs, 5))
    expected = hits = margin = 0.0
    for pair in pairs:
      a, b = (
        _value(model, pair.question, s) for s in (pair.chosen, pair.rejected)
      )
      hits += a > b
      margin += a - b
      if head == "logit":
        a, b = 5 * np.arctanh(a), 5 * np.arctanh(b)
      expected += pair.weight * np.log1p(np.exp(b - a))
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    self.assertEqual(float(sums["count"]), 3.0)
    self.assertEqual(float(sums["accuracy"]), hits)
    np.testing.assert_allclose(sums["margin"], margin, rtol=1e-4)

  def test_rival_losses_by_hand(self):
    model = _model()
    items = [("q?", (_step("2"),), 1.0), ("q?", (_step("3"),), 0.0)]
    sides = sides_lib.encode_scored(TOKENIZER, items, CONFIG.length)
    batch_at, _ = sides_lib.make_batches(sides, 3, 1, None, length=150)
    batch = batch_at(0)
    good, bad = (_value(model, q, nodes) for q, nodes, _ in items)
    total, sums = nnx.jit(ppm.pqm_loss)(model, batch)
    np.testing.assert_allclose(total, (good - 1) ** 2 + bad**2, rtol=1e-5)
    self.assertEqual(float(sums["count"]), 2.0)
    total, sums = nnx.jit(ppm.orm_loss)(model, batch)
    raw = np.arctanh([good, bad])
    expected = np.log1p(np.exp(-raw[0])) + np.log1p(np.exp(raw[1]))
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    self.assertEqual(float(sums["accuracy"]), (raw[0] > 0) + (raw[1] <= 0))

  @parameterized.parameters("ppm", "pqm")
  def test_a_tree_has_the_gradient_of_its_rows(self, kind):
    graphdef, params = nnx.split(_model())
    first, steps = _step("1"), [_step(value) for value in "2345"]
    if kind == "ppm":
      items = [
        PreferencePair("p", "q?", (first, a), (first, b), weight, "step")
        for a, b, weight in (
          (steps[0], steps[1], 1.0),
          (steps[0], steps[2], 0.5),
          (steps[3], steps[1], 0.25),
        )
      ]
      sides = sides_lib.encode_pairs(TOKENIZER, items, CONFIG.length)
      loss_of = ppm.ppm_loss
    else:
      path = (first, *steps)
      items = [("q?", path[:depth], 0.1 * depth) for depth in range(1, 5)]
      sides = sides_lib.encode_scored(TOKENIZER, items, CONFIG.length)
      loss_of = ppm.pqm_loss

    @jax.jit
    def grad(batch):
      def loss(params):
        return loss_of(nnx.merge(graphdef, params), batch)[0]

      return jax.value_and_grad(loss)(params)

    def batch(batch_size, k=0):
      return sides_lib.make_batches(sides, batch_size, 1, None, length=256)[0](
        k
      )

    tree = batch(len(items))
    apart = [batch(1, k) for k in range(len(items))]
    tokens = [(each["ends"] > 0).sum() for each in (tree, *apart)]
    self.assertLess(2 * tokens[0], sum(tokens[1:]) + 1)
    wanted = jax.tree.map(lambda *each: sum(each), *map(grad, apart))
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
      grad(tree),
      wanted,
    )

  @parameterized.parameters(
    # Raw values above 0 mean "right"; an outcome of 0.5 is none.
    ([0.5, -0.5, 0.5, -0.5], [1.0, 0.0, 0.0, 1.0], 2.0),
    ([0.0, 0.0, 0.5, 0.5], [0.0, 1.0, 0.5, 0.6], 2.0),
  )
  def test_hits_of_outcomes_by_hand(self, raw, outcomes, hits):
    # A fifth item is padding, and would be a hit.
    raw, outcomes = np.array([*raw, 9.0]), np.array([*outcomes, 1.0])
    with mock.patch.object(
      ppm, "side_values", return_value=(jnp.asarray(raw)[:, None], None, None)
    ):
      _, sums = ppm.orm_loss(
        mock.Mock(),
        {"target": outcomes, "weight": jnp.array([1.0] * 4 + [0.0])},
      )
    self.assertEqual(float(sums["accuracy"]), hits)
    self.assertEqual(float(sums["count"]), 4.0)


def _train(model, items, config, *, kind="ppm", balanced=False, held_out=()):
  encode = sides_lib.encode_pairs if kind == "ppm" else sides_lib.encode_scored
  return ppm.train_sides(
    model,
    encode(TOKENIZER, items, config.length),
    config,
    SESSION,
    held_out=encode(TOKENIZER, held_out, config.length),
    kind=kind,
    balanced=balanced,
  )


class TrainTest(parameterized.TestCase):
  @parameterized.parameters("ppm", "orm", "pqm")
  def test_the_loss_is_that_of_the_kind(self, kind):
    items = [("q?", (_step("2"),), 1.0)] if kind != "ppm" else _pairs(1, 1)
    with mock.patch.object(ppm.loop, "fit_model") as fit:
      _train(
        _model(),
        items,
        CONFIG,
        kind=kind,
      )
    ((_, loss, _, updates, _, session), _) = fit.call_args
    self.assertIs(session, SESSION)
    self.assertIs(loss, getattr(ppm, f"{kind}_loss"))
    self.assertEqual(updates, 2)  # Ten epochs of one item, seven a batch.

  @parameterized.parameters(
    ("ppm", 5), ("pqm", 5), ("ppm", 11), ("orm", 1), ("ppm", 0)
  )
  def test_as_many_updates_as_are_asked_for(self, kind, updates):
    items = _pairs(1, 15)
    if kind != "ppm":
      items = [(p.question, p.chosen, 1.0) for p in items]
    config = dataclasses.replace(CONFIG, epochs=2, updates=updates)
    with mock.patch.object(ppm.loop, "fit_model") as fit:
      _train(_model(), items, config, kind=kind)
    ((_, _, batch_at, found, _, _), _) = fit.call_args
    # Two epochs of 15 items, 7 a batch.
    self.assertEqual(found, updates or 5)
    counts = [int((batch_at(k)["weight"] > 0).sum()) for k in range(found)]
    self.assertEqual(counts, [7] * updates or [7, 7, 7, 7, 2])

  @parameterized.parameters("ppm", "pqm", "orm")
  def test_balanced_items(self, kind):
    items = _pairs(1, 4)
    if kind != "ppm":
      items = [
        (p.question, p.chosen, float(i == 0)) for i, p in enumerate(items)
      ]
    with mock.patch.object(ppm.loop, "fit_model") as fit:
      _train(
        *(_model(), items, dataclasses.replace(CONFIG, batch_size=4)),
        kind=kind,
        balanced=True,
        held_out=items,
      )
    ((_, _, batch_at, _, _, _), options) = fit.call_args
    batch, measured = batch_at(0), options["held_out"][0](0)
    real = batch["weight"] > 0
    if kind == "ppm":
      self.assertEqual(set(batch["weight"][real]), {np.float32(0.25)})
      return
    totals = [
      float(batch["weight"][real & (batch["target"] == side)].sum())
      for side in (0, 1)
    ]
    self.assertAlmostEqual(totals[0], totals[1], places=5)
    self.assertEqual(
      set(measured["weight"][measured["weight"] > 0]), {np.float32(1)}
    )

  def test_learns_a_trivial_preference(self):
    model, held_out = _model(), _pairs(5, 53)
    measure = dict(length=CONFIG.length, batch_size=53)
    held_out = sides_lib.encode_pairs(TOKENIZER, held_out, CONFIG.length)
    before = ppm.pair_accuracy(model, held_out, **measure)
    self.assertBetween(before["accuracy"], 0.1, 0.9)
    policy_like = nnx.split(_model())[1]
    model = _train(model, _pairs(11, 70), CONFIG)
    after = ppm.pair_accuracy(model, held_out, **measure)
    self.assertEqual(after["accuracy"], 1.0)
    self.assertEqual(after["pairs"], 53.0)
    self.assertGreater(after["margin"], before["margin"] + 0.3)
    self.assertLess(_value(model, "q1?", (_step("7"),)), 1.0)
    # The trunk learns too, and not only the head.
    trained = nnx.split(model)[1]
    self.assertTrue(
      bool((trained["embedding"][...] != policy_like["embedding"][...]).any())
    )

  @parameterized.parameters("orm", "pqm")
  def test_rivals_learn(self, kind):
    pairs = _pairs(11, 70)
    low = 0.0 if kind == "orm" else -1.0
    items = [(p.question, p.chosen, 1.0) for p in pairs]
    items += [(p.question, p.rejected, low) for p in pairs]
    model = _train(_model(), items, CONFIG, kind=kind)
    found = ppm.pair_accuracy(
      model,
      sides_lib.encode_pairs(TOKENIZER, _pairs(5, 53), CONFIG.length),
      length=CONFIG.length,
      batch_size=53,
    )
    self.assertEqual(found["accuracy"], 1.0)

  def test_no_item_that_fits(self):
    short = dataclasses.replace(CONFIG, length=5)
    with self.assertRaisesRegex(ValueError, "none of 2 items fits into 5"):
      _train(_model(), _pairs(1, 2), short)


class PairAccuracyTest(absltest.TestCase):
  def test_counts_each_pair_once_by_hand(self):
    model, pairs = _model(), _pairs(3, 7)
    pairs[2] = dataclasses.replace(pairs[2], rejected=pairs[2].chosen)  # A tie.
    margins = np.array(
      [
        _value(model, p.question, p.chosen)
        - _value(model, p.question, p.rejected)
        for p in pairs
      ]
    )
    margins[2] = 0.0
    found = ppm.pair_accuracy(
      model,
      sides_lib.encode_pairs(TOKENIZER, pairs, CONFIG.length),
      length=CONFIG.length,
      batch_size=5,
    )
    wins = (margins > 0).sum() + 0.5
    self.assertAlmostEqual(found["accuracy"], wins / 7)
    self.assertAlmostEqual(found["margin"], margins.mean(), places=5)


class LargestTest(absltest.TestCase):
  def test_of_training_and_of_held_out_batches(self):
    some = sides_lib.encode_pairs(TOKENIZER, _pairs(5, 3), 128)
    none = sides_lib.Encoded([])
    config = dataclasses.replace(CONFIG, batch_size=4, accumulate=2, length=128)
    self.assertEqual(
      ppm.largest(some, some, config, 7),
      [
        sides_lib.largest(some, 4, config.passes(3), 7, length=128),
        sides_lib.largest(some, 2, 1, None, length=128),
      ],
    )
    self.assertEqual(ppm.largest(none, some, config, 7)[0], None)
    self.assertEqual(ppm.largest(none, none, config, 7), [None, None])


class ItemsTest(absltest.TestCase):
  def test_outcomes_and_q_values(self):
    def trajectory(steps, q_values, correct):
      return Trajectory("p", "q?", steps, q_values, "1", correct)

    found = [
      trajectory(("a", "b"), (0.5, 1.0), True),
      trajectory(("a", "c"), (0.5, -1.0), False),
    ]
    self.assertEqual(
      ppm.outcomes(found),
      [("q?", ("a", "b"), 1.0), ("q?", ("a", "c"), 0.0)],
    )
    self.assertEqual(
      ppm.q_values(found),
      [("q?", ("a",), 0.5), ("q?", ("a", "b"), 1.0), ("q?", ("a", "c"), -1.0)],
    )


if __name__ == "__main__":
  absltest.main()
