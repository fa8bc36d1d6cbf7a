"""Right so far: by hand, and against going on rightly in Python."""

from fractions import Fraction

from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.config.schema import SearchConfig
from rstar_jax.data.synthetic import generator, oracle, solutions
from rstar_jax.data.synthetic.solutions import Fact, Question, SolvedProblem
from rstar_jax.search import mcts
from rstar_jax.search.requests import Calls
from rstar_jax.search.tree import RIGHT, ROOT_INDEX, UNKNOWN, WRONG
from rstar_jax.steps import grammar
from rstar_jax.types import Candidate, Problem

# Mia has 12, Tom 3 times as many, Ann 5 fewer than Tom, Bob 2 more than Mia.
# How many do Mia and Ann have together? Nobody asks for Bob.
FACTS = (
  Fact("given", "Mia", {"n": 12}, Fraction(12)),
  Fact("times", "Tom", {"y": "Mia", "n": 3}, Fraction(36)),
  Fact("fewer", "Ann", {"y": "Tom", "n": 5}, Fraction(31)),
  Fact("more", "Bob", {"y": "Mia", "n": 2}, Fraction(14)),
)
TOTAL = Question("total", {"sum": "Mia + Ann"}, ("Mia", "Ann"))
SOLVED = SolvedProblem(Problem("", "", "43"), (), FACTS, TOTAL)
ONE = SolvedProblem(
  Problem("", "", "31"), (), FACTS, Question("one", {"x": "Ann"}, ("Ann",))
)


def nodes(*codes: str) -> tuple[str, ...]:
  """Returns steps of code that do not end it."""
  texts = [f"{code}\n{grammar.END_OF_STEP}" for code in codes]
  return (f"{grammar.CODE}\n{texts[0]}", *texts[1:])


def shown(output: str) -> str:
  return grammar.with_output(f"print(1)\n{grammar.END_OF_CODE}", output)


def boxed(answer: str) -> str:
  text = f"It is \\boxed{{{answer}}}."
  return f"{grammar.ANSWER}{text}{grammar.END_OF_ANSWER}"


def run(steps) -> str | None:
  """Returns what Python prints, None if it fails."""
  (ran,) = testing.run_trusted([grammar.program(steps)])
  return ran.stdout if ran.status == "ok" else None


def without_errors(solved: SolvedProblem) -> tuple[str, ...]:
  """Returns the right solution of a problem of the bootstrap's."""
  facts = solutions.needed(solved.facts, solved.question.names)
  bodies, result = solutions.solve(facts, solved.question, None)
  asked = solved.question.names[0]
  printed = asked if solved.question.kind == "one" else "answer"
  return solutions.solution(bodies, printed, str(result))


class VerdictsTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ("right", ("Mia = 12", "Tom = 3 * Mia", "Ann = Tom - 5"), "RRR"),
    ("wrong_to_the_end", ("Mia = 12", "Tom = 3 + Mia", "Ann = Tom - 5"), "RWW"),
    ("other_words", ("Ann = 36 - 5", "answer = 12 + Ann"), "RR"),
    ("computed_anew", ("Mia = 12", "Tom = 4", "Tom = 36"), "RWR"),
    ("not_needed", ("Mia = 12", "Bob = Mia - 2", "Tom = 36"), "RRR"),
    # Ann is there already, from which the answer follows.
    ("no_longer_needed", ("Mia = 12", "Ann = 31", "Tom = 1"), "RRR"),
    ("notes", ("Mia = 12", "half = Fraction(Mia, 2)"), "RR"),
    ("answer", ("Mia = 12", "Ann = 31", "answer = Mia - Ann"), "RRW"),
    ("unclear", ("Mia = 12", "Tom = max(36, Mia)", "Ann = 31"), "RUU"),
    ("unknown_name", ("Mia = 12", "Tom = 3 * Max", "Ann = 31"), "RUU"),
    ("by_zero", ("Mia = 12", "Tom = Fraction(3, Mia - 12)"), "RW"),
  )
  def test_steps(self, codes, expected):
    found = oracle.verdicts(SOLVED, nodes(*codes))
    letters = {RIGHT: "R", WRONG: "W", UNKNOWN: "U"}
    self.assertEqual("".join(letters[each] for each in found), expected)

  @parameterized.parameters(
    (("43",), [RIGHT]),
    (("12\n43",), [RIGHT]),
    (("43\n12",), [WRONG]),
    (("",), [WRONG]),
    (("43", "43"), [RIGHT, RIGHT]),
    (("43", "\\frac{86}{2}"), [RIGHT, RIGHT]),
    (("43", "34"), [RIGHT, WRONG]),
    (("43", "86/2"), [RIGHT, RIGHT]),
    (("43", "-43"), [RIGHT, WRONG]),
    (("43", "43/0"), [RIGHT, WRONG]),
    (("34", "43"), [WRONG, RIGHT]),
  )
  def test_ends(self, texts, expected):
    ends = (shown(texts[0]), *map(boxed, texts[1:]))
    before = nodes("Mia = max(12, 3)")
    found = oracle.verdicts(SOLVED, (*before, *ends))
    self.assertEqual(found, [UNKNOWN, *expected])

  def test_a_question_for_one_quantity(self):
    path = nodes("Mia = 12", "Tom = 36", "answer = Mia + Tom")
    self.assertEqual(oracle.verdicts(ONE, path), [RIGHT, RIGHT, WRONG])
    self.assertEqual(oracle.result(ONE, {}), 31)
    self.assertEqual(oracle.result(ONE, {"Tom": Fraction(7)}), 2)
    self.assertEqual(oracle.result(SOLVED, {"Tom": Fraction(7)}), 14)

  def test_an_impossible_question(self):
    asks = Question("percentage", {"x": "Mia", "y": "Ann"}, ("Mia", "Ann"))
    solved = SolvedProblem(Problem("", "", "10"), (), FACTS, asks)
    self.assertIsNone(oracle.result(solved, {"Ann": Fraction(0)}))

  def test_against_going_on_rightly(self):
    seen = set()
    for index in range(150):
      solved = generator.generate("stretch", index)
      found = oracle.verdicts(solved, solved.steps)
      right = without_errors(solved)
      for end in range(1, len(right) - 1):
        output = run((*solved.steps[:end], *right[end:-1]))
        expected = RIGHT if output == solved.problem.answer else WRONG
        self.assertEqual(found[end - 1], expected, (index, end))
        seen.add((found[end - 1], expected))
      self.assertEqual(found[-1], found[-2])
    self.assertLen(seen, 2)


class LabelsTest(absltest.TestCase):
  def test_of_a_tree(self):
    # Of its six steps the second and the fourth are wrong.
    solved = generator.generate("stretch", 7)
    both = solved.steps, without_errors(solved)

    def expand(questions, prefixes, seeds):
      return [
        [candidate(steps[len(prefix)]) for steps in both] for prefix in prefixes
      ]

    def candidate(text):
      text = text.partition(grammar.OUTPUT)[0].rstrip("\n")
      (finish,) = (
        name for end, name in grammar.FINISHES.items() if text.endswith(end)
      )
      return Candidate(text, (1,), -1.0, finish)

    config = SearchConfig(rollouts=12, candidates=2)
    calls = Calls(expand, testing.run_trusted, testing.grade_equal)
    (tree,) = mcts.search([solved.problem], config, calls)
    found = oracle.labels(tree)
    self.assertEqual(found[ROOT_INDEX], RIGHT)
    for node in range(1, len(tree)):
      expected = oracle.verdicts(solved, tree.prefix(node))[-1]
      self.assertEqual(found[node], expected)
      if tree.answers[node] is not None:
        self.assertEqual(found[node], tree.correct[node])
    self.assertLen(set(found.tolist()), 2)

  def test_other_problems(self):
    solved = generator.generate("train", 3)
    self.assertEqual(generator.again(solved.problem), solved)
    for id_ in ("train-0-4", "train-0", "train-0-x", "other-0-3", "train"):
      problem = Problem.from_record(solved.problem.to_record() | {"id": id_})
      with self.assertRaisesRegex(ValueError, "not one of the generator's"):
        generator.again(problem)


if __name__ == "__main__":
  absltest.main()
