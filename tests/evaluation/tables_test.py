"""Tables of a study against hand-made records."""

from absl.testing import absltest, parameterized

from rstar_jax.evaluation import tables


def record(problem, source, verdicts, spent, reward=None, values=None):
  return {
    "problem_id": problem,
    "split": "s",
    "level": 1,
    "family": "f",
    "gold": "4",
    "source": source,
    "reward": reward,
    "spent": spent,
    "tokens": spent[-1],
    "trajectories": [
      {
        "unit": unit,
        "steps": [],
        # The answers of wrong ones differ, so that they have one vote each.
        "answer": "4" if verdict == "equal" else str(100 + unit),
        "verdict": verdict,
        "value": values[unit] if values else None,
        "tokens": 1,
      }
      for unit, verdict in enumerate(verdicts)
    ],
  }


RIGHT, WRONG = "equal", "different"
SAMPLES = [
  record("a", "samples", [WRONG, RIGHT, RIGHT], [10, 20, 30]),
  record("b", "samples", [RIGHT, WRONG, WRONG], [5, 10, 20]),
]


class TableTest(parameterized.TestCase):
  def rows(self, records, **options):
    rows = tables.table(records, seed=0, **options)
    return {(r["method"], r["choice"], r["units"]): r for r in rows}

  def test_accuracy_and_cost_by_units(self):
    rows = self.rows(SAMPLES, parameters=7)
    self.assertCountEqual(
      rows,
      [("samples", c, u) for c in ("pass", "majority") for u in (1, 2, 3)],
    )
    self.assertEqual(rows["samples", "pass", 1]["accuracy"], 0.5)
    self.assertEqual(rows["samples", "pass", 3]["accuracy"], 1.0)
    # Of b's three answers, all different, the first wins.
    self.assertEqual(rows["samples", "majority", 3]["accuracy"], 1.0)
    # Of pairs two are ties in a, and one is right; in b two are ties.
    two = rows["samples", "majority", 2]
    self.assertAlmostEqual(two["accuracy"], (2 / 3 + 1 / 3) / 2)
    self.assertAlmostEqual(two["tokens"], 25 * 2 / 3)
    last = rows["samples", "majority", 3]
    self.assertEqual((last["n"], last["tokens"]), (2, 25.0))
    self.assertEqual(last["flops"], 2 * 7 * 25.0)
    self.assertIsNone(self.rows(SAMPLES)["samples", "pass", 1]["flops"])

  def test_with_values_only_what_needs_them_is_listed(self):
    records = [
      record("a", "samples", [WRONG, RIGHT], [1, 2], "ppm", [0.9, 0.1]),
      record("a", "samples", [WRONG, RIGHT], [1, 2]),
    ]
    rows = tables.table(records, seed=0)
    found = {(r["reward"], r["choice"]): r["accuracy"] for r in rows}
    self.assertEqual(
      found,
      {
        (None, "pass"): 1.0,
        (None, "majority"): 0.0,
        ("ppm", "best"): 0.0,
        ("ppm", "weighted"): 0.0,
        ("ppm", "top_k"): 0.0,
      },
    )

  def test_of_what_was_ended_early_no_other_choice_is_listed(self):
    ended = [
      {**record("a", source, [RIGHT, RIGHT], [1, 2], reward, [0, 0])}
      | {"stop": "majority"}
      for source, reward in (
        ("samples", None),
        ("samples", "ppm"),
        ("searches", "ppm"),
      )
    ]
    rows = tables.table(ended, seed=0)
    self.assertEqual(
      {(r["method"], r["reward"], r["choice"]) for r in rows},
      {("samples", None, "majority"), ("searches", "ppm", "majority")},
    )

  @parameterized.parameters(
    (1, [1]), (2, [1, 2]), (7, [1, 2, 4, 7]), (8, [1, 2, 4, 8])
  )
  def test_sizes(self, units, expected):
    self.assertEqual(tables.sizes(units), expected)

  @parameterized.parameters(
    # Mean costs of 1, 2 and 3 of the samples, of 30 and 20 tokens in all.
    (8.3, None),
    (8.4, 1),
    (16.6, 1),
    (24.9, 2),
    (25.0, 3),
    (1e9, 3),
  )
  def test_at_budget(self, budget, units):
    rows = tables.at_budget(SAMPLES, budget, seed=0)
    self.assertEqual({r["units"] for r in rows}, {units} - {None})
    for row in rows:
      self.assertLessEqual(row["tokens"], budget)

  def test_a_problem_that_comes_twice_is_an_error(self):
    with self.assertRaisesRegex(ValueError, "problem 'a' of split 's' has two"):
      tables.grouped([SAMPLES[0], SAMPLES[0]])

  def test_so_many_vote(self):
    answers, values = "58485", [0.9, 0.8, 0.7, 0.6, 0.5]
    given = record("a", "samples", [WRONG] * 5, [1, 2, 3, 4, 5], "ppm", values)
    for each, answer in zip(given["trajectories"], answers, strict=True):
      each["answer"] = answer
      each["verdict"] = RIGHT if answer == "8" else WRONG

    def right(**options) -> float:
      (found,) = (
        row["accuracy"]
        for row in tables.table([given], seed=0, **options)
        if (row["choice"], row["units"]) == ("top_k", 5)
      )
      return found

    # 8 has two of four votes. Of three and of five, 5 is the first of equals.
    self.assertEqual([right(k=k) for k in (3, 4, 5)], [0.0, 1.0, 0.0])
    self.assertEqual(right(), 1.0)
    by_problem = tables.right_by_problem
    self.assertEqual(by_problem([given], "top_k", 5), {"a": True})
    self.assertEqual(by_problem([given], "top_k", 5, 3), {"a": False})

  def test_right_by_problem(self):
    self.assertEqual(
      tables.right_by_problem(SAMPLES, "majority", 2), {"a": False, "b": True}
    )


if __name__ == "__main__":
  absltest.main()
