r"""Parsed answers: kinds, parts and names."""

import random
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.grading import notation, parsing


def _brief(answer):
  """Formats an answer: its kind, and its body or parts."""
  name = f"{answer.name}: " if answer.name else ""
  inside = " ".join(map(_brief, answer.parts))
  return f"{name}{answer.kind}[{answer.body}{' ' if inside else ''}{inside}]"


class FormsTest(parameterized.TestCase):
  @parameterized.parameters(
    ("5", "value[5]"),
    ("x = 5", "x: value[5]"),
    ("5 = x", "x: value[5]"),
    ("3 + 4 = 7", "value[7]"),
    ("The answer is 14", "value[14]"),
    (r"\sqrt{2} \approx 1.41", r"value[\sqrt{2}]"),
    (r"f(x) = 1 \text{ for all } x", "f(x): value[1]"),
    ("seven", "value[7]"),
    ("1, 2", "list[ value[1] value[2]]"),
    ("n=1, 2", "n: list[ value[1] value[2]]"),
    ("x=1, y=2", "record[ x: value[1] y: value[2]]"),
    (
      "x=1, y=2, x=3, y=4",
      "list[ record[ x: value[1] y: value[2]] "
      "record[ x: value[3] y: value[4]]]",
    ),
    ("{x: 1, y: 2}", "record[ x: value[1] y: value[2]]"),
    (r"\{1, 2\}", "set[ value[1] value[2]]"),
    ("{1, 2}", "set[ value[1] value[2]]"),
    (r"\{\}", r"value[\emptyset]"),
    ("[5]", "set[ value[5]]"),
    ("(1, 2)", "tuple[ value[1] value[2]]"),
    ("A(1, 2)", "tuple[ value[1] value[2]]"),
    ("[1, 2]", "bracket[ value[1] value[2]]"),
    ("[1, 2)", "interval[[) value[1] value[2]]"),
    (r"(1, \infty)", r"interval[() value[1] value[\infty]]"),
    ("x > 1", r"x: interval[() value[1] value[\infty]]"),
    (r"1 \ge x", r"x: interval[(] value[-\infty] value[1]]"),
    (r"1 < x \le 2", "x: interval[(] value[1] value[2]]"),
    ("2 > x > 1", "x: interval[() value[1] value[2]]"),
    (r"x \in [1, 2)", "x: interval[[) value[1] value[2]]"),
    (r"\{x \mid x > 1\}", r"x: interval[() value[1] value[\infty]]"),
    ("|x| < 2", "x: interval[() value[-2] value[2]]"),
    (r"\mathbb{R}", r"interval[() value[-\infty] value[\infty]]"),
    (
      r"x \ne 1",
      r"x: union[ interval[() value[-\infty] value[1]] "
      r"interval[() value[1] value[\infty]]]",
    ),
    (
      r"(0,1) \cup [2,3]",
      "union[ interval[() value[0] value[1]] interval[[] value[2] value[3]]]",
    ),
    (
      r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
      "matrix[ tuple[ value[1] value[2]] tuple[ value[3] value[4]]]",
    ),
    ("x^2 + y^2 = 1", "relation[x^{2}+y^{2}=1]"),
    ("x + y < 1", "relation[x+y<1]"),
    ("1:2", "ratio[ value[1] value[2]]"),
    ("3 to 2", "ratio[ value[3] value[2]]"),
    ("B", "choice[B]"),
    ("(B)", "choice[B]"),
    ("B) 12", "choice[B value[12]]"),
    ("Option B", "choice[B]"),
    ("(b) + 1", "value[(b)+1]"),
    ("ellipse", "words[ellipse]"),
    ("5:00 AM", "words[clock 300]"),
  )
  def test_read(self, text, expected):
    self.assertEqual(_brief(parsing.read(text)), expected)

  def test_reading_random_text_ends(self):
    numbers = random.Random(5)
    pieces = list(r"0123abxAB \{}$%^_.,()[]=/-+<>|&:;!'")
    pieces += [r"\\", r"\frac", r"\text{", r"\pm", r"\cup", r"\le", "\u221a"]
    pieces += [r"\begin{pmatrix}", r"\end{pmatrix}", " or ", "\u00b2", "\ud800"]
    for _ in range(500):
      count = numbers.choice((3, 30, 200))
      text = "".join(numbers.choices(pieces, k=count))[: notation.LONGEST]
      self.assertEqual(parsing.read(text), parsing.read(text))

  def test_deep_brackets_are_left_alone(self):
    text = "(" * 200 + "1" + ")" * 200
    self.assertEqual(parsing.read(text), parsing.Answer("value", text))


class WorkTest(parameterized.TestCase):
  """How much is read, which bounds the time: contrived golds took seconds."""

  @parameterized.parameters(
    "(" * 23 + "x>1" + ")" * 23,
    "[" * 23 + "x>1" + "]" * 23,
    "(x=" * 12 + "1" + ")" * 12,
    r"\{" * 23 + "1" + r"\}" * 23,
    "f(x)=0 for all x or " * 5,
    r"\pm1," * 16,
    ("a=" * 40) + "1",
    ("1:" * 40) + "1",
  )
  def test_no_part_is_read_twice(self, text):
    with mock.patch.object(parsing, "_item", wraps=parsing._item) as item:
      parsing.read(text)
    self.assertLessEqual(item.call_count, len(text))

  def test_few_items_of_many_signs(self):
    self.assertLen(parsing.read(r"\pm1," * 20).parts, 40)
    self.assertLen(parsing.read(r"\pm1\pm2\pm3," * 20).parts, 20)
    found = parsing.read(r"\{" + r"\pm1\pm2\pm3," * 20 + r"1\}")
    self.assertLen(found.parts, 21)

  @parameterized.parameters("~", " ", r"\ ", r"\,", r"\;", "\t")
  def test_spaces_are_one(self, space):
    self.assertEqual(
      parsing.read(f"1{space * 90}x"), parsing.read(f"1{space * 2}x")
    )


if __name__ == "__main__":
  absltest.main()
