r"""Rows whose question is a message, with the texts that data sets have."""

from absl.testing import absltest, parameterized

from rstar_jax.config.schema import DataConfig
from rstar_jax.data import chats, shapes
from rstar_jax.data.rows import Number, ProblemError, Row
from rstar_jax.types import Problem

# As in BytedTsinghua-SIA/DAPO-Math-17k.
DAPO = (
  "Solve the following math problem step by step. The last line of your "
  "response should be of the form Answer: $Answer (without quotes) where "
  "$Answer is the answer to the problem.\n\nWhat is 3 + 4?\n\nRemember to put "
  'your answer on its own line after "Answer:".'
)


def read(value) -> Problem:
  return shapes.problem_of(Row("f:1", 4, value), "set", DataConfig())


def verl(question, answer, **fields):
  return {
    "data_source": "math",
    "prompt": [{"role": "user", "content": question}],
    "ability": "MATH",
    "reward_model": {"style": "rule", "ground_truth": answer},
  } | fields


class ChatsTest(parameterized.TestCase):
  def test_dapo(self):
    row = verl(DAPO, "7", extra_info={"index": "9a9b6eb4"})
    self.assertEqual(
      read(row), Problem("set/9a9b6eb4", "What is 3 + 4?", "7", "math")
    )

  @parameterized.parameters(
    "What is 3 + 4? Let's think step by step and output the final answer "
    'after "####".',
    "What is 3 + 4? Let's think step by step and output the final answer "
    "within \\boxed{}.",
    "What is 3 + 4?\n\nPresent the answer in LaTex format: \\boxed{Your "
    "answer}",
    " What is 3 + 4? ",
  )
  def test_verl_s_instructions_are_left_out(self, text):
    # A number counts within one file alone.
    row = verl(text, "7", extra_info={"index": Number("0"), "split": "train"})
    self.assertEqual(read(row), Problem("set/4", "What is 3 + 4?", "7", "math"))

  def test_a_question_that_stands_apart(self):
    text = "You are wise. What is 3 + 4? Answer briefly."
    extra = {"question": "What is 3 + 4?", "answer": "It is 7.\n#### 7"}
    row = verl(text, "7", extra_info=extra)
    self.assertEqual(read(row).question, "What is 3 + 4?")
    # Only if the prompt holds it.
    row = verl(text, "7", extra_info={"question": "What is 3 + 5?"})
    self.assertEqual(read(row).question, text)

  @parameterized.parameters(
    ("7", "7", ()),
    (Number("7"), "7", ()),
    (["7", "VII"], "7", ("VII",)),
    ('["\\\\frac{1}{2}"]', "\\frac{1}{2}", ()),
    ("[0, 1]", "[0, 1]", ()),
    ("[0, 1)", "[0, 1)", ()),
  )
  def test_answers_of_verl(self, truth, answer, more):
    found = read(verl("Q", truth))
    self.assertEqual((found.answer, found.alternatives), (answer, more))

  @parameterized.parameters(
    ('{"inputs": ["3"], "outputs": ["4"]}',),
    (None,),
    ("",),
    ([],),
    ({"inputs": ["3"]},),
  )
  def test_tests_of_code_are_no_answer(self, truth):
    with self.assertRaisesRegex(shapes.Ungraded, "no final answer"):
      read(verl("Q", truth))

  @parameterized.parameters(
    ("human", "gpt"), ("user", "assistant"), ("Human", "chatgpt")
  )
  def test_share_gpt(self, asks, replies):
    said = [
      {"from": "system", "value": "Be kind."},
      {"from": asks, "value": "What is 3 + 4?"},
      {"from": replies, "value": "So it is $\\boxed{7}$."},
    ]
    row = {"id": "c1", "conversations": said}
    self.assertEqual(read(row), Problem("c1", "What is 3 + 4?", "7", "set"))
    with self.assertRaisesRegex(ProblemError, "'conversations' has 2 of the u"):
      read({"conversations": [*said, said[1]]})
    with self.assertRaisesRegex(ProblemError, "objects with from and value"):
      read({"conversations": [{"role": "user", "content": "?"}]})
    with self.assertRaisesRegex(ProblemError, "no text as 'value' of the user"):
      read({"conversations": [{"from": "human", "value": None}]})
    with self.assertRaisesRegex(shapes.Ungraded, "no final answer"):
      read({"conversations": said[:2]})

  def test_prompt_and_completion(self):
    row = {
      "prompt": [{"role": "user", "content": "Q"}],
      "completion": [{"role": "assistant", "content": "The answer is: 7"}],
    }
    self.assertEqual(read(row), Problem("set/4", "Q", "7", "set"))
    with self.assertRaisesRegex(ProblemError, "'completion' has none of the a"):
      read(row | {"completion": row["prompt"]})
    with self.assertRaisesRegex(ProblemError, "'prompt' has none of the user"):
      read(row | {"prompt": []})

  def test_a_row_without_messages_stays_as_it_is(self):
    row = {"question": "Q", "answer": "7", "extra_info": None}
    self.assertEqual(chats.flat(row), row)

  def test_only_an_instruction_is_a_question(self):
    text = "Let's think step by step and output the final answer within "
    self.assertEqual(
      chats.flat({"prompt": text + "\\boxed{}."})["prompt"],
      text + "\\boxed{}.",
    )


if __name__ == "__main__":
  absltest.main()
