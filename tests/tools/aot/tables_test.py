"""Tables of rows made by hand, and those of the page, of the rows beside it."""

import contextlib
import io
import json
import pathlib

from absl.testing import absltest

from rstar_jax.tools.aot import tables

_RESULTS = pathlib.Path(__file__).resolve().parents[3] / "docs/results"

_SEARCH = {
  "model": "some/Model-7B",
  "slice": "v5e:4x4",
  "program": "search",
  "mesh": {"data": 2, "fsdp": 1, "tensor": 4},
  "rows": 3,
  "slots": 5,
  "pages": 700,
  "programs": 3,
  "code_mib": 29.04,
  "cpu_seconds": 101.7,
  "held_gib": {"weights": 6.0, "pages": 2.5, "temporaries": 0.25, "code": 0.03},
  "hbm_needed_gib": 17.0,
  "hbm_chip_gib": 15.75,
  "fits": False,
  "over_gib": 1.25,
  "knobs": {"pages": 2000, "rows": 2},
}
_STEP = {
  "model": "some/Model-7B",
  "slice": "v5e:4x4",
  "program": "decode",
  "temporaries_gib": 0.171,
  "code_mib": 8.62,
  "cpu_seconds": 20.1,
  "tokens": 2048,
  "flops": 9.14e11,
  "bytes": 3.797e9,
  "wire": 1.5e8,
  "seconds": {"compute": 0.00464, "hbm": 0.0046, "ici": 0.00157},
  "tokens_per_second_per_chip": 10312.4,
}


class TablesTest(absltest.TestCase):
  def test_searches(self):
    head, rule, row = tables.searches([_STEP, _SEARCH]).splitlines()
    self.assertEqual(len({each.count("|") for each in (head, rule, row)}), 1)
    self.assertEqual(
      row,
      "| Model-7B | v5e:4x4 | data=2, tensor=4 | 3 | 5 | 1,400 | 6.00 | 2.50 | "
      "0.25 | 0.03 | 17.00 | 15.75 | over by 1.25: pages=2,000 or rows=2 | 3 | "
      "29.0 | 102 |",
    )
    fits = _SEARCH | {"fits": True, "most_pages": 1234}
    self.assertIn(" yes; up to 1,234 pages a shard |", tables.searches([fits]))

  def test_steps(self):
    head, rule, row = tables.steps([_STEP, _SEARCH]).splitlines()
    self.assertEqual(len({each.count("|") for each in (head, rule, row)}), 1)
    self.assertEqual(
      row,
      "| Model-7B | v5e:4x4 | decode | 2,048 | 0.17 | 8.6 | 20 | 914 | 3.80 | "
      "150 | 4.64 | 4.60 | 1.57 | 10,312 |",
    )

  def test_trainings(self):
    training = _STEP | {
      "program": "sft",
      "remat": "mlp",
      "batch_size": 128,
      "accumulate": 16,
      "hbm_needed_gib": 12.081,
      "hbm_chip_gib": 15.75,
      "flops": 1.8366e15,
      "bytes": 4.87e12,
      "wire": 5.307e11,
      "seconds": {"compute": 9.323, "hbm": 5.946, "ici": 2.653},
      "share_of_peak": 0.8009,
    }
    rows = [_STEP, _SEARCH, training]
    head, rule, row = tables.trainings(rows).splitlines()
    self.assertEqual(len({each.count("|") for each in (head, rule, row)}), 1)
    self.assertEqual(
      row,
      "| Model-7B | v5e:4x4 | sft | mlp | 16 x 8 rows | 12.08 | 15.75 | 9 | 20 "
      "| 1.837 | 4.870 | 0.531 | 9.32 | 5.95 | 2.65 |  | 80% |",
    )
    self.assertEqual(tables.steps(rows), tables.steps([_STEP]))

  def test_as_a_program(self):
    path = str(_RESULTS / "training_aot.jsonl")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
      tables.main([path])
    self.assertIn("share of peak", printed.getvalue())
    for wrong in ([], ["--hlep"]):
      with contextlib.redirect_stderr(io.StringIO()) as said:
        with self.assertRaises(SystemExit):
          tables.main(wrong)
      self.assertIn("rstar_jax.tools.aot.tables", said.getvalue())

  def test_of_the_pages(self):
    for name, makes in (
      ("aot", (tables.searches, tables.steps)),
      ("training_aot", (tables.trainings,)),
    ):
      page = (_RESULTS / f"{name}.md").read_text()
      lines = (_RESULTS / f"{name}.jsonl").read_text().splitlines()
      rows = [json.loads(line) for line in lines]
      for make in makes:
        self.assertIn(make(rows), page)


if __name__ == "__main__":
  absltest.main()
