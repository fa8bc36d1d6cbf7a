"""Tables of runs that differ in seed, with every number worked out by hand."""

import json
import pathlib

import numpy as np
from absl.testing import absltest

from benchmarks import seeds
from rstar_jax import rng
from rstar_jax.evaluation import choices, intervals
from rstar_jax.storage import records
from tests.evaluation.methods_test import record, trajectory


class SeedsTest(absltest.TestCase):
  def run_of(
    self, seed: int, rounds, solved, ppm, select="best", start=0, k=4
  ) -> pathlib.Path:
    """Writes a finished run: records of rounds from `start`, results.json."""
    run = pathlib.Path(self.create_tempdir().full_path)
    for number, rows in enumerate(rounds, start):
      folder = run / f"round_{number}" / "eval"
      records.write_shard(folder / records.shard_name(0, 1), rows)
    results = {
      "config": {"seed": seed, "eval": {"answer_select": select, "top_k": k}},
      "rows": [{"round": start + number} for number in range(len(rounds))],
      "solved": [{"round": 2, "share": solved}],
      "ppm": [
        {"round": 1, "pairs": 4, "held_out_step": {"accuracy": 0.25}},
        {"round": 2, **ppm},
      ],
    }
    (run / "results.json").write_text(json.dumps(results))
    return run

  def evaluation(self, policy: str, search, tokens=30):
    """Returns records of four problems: "1" is right, by level 1, 1, 2, 2.

    The search finds two answers of each problem, of which the second has the
    higher value.
    """
    made = []
    for i, answer in enumerate(policy):
      where = {"name": f"p{i}", "level": 1 + i // 2}
      made.append(record("greedy", trajectory(answer, tokens=10), **where))
      made.append(
        record(
          "mcts",
          trajectory(search[i][0], value=0.1),
          trajectory(search[i][1], value=0.2),
          tokens=tokens,
          **where,
        )
      )
    return made

  def setUp(self):
    super().setUp()
    none = self.evaluation("2222", ["22"] * 4)[::2]
    first = self.evaluation("1222", ["21", "21", "12", "22"])
    second = self.evaluation("1122", ["21", "21", "21", "22"], tokens=50)
    ppm = {"pairs": 10, "held_out_step": {"accuracy": 0.5}}
    more = {"pairs": 22, "held_out_final": {"accuracy": 0.75}}
    self.runs = [
      self.run_of(3, [none, none, first], 0.5, ppm),
      # The choice is that of the first run.
      self.run_of(5, [none, none, second], 0.75, ppm | more, "majority"),
    ]

  def lines(self) -> list[str]:
    return seeds.tables(self.runs).splitlines()

  def test_shares_by_round(self):
    lines = self.lines()
    self.assertEqual(lines[0], "Seeds: 3, 5.")
    self.assertEqual(lines[2], "### test")
    self.assertEqual(
      cells(lines[4:9]),
      [
        ["Round", "Policy pass@1", "Majority", "Best-of-N", "MCTS+PPM"]
        + ["pass@k", "Training problems solved"],
        ["0", "0.0 (0.0-0.0), n=4", "-", "-", "-", "-", "-"],
        ["1", "0.0 (0.0-0.0), n=4", "-", "-", "-", "-", "-"],
        # The policy solves 1 and 2 of 4, the search 2 and 3.
        ["2", "37.5 (25.0-50.0), n=4", "-", "-", "62.5 (50.0-75.0), n=4"]
        + ["-", "62.5 (50.0-75.0)"],
      ],
    )

  def test_by_level(self):
    start = self.lines().index("Last round, by level:")
    self.assertEqual(
      cells(self.lines()[start + 2 : start + 7]),
      [
        ["Method", "level 1", "level 2"],
        ["policy, round 0", "0", "0"],
        # Of two problems and two seeds: three; then all, and one.
        ["policy", "75", "0"],
        ["mcts", "100", "25"],
      ],
    )

  def test_differences_are_paired_by_problem(self):
    start = self.lines().index("Last round, paired differences in points:")
    found = self.lines()[start + 2 : start + 6]

    def said(values, name):
      low, high = intervals.crossed(np.array(values), rng.seed_for(0, name))
      return (
        f"{100 * np.mean(values):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] "
        "over 4 problems"
      )

    self.assertEqual(
      found,
      [
        # The second problem in one of two seeds, the third in the other.
        "- mcts less policy: "
        + said([[0.0, 1, 0, 0], [0, 0, 1, 0]], "mcts policy"),
        "- mcts less majority: not measured",
        "- mcts less best_of_n: not measured",
        "- policy, last round less round 0: "
        + said([[1.0, 0, 0, 0], [1, 1, 0, 0]], "growth"),
      ],
    )

  def test_cost_choices_and_ppms(self):
    lines = self.lines()
    self.assertIn(
      "Generated tokens per problem, last round: policy 10, mcts 40.", lines
    )
    (chosen,) = [each for each in lines if "by each choice" in each]
    # By vote the first of two answers wins: one of four, and none.
    self.assertIn("(best above): best 62.5 (50.0-75.0), majority", chosen)
    self.assertIn("majority 12.5 (0.0-25.0), weighted", chosen)
    self.assertEqual(lines[-5], "")
    self.assertEqual(
      cells(lines[-4:]),
      [
        ["Round", "Step pairs", "Final pairs", "Pairs trained on"],
        ["1", "25.0 (25.0-25.0)", "-", "4"],
        ["2", "50.0 (50.0-50.0)", "75.0 (75.0-75.0)", "16"],
      ],
    )

  def test_rounds_from_the_first_that_is_evaluated(self):
    none = self.evaluation("2222", ["22"] * 4)
    some = self.evaluation("1222", ["22"] * 4)
    run = self.run_of(
      3,
      [none, some],
      0.5,
      {"pairs": 10, "held_out_step": {"accuracy": 0.5}},
      start=1,
    )
    lines = seeds.tables([run]).splitlines()
    self.assertIn(["policy, round 1", "0", "0"], cells(lines))
    (grown,) = [each for each in lines if "less round" in each]
    self.assertStartsWith(grown, "- policy, last round less round 1: +25.0 [")
    self.assertEqual([row[0] for row in cells(lines[-2:])], ["1", "2"])

  def test_as_many_vote_as_the_config_says(self):
    # The best of three answers is right, the vote of all is not.
    answers = [
      trajectory("1", value=0.3),
      trajectory("2", value=0.2),
      trajectory("2", value=0.1),
    ]
    rows = [record("greedy", trajectory("2")), record("mcts", *answers)]
    for k, right in ((1, "100.0"), (3, "0.0")):
      run = self.run_of(3, [rows], 0.5, {"pairs": 10}, select="top_k", k=k)
      lines = seeds.tables([run]).splitlines()
      (row,) = cells(lines[6:7])
      self.assertIn(f"{right} ({right}-{right}), n=1", row)
      (chosen,) = [each for each in lines if "by each choice" in each]
      self.assertIn(f"top_k {right} ({right}-{right})", chosen)

  def test_less_other_runs_each_by_its_own_choice(self):
    found = seeds.compared(self.runs[:1], self.runs[1:])
    # Of the search's answers the best are right for two problems, and by vote
    # none is; the policies differ in the second problem.
    means = [each.split(":")[0] + each.split(":")[1][:6] for each in found]
    self.assertEqual(
      means,
      [
        "- test, mcts, less the other runs' +50.0",
        "- test, policy, less the other runs' -25.0",
      ],
    )

  def test_what_only_some_seeds_have_is_left_out(self):
    found = seeds._paired(
      [{"a": _right(True), "b": _right(True)}],
      [{"b": _right(False), "c": _right(True)}],
      "x",
    )
    self.assertEqual(found, "+100.0 [+100.0, +100.0] over 1 problems")


def cells(lines: list[str]) -> list[list[str]]:
  """Returns the cells of a table's lines, without the one below its head."""
  return [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in lines
    if "---" not in line
  ]


def _right(right: bool):
  verdict = "equal" if right else "different"
  return choices.Outcome("p", None, verdict, 1)


if __name__ == "__main__":
  absltest.main()
