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
  def setUp(self):
    super().setUp()
    question = Question("one", {"x": "Kara"}, ("Kara",))
    bodies, result = solutions.solve(list(FACTS), question, None)
    steps = solutions.solution(bodies, "Kara", str(result))
    problem = Problem("", "", "37", "synthetic/orchard", 2)
    self.solved = SolvedProblem(problem, steps, FACTS, question)

  def test_by_hand(self):
    found = slips.judge(
      self.solved,
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

  def test_what_a_vote_may_find(self):
    right, wrong, unclear = map(
      candidate, ("Kara = 37", "Kara = Mila - 7", "Kara = Beren + 7")
    )
    for found, some_right, mostly_wrong in (
      ([wrong, unclear], 0.0, 1.0),
      ([wrong, right], 1.0, 1.0),
      ([right, right, wrong], 1.0, 0.0),
    ):
      judged = slips.judge(self.solved, 1, found)
      self.assertEqual(judged["some_right"], some_right)
      self.assertEqual(judged["mostly_wrong"], mostly_wrong)


if __name__ == "__main__":
  absltest.main()
