"""Ways to solve at equal tokens, worked out by hand."""

import collections

import numpy as np
from absl.testing import absltest

from benchmarks import studies
from tests.evaluation.methods_test import record, trajectory


def run_of(search: str, samples: str) -> studies.Found:
  """Records of two problems, whose answer is 1: by a search and by samples.

  A search has two rollouts a problem, of values 0.1 and 0.2 and 30 tokens;
  there are three samples, of 20 tokens. Answers are digits, by problem.
  """
  rows = []
  for index, name in enumerate(("p0", "p1")):
    two, three = search[2 * index :][:2], samples[3 * index :][:3]
    found = [
      trajectory(answer, value=0.1 * (unit + 1)) | {"unit": unit}
      for unit, answer in enumerate(two)
    ]
    row = record("puct", *found, tokens=60, name=name)
    rows.append(row | {"reward": "ppm", "spent": [30, 60]})
    drawn = [
      trajectory(answer) | {"unit": unit, "value": None}
      for unit, answer in enumerate(three)
    ]
    row = record("samples", *drawn, tokens=60, name=name)
    rows.append(row | {"reward": None, "spent": [20, 40, 60]})
  (found,) = studies.by_set(rows).values()
  return found


def valued(row: dict, values: tuple[float, ...]) -> dict:
  """Returns a record with a value for each of its solutions."""
  solutions = zip(row["trajectories"], values, strict=True)
  return row | {
    "trajectories": [t | {"value": value} for t, value in solutions]
  }


class StudiesTest(absltest.TestCase):
  def test_each_way_has_what_the_first_costs(self):
    runs = [run_of("1221", "212111"), run_of("1111", "222122")]
    first = studies.way(runs, ("puct", "ppm"), "best", 1)
    np.testing.assert_array_equal(first.right, [[1, 0], [1, 1]])
    self.assertEqual(first.tokens, 30)
    found = {
      (each.source, each.choice, each.units): each
      for each in studies.ways(runs, ("puct", "ppm"), 30)
    }
    # One sample of 20 tokens fits into 30.
    self.assertCountEqual(found, [("puct", "any", 1), ("samples", "any", 1)])
    np.testing.assert_array_equal(
      found["samples", "any", 1].right, [[0, 1], [0, 1]]
    )
    lines = studies.table(runs, first)
    self.assertIn("| 50.0 (50.0, 50.0)  |", lines[-1])
    self.assertIn("| 25.0 [", lines[-1])

  def test_choices(self):
    runs = [run_of("1221", "212111")]
    found = {
      (each.source, each.choice): each.right.tolist()
      for each in studies.ways(runs, ("puct", "ppm"), 60)
    }
    self.assertEqual(
      found,
      {
        ("puct", "pass"): [[1, 1]],
        ("puct", "majority"): [[1, 0]],
        ("puct", "best"): [[0, 1]],
        ("puct", "weighted"): [[0, 1]],
        ("puct", "top_k"): [[0, 1]],
        ("samples", "pass"): [[1, 1]],
        ("samples", "majority"): [[0, 1]],
      },
    )

  def test_what_is_shown_of_a_source(self):
    run = run_of("1221", "212111")
    # Two models value the same samples; a vote of them all is shown once.
    for reward in ("ppm", "orm"):
      run["samples", reward] = {
        name: valued(row, (0.5, 0.6, 0.4))
        for name, row in run["samples", ""].items()
      }
    # One that has solved fewer problems, and one whose unit costs more.
    run["beam", "ppm"] = {"p0": run["puct", "ppm"]["p0"]}
    run["rebase", "ppm"] = {
      name: row | {"spent": [99], "tokens": 99}
      for name, row in run["puct", "ppm"].items()
    }
    found = collections.defaultdict(set)
    for each in studies.ways([run], ("puct", "ppm"), 60):
      found[each.source, each.reward].add((each.choice, each.units))
    votes = {("pass", 3), ("majority", 3)}
    by_value = {("best", 3), ("weighted", 3), ("top_k", 3)}
    self.assertEqual(found["samples", ""], votes)
    self.assertEqual(found["samples", "ppm"], by_value)
    self.assertEqual(found["samples", "orm"], by_value)
    self.assertNotIn(("beam", "ppm"), found)
    self.assertEqual({units for _, units in found["rebase", "ppm"]}, {1})

  def test_a_record_with_values_is_kept(self):
    plain = run_of("1221", "212111")["samples", ""]["p0"]
    better = valued(plain, (0.5, 0.6, 0.4))
    for rows in ([plain, better], [better, plain]):
      (found,) = studies.by_set(rows).values()
      self.assertEqual(found, {("samples", ""): {"p0": better}})

  def test_other_problems_are_refused(self):
    runs = [run_of("1221", "212111"), run_of("1221", "212111")]
    del runs[1]["puct", "ppm"]["p0"]
    with self.assertRaisesRegex(ValueError, "not solved the same problems"):
      studies.way(runs, ("puct", "ppm"), "best", 1)


if __name__ == "__main__":
  absltest.main()
