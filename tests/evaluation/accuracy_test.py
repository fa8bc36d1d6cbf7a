"""Tests of rstar_jax.evaluation.accuracy."""

import json
import math

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import rng
from rstar_jax.evaluation import accuracy as evaluate
from tests.evaluation.methods_test import record, trajectory


class BootstrapTest(parameterized.TestCase):
  @parameterized.parameters((0.5, 2003), (0.9, 1009), (0.13, 3001))
  def test_agrees_with_the_normal_approximation(self, share, n):
    right = np.arange(n) < round(share * n)
    low, high = evaluate.bootstrap(right, seed=7)
    mean = right.mean()
    half = 1.96 * math.sqrt(mean * (1 - mean) / n)
    self.assertAlmostEqual(low, mean - half, delta=half / 8)
    self.assertAlmostEqual(high, mean + half, delta=half / 8)

  def test_against_all_resamples_of_a_small_set(self):
    # A resample of 3 values of which one is 1 has Binomial(3, 1/3) ones.
    cdf = np.cumsum([8 / 27, 12 / 27, 6 / 27, 1 / 27])
    low, high = evaluate.bootstrap(np.array([1.0, 0.0, 0.0]), seed=3)
    quantile = [np.searchsorted(cdf, q) / 3 for q in (0.025, 0.975)]
    np.testing.assert_allclose([low, high], quantile)

  def test_in_pieces_the_same(self):
    values = np.random.default_rng(5).normal(size=101)
    whole = evaluate.bootstrap(values, seed=11)
    chunk = evaluate._CHUNK
    self.addCleanup(setattr, evaluate, "_CHUNK", chunk)
    evaluate._CHUNK = 1
    self.assertEqual(evaluate.bootstrap(values, seed=11), whole)
    self.assertNotEqual(evaluate.bootstrap(values, seed=13), whole)

  @parameterized.parameters(0.0, 1.0)
  def test_equal_values_have_no_width(self, value):
    self.assertEqual(
      evaluate.bootstrap(np.full(5, value), seed=0), (value, value)
    )


def two_problems():
  """Returns records of which every number below is computed by hand."""
  return [
    record("greedy", trajectory("1", tokens=8), name="p", level=2),
    record("greedy", trajectory("?", "undecided", tokens=6), name="q"),
    record(
      "samples",
      trajectory("2", value=0.9, tokens=10),
      trajectory("1", value=0.1, tokens=10),
      trajectory("1", value=0.2, tokens=10),
      trajectory("3", value=1.0, tokens=10),
      name="p",
      level=2,
    ),
    record(
      "samples",
      trajectory(None, value=None, tokens=20),
      trajectory("2", value=0.5, tokens=10),
      trajectory("1", value=0.6, tokens=10),
      trajectory("1", value=0.6, tokens=10),
      name="q",
    ),
    record("mcts", trajectory("1", value=0.3), name="p", level=2, tokens=40),
    record("mcts", name="q", tokens=36),
  ]


class TableTest(absltest.TestCase):
  def test_by_hand(self):
    rows = {
      row["method"]: row
      for row in evaluate.table(two_problems(), round_=3, normalise=str)
    }
    self.assertEqual(
      list(rows), ["policy", "pass@k", "majority", "best_of_n", "mcts"]
    )
    # The search spends 76 tokens in all, three samples each 30 + 40.
    got = {
      method: (
        row["accuracy"],
        row["wrong"],
        row["undecided"],
        row["failed"],
        row["tokens_per_problem"],
        row["samples"],
        row["select"],
      )
      for method, row in rows.items()
    }
    self.assertEqual(
      got,
      {
        "policy": (0.5, 0, 1, 0, 7.0, 1, None),
        "pass@k": (1.0, 0, 0, 0, 35.0, 3, None),
        # p: 1 by two votes. q: a tie of 2 and 1, and 2 came first.
        "majority": (0.5, 1, 0, 0, 35.0, 3, None),
        # p: 2 has the value 0.9. q: 1 has 0.6.
        "best_of_n": (0.5, 1, 0, 0, 35.0, 3, None),
        "mcts": (0.5, 0, 0, 1, 38.0, None, "best"),
      },
    )
    row = rows["policy"]
    self.assertEqual((row["round"], row["split"], row["n"]), (3, "test", 2))
    self.assertEqual((row["low"], row["high"]), (0.0, 1.0))
    self.assertEqual(
      row["levels"],
      {"1": {"accuracy": 0.0, "n": 1}, "2": {"accuracy": 1.0, "n": 1}},
    )
    json.dumps(list(rows.values()))

  def test_from_stored_records_the_same(self):
    stored = json.loads(json.dumps(two_problems()))
    self.assertEqual(
      evaluate.table(stored, round_=1), evaluate.table(two_problems(), round_=1)
    )

  def test_number_of_samples_can_be_given(self):
    rows = evaluate.table(two_problems(), round_=1, samples=4, normalise=str)
    majority = next(row for row in rows if row["method"] == "majority")
    self.assertEqual((majority["accuracy"], majority["samples"]), (1.0, 4))

  def test_methods_without_records_or_values_have_no_row(self):
    records = [
      record("greedy", trajectory("1")),
      record("samples", trajectory("1"), trajectory("2")),
      record("greedy", trajectory("1"), split="other"),
    ]
    rows = evaluate.table(records, round_=0)
    self.assertEqual(
      [(row["split"], row["method"]) for row in rows],
      [
        ("test", "policy"),
        ("test", "pass@k"),
        ("test", "majority"),
        ("other", "policy"),
      ],
    )

  def test_the_interval_is_named_by_round_split_and_method(self):
    random = np.random.default_rng(2)
    records = [
      record("greedy", trajectory(str(random.integers(1, 3))), name=str(i))
      for i in range(53)
    ]
    [row] = evaluate.table(records, round_=2, seed=5)
    right = [r["trajectories"][0]["answer"] == "1" for r in records]
    self.assertEqual(
      (row["low"], row["high"]),
      evaluate.bootstrap(
        np.array(right), rng.seed_for(5, "bootstrap", 2, "test", "policy")
      ),
    )
    [other] = evaluate.table(records, round_=2, seed=6)
    self.assertEqual(other["accuracy"], row["accuracy"])

  def test_a_method_never_beats_the_ceiling(self):
    random = np.random.default_rng(0)
    records = [
      record(
        "samples",
        *(
          trajectory(str(random.integers(1, 5)), value=random.normal())
          for _ in range(7)
        ),
        name=str(i),
      )
      for i in range(31)
    ]
    rows = {
      row["method"]: row["accuracy"]
      for row in evaluate.table(records, round_=1, samples=5)
    }
    expected = np.mean(
      [any(t["answer"] == "1" for t in r["trajectories"][:5]) for r in records]
    )
    self.assertAlmostEqual(rows["pass@k"], expected)
    self.assertLessEqual(rows["majority"], rows["pass@k"])
    self.assertLessEqual(rows["best_of_n"], rows["pass@k"])


class DifferenceTest(absltest.TestCase):
  def records(self, n):
    """Search and policy agree but for every 5th problem, which policy fails."""
    made = []
    for i in range(n):
      hard = i % 2 == 0
      answer = "2" if hard else "1"
      made.append(record("mcts", trajectory(answer, value=0.0), name=str(i)))
      answer = "2" if hard or i % 5 == 0 else "1"
      made.append(record("greedy", trajectory(answer), name=str(i)))
    return made

  def test_pairing_narrows_the_interval(self):
    n = 1000
    [row] = evaluate.difference(self.records(n), "mcts", "policy", seed=1)
    self.assertEqual((row["difference"], row["n"]), (0.1, n))
    # 0.1 of the problems differ by 1, the rest by 0.
    half = 1.96 * math.sqrt(0.1 * 0.9 / n)
    self.assertAlmostEqual(row["low"], 0.1 - half, delta=half / 6)
    self.assertAlmostEqual(row["high"], 0.1 + half, delta=half / 6)
    [back] = evaluate.difference(self.records(n), "policy", "mcts", seed=1)
    self.assertEqual(back["difference"], -0.1)

  def test_only_problems_that_both_answered(self):
    records = self.records(10)[1:]  # The search has not seen problem 0.
    [row] = evaluate.difference(records, "mcts", "policy")
    self.assertEqual(row["n"], 9)
    self.assertEqual(evaluate.difference(records, "mcts", "majority"), [])


class MarkdownTest(absltest.TestCase):
  def row(self, number, method, accuracy, samples=None, split="test"):
    return {
      "round": number,
      "method": method,
      "split": split,
      "accuracy": accuracy,
      "low": accuracy - 0.05,
      "high": accuracy + 0.05,
      "n": 300,
      "tokens_per_problem": 1234.5678,
      "samples": samples,
    }

  def test_one_row_a_round(self):
    results = {
      "config": {},
      "rows": [
        self.row(1, "mcts", 0.8125),
        self.row(0, "policy", 0.25, 1),
        self.row(1, "best_of_n", 0.75, 7),
        self.row(1, "pass@k", 0.9, 7),
        self.row(1, "policy", 0.5, 1),
      ],
      "solved": [{"round": 1, "share": 0.6667}],
    }
    lines = evaluate.markdown(results).split("\n")
    self.assertEqual(lines[0], "### test")
    self.assertIn("300 problems", lines[2])
    cells = [
      [cell.strip() for cell in line.split("|")[1:-1]]
      for line in lines
      if line.startswith("|")
    ]
    self.assertEqual(
      cells[0],
      ["Round", "Policy pass@1", "Majority", "Best-of-N", "MCTS+PPM"]
      + ["Training problems solved"],
    )
    self.assertEqual(
      cells[2:4],
      [
        ["0", "25.0 [20.0, 30.0]", "-", "-", "-", "-"],
        ["1", "50.0 [45.0, 55.0]", "-", "75.0 [70.0, 80.0]"]
        + ["81.2 [76.2, 86.2]", "66.7"],
      ],
    )
    self.assertEqual(
      cells[6:],
      [["0", "1235 (1)", "-", "-", "-"]]
      + [["1", "1235 (1)", "-", "1235 (7)", "1235"]],
    )
    widths = {len(line) for line in lines[4:8]}
    self.assertLen(widths, 1)

  def test_a_table_for_each_split(self):
    rows = [self.row(0, "policy", 0.5, 1, s) for s in ("test", "test_long")]
    text = evaluate.markdown({"rows": rows, "solved": []})
    self.assertEqual(text.count("### test"), 2)
    self.assertEqual(evaluate.markdown({"rows": [], "solved": []}), "")

  def test_of_a_real_table(self):
    rows = evaluate.table(two_problems(), round_=1)
    text = evaluate.markdown({"rows": rows, "solved": []})
    self.assertIn("50.0 [0.0, 100.0]", text)


if __name__ == "__main__":
  absltest.main()
