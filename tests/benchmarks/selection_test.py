"""Leads over runs and problems, worked out by hand."""

from absl.testing import absltest

from benchmarks import selection
from rstar_jax.evaluation import choices


class SelectionTest(absltest.TestCase):
  def test_lines(self):
    def outcomes(right: str, tokens: int) -> list[choices.Outcome]:
      return [
        choices.Outcome("p", None, "equal" if each == "1" else "failed", tokens)
        for each in right
      ]

    found = {
      "puct": [outcomes("1111", 5), outcomes("1110", 5)],
      "best of 8": [outcomes("1000", 6), outcomes("0000", 8)],
    }
    first, second = selection.lines(found)
    self.assertEqual(first["puct_less"], [0.0, 0.0, 0.0])
    self.assertEqual((first["right"], first["n"]), (87.5, 4))
    self.assertEqual((second["way"], second["tokens"]), ("best of 8", 7.0))
    self.assertEqual(second["by_run"], [25.0, 0.0])
    self.assertEqual(second["puct_less"][0], 75.0)
    self.assertGreater(second["puct_less"][1], 0)
    self.assertLess(second["puct_less"][1], 75)


if __name__ == "__main__":
  absltest.main()
