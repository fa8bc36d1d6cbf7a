"""Tests of rstar_jax.data.released."""

import json

from absl.testing import absltest, parameterized
from etils import epath

from rstar_jax.data import released
from rstar_jax.data.sources import ProblemError
from rstar_jax.text import prompts, steps

# The shape of the released samples, in our words.
STEP = "<code>\n# Two apples\na = 2\n<end_of_step>"
LAST = "\n\n# Now print the final answer\nprint(a)\n<end_of_code>"
OUTPUT = "\n<output>2<end_of_output>\n"
ANSWER = "<answer>It is \\boxed{2}.<end_of_answer>"
SOLUTION = STEP + LAST + OUTPUT + ANSWER
NODES = (STEP, LAST + OUTPUT, ANSWER)


class ReleasedTest(parameterized.TestCase):
  def write(self, *rows):
    path = epath.Path(self.create_tempdir().full_path) / "some.json"
    path.write_text(json.dumps(rows, indent=2))
    return path

  def test_nodes_follow_the_step_grammar(self):
    self.assertEqual(released.split_nodes(SOLUTION), NODES)
    step, code, answer = NODES
    self.assertIsNone(steps.problem_with((), step, "step"))
    self.assertEqual(code, steps.with_output(LAST, "2\n"))
    self.assertIsNone(steps.problem_with((step, code), answer, "answer"))

  @parameterized.parameters(
    # As the released samples have them: code that failed, one line.
    (("<code>x\n<end_of_step><end_of_code><output>E<end_of_output>",),),
    (("<code>x<end_of_code><output>1<end_of_output> ", ANSWER),),
    (("<code>x<end_of_step>", "\n\ny<end_of_step>"),),
  )
  def test_other_shapes(self, nodes):
    self.assertEqual(released.split_nodes("".join(nodes)), nodes)

  def test_sft(self):
    [row] = released.load_sft(self.write({"query": "Q?", "response": SOLUTION}))
    self.assertEqual((row.problem_id, row.question), ("some/0", "Q?"))
    self.assertEqual((row.steps, row.answer), (NODES, "2"))
    self.assertEqual((row.q_values, row.correct), ((1.0, 1.0, 1.0), True))

  def test_pairs_of_steps_and_of_solutions(self):
    other = "\n\n# Now print\nprint(3)\n<end_of_code>"
    counts = {"pos_count": 1, "neg_count": 4}
    pairs = released.load_pairs(
      self.write(
        {
          "prompt": prompts.prompt("Q?") + STEP,
          "pos": LAST,
          "neg": other,
          **counts,
        },
        {
          "prompt": "<|user|>:\nQ?\nIn words.",
          "pos": prompts.prompt("")[len("<|user|>:\n") :] + SOLUTION,
          "neg": "\n<|assistant|>: " + STEP,
          **counts,
        },
      )
    )
    self.assertEqual(
      [(p.question, p.chosen, p.rejected, p.weight, p.kind) for p in pairs],
      [
        ("Q?", (STEP, LAST), (STEP, other), 0.25, "step"),
        ("Q?\nIn words.", NODES, (STEP,), 0.25, "final"),
      ],
    )

  @parameterized.parameters(
    ({"query": "Q?"}, "no text in 'response'"),
    ({"query": "Q?", "response": STEP + "rest"}, "no closing marker after 're"),
    ({"query": "Q?", "response": ""}, "no closing marker"),
    ({"query": "Q?", "response": STEP}, "no boxed answer"),
    (7, "is not an object"),
  )
  def test_bad_rows(self, row, reason):
    path = self.write(row)
    with self.assertRaisesRegex(ProblemError, f"some.json:2: .*{reason}"):
      released.load_sft(path)
    with self.assertLogs(level="WARNING"):
      with self.assertRaisesRegex(ProblemError, "nothing that can be read"):
        released.load_sft(path, "skip")
    path = self.write(row, {"query": "Q?", "response": SOLUTION})
    with self.assertLogs(level="WARNING") as logs:
      self.assertLen(released.load_sft(path, "skip"), 1)
    self.assertIn("skipped 1 of 2", logs.output[0])

  @parameterized.parameters(
    ({"pos_count": 0}, "'pos_count' is '0'"),
    ({"neg": "x"}, "'neg' has no <code>"),
  )
  def test_bad_pairs(self, change, reason):
    row = {"prompt": "<|user|>:\nQ", "pos": STEP, "neg": STEP}
    row |= {"pos_count": 1, "neg_count": 1} | change
    with self.assertRaisesRegex(ProblemError, reason):
      released.load_pairs(self.write(row))


if __name__ == "__main__":
  absltest.main()
