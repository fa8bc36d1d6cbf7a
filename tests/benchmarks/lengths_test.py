"""What choosing by length and by value finds in records made by hand."""

import math
import pathlib

import numpy as np
from absl.testing import absltest

from benchmarks import lengths
from rstar_jax.evaluation import intervals
from rstar_jax.storage import records


def solution(steps: int, right: bool | None, value: float | None, unit=0):
  """Returns a solution; right is None where it has no answer."""
  return {
    "steps": ["text"] * steps,
    "answer": None if right is None else "1" if right else "2",
    "verdict": {True: "equal", False: "different", None: "failed"}[right],
    "value": value,
    "unit": unit,
    "tokens": 10,
  }


def record(problem: str, source: str, *solutions, **fields):
  units = [each | {"unit": i} for i, each in enumerate(solutions)]
  spent = [10 * (i + 1) for i in range(len(units))]
  return {
    "problem_id": problem,
    "split": "s",
    "source": source,
    "level": None,
    "spent": spent,
    "tokens": spent[-1],
    "trajectories": units,
  } | fields


class LengthsTest(absltest.TestCase):
  def test_shares_are_of_all_and_right_of_those_that_answer(self):
    rows = [
      record(
        *("a", "samples", solution(3, True, 0.1), solution(3, None, None)),
        *(solution(3, False, 0.2), solution(4, True, 0.3)),
      ),
      record("b", "samples", solution(4, False, 0.1)),
    ]
    self.assertEqual(
      lengths.by_steps(rows), {3: (2 / 5, 1 / 2), 4: (2 / 5, 1 / 2)}
    )

  def test_pairs_of_a_problem(self):
    row = record(
      *("a", "samples", solution(3, True, 0.5), solution(4, True, 0.2)),
      *(solution(4, False, 0.2), solution(5, False, 0.6)),
      # Neither is one of a pair.
      *(solution(1, None, 0.9), solution(1, True, None)),
    )
    order = lengths.ORDERS
    # .5 > .2, .5 < .6, .2 = .2, .2 < .6
    self.assertEqual(lengths.ordered(row, order["right above wrong"]), 1.5 / 4)
    self.assertEqual(lengths.ordered(row, order["of equal steps"]), 0.5)
    # .5 > .2 twice, .5 < .6, .2 < .6 twice
    self.assertEqual(lengths.ordered(row, order["shorter above longer"]), 2 / 5)
    self.assertTrue(
      math.isnan(
        lengths.ordered(
          record("a", "samples", solution(3, True, 0.5)),
          order["right above wrong"],
        )
      )
    )

  def test_two_models_of_the_same_samples(self):
    def rows(reward, *values):
      a = (solution(3, True, values[0]), solution(3, False, values[1]))
      b = (solution(4, False, values[2]), solution(3, None, None))
      return [
        record("a", "samples", *a, reward=reward),
        record("b", "samples", *b, reward=reward),
      ]

    both = rows("x", 0.9, 0.1, 0.5) + rows("y", 0.1, 0.2, 0.5)
    found = lengths.compare([both], "x", "y")
    self.assertEqual(
      {what: (*a.tolist(), *b.tolist()) for what, (a, b) in found.items()},
      {
        "right above wrong": ([1], [0]),
        "of equal steps": ([1], [0]),
        "shorter above longer": ([], []),
        "best": ([1, 0], [0, 0]),
        # Two answers with a vote each: the first one, which is right.
        "best, majority": ([1, 0], [1, 0]),
        "best, vote of the fewest steps": ([1, 0], [1, 0]),
      },
    )

  def test_models_of_other_samples_are_not_compared(self):
    a = record("a", "samples", solution(3, True, 0.1), reward="x")
    b = record("a", "samples", solution(3, False, 0.1), reward="y")
    with self.assertRaisesRegex(ValueError, "have valued other samples"):
      lengths.compare([[a, b]], "x", "y")
    with self.assertRaisesRegex(ValueError, r"'z', only of \['x', 'y'\]"):
      lengths.compare([[a, b]], "x", "z")

  def test_two_models_of_several_runs(self):
    def run(first, second, right=True, split="s"):
      return [
        record(
          *("a", "samples", solution(3, right, value), solution(3, False, 0.5)),
          reward=reward,
          split=each,
        )
        for reward, value in (("x", first), ("y", second))
        for each in ("s", split)
      ]

    # The second run has no right sample, the first another set.
    runs = [run(0.9, 0.1, split="t"), run(0.9, 0.1, right=False)]
    found = lengths.compare(runs, "x", "y")
    a, b = found["right above wrong"]
    np.testing.assert_equal((a, b), ([[1], [np.nan]], [[0], [np.nan]]))
    a, b = found["best"]
    np.testing.assert_equal((a, b), ([[1], [0]], [[0], [0]]))
    other = [row | {"split": "u"} for row in runs[1]]
    with self.assertRaisesRegex(ValueError, "no set of problems in common"):
      lengths.compare([runs[0], other], "x", "y")

  def test_ways_to_choose_at_equal_tokens(self):
    rows = [
      record("a", "greedy", solution(4, False, None)),
      # The third sample costs more than the search; of the first two the
      # shorter is right, the other has the value and comes first.
      record(
        *("a", "samples", solution(4, False, 0.9), solution(3, True, 0.1)),
        solution(2, False, 1.0),
      ),
      # Two of three say so, the highest value and the shortest say else.
      record(
        *("a", "mcts", solution(4, False, 0.3), solution(4, False, 0.1)),
        solution(3, True, 0.8),
        spent=[5, 20],
      ),
      record("a", "mcts", solution(3, False, 0.3), reward="other"),
      # Of a study that is under way.
      record("b", "mcts", solution(3, False, 0.3), reward="begun"),
    ]
    (found,) = lengths.by_set(rows).values()
    ways = lengths.chosen(found)
    right = {name: float(each.item()) for name, (each, _) in ways.items()}
    self.assertEqual(
      right,
      {
        "greedy": 0,
        "mean of samples": 1 / 3,
        "majority": 0,
        "best-of-N": 0,
        "fewest steps": 1,
        "any of N": 1,
        "mcts": 1,
        "mcts: vote": 0,
        "mcts: fewest steps": 1,
        "mcts: any": 1,
        "mcts, other": 0,
        "mcts, other: vote": 0,
        "mcts, other: fewest steps": 0,
        "mcts, other: any": 0,
      },
    )
    tokens = [
      ways[name][1] for name in ("mean of samples", "best-of-N", "mcts")
    ]
    self.assertEqual(tokens, [10, 20, 20])
    text = "\n".join(lengths.render("s", [found]))
    self.assertIn("N, the samples: 2.", text)
    self.assertIn("| fewest steps              | 100.0 [100.0, 100.0]", text)
    self.assertIn("100.0 [100.0, 100.0], n 1", text)

  def test_several_runs_of_the_same_problems(self):
    def run(*rights, values=(0.9, 0.1)):
      rows = []
      for problem, right in zip("abcd", rights, strict=True):
        rows.append(
          record(problem, "mcts", solution(3, right, 0.5), spent=[20])
        )
        # Of equally many steps; no pair where both are wrong.
        both = solution(4, right, values[0]), solution(4, False, values[1])
        rows.append(record(problem, "samples", *both, solution(2, False, 0)))
      (found,) = lengths.by_set(rows).values()
      return found

    first = run(True, True, True, False)
    second = run(True, False, False, False, values=(0.1, 0.9))
    lines = lengths.render("s", [first, second])
    text = "\n".join(lines)
    self.assertIn("N, the samples: 2, 2.", text)
    _, mcts, _ = (line for line in lines if line.startswith("| mcts "))
    values, right = (
      [cell.strip() for cell in line.split("|")[2:-1]]
      for line in (lines[-2], mcts)
    )
    expected = intervals.percent(
      0.5,
      *intervals.crossed(np.array([[1.0, 1, 1, 0], [1, 0, 0, 0]]), 0),
    )
    self.assertEqual(right[:2], [f"{expected} (75.0, 25.0)", "20"])
    # Three problems of the first run have such pairs, one of the second.
    pairs = np.array([[1.0, 1, 1], [0, np.nan, np.nan]])
    expected = intervals.percent(0.75, *intervals.crossed(pairs, 0))
    self.assertEqual(values[1], f"{expected} (100.0, 0.0), n 3")

    # Without the problem that neither solves; then without any.
    del second["mcts"]["d"]
    lines = lengths.render("s", [first, second])
    self.assertEqual(lines[0], "## s, 3 problems")
    _, mcts, _ = (line for line in lines if line.startswith("| mcts "))
    self.assertIn("(100.0, 33.3)", mcts)
    second["mcts"].clear()
    with self.assertRaisesRegex(ValueError, "no problem of s in common"):
      lengths.render("s", [first, second])

  def test_records_without_values_do_not_replace_those_with(self):
    search = record("a", "mcts", solution(3, True, 0.8), spent=[20])
    # The vote takes the first of two answers, the value the second.
    samples = solution(4, False, 0.1), solution(3, True, 0.9)
    evaluated = record("a", "samples", *samples)
    study = record(
      "a", "samples", *(each | {"value": None} for each in samples), reward=None
    )
    failed = record("b", "samples", solution(1, None, None))
    again = record("b", "samples", solution(2, None, None), reward=None)
    for rows in ([evaluated, study], [study, evaluated]):
      (found,) = lengths.by_set([search, *rows, failed, again]).values()
      self.assertEqual(found["samples"], {"a": evaluated, "b": failed})
      right, _ = lengths.chosen(found)["best-of-N"]
      self.assertEqual(right.tolist(), [1])

  def test_records_without_texts_say_the_same(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    rows = [
      record("a", "samples", solution(3, True, 0.123456), reward="ppm"),
      record("b", "mcts", solution(2, None, None)),
    ]
    shards = folder / "s" / "deeper"
    records.write_shard(shards / records.shard_name(0, 1), rows)
    # Rows of another kind, as the values of held-out trees.
    records.write_shard(folder / records.shard_name(0, 1), [{"values": [1]}])
    found = list(lengths.read([str(folder)]))
    self.assertEqual(found, rows)
    kept = [lengths.without_texts(row) for row in found]
    (first,) = kept[0]["trajectories"]
    self.assertEqual((first["steps"], first["value"]), ([""] * 3, 0.1235))
    records.write_shard(folder / "kept.jsonl.zst", kept)
    again = list(lengths.read([str(folder / "kept.jsonl.zst")]))
    self.assertEqual(again, kept)
    np.testing.assert_equal(lengths.by_steps(again), lengths.by_steps(rows))


if __name__ == "__main__":
  absltest.main()
