"""Runs colab/02_self_evolution.ipynb for one round of few problems."""

import json
import pathlib

from absl.testing import absltest

from tests import notebooks
from tests.colab import small
from tests.report import inline_test


class NotebookTest(absltest.TestCase):
  def test_it_runs_to_its_end(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    outcome = notebooks.run(
      "self_evolution",
      {
        "CONFIG": f"{small.CONFIG}:tiny",
        "WORKDIR": str(folder),
        "TRAIN": 16,
        "TEST": 3,
        "ROUNDS": 1,
      },
    )
    self.assertRegex(outcome.printed, r"(?m)^\| Round +\| Policy pass@1 +\|")
    self.assertRegex(outcome.printed, r"(?m)^\| 1 +\| ")
    self.assertRegex(outcome.printed, r"(?m)^\d+ solved in the last round")
    self.assertRegex(outcome.printed, r"(?m)^--- step 1, PPM [+-]\d\.\d\d$")
    results = json.loads((folder / "results.json").read_text())
    self.assertEqual(results["config"]["train"]["count"], 16)
    curves, tree = map(inline_test.parts, outcome.shown)
    self.assertEqual((curves[1], curves[0]), ("", tree[0]))
    self.assertStartsWith(tree[1], "#view=tree&set=training&round=1&problem=")


if __name__ == "__main__":
  absltest.main()
