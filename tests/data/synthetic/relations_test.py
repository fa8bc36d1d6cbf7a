"""Values and injected errors of relations, by hand and by their templates."""

import collections
import itertools
import random
import string
from fractions import Fraction

from absl.testing import absltest, parameterized

from rstar_jax.data.synthetic import relations, templates

# Value and wrong value of each relation, by hand, with y = 60,
# z = 20, n = 3 and m = 4.
RELATIONS = {
  "given": (3, None),
  "product": (12, 7),
  "more": (63, 57),
  "fewer": (57, 63),
  "times": (180, 63),
  "part": (45, Fraction(237, 4)),
  "percent": (Fraction(9, 5), Fraction(5997, 100)),
  "both": (80, 40),
}
# The same of questions with x = 60, y = 20, z = 5 and n = 3.
QUESTIONS = {
  "total": (85, 80),
  "difference": (40, -40),
  "fraction": (Fraction(3, 4), 3),
  "percentage": (300, Fraction(100, 3)),
  "rate": (20, 180),
}
# Every relation and question: its name, itself, and the values by hand.
ALL = [
  *((k, relations.RELATIONS[k], RELATIONS[k]) for k in RELATIONS),
  *((k, relations.QUESTIONS[k], QUESTIONS[k]) for k in QUESTIONS),
]
# Number of steps of the hardest problem with injected errors.
MOST_STEPS = 6


def fields(template: str) -> set[str]:
  """Returns the fields of a template, lists of names as one field."""
  found = {field for _, field, _, _ in string.Formatter().parse(template)}
  lists = {"sum": "names", "sum_but_last": "names"}
  return {lists.get(field, field) for field in found - {None}}


def run(kind: str, template: str, quantities, numbers) -> Fraction:
  """Runs a template's code with names and numbers filled in.

  Args:
    kind: the name of the relation or question.
    template: its code.
    quantities: those that it refers to or names, in order.
    numbers: n and m.
  """
  names = ["Mila", "Kara", "Beren"][: len(quantities)]
  known = dict(zip(names, quantities, strict=True))
  asks = kind in QUESTIONS
  code = template.format(
    **dict(zip("xyz" if asks else "yz", names, strict=False)),
    **({} if asks else {"x": "Noly"}),
    **dict(zip("nm", numbers, strict=True)),
    sum=" + ".join(names),
    sum_but_last=" + ".join(names[:-1]),
  )
  exec(code, {"Fraction": Fraction}, known)
  return known["answer" if asks else "Noly"]


def how_many(kind: str) -> range:
  """Returns how many quantities a relation or a question may have."""
  if kind in ("given", "product"):
    return range(1)
  if kind == "total":
    return range(2, 4)
  two = kind in ("both", "difference", "fraction", "percentage")
  return range(2, 3) if two else range(1, 2)


class ValuesTest(parameterized.TestCase):
  def test_every_one_is_here_and_said_somewhere(self):
    self.assertEqual(relations.RELATIONS.keys(), RELATIONS.keys())
    self.assertEqual(relations.QUESTIONS.keys(), QUESTIONS.keys())
    said = {kind for family in templates.FAMILIES for kind in family.says}
    asked = {kind for family in templates.FAMILIES for kind in family.asks}
    self.assertEqual(relations.RELATIONS.keys(), said)
    self.assertEqual(relations.QUESTIONS.keys() | {"one"}, asked)

  @parameterized.named_parameters((each[0], *each) for each in ALL)
  def test_values_by_hand(self, kind, relation, expected):
    # Unused quantities and numbers have no effect.
    quantities = (60, 20, 5) if kind in QUESTIONS else (60, 20)
    given = [Fraction(each) for each in quantities]
    right, wrong = expected
    self.assertEqual(relation.value(given, (3, 4)), right)
    if wrong is None:
      self.assertIsNone(relation.wrong_value)
    else:
      self.assertEqual(relation.wrong_value(given, (3, 4)), wrong)

  @parameterized.named_parameters((k, k, each) for k, each, _ in ALL)
  def test_code_computes_the_values(self, kind, relation):
    cases = 0
    for count in how_many(kind):
      choices = (Fraction(36), Fraction(7, 2), Fraction(90), Fraction(-5, 3))
      for quantities in itertools.permutations(choices, count):
        for numbers in itertools.product((2, 9), (3, 40)):
          with self.subTest(f"{quantities} {numbers}"):
            right = relation.value(quantities, numbers)
            self.assertEqual(
              run(kind, relation.code, quantities, numbers), right
            )
            if relation.wrong_code:
              wrong = relation.wrong_value(quantities, numbers)
              self.assertEqual(
                run(kind, relation.wrong_code, quantities, numbers), wrong
              )
              self.assertNotEqual(wrong, right)
          cases += 1
    self.assertGreaterEqual(cases, 4)


class SlipsTest(parameterized.TestCase):
  def share(self, name, numbers, count=4000):
    """Returns how often each slip is drawn."""
    random_ = random.Random(0)
    found = collections.Counter(
      relations.habit(random_, name, 5, numbers) for _ in range(count)
    )
    return [found[slip] / count for slip in (None, "operation", "operand")]

  @parameterized.named_parameters(
    ("given", "given", [12], (1, 0, 0)),
    ("easy", "more", [13], (0.9, 0.05, 0.05)),
    ("hard", "more", [15], (0.38, 0.5, 0.12)),
    ("hard_by_the_last_digit", "fewer", [41], (0.38, 0.5, 0.12)),
    ("easy_part", "part", [1, 3], (0.9, 0.05, 0.05)),
    ("hard_part", "part", [2, 3], (0.38, 0.5, 0.12)),
    ("hard_percent", "percent", [75], (0.38, 0.5, 0.12)),
    ("easy_percent", "percent", [50], (0.9, 0.05, 0.05)),
    ("product_refers_to_none", "product", [3, 14], (0.5, 0.5, 0)),
    ("no_number", "both", [], (0.75, 0.2, 0.05)),
    ("question_without_number", "total", [], (0.8, 0.2, 0)),
    ("question", "rate", [6], (0.5, 0.5, 0)),
  )
  def test_habits(self, name, numbers, expected):
    for found, share in zip(self.share(name, numbers), expected, strict=True):
      # Five standard errors.
      self.assertAlmostEqual(found, share, delta=0.04)

  def test_the_likeliest_is_wrong_at_a_fifth_to_two_fifths_of_numbers(self):
    numbers = {
      "more": [[n] for n in range(2, 100)],
      "fewer": [[n] for n in range(2, 60)],
      "times": [[n] for n in range(2, 8)],
      "part": [[1, 2], [1, 3], [1, 4], [2, 3], [3, 4], [1, 5], [2, 5]],
      "percent": [[n] for n in (10, 20, 25, 30, 40, 50, 60, 75, 80)],
    }
    for name, each in numbers.items():
      wrong = [self.share(name, given, 300)[0] < 0.5 for given in each]
      self.assertBetween(sum(wrong) / len(wrong), 0.2, 0.45, name)


class TemplatesTest(parameterized.TestCase):
  @parameterized.named_parameters((k, each) for k, each, _ in ALL)
  def test_comment_code_and_wrong_code_use_the_same_fields(self, relation):
    self.assertEqual(fields(relation.comment), fields(relation.code))
    if relation.wrong_code:
      self.assertEqual(fields(relation.wrong_code), fields(relation.code))
      self.assertNotEqual(relation.wrong_code, relation.code)

  @parameterized.named_parameters((k, each) for k, each, _ in ALL)
  def test_an_error_is_complete_and_never_certain(self, relation):
    has_error = relation.wrong_value is not None
    self.assertEqual(bool(relation.wrong_code), has_error)
    self.assertBetween(relation.error_rate, 0, 1)
    self.assertEqual(relation.error_rate > 0, has_error)
    most = relation.error_rate + relations.ERROR_RATE_GROWTH * (MOST_STEPS - 1)
    self.assertLess(most, 1)
    self.assertGreaterEqual(relations.ERROR_RATE_GROWTH, 0)

  def test_only_what_is_given_cannot_go_wrong(self):
    safe = [kind for kind, relation, _ in ALL if not relation.wrong_code]
    self.assertEqual(safe, ["given"])


if __name__ == "__main__":
  absltest.main()
