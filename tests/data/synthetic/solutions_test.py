"""Solutions, right and with injected errors, against ones made by hand."""

import functools
import random
from fractions import Fraction

from absl.testing import absltest, parameterized

from rstar_jax.data.synthetic import relations, solutions
from rstar_jax.data.synthetic.solutions import Fact, Question, SolvedProblem
from rstar_jax.steps import grammar
from rstar_jax.types import Problem

# Mila 30; Kara two thirds of it, 20; Beren 7 more than Kara, 27; so 27 of 57.
FACTS = [
  Fact("given", "Mila", {"n": 30}, Fraction(30)),
  Fact("part", "Kara", {"y": "Mila", "n": 2, "m": 3}, Fraction(20)),
  Fact("more", "Beren", {"y": "Kara", "n": 7}, Fraction(27)),
]
FRACTION = Question("fraction", {"x": "Beren", "y": "Mila"}, ("Beren", "Mila"))
ONE = Question("one", {"x": "Beren"}, ("Beren",))
ONE_OF_TWO = Question("one", {"x": "Kara"}, ("Kara",))


class Script(random.Random):
  """Returns the given draws, and fails for more."""

  def __init__(self, *draws: float):
    super().__init__()
    self.draws = list(draws)

  def random(self) -> float:
    return self.draws.pop(0)


class Always(random.Random):
  """Draws so low that every step that can go wrong does."""

  def random(self) -> float:
    return 0.0


def careless(random_: random.Random):
  return functools.partial(relations.carelessness, random_)


def run(bodies: list[str], asked: str) -> Fraction:
  """Runs the bodies one after the other; returns the quantity asked for."""
  known: dict[str, Fraction] = {}
  for body in bodies:
    exec(body, known)
  return Fraction(known[asked])


class RecordsTest(absltest.TestCase):
  def test_a_fact_needs_what_it_refers_to(self):
    self.assertEqual([fact.needs for fact in FACTS], [(), ("Mila",), ("Kara",)])
    both = Fact("both", "Noly", {"y": "Kara", "z": "Mila"}, Fraction(50))
    self.assertEqual(both.needs, ("Kara", "Mila"))

  def test_numbers(self):
    self.assertEqual(solutions.numbers({"y": "Mila"}), [])
    self.assertEqual(solutions.numbers({"y": "Mila", "n": 7}), [7])
    self.assertEqual(solutions.numbers({"m": 3, "n": 2, "x": "Kara"}), [2, 3])


class PlanTest(absltest.TestCase):
  # Kara needs Mila, Beren needs Kara; nobody needs Noly.
  facts = (*FACTS, Fact("more", "Noly", {"y": "Mila", "n": 3}, Fraction(33)))

  def test_needed(self):
    for names, expected in (
      (("Beren",), ["Mila", "Kara", "Beren"]),
      (("Kara", "Noly"), ["Mila", "Kara", "Noly"]),
      (("Mila",), ["Mila"]),
    ):
      found = solutions.needed(self.facts, names)
      self.assertEqual([each.x for each in found], expected)

  def test_an_answer_that_is_no_quantity_comes_last(self):
    problem = Problem("", "")
    for question, expected in (
      (ONE_OF_TWO, ["Mila", "Kara"]),
      (FRACTION, ["Mila", "Kara", "Beren", "answer"]),
    ):
      solved = SolvedProblem(problem, (), self.facts, question)
      self.assertEqual([each.x for each in solved.plan], expected)
    self.assertEqual(solved.plan[-1].needs, FRACTION.names)


class RightTest(parameterized.TestCase):
  def test_bodies_and_result(self):
    bodies, result = solutions.solve(FACTS, FRACTION, None)
    self.assertEqual(
      bodies,
      [
        "# Mila: 30\nMila = 30\n",
        "# Kara: 2/3 of Mila\nfrom fractions import Fraction\n"
        "Kara = Mila * Fraction(2, 3)\n",
        "# Beren: 7 more than Kara\nBeren = Kara + 7\n",
        "# answer: Beren as a part of Beren and Mila\n"
        "from fractions import Fraction\n"
        "answer = Fraction(Beren, Beren + Mila)\n",
      ],
    )
    self.assertEqual(result, Fraction(27, 57))

  @parameterized.named_parameters(
    ("one", ONE, 27),
    (
      "total",
      Question(
        "total",
        {
          "names": "Mila, Beren and Kara",
          "sum": "Mila + Beren + Kara",
          "sum_but_last": "Mila + Beren",
        },
        ("Mila", "Beren", "Kara"),
      ),
      77,
    ),
    (
      "difference",
      Question("difference", {"x": "Mila", "y": "Beren"}, ("Mila", "Beren")),
      3,
    ),
    (
      "percentage",
      Question("percentage", {"x": "Beren", "y": "Mila"}, ("Beren", "Mila")),
      90,
    ),
    ("rate", Question("rate", {"x": "Beren", "n": 6}, ("Beren",)), 4.5),
  )
  def test_questions(self, question, expected):
    bodies, result = solutions.solve(FACTS, question, None)
    self.assertEqual(result, expected)
    asked = "Beren" if question.kind == "one" else "answer"
    self.assertLen(bodies, len(FACTS) + (asked == "answer"))
    self.assertEqual(run(bodies, asked), expected)


class SlipsTest(parameterized.TestCase):
  def test_every_possible_error_is_made_and_the_rest_follows(self):
    # Kara 30 - 2/3 = 88/3, Beren 88/3 - 7 = 67/3, and (67/3) / 30 = 67/90.
    bodies, result = solutions.solve(FACTS, FRACTION, careless(Always()))
    self.assertEqual(
      bodies,
      [
        "# Mila: 30\nMila = 30\n",
        "# Kara: 2/3 of Mila\nfrom fractions import Fraction\n"
        "Kara = Mila - Fraction(2, 3)\n",
        "# Beren: 7 more than Kara\nBeren = Kara - 7\n",
        "# answer: Beren as a part of Beren and Mila\n"
        "from fractions import Fraction\n"
        "answer = Fraction(Beren, Mila)\n",
      ],
    )
    self.assertEqual(result, Fraction(67, 90))
    self.assertEqual(run(bodies, "answer"), Fraction(67, 90))

  @parameterized.named_parameters(
    ("none", (0.99, 0.99, 0.99), Fraction(9, 19)),  # 27 / 57
    ("part", (0.0, 0.99, 0.99), Fraction(109, 199)),  # (109/3) / (199/3)
    ("more", (0.99, 0.0, 0.99), Fraction(13, 43)),  # 20 - 7
    ("question", (0.99, 0.99, 0.0), Fraction(27, 30)),
    ("two", (0.99, 0.0, 0.0), Fraction(13, 30)),
  )
  def test_one_draw_for_each_step_that_can_go_wrong(self, draws, expected):
    script = Script(*draws)
    bodies, result = solutions.solve(FACTS, FRACTION, careless(script))
    self.assertEqual(result, expected)
    self.assertEqual(run(bodies, "answer"), expected)
    self.assertEmpty(script.draws)

  @parameterized.parameters(1, 2, 3)
  def test_error_rate_of_a_step_grows(self, step):
    kind = ("", "part", "more", "fraction")[step]
    relation = {**relations.RELATIONS, **relations.QUESTIONS}[kind]
    share = relation.error_rate + step * relations.ERROR_RATE_GROWTH
    right, _ = solutions.solve(FACTS, FRACTION, None)
    for difference in (-0.001, 0.001):
      draws = [0.99] * 3
      draws[step - 1] = share + difference
      bodies, _ = solutions.solve(FACTS, FRACTION, careless(Script(*draws)))
      changed = [i for i in range(4) if bodies[i] != right[i]]
      self.assertEqual(changed, [step] if difference < 0 else [])

  def test_a_wrong_operand_is_the_newest_other_quantity(self):
    # The first fact refers to nothing, and Kara's to all that there is; so
    # Beren alone is 7 more than Mila, not Kara: 37, and 37 of 67.
    bodies, result = solutions.solve(
      FACTS, FRACTION, lambda name, *_: "operand" if name == "more" else None
    )
    self.assertEqual(bodies[2], "# Beren: 7 more than Kara\nBeren = Mila + 7\n")
    self.assertEqual(result, Fraction(37, 67))
    self.assertEqual(run(bodies, "answer"), result)
    both = [*FACTS, Fact("both", "Noly", {"y": "Mila", "z": "Kara"}, 50)]
    asks = Question("one", {"x": "Noly"}, ("Noly",))
    bodies, result = solutions.solve(
      both, asks, lambda name, *_: "operand" if name == "both" else None
    )
    self.assertIn("Noly = Beren + Kara", bodies[-1])
    self.assertEqual(result, 47)

  def test_a_slip_without_another_quantity_is_none(self):
    bodies, result = solutions.solve(
      FACTS[:2], ONE_OF_TWO, lambda *_: "operand"
    )
    self.assertEqual(result, 20)
    self.assertEqual(bodies, solutions.solve(FACTS[:2], ONE_OF_TWO, None)[0])

  def test_slips_are_drawn_by_name_number_of_steps_and_numbers(self):
    seen = []

    def slips(*args):
      seen.append(args)

    solutions.solve(FACTS, FRACTION, slips)
    self.assertEqual(
      seen,
      [
        ("given", 0, [30]),
        ("part", 1, [2, 3]),
        ("more", 2, [7]),
        ("fraction", 3, []),
      ],
    )

  def test_comments_stay_true(self):
    right, _ = solutions.solve(FACTS, FRACTION, None)
    wrong, _ = solutions.solve(FACTS, FRACTION, careless(Always()))
    for one, two in zip(right, wrong, strict=True):
      self.assertEqual(one.splitlines()[0], two.splitlines()[0])

  def test_an_import_only_where_the_code_that_is_written_needs_it(self):
    rate = Question("rate", {"x": "Beren", "n": 3}, ("Beren",))
    right, _ = solutions.solve(FACTS, rate, None)
    self.assertIn("import Fraction\nanswer = Fraction(Beren, 3)", right[-1])
    wrong, result = solutions.solve(FACTS, rate, careless(Always()))
    expected = "# answer: Beren divided by 3\nanswer = Beren * 3\n"
    self.assertEqual(wrong[-1], expected)
    self.assertEqual(result, 67)

  def test_the_answer_itself_may_be_given(self):
    given = Question("one", {"x": "Mila"}, ("Mila",))
    bodies, result = solutions.solve(FACTS[:1], given, careless(Always()))
    self.assertEqual((len(bodies), result), (1, 30))

  def test_errors_may_divide_by_zero(self):
    facts = [
      FACTS[0],
      Fact("more", "Kara", {"y": "Mila", "n": 30}, Fraction(60)),
    ]
    question = Question(
      "percentage", {"x": "Kara", "y": "Mila"}, ("Kara", "Mila")
    )
    self.assertEqual(solutions.solve(facts, question, None)[1], 200)
    # The error gives 30 - 30 for Kara, and for the question 100 * Mila / Kara.
    with self.assertRaises(ZeroDivisionError):
      solutions.solve(facts, question, careless(Always()))


class SolutionTest(absltest.TestCase):
  def test_nodes(self):
    bodies = [
      "# Mila: 30\nMila = 30\n",
      "# Kara: 2 times Mila\nKara = 2 * Mila\n",
    ]
    self.assertEqual(
      solutions.solution(bodies, "Kara", "60"),
      (
        "<code>\n# Mila: 30\nMila = 30\n<end_of_step>",
        "\n\n# Kara: 2 times Mila\nKara = 2 * Mila\n<end_of_step>",
        "\n\n# Now print the final answer\nprint(Kara)\n<end_of_code>\n"
        "<output>60<end_of_output>\n",
        "<answer>The answer is \\boxed{60}.<end_of_answer>",
      ),
    )

  def test_keeps_the_order_and_the_grammar(self):
    bodies, result = solutions.solve(FACTS, FRACTION, careless(Always()))
    nodes = solutions.solution(bodies, "answer", str(result))
    self.assertEqual(
      [code.strip() for code in grammar.program(nodes)],
      [
        *(body.strip() for body in bodies),
        "# Now print the final answer\nprint(answer)",
      ],
    )
    finishes = ["step"] * 4 + ["code", "answer"]
    for index, (node, finish) in enumerate(zip(nodes, finishes, strict=True)):
      # The policy's part of a node ends where the interpreter's begins.
      text = node.partition(f"\n{grammar.OUTPUT}")[0]
      self.assertIsNone(grammar.problem_with(nodes[:index], text, finish), text)


if __name__ == "__main__":
  absltest.main()
