"""Runs colab/03_real_model.ipynb with a model folder in the place of a download.

The base model of the package is a folder as the Hub has them. It knows the
steps; what is shown examples is tested in tests/inference/few_shot_test.py.
"""

from absl.testing import absltest

from rstar_jax.hf import folders
from rstar_jax.pipeline import context
from tests import notebooks
from tests.colab import small
from tests.report import inline_test

QUESTION = "Tom has 14 apples and buys 5 more. How many apples does Tom have?"


class NotebookTest(absltest.TestCase):
  def test_it_runs_to_its_end(self):
    outcome = notebooks.run(
      "real_model",
      {
        "CONFIG": f"{small.CONFIG}:smollm2_135m",
        "WORKDIR": self.create_tempdir().full_path,
        "MODEL": str(folders.BASE_MODEL),
        "PROMPT": "trained",
        "QUESTION": QUESTION,
        "ANSWER": "19",
        "ROLLOUTS": 2,
        "CANDIDATES": 4,
      },
    )
    self.assertIn(str(folders.BASE_MODEL), outcome.printed)
    self.assertRegex(outcome.printed, r"(?m)^2 rollouts, \d+ nodes, \d+ tokens$")
    self.assertRegex(outcome.printed, r"(?m) (right|wrong)  average Q [+-]\d")
    [shown] = outcome.shown
    _, address = inline_test.parts(shown)
    self.assertEndsWith(address, "&problem=mine")


if __name__ == "__main__":
  absltest.main()
