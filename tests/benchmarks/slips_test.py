"""What candidates of a step are, by hand."""

from fractions import Fraction

from absl.testing import absltest

from benchmarks import slips
from rstar_jax.data.synthetic import solutions
from rstar_jax.data.synthetic.solutions import Fact, Question, SolvedProblem
from rstar_jax.types import Candidate, Problem

FACTS = (
  Fact("given", "Mila", {"n": 30}, Fraction(30)),
  Fact("more", "Kara", {"y": "Mila", "n": 7}, Fraction(37)),
)


def candidate(code: str, finish="step") -> Candidate:
  return Candidate(f"\n\n{code}\n<end_of_step>", (), 0.0, finish)


class JudgeTest(absltest.TestCase):
  def test_by_hand(self):
    question = Question("one", {"x": "Kara"}, ("Kara",))
    bodies, result = solutions.solve(list(FACTS), question, None)
    steps = solutions.solution(bodies, "Kara", str(result))
    problem = Problem("", "", "37", "synthetic/orchard", 2)
    solved = SolvedProblem(problem, steps, FACTS, question)
    found = slips.judge(
      solved,
      1,
      [
        candidate("Kara = Mila + 7"),
        candidate("Kara = Mila + 7"),
        candidate("Kara = 37"),
        candidate("Kara = Mila - 7"),
        candidate("Kara = Mila + 6"),
        candidate("Kara = Beren + 7"),  # There is no Beren.
        candidate("Kara = Mila +", "length"),
        candidate("note = 1"),
      ],
    )
    self.assertEqual(
      found,
      {
        "right": 4 / 8,
        "wrong": 2 / 8,
        "unclear": 2 / 8,
        "some_right": 1.0,
        "mostly_wrong": 0.0,
        "distinct": 5,
      },
    )


if __name__ == "__main__":
  absltest.main()
