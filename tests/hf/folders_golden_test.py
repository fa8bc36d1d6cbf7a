"""Every family and switch against `transformers`, by its committed results.

`make parity` asks the same of freshly made models, with torch installed.
"""

import pathlib

import numpy as np
from absl.testing import absltest, parameterized

from tests.parity import cases, compare

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


# By their names, so that the table of docs/your_model.md finds them.
CASES = [(name, name) for name in cases.CASES]
FAMILIES = list(cases.FAMILIES.items())
# Those that add up in another way than any of the others.
ROUNDED = """
  qwen2 qwen3 llama_bias phi3_partial granite olmo3 gemma3 qwen3_moe gpt_oss
""".split()


class GoldenTest(parameterized.TestCase):
  def load(self, name):
    return GOLDEN / name, np.load(GOLDEN / name / "expected.npz")

  @parameterized.named_parameters(*CASES)
  def test_imported(self, name):
    compare.logits(*self.load(name), name)

  # LongRoPE rotates by what a path may become.
  @parameterized.named_parameters(*FAMILIES, ("phi3_longrope", "phi3_longrope"))
  def test_decoded(self, name):
    compare.greedy(*self.load(name), name)

  @parameterized.parameters("qwen2", "phi3_longrope", "gemma3", "gpt_oss")
  def test_values(self, name):
    folder = pathlib.Path(self.create_tempdir().full_path)
    compare.values(*self.load(name), name, folder)

  @parameterized.parameters(*ROUNDED)
  def test_bfloat16(self, name):
    compare.bfloat16(*self.load(name), name)

  def test_every_folder_is_a_case_and_small(self):
    folders = {each.parent.name for each in GOLDEN.glob("*/config.json")}
    self.assertEqual(folders, set(cases.CASES))
    for file in GOLDEN.rglob("*"):
      self.assertLess(file.stat().st_size, 1 << 20)


if __name__ == "__main__":
  absltest.main()
