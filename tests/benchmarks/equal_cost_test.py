"""Curves and gaps by hand."""

from absl.testing import absltest

from benchmarks import equal_cost
from benchmarks.equal_cost import Curve

CELL = (6, 0.2, 0.1)


def curve(tokens, right) -> Curve:
  return Curve(tokens, tuple(map(bool, right)), (0,) * len(tokens))


class GapsTest(absltest.TestCase):
  def test_accuracy_between_two_numbers_of_samples(self):
    curves = [curve((8, 18), (0, 1)), curve((12, 22), (1, 1))]
    for tokens, expected, beyond in (
      (10, [0, 1], False),
      (12.5, [0.25, 1], False),
      (20, [1, 1], False),
      (25, [1, 1], True),
    ):
      right, less = equal_cost.at_cost(curves, tokens)
      self.assertEqual((right.tolist(), less), (expected, beyond))

  def test_a_search_less_samples(self):
    found = {
      (CELL, name): [curve((10, 20), (0, 0)), curve((10, 20), (0, 1))]
      for name in equal_cost.SAMPLED
    }
    found[CELL, "best"] = [curve((10, 20), (0, 1))] * 2
    found[CELL, "mcts"] = [curve((5, 10), (1, 0)), curve((9, 20), (0, 1))]
    line = equal_cost.gaps(found, [CELL], "mcts")
    self.assertEqual(
      (line["n"], line["right"], line["beyond"]), (2, 0.5, False)
    )
    # At 15 tokens: the search is right on the second; half of the samples'
    # second point counts.
    self.assertEqual(line["less best"], [0.0, -0.5, 0.5])
    self.assertEqual(line["less majority"], [0.25, 0.0, 0.5])

  def test_cells_are_pooled_at_their_own_tokens(self):
    other = (8, 0.2, 0.1)
    found = {
      (cell, name): [curve((size, 3 * size), (0, 1))]
      for cell, size in ((CELL, 10), (other, 100))
      for name in equal_cost.SAMPLED
    }
    found[CELL, "mcts"] = [curve((10,), (1,))]
    found[other, "mcts"] = [curve((200,), (1,))]
    line = equal_cost.gaps(found, [CELL, other], "mcts")
    self.assertEqual(line["less best"][0], (1 + 0.5) / 2)

  def test_a_problem_in_several_cells_counts_once(self):
    other = (6, 0.3, 0.1)
    found = {
      (cell, name): [curve((10,), (0,)), curve((10,), (0,))]
      for cell in (CELL, other)
      for name in equal_cost.SAMPLED
    }
    found[CELL, "mcts"] = [curve((10,), (1,)), curve((10,), (0,))]
    found[other, "mcts"] = [curve((10,), (0,)), curve((10,), (1,))]
    line = equal_cost.gaps(found, [CELL, other], "mcts")
    self.assertEqual((line["n"], line["right"]), (2, 0.5))
    # Each problem has 0.5, so that there is nothing to resample.
    self.assertEqual(line["less best"], [0.5, 0.5, 0.5])


class TablesTest(absltest.TestCase):
  def test_the_figure_has_samples_at_the_tokens_of_the_search(self):
    gap = {"line": "gap", "slip": 0.3, "flip": 0.1, "method": "mcts, mean"}
    gap["by"] = "tokens"
    names = ("best", "best, mean", "weighted")
    lines = [
      gap
      | {"level": level, "right": right}
      | {f"less {name}": [i / 4, 0, 0] for i, name in enumerate(names)}
      for level, right in ((2, 1.0), (4, 0.75))
    ]
    others = ({"slip": 0.2}, {"flip": 0.2}, {"method": "mcts"}, {"by": "s"})
    lines += [lines[0] | other for other in others]
    self.assertEqual(
      equal_cost.figure(lines, 0.3, 0.1),
      {
        "mcts, mean": [(2, 100), (4, 75)],
        "best": [(2, 100), (4, 75)],
        "best, mean": [(2, 75), (4, 50)],
        "weighted": [(2, 50), (4, 25)],
      },
    )

  def test_by_hand(self):
    pooled = {
      "line": "pooled",
      "by": "tokens",
      "levels": "6-14",
      "slips": [0.2, 0.3],
      "flip": 0.1,
      "method": "mcts",
      "right": 0.6,
    }
    pooled |= {f"less {name}": [0.2, 0.15, 0.25] for name in equal_cost.SAMPLED}
    cells = {"line": "siblings", "flip": 0.1, "slip": 0.2}
    lines = [
      pooled,
      pooled | {"slips": [0.1]},
      cells | {"level": 6, "picked": 0.8, "decisions": 30},
      cells | {"level": 8, "picked": 0.9, "decisions": 10},
      cells | {"level": 4, "picked": 0.1, "decisions": 99},
    ]
    lines.append(pooled | {"by": "seconds", "less best": [-0.1, -0.2, 0]})
    text = equal_cost.tables(lines)
    rows = [
      [cell.strip() for cell in line.split("|")[1:-1]] or line
      for line in text.splitlines()
      if line
    ]
    # The mean of 0.8 and 0.9 by decisions is 0.825.
    self.assertEqual((rows[0], rows[7]), ("By tokens", "By seconds"))
    self.assertEqual(rows[3], ["0.1", "82", *["40"] * 5, "60"])
    self.assertEqual(rows[6], ["0.1", "mcts", *["+20 [+15, +25]"] * 5])
    self.assertEqual(rows[10][:4], ["0.1", "82", "40", "70"])
    self.assertEqual(rows[13][3], "-10 [-20, +0]")
    self.assertLen(rows, 14)


class SecondsTest(absltest.TestCase):
  def test_tokens_cost_what_their_method_says(self):
    made = Curve((1000, 3000), (False, True), (100, 400))
    names = ("majority", "weighted, mean", "mcts_mean, mean", "beam_4")
    found = {(CELL, name): [made] for name in names}
    rates = {"majority": 2.0, "read": 5.0, "mcts": 3.0, "beam_4": 1.0}
    seconds = equal_cost.in_seconds(found, rates)
    costs = {name: curves[0].cost for (_, name), curves in seconds.items()}
    self.assertEqual(costs["weighted, mean"], (2.5, 8.0))
    self.assertEqual(costs["mcts_mean, mean"], (3.0, 9.0))
    self.assertEqual(costs["beam_4"], (1.0, 3.0))
    self.assertEqual(seconds[CELL, "beam_4"][0].right, (False, True))
    del rates["beam_4"]
    with self.assertRaisesRegex(ValueError, "no rate of 'beam_4', only of maj"):
      equal_cost.in_seconds(found, rates)

  def test_budgets_are_means_of_cells(self):
    other = (8, 0.2, 0.1)
    found = {
      (CELL, "best"): [curve((1, 2), (0, 1)), curve((3, 4), (0, 1))],
      (other, "best"): [curve((5, 9), (1, 1))],
    }
    self.assertEqual(
      equal_cost.budgets(found, [CELL, other], ["best"]),
      {"best": [(3.5, 50.0), (6.0, 100.0)]},
    )


if __name__ == "__main__":
  absltest.main()
