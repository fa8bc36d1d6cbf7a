"""Tables of results.json, by hand."""

from absl.testing import absltest

from rstar_jax.evaluation import accuracy, results_tables
from tests.evaluation.accuracy_test import two_problems


class MarkdownTest(absltest.TestCase):
  def row(self, number, method, share, samples=None, split="test"):
    return {
      "round": number,
      "method": method,
      "split": split,
      "accuracy": share,
      "low": share - 0.05,
      "high": share + 0.05,
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
    lines = results_tables.markdown(results).split("\n")
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
    text = results_tables.markdown({"rows": rows, "solved": []})
    self.assertEqual(text.count("### test"), 2)
    self.assertEqual(results_tables.markdown({"rows": [], "solved": []}), "")

  def test_growth_is_told_up_to_the_last_evaluated_round(self):
    less = {
      **{"n": 300, "first": 0.5, "second": 0.25, "difference": 0.25},
      **{"low": 0.2, "high": 0.3, "only_first": 75, "only_second": 0},
      "p": 0.001,
    }
    results = {
      "rows": [
        self.row(0, "policy", 0.25, 1),
        self.row(2, "policy", 0.5, 1) | {"less": {"base": less}},
      ],
      # Round 3 is trained and not evaluated yet.
      "solved": [{"round": k, "share": 0.1 * k} for k in (1, 2, 3)],
      "ppm": [{"round": k, "pairs": 100 * k} for k in (1, 2, 3)],
    }
    self.assertIn(
      "round 2 less round 0, paired by problem: +25.0 [+20.0, +30.0], better. "
      "Of the training problems searches solved 10.0% in round 1 and 20.0% in "
      "round 2; the PPM learnt from 200 pairs.",
      results_tables.markdown(results),
    )

  def test_of_a_real_table(self):
    rows = accuracy.table(two_problems(), round_=1)
    text = results_tables.markdown({"rows": rows, "solved": []})
    self.assertIn("50.0 [0.0, 100.0]", text)
    self.assertIn(
      "| 1     | +0.0 [+0.0, +0.0], not distinguishable |",
      text.split("MCTS+PPM less")[1],
    )
    self.assertRegex(text, r"\| 0\.0 +\| 50\.0 +\| 0\.0 +\|")


if __name__ == "__main__":
  absltest.main()
