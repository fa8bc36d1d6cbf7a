"""Invariants of answers, on random answers by hypothesis."""

from fractions import Fraction

from absl.testing import absltest
from hypothesis import given, settings
from hypothesis import strategies as st

from rstar_jax.grading import answers, judge

# Deterministic, and without a deadline, since a machine may be busy.
_SETTINGS = settings(derandomize=True, deadline=None, max_examples=300)
_PIECES = st.sampled_from(
  [
    *"0123456789abcxyzABC+-*/^_=<>()[]{}.,;:!?|$%'& \n\x00",
    *("\\", "\\\\", "\\frac", "\\sqrt", "\\left", "\\text{", "\\pm", "\\cup"),
    *("\\infty", "\\le", "\\circ", "\\{", "\\}", "\\begin{pmatrix}", " or "),
    *("\\end{pmatrix}", "\\mathbb{R}", "\u221a", "\u00bd", "\u00b0", "\u00b2"),
    *("Matrix(", "\\boxed{", " and ", "cm", " per ", "print(", "yes", "\ud800"),
  ]
)
_TEXT = st.one_of(
  st.text(max_size=60),
  st.lists(_PIECES, max_size=40).map("".join),
  # Long repetitive answers, which expose slow rules.
  st.builds(lambda piece, n: piece * n, _PIECES, st.integers(1, 120)),
)
_FRACTIONS = st.builds(
  Fraction, st.integers(-999, 999), st.sampled_from((1, 2, 3, 4, 5, 7, 8, 20))
)


def _write(value: Fraction, style: int) -> str:
  """Writes a number in one of many ways that are exact."""
  top, bottom = value.numerator, value.denominator
  sign, size = "-" if top < 0 else "", abs(value)
  whole, rest = divmod(size.numerator, bottom)
  ways = [
    f"{top}/{bottom}",
    rf"\frac{{{top}}}{{{bottom}}}",
    rf"{sign}\dfrac{{{size.numerator}}}{{{bottom}}}",
    rf"$\boxed{{{sign}\frac{{{2 * size.numerator}}}{{{2 * bottom}}}}}$.",
    f"Fraction({top}, {bottom})",
    f"x = {top}/{bottom}",
  ]
  if whole and rest:
    ways.append(rf"{sign}{whole}\frac{{{rest}}}{{{bottom}}}")
  if bottom in (1, 2, 4, 5, 8, 20):
    ways += [
      f"{float(value):.3f}",
      f"{float(value):.3f}".replace("-", "\u2212"),
    ]
  if bottom == 1:
    ways += [f"{top:,}", rf"\text{{{top}}}", f"{top} units"]
  return ways[style % len(ways)]


_NUMBERS = st.builds(_write, _FRACTIONS, st.integers(0, 100))


class FuzzTest(absltest.TestCase):
  @_SETTINGS
  @given(_TEXT, _TEXT)
  def test_any_text(self, one, two):
    found = answers.decide(one, two)
    self.assertIn(found, (True, False, None))
    self.assertEqual(answers.decide(two, one), found)
    self.assertEqual(answers.decide(one, one), bool(one.strip()))

  @_SETTINGS
  @given(_FRACTIONS, _FRACTIONS, st.integers(0, 100), st.integers(0, 100))
  def test_numbers_by_value(self, one, two, style, other):
    texts = _write(one, style), _write(two, other)
    self.assertEqual(answers.decide(*texts), one == two, texts)
    again = _write(one, other)
    self.assertTrue(answers.decide(texts[0], again), (texts[0], again))

  @_SETTINGS
  @given(st.lists(_FRACTIONS, min_size=2, max_size=5), st.randoms())
  def test_order(self, values, random):
    shuffled = random.sample(values, len(values))
    texts = [", ".join(map(str, each)) for each in (values, shuffled)]
    self.assertTrue(answers.decide(*texts))
    braces = [rf"\{{{text}\}}" for text in texts]
    self.assertTrue(answers.decide(*braces))
    self.assertTrue(answers.decide(texts[0], braces[1]))
    points = [f"({text})" for text in texts]
    self.assertEqual(answers.decide(*points), values == shuffled)
    # One that is not there.
    other = ", ".join(map(str, [*values[:-1], values[-1] + 1000]))
    self.assertFalse(answers.decide(texts[1], other))
    self.assertFalse(answers.decide(points[0], f"({other})"))

  @_SETTINGS
  @given(_FRACTIONS, _FRACTIONS, st.sampled_from(("()", "(]", "[)", "[]")))
  def test_intervals(self, low, size, ends):
    high = low + abs(size) + 1
    signs = {"(": "<", ")": "<", "[": r"\le", "]": r"\le"}
    interval = f"{ends[0]}{low}, {high}{ends[1]}"
    chain = f"{low} {signs[ends[0]]} x {signs[ends[1]]} {high}"
    self.assertTrue(answers.decide(interval, chain))
    for other in {"()", "(]", "[)", "[]"} - {ends}:
      changed = f"{other[0]}{low}, {high}{other[1]}"
      self.assertFalse(answers.decide(interval, changed))
      self.assertFalse(answers.decide(chain, changed))

  @settings(derandomize=True, deadline=None, max_examples=40)
  @given(_TEXT, _TEXT)
  def test_judging_any_text(self, one, two):
    self.assertIn(judge.judge(one, two, 5), ("equal", "different", "undecided"))


if __name__ == "__main__":
  absltest.main()
