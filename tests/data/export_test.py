"""The exported data set, as `datasets` and our own reader see it."""

import pathlib

import datasets
from absl.testing import absltest

from rstar_jax.data import export
from rstar_jax.steps import prompts
from rstar_jax.types import PreferencePair, Trajectory

QUESTION = "What is 2 + 2?"
STEPS = "<code>\nx = 4<end_of_step>\n", "\u2028 é"
SOLUTION = Trajectory("p1", QUESTION, STEPS, (1.0, 1.0), "4", True)
PAIR = PreferencePair("p1", QUESTION, ("a", "b"), ("a", "c"), 0.25, "step")


class ExportTest(absltest.TestCase):
  def test_datasets_reads_what_was_written(self):
    folder = pathlib.Path(self.create_tempdir().full_path) / "made"
    for _ in range(2):  # A second time writes over it.
      counts = export.write(folder, [SOLUTION] * 3, [PAIR])
    self.assertEqual(counts, {"sft": 3, "pairs": 1})
    cache = self.create_tempdir().full_path
    sft = datasets.load_dataset(
      str(folder), "sft", split="train", cache_dir=cache
    )
    self.assertLen(sft, 3)
    self.assertEqual(
      sft[0],
      {
        "prompt": prompts.prompt(QUESTION),
        "completion": "".join(STEPS),
        "problem_id": "p1",
      },
    )
    (pair,) = datasets.load_dataset(
      str(folder), "pairs", split="train", cache_dir=cache
    )
    self.assertEqual((pair["chosen"], pair["rejected"]), ("ab", "ac"))
    self.assertEqual((pair["weight"], pair["kind"]), (0.25, "step"))


if __name__ == "__main__":
  absltest.main()
