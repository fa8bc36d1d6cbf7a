"""Items of reward models as batches."""

import dataclasses

import numpy as np
from absl.testing import absltest

from rstar_jax import testing
from rstar_jax.data import sides
from rstar_jax.steps import grammar, prompts
from rstar_jax.types import PreferencePair

TOKENIZER = testing.ByteTokenizer()
QUESTION = "What is 3 + 4?"
FIRST = "<code>\n# Add\nx = 3 + 4\n<end_of_step>"
CODE = "\n# Now print the final answer\nprint(x)\n<end_of_code>"
ANSWER = "<answer>The answer is \\boxed{7}.<end_of_answer>"
NODES = (FIRST, grammar.with_output(CODE, "7\n"), ANSWER)


class SidesTest(absltest.TestCase):
  def _pair(
    self, weight, chosen=NODES[:2], rejected=("<code>\ny<end_of_step>",)
  ):
    return PreferencePair("p", QUESTION, chosen, rejected, weight, "step")

  def test_pairs(self):
    encoded = sides.encode_pairs(
      TOKENIZER, [self._pair(0.25), self._pair(0.5, FIRST * 40)], 500
    )
    self.assertEqual(encoded.dropped, 1)
    batch_at, count = sides.make_batches(encoded, 3, 1, None, length=200)
    self.assertEqual(count, 1)
    batch = batch_at(0)
    self.assertEqual(batch["tokens"].shape, (1, 256))
    self.assertEqual(batch["weight"].tolist(), [[0.25]])
    for side, nodes in enumerate((NODES[:2], ("<code>\ny<end_of_step>",))):
      text = prompts.prompt(QUESTION) + "".join(nodes)
      last = batch["last"][0, 0, side]
      seen = (np.arange(256) <= last) & (last < batch["ends"][0])
      self.assertEqual(
        TOKENIZER.decode(batch["tokens"][0, seen].tolist()), text
      )
      np.testing.assert_array_equal(
        batch["positions"][0, seen], np.arange(seen.sum())
      )
    # The sides have the prompt and the code marker in common, run once.
    tokens = [
      len(TOKENIZER.encode(prompts.prompt(QUESTION) + "".join(nodes)))
      for nodes in (NODES[:2], ("<code>\ny<end_of_step>",))
    ]
    shared = len(TOKENIZER.encode(prompts.prompt(QUESTION) + "<code>\n"))
    self.assertEqual((batch["ends"] > 0).sum(), sum(tokens) - shared)

  def test_pairs_of_a_question_share_a_tree_and_come_together(self):
    pairs = [
      dataclasses.replace(
        self._pair(1.0 + i, (FIRST, f"{i}"), (FIRST, f"{i}x")),
        question=f"q{i % 3}",
      )
      for i in range(9)
    ]
    encoded = sides.encode_pairs(TOKENIZER, pairs, 500)
    batch_at, count = sides.make_batches(encoded, 3, 2, 7, length=256, parts=2)
    self.assertEqual(count, 6)
    found = []
    for k in range(count):
      batch = batch_at(k)
      self.assertEqual(batch["tokens"].shape, (2, 256))
      # Three pairs in places for a power of two.
      self.assertEqual(batch["last"].shape, (2, 4, 2))
      real = batch["weight"] > 0
      weights = batch["weight"][real].tolist()
      self.assertLen({(round(each) - 1) % 3 for each in weights}, 1)
      for weight, ends in zip(weights, batch["last"][real], strict=True):
        read = batch["tokens"][0, ends].tolist()
        text = str(round(weight) - 1)
        self.assertEqual(TOKENIZER.decode(read), text + "x")
      found.append(sorted(weights))
    self.assertCountEqual(found[:3], found[3:])
    self.assertNotEqual(found[:3], found[3:])

  def test_a_batch_of_more_than_fits_has_more_rows(self):
    pairs = [
      self._pair(1.0 + i, (f"{i}" * 60,), (f"{i}" * 60 + "x",))
      for i in range(8)
    ]
    encoded = sides.encode_pairs(TOKENIZER, pairs, 500)
    batch_at, count = sides.make_batches(encoded, 5, 1, None, length=256)
    self.assertEqual(count, 2)
    shapes = [batch_at(k)["tokens"].shape for k in range(2)]
    self.assertGreater(shapes[0][0], shapes[1][0])
    weights = [batch_at(k)["weight"] for k in range(2)]
    self.assertEqual(
      sorted(sum((each[each > 0].tolist() for each in weights), [])),
      [*range(1, 9)],
    )

  def test_equal_sides_are_read_at_one_token(self):
    encoded = sides.encode_pairs(
      TOKENIZER, [self._pair(1.0, NODES[:1], NODES[:1])], 500
    )
    batch = sides.make_batches(encoded, 1, 1, None, length=128)[0](0)
    self.assertEqual(*batch["last"][0, 0])

  def test_scored(self):
    items = [(QUESTION, NODES[:1], 0.75), (QUESTION, NODES, -1.0)]
    encoded = sides.encode_scored(TOKENIZER, items, 1000)
    batch = sides.make_batches(encoded, 2, 1, None, length=128)[0](0)
    # One is a prefix of the other.
    longest = max(len(each[0]) for each in encoded.groups[0].ids)
    self.assertEqual((batch["ends"] > 0).sum(), longest)
    self.assertEqual(batch["last"].shape, (1, 2, 1))
    self.assertEqual(batch["target"].tolist(), [[0.75, -1.0]])
    self.assertEqual(batch["weight"].tolist(), [[1.0, 1.0]])

  def test_balanced_by_hand(self):
    def weights(*targets):
      items = [(f"q{i}", NODES[:1], t) for i, t in enumerate(targets)]
      batch = sides.make_batches(
        sides.encode_scored(TOKENIZER, items, 1000),
        *(len(items), 1, None),
        length=128,
        balanced=True,
      )[0](0)
      real = batch["weight"] > 0
      return batch["weight"][real].tolist()

    for targets, wanted in (
      # Of an ORM: each of the three wrong ones weighs a third of the right one.
      ((0, 1, 0, 0), (2 / 3, 2, 2 / 3, 2 / 3)),
      # Of a PQM: a Q of 0 is not right.
      ((-1, 0.0, 0.25, 1, 0.5), (1.25, 1.25, 5 / 6, 5 / 6, 5 / 6)),
      ((1, 1), (1, 1)),
      ((-0.5,), (1,)),
    ):
      np.testing.assert_allclose(weights(*targets), wanted, rtol=1e-6)


if __name__ == "__main__":
  absltest.main()
