"""OpenAI's forms: what is written."""

from absl.testing import absltest, parameterized

from rstar_jax.pipeline.solve import NO_ANSWER, Budget, Solution
from rstar_jax.serve import answers
from rstar_jax.steps import grammar

BUDGET = Budget(method="search", samples=4, rollouts=2, candidates=4)


class AnswersTest(parameterized.TestCase):
  def solution(self, *code: str, answer="4"):
    *before, last = code
    steps = [f"{each}\n{grammar.END_OF_STEP}" for each in before]
    steps[:1] = [f"{grammar.CODE}\n{each}" for each in steps[:1]]
    closing = f"\n{last}\n{grammar.END_OF_CODE}"
    said = f"{grammar.ANSWER}It is \\boxed{{{answer}}}.{grammar.END_OF_ANSWER}"
    steps += [grammar.with_output(closing, answer), said]
    return Solution(tuple(steps), answer, None, 9)

  def test_a_solution_as_text(self):
    parts = list(answers.pieces(self.solution("x = 4", "print(x)")))
    self.assertEqual(
      "".join(parts),
      "```python\nx = 4\n\nprint(x)\n```\n\n"
      "Output:\n\n```\n4\n```\n\nIt is \\boxed{4}.",
    )
    self.assertLen(parts, 4)

  def test_code_cannot_end_its_fence(self):
    (first, *_) = answers.pieces(self.solution("x = '''```'''", "print(4)"))
    self.assertStartsWith(first, "````python\n")

  def test_no_answer(self):
    nothing = Solution((), None, None, 5)
    self.assertEqual(list(answers.pieces(nothing)), [NO_ANSWER])
    self.assertEqual(answers.report(nothing, BUDGET, None)["answer"], None)

  @parameterized.parameters(
    ((), None, ["ab", "cd"], "stop"),
    (("d", "bc"), None, ["a"], "stop"),
    ((), 3, ["ab", "c"], "length"),
    (("d",), 4, ["ab", "c"], "stop"),
    ((), 4, ["ab", "cd"], "stop"),
  )
  def test_cut(self, stop, limit, kept, reason):
    found = answers.cut(["ab", "cd"], stop, limit, lambda text, most: most)
    self.assertEqual(found, (kept, reason))


if __name__ == "__main__":
  absltest.main()
