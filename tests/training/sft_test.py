import dataclasses
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest
from flax import nnx

from rstar_jax import testing
from rstar_jax.config.schema import TrainConfig
from rstar_jax.data import batches
from rstar_jax.models.transformer import Transformer
from rstar_jax.steps import grammar, prompts
from rstar_jax.training import loop, sft
from tests.models import jitted

TOKENIZER = testing.ByteTokenizer()
SESSION = loop.Session("sft", seed=1, progress=False)
CONFIG = TrainConfig(
  epochs=200,
  batch_size=3,
  length=173,
  learning_rate=1e-2,
  schedule="linear",
  weight_decay=0.0,
)


def _solution(answer: int):
  code = f"<code>\nx = {answer}\nprint(x)\n<end_of_code>"
  return (
    grammar.with_output(code, str(answer)),
    f"<answer>\\boxed{{{answer}}}<end_of_answer>",
  )


ROWS = [
  ("two?", _solution(2)),
  ("five?", _solution(5)),
  ("ten?", _solution(10)),
]


def _model(seed: int = 0) -> Transformer:
  model = testing.tiny_model(embed_dim=36, num_layers=1)
  return Transformer(model, rngs=nnx.Rngs(seed))


def _train(rows, config, session=SESSION, held_out=()):
  packed, kept = (
    sft.pack(each, TOKENIZER, config.length) for each in (rows, held_out)
  )
  return sft.train_packed(_model(), packed, config, session, held_out=kept)


def _greedy(model, ids: list[int], count: int) -> list[int]:
  """Plain greedy decoding, the whole row again for each token."""
  # One length for all, so that one program is compiled; the model is causal.
  tokens = np.zeros((1, CONFIG.length), np.int32)
  tokens[0, : len(ids)] = ids
  end = len(ids) + count
  for at in range(len(ids), end):
    tokens[0, at] = jitted.call(model, tokens)[0, at - 1].argmax()
  return tokens[0, len(ids) : end].tolist()


class SftTest(absltest.TestCase):
  def test_overfits_and_greedy_reproduces(self):
    model = _train(ROWS, CONFIG)
    for question, nodes in ROWS:
      prompt = TOKENIZER.encode(prompts.prompt(question))
      code = nodes[0][: nodes[0].index("<end_of_code>")] + "<end_of_code>"
      expected = TOKENIZER.encode(code)
      self.assertEqual(_greedy(model, prompt, len(expected)), expected)
      given = prompt + TOKENIZER.encode(nodes[0])
      expected = TOKENIZER.encode(nodes[1]) + [TOKENIZER.eos_id]
      self.assertEqual(_greedy(model, given, len(expected)), expected)

  def test_packed_loss_equals_unpacked_loss(self):
    model = _model(3)
    rows = [batches.encode_row(TOKENIZER, q, nodes) for q, nodes in ROWS]
    length = 2 * max(len(r[0]) for r in rows)
    arrays = batches.pack([[row] for row in rows], length).arrays
    self.assertLess(len(arrays["tokens"]), len(rows))
    packed, sums = nnx.jit(sft.sft_loss)(model, arrays)
    total = count = hits = 0.0
    for ids, mask in rows:
      row = np.pad(ids, (0, length - len(ids)))[None]
      log_probs = np.asarray(jax.nn.log_softmax(jitted.call(model, row)[0]))
      for at in np.flatnonzero(mask):
        total -= log_probs[at - 1, ids[at]]
        hits += log_probs[at - 1].argmax() == ids[at]
        count += 1
    np.testing.assert_allclose(packed, total, rtol=1e-5)
    self.assertEqual(float(sums["count"]), count)
    self.assertEqual(float(sums["token_accuracy"]), hits)

  def test_other_segments_do_not_change_a_gradient(self):
    # The gradient of a packed row is the sum of its solutions' gradients.
    graphdef, params = nnx.split(_model(3))

    @jax.jit
    def grad(arrays):
      def loss(params):
        return sft.sft_loss(nnx.merge(graphdef, params), arrays)[0]

      return jax.grad(loss)(params)

    rows = [batches.encode_row(TOKENIZER, q, nodes) for q, nodes in ROWS[:2]]
    length = sum(len(r[0]) for r in rows)
    packed = grad(batches.pack([[row] for row in rows], length).arrays)
    alone = [grad(batches.pack([[row]], length).arrays) for row in rows]
    jax.tree.map(
      lambda p, a, b: np.testing.assert_allclose(
        p, a + b, rtol=1e-3, atol=1e-4
      ),
      packed,
      *alone,
    )

  def test_a_tree_has_the_gradient_of_its_rows(self):
    graphdef, params = nnx.split(_model(3))

    @jax.jit
    def grad(arrays):
      def loss(params):
        return sft.sft_loss(nnx.merge(graphdef, params), arrays)

      return jax.grad(loss, has_aux=True)(params)

    # Of the first and the last solution all but the answer is the same.
    solutions = [_solution(2), _solution(5), (*_solution(2)[:1], "<answer>3")]
    rows = [batches.encode_row(TOKENIZER, "two?", each) for each in solutions]
    length = max(len(ids) for ids, _ in rows)
    alone = batches.pack([[row] for row in rows], length).arrays
    tree = batches.pack([rows], 2 * length).arrays
    self.assertEqual(len(tree["tokens"]), 1)
    saved = (alone["ends"] > 0).sum() - (tree["ends"] > 0).sum()
    self.assertGreater(saved, length)
    self.assertEqual(set(tree["weights"].flat), {0, 1, 2, 3})
    found, wanted = grad(tree), grad(alone)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
      found,
      wanted,
    )
    self.assertEqual(found[1]["count"], sum(mask.sum() for _, mask in rows))

  def test_logits_in_parts_give_the_same_gradient(self):
    graphdef, params = nnx.split(_model(3))
    rows = [batches.encode_row(TOKENIZER, q, nodes) for q, nodes in ROWS]
    arrays = batches.pack([[row] for row in rows], 174).arrays
    vocabulary = TOKENIZER.vocab_size

    @jax.jit
    def both(params):
      def loss(params):
        return sft.sft_loss(nnx.merge(graphdef, params), arrays)

      grad = jax.value_and_grad(loss, has_aux=True)
      whole = grad(params)
      # 174 tokens in one part; 50 at most are 4 parts, and 6 divides 174.
      most = 50 * vocabulary
      with mock.patch.object(sft.next_token, "_MAX_LOGITS", most):
        return whole, grad(params)

    whole, parts = both(params)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      whole,
      parts,
    )

  def test_the_loss_of_what_is_held_out(self):
    rows = []

    class Writer:
      def write(self, step, values, prefix=""):
        rows.append((step, values))

    config = dataclasses.replace(
      CONFIG, epochs=2, batch_size=2, accumulate=2, eval_every=2
    )
    model = _train(
      ROWS[:2],
      config,
      dataclasses.replace(SESSION, writer=Writer()),
      held_out=[ROWS[2], ROWS[0]],
    )
    measured = [(k, v) for k, v in rows if "held_out_loss" in v]
    self.assertEqual([k for k, _ in measured], [2])
    # By the trained model, of each row alone.
    total = count = 0.0
    loss_of = nnx.jit(sft.sft_loss)
    for question, nodes in (ROWS[2], ROWS[0]):
      row = batches.encode_row(TOKENIZER, question, nodes)
      loss, sums = loss_of(model, batches.pack([[row]], 173).arrays)
      total, count = total + float(loss), count + float(sums["count"])
    _, values = measured[0]
    np.testing.assert_allclose(
      values["held_out_loss"], total / count, rtol=1e-4
    )
    self.assertBetween(values["held_out_token_accuracy"], 0, 1)

  def test_as_many_updates_as_are_asked_for(self):
    # The rows are one packed row, and two epochs of it two updates.
    for updates, expected in ((0, 2), (1, 1), (5, 5)):
      config = dataclasses.replace(
        CONFIG, epochs=2, batch_size=1, updates=updates
      )
      with mock.patch.object(sft.loop, "fit_model") as fit:
        _train(ROWS[:1], config)
      ((_, _, batch_at, found, _, _), _) = fit.call_args
      self.assertEqual(found, expected)
      for k in range(found):
        self.assertGreater(batch_at(k)["weights"].sum(), 0)

  def test_nothing_fits(self):
    config = dataclasses.replace(CONFIG, length=7)
    with self.assertRaisesRegex(ValueError, "none of 3 solutions fits into 7"):
      _train(ROWS, config)


if __name__ == "__main__":
  absltest.main()
