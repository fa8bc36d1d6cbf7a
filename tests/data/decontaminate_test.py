"""Tests of rstar_jax.data.decontaminate."""

import json

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.data import decontaminate
from rstar_jax.types import Problem


def problems(*questions: str, prefix: str = "p") -> list[Problem]:
  return [Problem(f"{prefix}{i}", q, "1") for i, q in enumerate(questions)]


def ids(kept) -> list[str]:
  return [problem.id for problem in kept]


class WordsTest(parameterized.TestCase):
  @parameterized.parameters(
    ("What  is 1,234+5?", "what is 1234 5"),
    ("Straße, naïve", "strasse naïve"),
    ("$\\left( \\dfrac{x}{2} \\right) \\quad y$", "frac x 2 y"),
    ("$ ( \\frac{x}{2}\\,) y$", "frac x 2 y"),
    ("$10,\\!000$ or $10{,}000$", "10000 or 10000"),
    ("pairs (1,2)", "pairs 1 2"),
    ("\\leftarrow a_1", "leftarrow a 1"),
    ("?!", ""),
  )
  def test_words(self, question, expected):
    self.assertEqual(decontaminate.words_of(question), expected.split())


class DecontaminateTest(parameterized.TestCase):
  def test_a_subset_is_found_whatever_it_looks_like(self):
    # As MATH-500 is a part of the test file of MATH.
    whole = problems(
      "Find $x$ such that $\\lceil x \\rceil + x = \\dfrac{23}{7}$ and say it.",
      "What is the 100th term of the sequence 6, 10, 14, 18, and so forth?",
      "How many vertical asymptotes does the graph of $y=\\frac{2}{x}$ have?",
    )
    part = problems(
      "find $x$ such that $\\lceil x\\rceil+x=\\frac{23}{7}$, and say it",
      prefix="e",
    )
    kept, report = decontaminate.decontaminate(whole, {"part": part}, 13)
    self.assertEqual(ids(kept), ["p1", "p2"])
    # "7 and say it" is words 11 to 14 of 14: the first 13 are shared.
    self.assertEqual(
      report["matches"],
      [
        {
          "id": "p0",
          "set": "part",
          "held_out_id": "e0",
          "words": "find x such that lceil x rceil x frac 23 7 and say",
        }
      ],
    )

  def test_a_shorter_one_must_be_equal(self):
    train = problems("What is 1 + 1?", "what is 1+1", "What is 1 + 1 now?", "?")
    kept, _ = decontaminate.decontaminate(
      train, {"a": problems("WHAT IS 1 1", "!")}, 13
    )
    self.assertEqual(ids(kept), ["p2", "p3"])

  def test_report(self):
    train = problems("a b c d", "x y z", "c d e", "no match here")
    held_out = {
      "one": problems("z a b c", "b c d", prefix="one"),
      "two": problems("c d e f", prefix="two"),
      "three": problems("other words altogether", prefix="three"),
    }
    kept, report = decontaminate.decontaminate(train, held_out, 3)
    self.assertEqual(ids(kept), ["p1", "p3"])
    match = lambda *values: dict(  # noqa: E731
      zip(("id", "set", "held_out_id", "words"), values, strict=True)
    )
    self.assertEqual(
      report,
      {
        "ngram": 3,
        "problems": 4,
        "dropped": 2,
        "sets": {
          "one": {"problems": 2, "dropped": 1},
          "two": {"problems": 1, "dropped": 1},
          "three": {"problems": 1, "dropped": 0},
        },
        "matches": [
          match("p0", "one", "one0", "a b c"),
          match("p2", "two", "two0", "c d e"),
        ],
      },
    )
    json.dumps(report)

  def test_agrees_with_brute_force(self):
    rng = np.random.default_rng(0)
    made = [
      " ".join(rng.choice(list("abc"), rng.integers(1, 9))) for _ in range(80)
    ]
    train, test = problems(*made[:50]), problems(*made[50:], prefix="e")
    for n in (1, 3, 5):

      def shares(one: str, two: str, n: int = n) -> bool:
        if len(one.split()) < n:
          return one == two
        pieces = one.split()
        return any(
          f" {' '.join(pieces[i : i + n])} " in f" {two} "
          for i in range(len(pieces) - n + 1)
        )

      expected = [
        p.id
        for p in train
        if not any(shares(p.question, e.question) for e in test)
      ]
      kept, _ = decontaminate.decontaminate(train, {"e": test}, n)
      self.assertEqual(ids(kept), expected)
      self.assertNotEmpty(set(ids(train)) - set(expected))

  def test_no_words(self):
    with self.assertRaisesRegex(ValueError, "ngram=0 must be at least 1"):
      decontaminate.decontaminate([], {}, 0)


if __name__ == "__main__":
  absltest.main()
