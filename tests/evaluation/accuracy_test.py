"""Accuracies of the methods of a round, by hand."""

import json

import numpy as np
from absl.testing import absltest

from rstar_jax import rng
from rstar_jax.evaluation import accuracy, intervals, results_tables
from tests.evaluation.methods_test import record, trajectory


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
      row["method"]: row for row in accuracy.table(two_problems(), round_=3)
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
    less = {
      method: (each["difference"], each["only_first"], each["only_second"])
      for method, each in rows["mcts"]["less"].items()
    }
    # The search solves p, as the policy does; the choices solve one each.
    self.assertEqual(
      less,
      {
        "policy": (0.0, 0, 0),
        "majority": (0.0, 0, 0),
        "best_of_n": (0.0, 1, 1),
      },
    )
    # No answer is in q's tree, and two samples have the right one.
    self.assertEqual(
      rows["mcts"]["missed"], {"choice": 0, "search": 1, "policy": 0}
    )
    row = rows["policy"]
    self.assertEqual((row["round"], row["split"], row["n"]), (3, "test", 2))
    self.assertEqual((row["low"], row["high"]), (0.0, 1.0))
    self.assertEqual(
      row["levels"],
      {"1": {"accuracy": 0.0, "n": 1}, "2": {"accuracy": 1.0, "n": 1}},
    )
    json.dumps(list(rows.values()))

  def test_what_the_policy_gains_over_round_0(self):
    def greedy(**right):
      return [
        record("greedy", trajectory("1" if each else "2"), name=name)
        for name, each in right.items()
      ]

    base = accuracy.alone(greedy(p=False, q=False, r=True, s=True))
    self.assertEqual(
      base, {"test": {"p": False, "q": False, "r": True, "s": True}}
    )
    now = greedy(p=True, q=True, r=True, s=False)
    [row] = accuracy.table(now, round_=3, base=base)
    less = row["less"]["base"]
    self.assertEqual((less["difference"], less["n"]), (0.25, 4))
    self.assertEqual((less["only_first"], less["only_second"]), (2, 1))
    results = {
      "rows": [row],
      "solved": [{"round": 1, "share": 0.4}, {"round": 3, "share": 0.8}],
      "ppm": [{"round": 3, "pairs": 535}],
    }
    said = results_tables.markdown(results)
    self.assertIn(
      "The policy alone, round 3 less round 0, paired by problem: +25.0 [", said
    )
    self.assertIn(
      "Of the training problems searches solved 40.0% in round 1 and 80.0% in "
      "round 3; the PPM learnt from 535 pairs.",
      said,
    )
    # A split that round 0 was not asked.
    [row] = accuracy.table(now, round_=3, base={"other": {"p": True}})
    self.assertNotIn("less", row)

  def test_why_a_search_misses(self):
    def both(name, searched, sampled):
      return (
        record("mcts", *searched, name=name),
        record("samples", *sampled, name=name),
      )

    right, wrong = trajectory("1", value=0.1), trajectory("2", value=0.9)
    records = [
      *both("solved", [right], [wrong]),
      *both("chosen wrong", [right, wrong], [right]),
      *both("not searched", [wrong], [right]),
      *both("not sampled", [wrong], [wrong]),
      *both("not sampled either", [], [wrong]),
      # Without samples nothing is known.
      record("mcts", wrong, name="alone"),
    ]
    row = accuracy.table(records, round_=1)[-1]
    self.assertEqual(row["missed"], {"choice": 1, "search": 1, "policy": 2})
    self.assertEqual(row["less"]["best_of_n"]["n"], 5)
    self.assertEqual(row["less"]["best_of_n"]["only_second"], 2)
    [alone] = accuracy.table(records[-1:], round_=1)
    self.assertEqual(alone["less"], {})
    self.assertNotIn("missed", alone)

  def test_levels_in_order_and_thirds_to_the_last_digit(self):
    rows = accuracy.table(
      [
        record("greedy", trajectory("1" if right else "2"), name=n, level=level)
        for n, right, level in (
          *(("a", True, None), ("b", False, 10), ("c", True, 2)),
          *(("d", False, 2), ("e", False, 2), ("f", False, None)),
        )
      ],
      round_=0,
    )
    levels = rows[0]["levels"]
    # By number, and those without a level last.
    self.assertEqual(list(levels), ["2", "10", "None"])
    self.assertEqual(levels["2"], {"accuracy": 1 / 3, "n": 3})
    self.assertEqual(rows[0]["accuracy"], 1 / 3)

  def test_the_seed_is_0_unless_given(self):
    records = [
      record("greedy", trajectory(str(i % 3)), name=str(i)) for i in range(997)
    ]
    rows = [accuracy.table(records, round_=1, seed=s) for s in (0, -1, 1)]
    self.assertEqual(accuracy.table(records, round_=1), rows[0])
    self.assertNotEqual(rows[1], rows[0])
    self.assertNotEqual(rows[2], rows[0])

  def test_four_vote_unless_it_is_said_otherwise(self):
    rows = [("1", 0.9), ("2", 0.8), ("3", 0.7), ("2", 0.6), ("1", 0.5)]
    found = record("mcts", *(trajectory(a, value=v) for a, v in rows))

    def right(**given) -> float:
      options = {"round_": 1, "select": "top_k"}
      ((row),) = accuracy.table([found], **options, **given)
      return row["accuracy"]

    # "2" has two of four votes. Of three and of five, "1" is the first of
    # equals.
    self.assertEqual([right(k=k) for k in (3, 4, 5)], [1.0, 0.0, 1.0])
    self.assertEqual(right(), 0.0)

  def test_from_stored_records_the_same(self):
    stored = json.loads(json.dumps(two_problems()))
    self.assertEqual(
      accuracy.table(stored, round_=1), accuracy.table(two_problems(), round_=1)
    )

  def test_without_a_search_all_samples_count(self):
    records = [each for each in two_problems() if each["source"] != "mcts"]
    rows = accuracy.table(records, round_=1)
    majority = next(row for row in rows if row["method"] == "majority")
    self.assertEqual((majority["accuracy"], majority["samples"]), (1.0, 4))

  def test_methods_without_records_or_values_have_no_row(self):
    records = [
      record("greedy", trajectory("1")),
      record("samples", trajectory("1"), trajectory("2")),
      record("greedy", trajectory("1"), split="other"),
    ]
    rows = accuracy.table(records, round_=0)
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
    [row] = accuracy.table(records, round_=2, seed=5)
    right = [r["trajectories"][0]["answer"] == "1" for r in records]
    self.assertEqual(
      (row["low"], row["high"]),
      intervals.bootstrap(
        np.array(right), rng.seed_for(5, "bootstrap", 2, "test", "policy")
      ),
    )
    [other] = accuracy.table(records, round_=2, seed=6)
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
      for row in accuracy.table(records, round_=1)
    }
    expected = np.mean(
      [any(t["answer"] == "1" for t in r["trajectories"]) for r in records]
    )
    self.assertAlmostEqual(rows["pass@k"], expected)
    self.assertLessEqual(rows["majority"], rows["pass@k"])
    self.assertLessEqual(rows["best_of_n"], rows["pass@k"])


if __name__ == "__main__":
  absltest.main()
