"""Tables for people: what they show of known records."""

from absl.testing import absltest

from rstar_jax.evaluation import cost, markdown
from tests.evaluation.tables_test import RIGHT, WRONG, record


def records(n=40):
  made = []
  for i in range(n):
    name = f"p{i}"
    made += [
      record(name, "greedy", [WRONG if i % 4 else RIGHT], [4]),
      record(name, "samples", [WRONG, RIGHT], [4, 8]),
      record(name, "samples", [WRONG, RIGHT], [4, 8], "ppm", [0.1, 0.2]),
      record(name, "mcts", [WRONG, RIGHT], [5, 9], "ppm", [0.1, 0.2]),
    ]
  return made


QUALITY = {
  "ppm": {
    "solutions": 31,
    "auc": 0.75,
    "auc_within": 0.625,
    "calibration_error": 0.125,
    "by_step": {"0": {"auc": 0.75, "n": 31}, "-1": {"auc": 0.5, "n": 31}}
    | {"-3": {"auc": 0.375, "n": 9}},
    "pairs": {"step": {"accuracy": 0.8, "n": 5}},
  }
}


class MarkdownTest(absltest.TestCase):
  def test_rows(self):
    text = markdown.render(records(), QUALITY, seed=0, k=4, parameters=10**12)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for expected in (
      "### s",
      # A quarter right, against all: 30 problems that only the search has.
      "| Greedy | - | first | 25.0 [12.5, 37.5] | 4 | - | 8 | -75.0",
      "| One search | ppm | best | 100.0 [100.0, 100.0] | 9 | - | 18 | - |",
      "| Samples | ppm | best | 100.0 [100.0, 100.0] | 8 | 8 | 16 | +0.0 "
      "[+0.0, +0.0], not distinguishable |",
      # By units: one of two samples is right, two have a right one.
      "| Greedy | - | first | 25.0 (4) | - |",
      "| Samples | - | majority | 50.0 (4) | 0.0 (8) |",
      "| One search | ppm | best | 0.0 (5) | 100.0 (9) |",
      "| Samples | ppm | best | 50.0 (4) | 100.0 (8) |",
      "For at most 9 generated tokens a problem, what one search takes.",
      # The first of two different answers is the majority at once.
      "| 0.95 | 1.0 | 1-1 | 0.0 [0.0, 0.0] | 4 | 50.0 |",
      "| ppm | 80.0 (5) | - | 0.750 | 0.625 | 0.125 | 0.500 | - | 0.375 | 31 |",
    ):
      with self.subTest(expected):
        self.assertTrue(any(each.startswith(expected) for each in lines), text)
    self.assertIn(", worse", text)

  def test_of_what_ended_early_budgets_are_not_compared(self):
    stopped = [
      each | {"stop": "majority"}
      for each in records(3)
      if each["source"] == "samples"
    ]
    greedy = [each for each in records(3) if each["source"] == "greedy"]
    for given in (greedy, stopped, [*greedy, *stopped]):
      self.assertNotIn("Alike", markdown.render(given, {}, seed=0))

  def test_of_searches_that_stopped_the_choice_is_the_one_they_stopped_by(
    self,
  ):
    searches = [
      record(f"p{i}", "searches", [WRONG, RIGHT], [5, 9], "ppm", [0.1, 0.2])
      | {"stop": "weighted"}
      for i in range(40)
    ]
    greedy = [each for each in records() if each["source"] == "greedy"]
    text = markdown.render([*greedy, *searches], {}, seed=0)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    self.assertIn("Against Searches, weighted", text)
    # Against searches, all of them right: 30 problems that greedy has not.
    for expected in (
      "| Greedy | - | first | 25.0 [12.5, 37.5] | 4 | - | - | -75.0",
      "| Searches | ppm | weighted | 100.0 [100.0, 100.0] | 9 | 9 | - | - |",
      "For at most 9 generated tokens a problem, what the searches take.",
      "| Searches | ppm | weighted | 2 | 100.0 [100.0, 100.0] | 9 |",
    ):
      with self.subTest(expected):
        self.assertTrue(any(each.startswith(expected) for each in lines), text)

  def test_time(self):
    found = {
      "policy/greedy": cost.Work(4, 2.0, 1.0, 7.0, 400, 0),
      "ppm/ab_mcts": cost.Work(2, 5.0, 3.0, 0.0, 600, 90),
    }
    lines = [" ".join(line.split()) for line in markdown.time(found)]
    for expected in (
      "| Greedy | - | 4 | 0.5 | 0.25 | 100 | 0 | 7 |",
      "| AB-MCTS | ppm | 2 | 2.5 | 1.5 | 300 | 45 | 0 |",
    ):
      self.assertIn(expected, lines)

  def test_without_a_search_nothing_is_compared(self):
    alone = [r for r in records(3) if r["source"] != "mcts"]
    text = markdown.render(alone, {}, seed=0)
    self.assertNotIn("Against", text)
    self.assertNotIn("Reward models", text)
    self.assertNotIn("For at most", text)


if __name__ == "__main__":
  absltest.main()
