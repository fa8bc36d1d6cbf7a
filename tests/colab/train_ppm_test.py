"""Runs colab/04_train_ppm.ipynb on small files of the released form."""

import json
import pathlib

from absl.testing import absltest

from rstar_jax.hf import folders
from rstar_jax.pipeline import context
from tests.pipeline import run_released_test
from tests import notebooks
from tests.colab import small
from tests.report import inline_test


class NotebookTest(absltest.TestCase):
  def test_it_runs_to_its_end(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    solutions, pairs = (
      run_released_test.write(folder / f"{name}.json", rows)
      for name, rows in (
        ("sft", run_released_test.solutions()),
        ("ppm", run_released_test.pairs()),
      )
    )
    outcome = notebooks.run(
      "train_ppm",
      {
        "CONFIG": f"{small.CONFIG}:released",
        "WORKDIR": str(folder / "run"),
        "SOLUTIONS": solutions,
        "PAIRS": pairs,
        "MODEL": str(folders.BASE_MODEL),
        "ROWS": 20,
        "LENGTH": 200,
        "BATCH": 4,
      },
    )
    self.assertIn(f"7 rows of {solutions}", outcome.printed)
    self.assertIn(f"20 rows of {pairs}", outcome.printed)
    # So that a run is not continued with another number of rows.
    extract = json.loads((folder / "run/config.json").read_text())["extract"]
    for name in ("sft", "ppm"):
      self.assertIn(str(folder / f"run_data/{name}-20.jsonl"), extract.values())
    self.assertIn("20 pairs, 10 of steps", outcome.printed)
    self.assertRegex(
      outcome.printed, r"(?m)^preferred [+-]0\.\d{3}, other [+-]0\.\d{3}$"
    )
    model = json.loads((folder / "run/round_1/ppm/config.json").read_text())
    self.assertEqual(len(model["id2label"]), 1)
    [shown] = outcome.shown
    page, address = inline_test.parts(shown)
    self.assertEqual(address, "")
    self.assertIn("round_1_ppm", page)


if __name__ == "__main__":
  absltest.main()
