"""Runs colab/01_search.ipynb on one problem."""

from absl.testing import absltest

from tests import notebooks
from tests.colab import small
from tests.report import inline_test


class NotebookTest(absltest.TestCase):
  def test_it_runs_to_its_end(self):
    folder = self.create_tempdir().full_path
    outcome = notebooks.run(
      "search",
      {
        "CONFIG": f"{small.CONFIG}:tiny",
        "WORKDIR": folder,
        "ROLLOUTS": 2,
        "CANDIDATES": 4,
      },
    )
    self.assertRegex(outcome.printed, r"(?m)^The answer: \d+$")
    self.assertRegex(outcome.printed, r"(?m)^--- step 1\n<code>$")
    self.assertRegex(outcome.printed, r"(?m)^2 rollouts, \d+ nodes, \d+ tokens$")
    self.assertRegex(outcome.printed, r"(?m)^Q [+-]\d\.\d\d, +\d visits: \S")
    self.assertRegex(
      outcome.printed, r"(?m)^c = 0\.0: \d of \d+ solutions are right$"
    )
    [shown] = outcome.shown
    page, address = inline_test.parts(shown)
    self.assertIn('id="tree-0"', page)
    self.assertStartsWith(address, "#view=tree&")


if __name__ == "__main__":
  absltest.main()
