"""The cold start: who learns from what, and which solutions are kept."""

from absl.testing import absltest

from rstar_jax.grading.grader import Grader
from rstar_jax.sandbox.pool import Sandbox
from rstar_jax.tools import cold_start


def row(question: str, answer: str) -> dict[str, str]:
  return {"question": question, "answer": answer}


RIGHT = row("What is 1 and 2?", "It is 1+2=<<1+2=3>>3 in all.\n#### 3")


class ColdStartTest(absltest.TestCase):
  def test_a_problem_has_one_part_wherever_it_stands(self):
    rows = [row(f"What is 1 and {n}?", "") for n in range(2000)]
    parts = cold_start.divide(rows)
    self.assertCountEqual(
      [each["question"] for part in parts.values() for each in part],
      [each["question"] for each in rows],
    )
    again = cold_start.divide(rows[::-1])
    for name, share in (
      ("cold_start", 0.7),
      ("search", 0.2),
      ("validation", 0.1),
    ):
      self.assertCountEqual(parts[name], again[name])
      # Four standard deviations of a share of 2,000.
      self.assertAlmostEqual(len(parts[name]) / 2000, share, delta=0.04)

  def test_a_level_is_the_number_of_notes(self):
    rows = [RIGHT, row("What is 2 and 2?", "It is 4.\n#### 4")]
    parts = cold_start.divide(rows)
    levels = {
      each["question"]: each["level"]
      for part in parts.values()
      for each in part
    }
    self.assertEqual(levels, {"What is 1 and 2?": 1, "What is 2 and 2?": None})

  def test_solutions_are_run_and_what_is_left_out_is_counted(self):
    rows = [
      RIGHT,
      row("What is 1 and 2?", "It is 3.\n#### 3"),
      row("What is 1 and 2?", "It is 1+2=<<1+2=3>>3.\n#### 4"),
      # Exactly it is 0, and Python's floats leave -2.8e-17.
      row(
        "What is 1 and 2?",
        "It is 1-.9-.1=<<1-.9-.1=0>>0, so 0*2=<<0*2=0>>0.\n#### 0",
      ),
    ]
    with Sandbox() as sandbox, Grader() as grader:
      kept, left_out = cold_start.rewrite(rows, sandbox, grader)
    self.assertEqual([each["question"] for each in kept], [RIGHT["question"]])
    self.assertIn("<output>3<end_of_output>", kept[0]["steps"][1])
    self.assertEqual(
      left_out,
      {
        "no calculator note": 1,
        "the last result is not the answer": 1,
        "what the code prints is not the answer": 1,
      },
    )

  def test_long_solutions_are_left_out_if_asked(self):
    two = "It is 1+2=<<1+2=3>>3, and 3+2=<<3+2=5>>5 in all.\n#### 5"
    rows = [RIGHT, row("What is 1 and 2 and 2?", two)]
    with Sandbox() as sandbox, Grader() as grader:
      for most, wanted in ((0, 2), (2, 2), (1, 1)):
        kept, left_out = cold_start.rewrite(rows, sandbox, grader, most)
        self.assertLen(kept, wanted)
        self.assertEqual(left_out.total(), 2 - wanted)


if __name__ == "__main__":
  absltest.main()
