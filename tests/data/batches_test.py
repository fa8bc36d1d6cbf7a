import hypothesis
import numpy as np
from absl.testing import absltest, parameterized
from hypothesis import strategies as st

from rstar_jax import testing
from rstar_jax.data import batches
from rstar_jax.steps import grammar, prompts
from rstar_jax.steps import tokenizer as tokenizer_lib

TOKENIZER = testing.ByteTokenizer()
QUESTION = "What is 3 + 4?"
FIRST = "<code>\n# Add\nx = 3 + 4\n<end_of_step>"
CODE = "\n# Now print the final answer\nprint(x)\n<end_of_code>"
ANSWER = "<answer>The answer is \\boxed{7}.<end_of_answer>"
NODES = (FIRST, grammar.with_output(CODE, "7\n"), ANSWER)


def _rows(lengths):
  """Rows of distinct ids from 1 and masks of alternating bits."""
  start, rows = 1, []
  for length in lengths:
    ids = np.arange(start, start + length, dtype=np.int32)
    rows.append((ids, (ids % 2).astype(np.int32)))
    start += length
  return rows


class EncodeRowTest(absltest.TestCase):
  def test_mask_is_exactly_what_the_policy_wrote(self):
    ids, mask = batches.encode_row(TOKENIZER, QUESTION, NODES)
    self.assertEqual(ids[-1], TOKENIZER.eos_id)
    self.assertEqual(mask[-1], 1)
    written = TOKENIZER.decode(ids[:-1][mask[:-1] == 1].tolist())
    self.assertEqual(written, FIRST + CODE + ANSWER)
    given = TOKENIZER.decode(ids[mask == 0].tolist())
    output = "\n<output>7<end_of_output>\n"
    self.assertEqual(given, prompts.prompt(QUESTION) + output)

  def test_ids_are_those_of_inference(self):
    ids, _ = batches.encode_row(TOKENIZER, QUESTION, NODES)
    expected = tokenizer_lib.encode_solution(
      TOKENIZER, prompts.prompt(QUESTION), NODES
    )
    self.assertEqual(ids.tolist(), expected + [TOKENIZER.eos_id])


class PackTest(parameterized.TestCase):
  @hypothesis.settings(max_examples=100, deadline=None)
  @hypothesis.given(
    st.lists(st.integers(1, 23), max_size=100), st.integers(1, 19)
  )
  def test_invariants(self, lengths, length):
    rows = _rows(lengths)
    packed = batches.pack([[row] for row in rows], length)
    a = packed.arrays
    kept = [row for row in rows if len(row[0]) <= length]
    self.assertEqual(packed.solutions, len(rows))
    self.assertEqual(packed.dropped, len(rows) - len(kept))
    # Every token once, and padding is empty everywhere.
    real = a["ends"] > 0
    expected = sorted(np.concatenate([r[0] for r in kept] or [[]]).tolist())
    self.assertEqual(sorted(a["tokens"][real].tolist()), expected)
    for name in a:
      self.assertTrue((a[name][~real] == 0).all(), name)
    # Each row is whole, and its tokens see no other's.
    masks = {int(ids[0]): (ids, mask) for ids, mask in kept}
    for n in range(len(a["tokens"])):
      for end in set(a["ends"][n].tolist()) - {0}:
        (at,) = np.nonzero(a["ends"][n] == end)
        self.assertEqual(at.tolist(), list(range(at[0], end)))
        tokens = a["tokens"][n, at]
        ids, mask = masks.pop(int(tokens[0]))
        np.testing.assert_array_equal(tokens, ids)
        np.testing.assert_array_equal(a["positions"][n, at], np.arange(len(at)))
        # Nothing is predicted across the end of a row.
        np.testing.assert_array_equal(a["parents"][n, at[1:]], at[:-1])
        np.testing.assert_array_equal(a["weights"][n, at], [0, *mask[1:]])
    self.assertEmpty(masks)

  def test_first_fit_by_hand(self):
    groups = [[row] for row in _rows([5, 4, 3, 2, 11])]
    packed = batches.pack(groups, 7)
    self.assertEqual(packed.dropped, 1)
    # 5 + 2 and 4 + 3.
    np.testing.assert_array_equal(
      packed.arrays["ends"],
      [[5, 5, 5, 5, 5, 7, 7], [4, 4, 4, 4, 7, 7, 7]],
    )

  def test_rows_of_a_group_share_what_they_can(self):
    ids = [[5, 6, 7], [1, 2, 3, 4], [1, 2, 8], [1, 2, 3, 9, 9, 9]]
    groups = [[0], [1, 2, 3]]
    rows = [
      (np.asarray(each), np.array([0, 1, 1, 1])[: len(each)])
      for each in ids[:3]
    ]
    rows.append((np.asarray(ids[3]), np.ones(6, int)))
    packed = batches.pack([[rows[i] for i in each] for each in groups], 5)
    self.assertEqual(packed.dropped, 1)
    np.testing.assert_array_equal(
      packed.arrays["tokens"], [[5, 6, 7, 0, 0], [1, 2, 3, 4, 8]]
    )
    np.testing.assert_array_equal(packed.arrays["ends"][1], [5, 5, 4, 4, 5])
    np.testing.assert_array_equal(packed.arrays["parents"][1], [0, 0, 1, 2, 1])
    np.testing.assert_array_equal(packed.arrays["weights"][1], [0, 2, 1, 1, 1])

  def test_by_question(self):
    groups = batches.by_question(iter("abacba"))
    self.assertEqual(groups, [[0, 2, 5], [1, 4], [3]])

  def test_many_open_rows(self):
    # More half-full rows than are kept open: still all there, and full.
    packed = batches.pack([[row] for row in _rows([4] * 101 + [3] * 101)], 7)
    self.assertEqual((packed.arrays["ends"] > 0).sum(), 101 * 7)
    self.assertLess(len(packed.arrays["tokens"]), 140)


class RowBatchesTest(absltest.TestCase):
  def test_each_epoch_has_each_row_once(self):
    arrays = {"tokens": np.arange(1, 12)[:, None], "mask": np.ones((11, 1))}
    batch_at, count = batches.row_batches(
      batches.Packed(arrays, 0, 0), 3, 2, seed=5
    )
    self.assertEqual(count, 8)  # ceil(2 x 11 / 3)
    all_rows = np.concatenate([batch_at(k)["tokens"][:, 0] for k in range(8)])
    self.assertEqual(sorted(all_rows[:11]), list(range(1, 12)))
    self.assertEqual(sorted(all_rows[11:22]), list(range(1, 12)))
    self.assertNotEqual(all_rows[:11].tolist(), all_rows[11:22].tolist())
    # The last batch is filled with rows that weigh nothing.
    last = batch_at(7)
    self.assertEqual(last["tokens"].shape, (3, 1))
    self.assertEqual(last["mask"][:, 0].tolist(), [1, 0, 0])

  def test_batch_is_a_function_of_seed_and_number(self):
    arrays = {"tokens": np.arange(101)}
    first, _ = batches.row_batches(batches.Packed(arrays, 0, 0), 7, 3, seed=5)
    again, _ = batches.row_batches(batches.Packed(arrays, 0, 0), 7, 3, seed=5)
    other, _ = batches.row_batches(batches.Packed(arrays, 0, 0), 7, 3, seed=6)
    straight = [first(k)["tokens"].tolist() for k in range(20)]
    backwards = [again(k)["tokens"].tolist() for k in reversed(range(20))]
    self.assertEqual(straight, backwards[::-1])
    self.assertNotEqual(straight[0], other(0)["tokens"].tolist())

  def test_no_rows(self):
    with self.assertRaisesRegex(ValueError, "no rows"):
      batches.row_batches(
        batches.Packed({"tokens": np.zeros((0, 3))}, 0, 0), 2, 1, seed=0
      )


if __name__ == "__main__":
  absltest.main()
