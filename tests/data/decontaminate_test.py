"""Tests of rstar_jax.data.decontaminate."""

import json

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.data.decontaminate import Screen, words_of
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
    ("求x²+2x=0的解。", "求 x² 2x 0 的 解"),
    ("りんご・リンゴーは3個ﾘﾝ", "り ん ご リ ン ゴ ー は 3 個 ﾘ ﾝ"),
    ("หา12 ข้อ๑๒", "ห า 12 ข อ ๑๒"),
    ("사과 세 개", "사과 세 개"),
    ("㐀𠀀豈", "㐀 𠀀 豈"),
  )
  def test_words(self, question, expected):
    self.assertEqual(words_of(question), expected.split())


def decontaminate(train, held_out, ngram: int):
  """Returns the problems that are in no set, and the report."""
  screen = Screen(held_out, ngram)
  kept = [each for each in train if not screen.holds(each.id, each.question)]
  return kept, screen.report()


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
    kept, report = decontaminate(whole, {"part": part}, 13)
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
    kept, _ = decontaminate(train, {"a": problems("WHAT IS 1 1", "!")}, 13)
    self.assertEqual(ids(kept), ["p2", "p3"])

  def test_report(self):
    train = problems("a b c d", "x y z", "c d e", "no match here")
    held_out = {
      "one": problems("z a b c", "b c d", prefix="one"),
      "two": problems("c d e f", prefix="two"),
      "three": problems("other words altogether", prefix="three"),
    }
    kept, report = decontaminate(train, held_out, 3)
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

  def test_a_question_that_comes_twice_matches_once(self):
    train = problems("a b c", "a b c", "x")
    train[1] = train[0]
    kept, report = decontaminate(train, {"e": problems("a b c")}, 3)
    self.assertEqual(kept, train[2:])
    self.assertEqual((report["problems"], report["dropped"]), (3, 2))
    self.assertEqual(report["sets"]["e"]["dropped"], 2)
    self.assertLen(report["matches"], 1)

  def test_a_clause_without_spaces_is_no_single_word(self):
    asked = "小明有三个苹果和五个梨，一共有多少个水果？"
    held_out = {"e": problems(asked, prefix="e")}
    train = problems(f"请回答：{asked}", "小明有三个苹果，小红有几个？")
    self.assertEqual(ids(decontaminate(train, held_out, 13)[0]), ["p1"])

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
      kept, _ = decontaminate(train, {"e": test}, n)
      self.assertEqual(ids(kept), expected)
      self.assertNotEmpty(set(ids(train)) - set(expected))

  def test_no_words(self):
    with self.assertRaisesRegex(ValueError, "ngram=0 must be at least 1"):
      decontaminate([], {}, 0)


if __name__ == "__main__":
  absltest.main()
