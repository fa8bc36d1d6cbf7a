"""Tests of the statistics and tables of several seeds."""

import contextlib
import io
import json
import pathlib
import shutil

import numpy as np
from absl.testing import absltest, flagsaver

from benchmarks import paper
from rstar_jax.storage import manifests, records


class WordsTest(absltest.TestCase):
  def test_problems_that_all_seeds_have(self):
    one, two = {"a": True, "b": False, "c": True}, {"c": False, "a": True}
    np.testing.assert_array_equal(paper.stacked([one, two]), [[1, 1], [1, 0]])
    self.assertIsNone(paper.stacked([one, {"d": True}]))

  def test_differences_are_of_the_same_problems(self):
    one = [{"a": True, "b": False, "c": True}] * 2
    # The same results in another order are no difference at all.
    other = [{"b": False, "c": True, "a": True}] * 2
    same = "+0.0 [+0.0, +0.0], not distinguishable"
    self.assertEqual(paper.against(one, other), same)
    # Of "a" and "c" alone, in one of two seeds.
    less = [{"d": True, "c": True, "a": True}, {"c": False, "a": False}]
    self.assertStartsWith(paper.against(one, less), "+50.0 [")
    self.assertEqual(paper.against(one, [{"d": True}]), "-")

  def test_words(self):
    rows = [[True, True, False, True], [True] * 4]
    one, none, all_ = (
      [dict(enumerate(row)) for row in each]
      for each in (rows, [[False] * 4] * 2, [[True] * 4] * 2)
    )
    self.assertRegex(paper.cell(one), r"^87\.5 \[.*\] \(75-100\)$")
    self.assertEqual(paper.cell(None), "-")
    self.assertIn("not distinguishable", paper.against(one, one))
    self.assertEqual(paper.against(all_, none), "+100.0 [+100.0, +100.0]")


def record(problem, source, reward, rows, spent):
  return {
    "problem_id": problem,
    "split": "s",
    "level": 1,
    "source": source,
    "reward": reward,
    "stop": None,
    "spent": spent,
    "tokens": spent[-1],
    "trajectories": [
      {
        "unit": unit,
        "steps": [],
        "answer": answer,
        "verdict": "equal" if answer == "4" else "different",
        "value": value,
        "tokens": 1,
      }
      for unit, (answer, value) in enumerate(rows)
    ],
  }


class TablesTest(absltest.TestCase):
  def write(self, run, path, rows, **info):
    folder = run / path
    records.write_shard(folder / records.shard_name(0, 1), rows)
    names = [records.shard_name(0, 1)]
    manifests.write(folder, info, names)

  def runs(self):
    """Two seeds that each solve one of two problems, and not the same."""
    found = []
    for seed in range(2):
      run = pathlib.Path(self.create_tempdir().full_path)
      made = {"made_with": {"trajectories": 2}, "parameters": 7}

      def rows(source, reward, seed=seed):
        return [
          record(
            f"p{i}",
            source,
            reward,
            [("4" if i == seed else "5", 0.5), ("4", 0.1 if i else 0.9)],
            [10, 30],
          )
          for i in range(2)
        ]

      for name, reward in (("policy", None), ("ppm", "ppm"), ("orm", "orm")):
        self.write(
          run, f"round_1/study/{name}/samples", rows("samples", reward), **made
        )
      self.write(run, "round_1/study/ppm/mcts", rows("mcts", "ppm"), **made)
      self.write(
        run, "round_1/study/policy/greedy", rows("greedy", None), **made
      )
      self.write(
        run,
        "round_1/study/other/mcts",
        rows("mcts", f"ppm:{run}/round_2/ppm"),
        **made,
      )
      found.append(run)
    return found

  def test_a_study_of_all_seeds(self):
    runs = self.runs()
    study = paper.Study(runs, 1)
    np.testing.assert_array_equal(
      paper.stacked(study.right("", "greedy", "first", 1)), [[1, 0], [0, 1]]
    )
    # The second answer, right each time, has a value of 0.9 in the first
    # problem and of 0.1, below 0.5, in the second.
    np.testing.assert_array_equal(
      paper.stacked(study.right("ppm", "mcts", "best", 2)), [[1, 0], [1, 1]]
    )
    self.assertIsNone(study.right("orm", "mcts", "best", 2))
    # What one run lacks is not there.
    shutil.rmtree(runs[1] / "round_1/study/orm")
    study = paper.Study(runs, 1)
    self.assertIsNone(study.right("orm", "samples", "best", 2))
    self.assertIsNotNone(study.right("ppm", "samples", "best", 2))
    self.assertEqual(study.tokens("ppm", "mcts", 1), 10)
    self.assertEqual(study.tokens("ppm", "mcts", 9), 30)

  def test_as_many_trajectories_as_all_runs_have(self):
    runs = self.runs()
    self.assertEqual(paper._most(runs, 1), 2)
    (path,) = runs[0].glob("round_1/study/ppm/mcts/MANIFEST.json")
    path.write_text(json.dumps({"made_with": {"trajectories": 9}}))
    self.assertEqual(paper._most(runs, 1), 2)
    path.write_text(json.dumps({"made_with": {"trajectories": 1}}))
    self.assertEqual(paper._most(runs, 1), 1)
    self.assertEqual(paper._most(runs, 3), 1)

  def test_tables(self):
    runs = self.runs()
    lines = "\n".join(paper.ppms(runs, 2))
    self.assertRegex(lines, r"\| 1 +\| 75\.0 ")
    self.assertRegex(lines, r"\| 2 +\| 75\.0 .*\+0\.0 .*not distinguishable")
    lines = "\n".join(paper.rewards(runs, 1, rollouts=1))
    self.assertRegex(lines, r"PPM +\| best of 2 +\| 30 +\| 75\.0")
    self.assertRegex(lines, r"PPM +\| search, rollouts: 1 +\| 10 +\| 50\.0")
    self.assertNotIn("PQM", lines)
    # The ORM gives the same values here; the PPM is not compared with itself.
    (orm, ppm) = [each for each in lines.splitlines() if "best of 2" in each]
    cells = [each.strip() for each in orm.split("|")[5:7]]
    self.assertRegex(cells[0], r"^\+0\.0 .*not distinguishable$")
    self.assertRegex(cells[1], r"^\+25\.0 ")
    cells = [each.strip() for each in ppm.split("|")[5:7]]
    self.assertEqual(cells[0], "-")
    self.assertRegex(cells[1], r"^\+25\.0 ")
    search = next(each for each in lines.splitlines() if "rollouts: 1 " in each)
    cells = [each.strip() for each in search.split("|")[5:7]]
    self.assertEqual(cells, ["-", "-"])
    lines, numbers, costs = paper.trajectories(runs, 1)
    self.assertEqual(numbers["search, PPM"], [(1, 50.0), (2, 75.0)])
    self.assertEqual(costs["pass@N"], [(10.0, 50.0), (30.0, 100.0)])
    self.assertIn("50.0 (10)", "\n".join(lines))
    # From one sample to two.
    (line,) = [each for each in lines if each.startswith("| pass@N")]
    self.assertIn("| +50.0 [", line)

  def test_what_the_policy_learns_from(self):
    runs = self.runs()
    for run, rows in zip(runs, (100, 300), strict=True):
      folder = run / "round_1" / "sft"
      folder.mkdir()
      (folder / "MANIFEST.json").write_text(json.dumps({"rows": rows}))
    lines = paper.learnt(runs, 1, {"any": runs[:1]})
    self.assertRegex(
      lines[-2], r"highest average Q .*\| 200 \(100-300\) \| 50\.0 .*\| - +\|$"
    )
    # Of one seed alone, on the same problems.
    self.assertRegex(lines[-1], r"^\| any +\| 100 \(100-100\) +\| 50\.0 ")

  def test_the_program_prints_what_there_is(self):
    runs = self.runs()
    for run in runs:
      levels = {"1": {"problems": 4, "solved": 2}}
      solved = {"round": 1, "share": 0.5, "levels": levels}
      (run / "results.json").write_text(json.dumps({"solved": [solved]}))
      (run / "config.json").write_text(json.dumps({"rounds": [{}]}))
      for k in range(2):
        folder = run / f"round_{k}" / "eval"
        rows = [record("p0", "greedy", None, [("4", None)], [5])]
        records.write_shard(folder / records.shard_name(0, 1), rows)
      (run / "round_1" / "sft").mkdir()
      manifest = run / "round_1" / "sft" / "MANIFEST.json"
      manifest.write_text(json.dumps({"rows": 7}))
    figure = self.create_tempdir().full_path + "/figure"
    with (
      flagsaver.flagsaver(figure=figure, learnt=[f"any={runs[0]},{runs[1]}"]),
      contextlib.redirect_stdout(io.StringIO()) as out,
    ):
      paper.main(["paper", *map(str, runs)])
    heads = [line for line in out.getvalue().splitlines() if line[:2] == "##"]
    self.assertEqual(
      [head.partition(":")[0] for head in heads],
      ["## Table 2", "## Tables 3 and 6", "## Table 4", "## Table 7"]
      + ["## Table 8", "## Figure 3"],
    )
    self.assertRegex(out.getvalue(), r"\| any +\| 7 \(7-7\) +\| 50\.0 ")
    for end, axis in (("", "trajectories"), ("-tokens", "generated tokens")):
      drawn = pathlib.Path(f"{figure}{end}.svg").read_text()
      self.assertIn(axis, drawn)
      self.assertIn("right, %", drawn)


class EvaluationTest(absltest.TestCase):
  def test_rounds(self):
    runs = []
    for seed in range(2):
      run = pathlib.Path(self.create_tempdir().full_path)
      for k in range(2):
        rows = [
          record(
            f"p{i}",
            "greedy",
            None,
            [("4" if i <= seed + k else "5", None)],
            [5],
          )
          for i in range(3)
        ]
        rows += [
          record(f"p{i}", "mcts", None, [("4", 0.1)], [5]) for i in range(3)
        ]
        folder = run / f"round_{k}" / "eval"
        records.write_shard(folder / records.shard_name(0, 1), rows)
      levels = {"1": {"problems": 4, "solved": 1 + seed}}
      (run / "results.json").write_text(
        json.dumps({"solved": [{"round": 1, "share": 0.25, "levels": levels}]})
      )
      runs.append(run)
    np.testing.assert_array_equal(
      paper.stacked(paper.evaluated(runs, 0, "policy")),
      [[1, 0, 0], [1, 1, 0]],
    )
    lines = "\n".join(paper.by_round(runs, 1))
    self.assertRegex(lines, r"\| 1 +\| 25 \(25-25\) \| 38 \(25-50\)")
    self.assertRegex(lines, r"\| 0 +\| 50\.0 .*\(33-67\) +\| - +\| - ")
    self.assertRegex(lines, r"\| 1 +\| 83\.3 .*\| 100\.0 .*\| \+16\.7")


if __name__ == "__main__":
  absltest.main()
