"""No pair made from a gold answer is graded better by math-verify than by ours.

Labels follow from how the pairs are made; see `metamorphic.py`.
"""

import collections
import logging

from absl.testing import absltest, parameterized

from rstar_jax.grading import judge, labelled
from rstar_jax.grading.grader import Grader
from tests.grading import gold_forms, metamorphic, sympy_prints

_SEED = 21


def _pairs() -> list[labelled.Pair]:
  found = {}
  for gold in gold_forms.golds(_SEED):
    for pair in metamorphic.of_gold(gold, _SEED):
      found[pair.gold, pair.predicted] = pair
  return [*found.values(), *sympy_prints.pairs(_SEED)]


def math_verify_ways(gold: str, predicted: str) -> list[bool]:
  """Returns math-verify's verdicts, called in the ways in which it is used."""
  import math_verify

  logging.getLogger("math_verify").setLevel(logging.CRITICAL)
  one, two, boxed = (
    math_verify.parse(text, parsing_timeout=None)
    for text in (f"${gold}$", f"${predicted}$", rf"\boxed{{{predicted}}}")
  )
  return [
    bool(math_verify.verify(*pair, timeout_seconds=None))
    for pair in ((one, two), (two, one), (one, boxed))
  ]


class MetamorphicTest(parameterized.TestCase):
  def test_ours_is_right_and_so_math_verify_is_not_better(self):
    pairs = _pairs()
    # A busy machine must not turn verdicts into "undecided".
    with Grader(workers=1, seconds=100) as grader:
      verdicts = grader.grade([(each.gold, each.predicted) for each in pairs])
    wrong = [
      (pair, verdict)
      for pair, verdict in zip(pairs, verdicts, strict=True)
      if (verdict == "equal") != pair.equal
    ]
    better = [
      pair
      for pair, _ in wrong
      if pair.equal in math_verify_ways(pair.gold, pair.predicted)
    ]
    self.assertEmpty(better)
    self.assertEmpty(wrong)

  def test_makes_many_pairs_of_each_kind(self):
    pairs = _pairs()
    counts = collections.Counter(pair.category.split()[0] for pair in pairs)
    self.assertContainsSubset(
      {*metamorphic.EQUAL, *metamorphic.DIFFERENT, "sympy"}, counts
    )
    labels = collections.Counter(pair.equal for pair in pairs)
    self.assertGreater(labels[True], 1000)
    self.assertGreater(labels[False], 400)
    self.assertEqual(pairs, _pairs())

  @parameterized.parameters(
    (r"\frac{1}{2}", 0.5),
    (r"\frac{3+\sqrt{25}}{2}", 4),
    (r"2\left(1-3\right)^2", 8),
    (r"2^{3} \cdot 5", 40),
    (r"\frac12 + 1", 1.5),
    (r"2x - x", metamorphic.value("x").real),
    (r"(x+1)(x-1) - x^2", -1),
    (r"\sin x", None),
    ("1,2", None),
    ("1/0", None),
    ("2e", None),
  )
  def test_value(self, text, expected):
    found = metamorphic.value(text)
    if expected is None:
      self.assertIsNone(found)
    else:
      self.assertAlmostEqual(found, expected)

  def test_math_verify_is_worse_somewhere(self):
    # Else the comparison above would compare it with itself.
    self.assertIn(True, math_verify_ways("6", "5=6"))
    self.assertEqual(judge.judge("6", "5=6", 100), "different")


if __name__ == "__main__":
  absltest.main()
