"""Tables of rows made by hand, and those of the page, of the rows beside it."""

import json
import pathlib

from absl.testing import absltest, parameterized

from rstar_jax.tools.aot import tables

_ROOT = pathlib.Path(__file__).resolve().parents[3]

_ROW = {
  "model": "some/Model-7B",
  "slice": "v5e:4x4",
  "stage": "rollout",
  "program": "expand",
  "leaves": 3,
  "candidates": 5,
  "step": 7,
  "path": 11,
  "extrapolated_from_layers": [1, 2],
  "hbm_needed_gib": 17.0,
  "hbm_beside_gib": 13.0,
  "hbm_chip_gib": 15.75,
  "fits": False,
  "over_gib": 1.25,
  "knobs": {"slots": 2},
  "held_gib": {"weights": 6.0, "pools": 2.5, "kept": 0.0},
}


class TablesTest(parameterized.TestCase):
  def test_memory(self):
    head, rule, row = tables.memory([_ROW]).splitlines()
    self.assertEqual(len({each.count("|") for each in (head, rule, row)}), 1)
    self.assertEqual(
      row,
      "| Model-7B | 1, 2 | v5e:4x4 | rollout | expand | 3 x 5 x 7 after 11 | "
      "4.00 | 6.00 | 2.50 | 0.00 | 17.00 | 15.75 | over by 1.25 | slots=2 |",
    )

  def test_summary(self):
    row = _ROW | {
      "seconds": {"compute": 0.002, "hbm": 0.003, "ici": 0.0001},
      "tokens_per_second_per_chip": 12345.0,
    }
    whole = row | {
      "extrapolated_from_layers": [],
      "fits": True,
      "hbm_needed_gib": 12.0,
    }
    copy = {"program": "fork", "moved": 3, "room": 17}
    there = {"slice": "v4:2x2x4", "tokens_per_second_per_chip": 99.0}
    rows = [row | copy, whole, row, row | there]
    self.assertEqual(
      tables.summary(rows).splitlines(),
      [
        "| model | stage | program | shape | v5e:4x4 | v4:2x2x4 |",
        "| --- | --- | --- | --- | ---: | ---: |",
        "| Model-7B | rollout | fork | 3 x 17 | "
        "17.0 **too much** / 12,300 HBM |  |",
        "| Model-7B | rollout | expand | 3 x 5 x 7 after 11 | "
        "12.0 / 12,300 HBM | 17.0 **too much** / 99 HBM |",
      ],
    )

  @parameterized.parameters(
    ("score", {"scored": 3, "columns": 5, "scored_step": 7}, "3 x 5 x 7 aft"),
    ("advance", {"moved": 3, "tail": 13}, "3 x 13 after 11"),
    ("commit", {"moved": 3}, "3 x 6"),
    ("fork", {"moved": 3, "room": 17}, "3 x 17"),
    ("sft", {"batch_size": 8, "length": 9, "accumulate": 4}, "8 x 9 in 4"),
  )
  def test_shape(self, program, sizes, expected):
    found = tables.shape(_ROW | sizes | {"program": program})
    self.assertStartsWith(found, expected)

  def test_the_page_has_the_tables_of_its_rows(self):
    folder = _ROOT / "docs" / "results"
    page = (folder / "aot.md").read_text()
    lines = (folder / "aot.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    sizes = [row for row in rows if row["program"] == "sizes"]
    rest = [row for row in rows if row["program"] != "sizes"]
    for table in (tables.memory(sizes), tables.summary(rest)):
      self.assertTrue(table in page, f"not in the page as it is:\n{table}")


if __name__ == "__main__":
  absltest.main()
