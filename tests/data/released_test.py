"""Tests of rstar_jax.data.released."""

import collections
import json
import pathlib

from absl.testing import absltest, parameterized

from rstar_jax.data import released
from rstar_jax.data.rows import ProblemError
from rstar_jax.steps import grammar, prompts

# The format of the released samples, with texts of our own.
STEP = "<code>\n# Two apples\na = 2\n<end_of_step>"
LAST = "\n\n# Now print the final answer\nprint(a)\n<end_of_code>"
OUTPUT = "\n<output>2<end_of_output>\n"
ANSWER = "<answer>It is \\boxed{2}.<end_of_answer>"
SOLUTION = STEP + LAST + OUTPUT + ANSWER
NODES = (STEP, LAST + OUTPUT, ANSWER)
# Failed code, which violates the step grammar.
FAILED = (
  STEP.replace("a = 2", " a = 2") + "<end_of_code><output>IndentationError: "
  "unexpected indent (<unknown>, line 3)<end_of_output>"
)
COUNTS = {"pos_count": 1, "neg_count": 4}
GOOD = {"query": "Q?", "response": SOLUTION}


class ReleasedTest(parameterized.TestCase):
  def write(self, *rows) -> str:
    path = pathlib.Path(self.create_tempdir().full_path) / "some.json"
    path.write_text(json.dumps(rows, indent=2))
    return str(path)

  def sft(self, *rows):
    """Returns the records of rows, and the counts of skipped rows."""
    skipped = collections.Counter()
    return list(released.read_sft(self.write(*rows), skipped)), skipped

  def pairs(self, *rows):
    skipped = collections.Counter()
    return list(released.read_pairs(self.write(*rows), skipped)), skipped

  def test_nodes_follow_the_step_grammar(self):
    self.assertEqual(released.split_nodes(SOLUTION), NODES)
    step, code, answer = NODES
    self.assertIsNone(grammar.problem_with((), step, "step"))
    self.assertEqual(code, grammar.with_output(LAST, "2\n"))
    self.assertIsNone(grammar.problem_with((step, code), answer, "answer"))

  @parameterized.parameters(
    # As the released samples have them: code that failed, one line.
    (("<code>x\n<end_of_step><end_of_code><output>E<end_of_output>",),),
    (("<code>x<end_of_code><output>1<end_of_output> ", ANSWER),),
    (("<code>x<end_of_step>", "\n\ny<end_of_step>"),),
    # Outputs without an end, and one that ends late.
    (("x<end_of_code>", "<output>y<end_of_code> "),),
    (
      (
        "x<end_of_code><output>y<end_of_code><output>z<end_of_output>\n",
        "<output>x<end_of_code>",
        "<output>y<end_of_answer>",
      ),
    ),
  )
  def test_other_shapes(self, nodes):
    self.assertEqual(released.split_nodes("".join(nodes)), nodes)

  def test_many_outputs_without_an_end(self):
    # To search for the end of each would take minutes.
    nodes = ("<end_of_code>", *["<output><end_of_code>"] * 20_000)
    self.assertEqual(released.split_nodes("".join(nodes)), nodes)

  def test_sft(self):
    other = {"query": "R?", "response": SOLUTION}
    rows, skipped = self.sft(GOOD, other, GOOD | {"more": None})
    self.assertEqual(rows[0].question, "Q?")
    self.assertEqual((rows[0].steps, rows[0].answer), (NODES, "2"))
    self.assertEqual((rows[0].q_values, rows[0].correct), ((1.0,) * 3, True))
    self.assertEmpty(skipped)
    # An id is a question's, so that what is held out is held out whole.
    self.assertEqual(rows[0].problem_id, rows[2].problem_id)
    self.assertNotEqual(rows[0].problem_id, rows[1].problem_id)

  def test_pairs_of_steps_and_of_solutions(self):
    other = "\n\n# Now print\nprint(3)\n<end_of_code>"
    assistant = prompts.prompt("").removeprefix("<|user|>:\n")
    pairs, skipped = self.pairs(
      {
        "prompt": prompts.prompt("Q?") + STEP,
        "pos": LAST,
        "neg": other,
        **COUNTS,
      },
      {
        "prompt": "<|user|>:\nQ?\nIn words.",
        "pos": assistant + SOLUTION,
        "neg": "\n<|assistant|>: " + STEP,
        **COUNTS,
      },
      {
        "prompt": "<|user|>:\nQ?\n Let's write a program.",
        "pos": assistant + SOLUTION,
        "neg": assistant + FAILED,
        **COUNTS,
      },
    )
    self.assertEmpty(skipped)
    self.assertEqual(
      [(p.question, p.chosen, p.rejected, p.weight, p.kind) for p in pairs],
      [
        ("Q?", (STEP, LAST), (STEP, other), 0.25, "step"),
        ("Q?\nIn words.", NODES, (STEP,), 0.25, "final"),
        ("Q?", NODES, (FAILED,), 0.25, "final"),
      ],
    )
    self.assertEqual(pairs[0].problem_id, pairs[2].problem_id)
    # Both models hold out the same problems, wherever their data are.
    path = pathlib.Path(self.create_tempdir().full_path) / "other.json"
    path.write_text(json.dumps([GOOD]))
    (row,) = released.read_sft(str(path), collections.Counter())
    self.assertEqual(row.problem_id, pairs[0].problem_id)

  @parameterized.parameters(
    ({"query": "Q?"}, "has no text in 'response'"),
    ({"query": "Q?", "response": STEP + "rest"}, "text without a closing mark"),
    ({"query": "Q?", "response": ""}, "text without a closing marker"),
    ({"query": "Q?", "response": STEP}, "'response' has no boxed answer"),
    (7, "is not an object"),
  )
  def test_bad_rows_are_counted_by_reason(self, row, reason):
    with self.assertRaisesRegex(
      ProblemError,
      rf"no readable rows \(1 bad; the first: .*some.json:2: {reason}",
    ):
      self.sft(row)
    with self.assertLogs(level="WARNING") as logs:
      rows, skipped = self.sft(row, GOOD, row)
    self.assertLen(rows, 1)
    ((counted, number),) = skipped.items()
    self.assertStartsWith(counted, reason)
    self.assertEqual(number, 2)
    self.assertRegex(logs.output[0], "skipped 2 of 3 rows; the first: .*json:2")

  @parameterized.parameters(
    ({"pos_count": 0}, "'pos_count' is not a positive integer"),
    ({"neg_count": "1" * 400}, "'neg_count' is not a positive integer"),
    ({"neg": "x"}, "'neg' has no <code>"),
    ({"pos": None}, "has no text in 'pos'"),
  )
  def test_bad_pairs(self, change, reason):
    row = {"prompt": "<|user|>:\nQ", "pos": STEP, "neg": STEP, **COUNTS}
    with self.assertRaisesRegex(ProblemError, reason):
      self.pairs(row | change)

  def test_what_is_not_there_is_said_before_a_row_is_taken(self):
    with self.assertRaisesRegex(ProblemError, "there is no file none.json"):
      released.read_sft("none.json", collections.Counter())


if __name__ == "__main__":
  absltest.main()
