"""Solutions of GSM8K as code steps: by hand, and run by Python."""

import contextlib
import io
import random
import re
from fractions import Fraction

from absl.testing import absltest, parameterized

from rstar_jax.data import gsm8k
from rstar_jax.steps import grammar

QUESTION = (
  "Natalia sold clips to 48 of her friends in April, and then she sold half as "
  "many clips in May. How many clips did she sell altogether?"
)
ANSWER = (
  "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n"
  "Natalia sold 48+24 = <<48+24=72>>72 clips altogether.\n#### 72"
)


def ran(bodies: list[str]) -> str:
  """Returns what the steps print, run by this Python."""
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed):
    exec("".join(bodies), {})
  return printed.getvalue().strip()


class StepsTest(parameterized.TestCase):
  def test_a_note_is_a_step_and_earlier_results_have_names(self):
    bodies, value = gsm8k.steps_of(QUESTION, ANSWER)
    self.assertEqual(
      bodies,
      [
        "# Natalia sold clips in May\nsold_clips_may = 48 / 2\n",
        "# Natalia sold clips altogether\n"
        "sold_clips_altogether = 48 + sold_clips_may\n",
        "# Now print the final answer\nprint(sold_clips_altogether)\n",
      ],
    )
    self.assertEqual(value, 72)
    self.assertEqual(float(ran(bodies)), 72)

  def test_the_texts_are_nodes_of_the_grammar(self):
    row = {"question": QUESTION, "answer": ANSWER}
    nodes = gsm8k.solution_of(row, "72.0")
    finishes = ["step", "step", "code", "answer"]
    self.assertLen(nodes, 4)
    for index, (text, finish) in enumerate(zip(nodes, finishes, strict=True)):
      text = text.partition("\n<output>")[0]
      self.assertIsNone(grammar.problem_with(nodes[:index], text, finish))
    self.assertIn("<output>72.0<end_of_output>", nodes[2])
    self.assertIn("\\boxed{72}", nodes[3])

  @parameterized.parameters(
    # Percent, thousands, a sign for times, and cents without a zero.
    ("Of 1,200 cars 25% are red.", "1,200*25%=300", "300", Fraction(300)),
    ("Each of 12 pens is $.50.", "12x.50=6.00", "6", Fraction(6)),
    ("It is 3 less than 1.", "1-3=-2", "-2", Fraction(-2)),
    ("Of 5 and 4.", "(5+4)*(4-2)=18", "18", Fraction(18)),
    ("Of 7 and 2.", "7/2=3.5", "3.5", Fraction(7, 2)),
  )
  def test_arithmetic(self, question, note, gold, value):
    bodies, found = gsm8k.steps_of(
      question, f"So <<{note}>> it is\n#### {gold}"
    )
    self.assertEqual(found, value)
    self.assertAlmostEqual(float(ran(bodies)), float(value))

  def test_a_result_is_named_where_the_question_does_not_have_it(self):
    # The 10 of the second step is the question's, as far as one can tell; that
    # of the third is the last result.
    solution = (
      "He has 2*5=<<2*5=10>>10 pens.\nShe has 10+1=<<10+1=11>>11 pens.\n"
      "So 11*3=<<11*3=33>>33 in boxes, 33+10=<<33+10=43>>43 in all\n#### 43"
    )
    bodies, _ = gsm8k.steps_of(
      "He has 2 boxes of 5. She has 10 more.", solution
    )
    code = [body.splitlines()[1].partition(" = ")[2] for body in bodies[:-1]]
    self.assertEqual(code[0], "2 * 5")
    self.assertEqual(code[1], "pens + 1")
    self.assertEqual(code[2], "pens_2 * 3")
    self.assertEqual(code[3], "boxes + 10")

  def test_comments_do_not_tell_what_the_code_computes(self):
    solution = (
      "The ants need 800 ounces because 400 x 2 = <<400*2=800>>800\n"
      "With 800 ounces at $.1 it is 800*.1=$<<800*.1=80>>80\n#### 80"
    )
    bodies, _ = gsm8k.steps_of(
      "Each of 400 ants needs 2 ounces, at $.1 each.", solution
    )
    self.assertNotIn("800", "".join(bodies))
    self.assertIn("# With ants_need_ounces ounces", bodies[1])

  def test_a_calculation_is_dropped_whatever_its_units(self):
    # The shorter definition, which some texts take exponential time.
    number = r"(?:\d+(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
    term = rf"[$€£(\s]*(?:{number})%?(?:\s?/?[A-Za-z]+){{0,2}}[)\s]*"
    plain = re.compile(rf"{term}(?:[-+*/x×÷]{term})*=\s*[$€£]?\s*$")
    pieces = (
      "1 12 1,234 .5 % pens a /day x * + - ( ) $ = . ,".split() + [" "] * 6
    )
    random_ = random.Random(0)
    dropped = 0
    for _ in range(20_000):
      text = "".join(random_.choices(pieces, k=random_.randrange(1, 10)))
      text += random_.choice(("", "=", " = ", "=$"))
      expected = plain.sub("", text)
      self.assertEqual(gsm8k._without_calculation(text), expected, repr(text))
      dropped += text != expected
    self.assertGreater(dropped, 4000)

  @parameterized.product(
    piece=("1 apple a+", "(", "1+"), end=(". ", "1 = ", "= ")
  )
  def test_a_long_sum(self, piece, end):
    # Of some of these, all the text would take hours.
    text = f"{piece * 200_000}{end}<<1+1=2>>2\n#### 2"
    bodies, _ = gsm8k.steps_of("1?", text)
    self.assertLen(bodies, 2)

  def test_names_are_unique_and_mean_nothing_else(self):
    solution = (
      "It is <<1+1=2>>2\nThe sum <<2+1=3>>3\nThe sum <<3+1=4>>4\n#### 4"
    )
    bodies, _ = gsm8k.steps_of("1?", solution)
    names = [body.splitlines()[1].partition(" = ")[0] for body in bodies[:-1]]
    self.assertEqual(names, ["result", "sum_", "sum__2"])
    self.assertEqual(float(ran(bodies)), 4)

  @parameterized.parameters(
    ("It is <<1+1=2>>2", "no answer"),
    ("It is two.\n#### 2", "no calculator note"),
    ("<<1+1=3>>3\n#### 3", "wrong"),
    ("<<1+1=2>>2\n#### 4", "not the answer"),
    ("<<1+y=2>>2\n#### 2", "no arithmetic"),
    ("<<1/0=2>>2\n#### 2", "no arithmetic"),
    ("<<1+1=two>>2\n#### 2", "no number"),
    ("<<1+1=2>>2\n#### two", "no number"),
    # 71 was computed in the head.
    ("<<71+1=72>>72\n#### 72", "nowhere"),
  )
  def test_what_cannot_be_read_is_named(self, solution, why):
    with self.assertRaisesRegex(gsm8k.Unreadable, why):
      gsm8k.steps_of("What is 1 and 1?", solution)


if __name__ == "__main__":
  absltest.main()
