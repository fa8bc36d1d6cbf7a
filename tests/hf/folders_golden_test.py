"""Every family and switch against `transformers`, by its committed results.

`make parity` asks the same of freshly made models, with torch installed.
"""

import pathlib

import numpy as np
from absl.testing import absltest, parameterized

from tests.parity import cases, compare

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


class HfGoldenTest(parameterized.TestCase):
  def load(self, name):
    return GOLDEN / name, np.load(GOLDEN / name / "expected.npz")

  @parameterized.parameters(*cases.CASES)
  def test_logits(self, name):
    compare.logits(*self.load(name), name)

  @parameterized.parameters(*cases.CASES)
  def test_greedy_tokens_through_the_cache(self, name):
    compare.greedy(*self.load(name), name)

  @parameterized.parameters(
    *[each for each in cases.CASES if each not in cases.ALIKE]
  )
  def test_values(self, name):
    folder = pathlib.Path(self.create_tempdir().full_path)
    compare.values(*self.load(name), name, folder)

  @parameterized.parameters(
    *[each for each in cases.CASES if each not in cases.ALIKE]
  )
  def test_bfloat16(self, name):
    compare.bfloat16(*self.load(name), name)

  def test_every_folder_is_a_case_and_small(self):
    folders = {each.parent.name for each in GOLDEN.glob("*/config.json")}
    self.assertEqual(folders, set(cases.CASES))
    for file in GOLDEN.rglob("*"):
      self.assertLess(file.stat().st_size, 1 << 20)


if __name__ == "__main__":
  absltest.main()
