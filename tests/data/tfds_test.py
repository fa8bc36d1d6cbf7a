"""Tests of rstar_jax.data.tfds: a data set is made with TFDS, and read."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow_datasets as tfds
from absl.testing import absltest
from tensorflow_datasets.core.utils import file_utils

from rstar_jax.config.schema import DataConfig
from rstar_jax.data import problems


@dataclasses.dataclass
class ProblemsConfig(tfds.core.BuilderConfig):
  """A data set of `Problems`: a name and a source for each split."""

  sources: Mapping[str, DataConfig] = dataclasses.field(default_factory=dict)


class Problems(tfds.core.GeneratorBasedBuilder):
  """Makes a TFDS data set, "problems/NAME", from sources of problems."""

  VERSION = tfds.core.Version("1.0.0")

  # Nothing is downloaded. (Left to itself TFDS 4.9.10 looks for a file of
  # checksums through importlib_resources, which it does not install.)
  url_infos: Mapping = {}
  # Run as a program, a test has no package to be found in.
  pkg_dir_path = pathlib.Path(__file__).parent

  def __init__(self, **kwargs):
    # The one format that can be read without TensorFlow.
    super().__init__(**({"file_format": "array_record"} | kwargs))

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
      description="Questions with short final answers.",
      disable_shuffling=True,
      features=tfds.features.FeaturesDict(
        {
          "id": tfds.features.Text(),
          "question": tfds.features.Text(),
          "answer": tfds.features.Text(),
          "source": tfds.features.Text(),
          "level": tfds.features.Scalar(dtype=np.int64),
          "also": tfds.features.Sequence(tfds.features.Text()),
        }
      ),
    )

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    del dl_manager  # Nothing is downloaded.
    return {
      split: self._generate_examples(config)
      for split, config in self.builder_config.sources.items()
    }

  def _generate_examples(self, config: DataConfig) -> Iterator:
    for problem in problems.load_problems(config):
      row = problem.to_record()
      # No field can be absent.
      row["level"] = -1 if problem.level is None else problem.level
      yield problem.id, row


class TfdsTest(absltest.TestCase):
  def test_build_and_read(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    text = "\n".join(
      json.dumps(row)
      for row in [
        {"id": "z", "question": "Ünïts?", "answer": 3.5, "level": 2},
        {"id": "a", "question": "R?", "answer": "\\pi"},
        {"question": "S?", "answer": "x#### 1,000"},
        {"question": "T?", "answer": "3", "also": ["-3", "|ü|"]},
      ]
    )
    (folder / "set.jsonl").write_text(text)
    sources = {
      "train": DataConfig(source=str(folder / "set.jsonl")),
      "test": DataConfig(source="synthetic:test", count=3),
    }
    builder = Problems(
      config=ProblemsConfig(name="mine", sources=sources),
      data_dir=folder,
    )
    builder.download_and_prepare()
    self.assertNotIn("tensorflow", sys.modules)
    tfds.core.add_data_dir(folder)
    self.addCleanup(file_utils.clear_registered_data_dirs)
    for split, config in sources.items():
      self.assertEqual(
        problems.load_problems(
          DataConfig(source=f"tfds:problems/mine/{split}")
        ),
        problems.load_problems(config),
      )
    with self.assertRaisesRegex(
      problems.ProblemError, "no split 'dev', only train, test"
    ):
      problems.load_problems(DataConfig(source="tfds:problems/mine/dev"))


if __name__ == "__main__":
  absltest.main()
