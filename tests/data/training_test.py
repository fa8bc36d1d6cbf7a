"""Tests of rstar_jax.data.training."""

import json
import pathlib

from absl.testing import absltest

from rstar_jax.config import schema as config_lib
from rstar_jax.data import training
from rstar_jax.data.rows import ProblemError

LONG = "one two three four five six seven eight nine ten eleven twelve and"


class LoadTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def data(self, name: str, *questions: str) -> config_lib.DataConfig:
    path = self.folder / f"{name}.jsonl"
    rows = [json.dumps({"question": q, "answer": 1}) for q in questions]
    path.write_text("\n".join(rows))
    return config_lib.DataConfig(source=str(path))

  def config(self, *train: str, **fields) -> config_lib.Config:
    config = config_lib.Config(train=self.data("train", *train))
    config.eval.data = self.data("test", f"{LONG} more")
    config.eval.more = (self.data("more", "other words"),)
    config.decontaminate = config_lib.DecontaminateConfig(**fields)
    return config

  def test_looks_in_all_sets(self):
    config = self.config(
      f"So {LONG} on", "Other words!", "of a third", "of none"
    )
    config.decontaminate.against = (self.data("third", "Of a third."),)
    with self.assertLogs(level="INFO") as logs:
      problems, report = training.load(config)
    self.assertEqual([p.question for p in problems], ["of none"])
    self.assertEqual(
      [(m["id"], pathlib.Path(m["set"]).stem) for m in report["matches"]],
      [("train/0", "test"), ("train/1", "more"), ("train/2", "third")],
    )
    self.assertRegex(
      logs.output[0], r"dropped 3 of 4 .*13 words .*third.*: 1\)"
    )

  def test_other_numbers_of_words(self):
    self.assertEqual(
      training.load(self.config(LONG, ngram=14))[1]["dropped"], 0
    )
    problems, report = training.load(self.config(LONG, ngram=0))
    self.assertEqual((len(problems), report), (1, {}))

  def test_nothing_left(self):
    with self.assertRaisesRegex(ProblemError, "all 1 problems are in an eval"):
      training.load(self.config(LONG))

  def test_evaluation_sets_are_read_even_where_none_is_compared(self):
    config = self.config(LONG, ngram=0)
    config.eval.more = (config_lib.DataConfig(source="none.jsonl"),)
    with self.assertRaisesRegex(ProblemError, "there is no file none.jsonl"):
      training.load(config)


if __name__ == "__main__":
  absltest.main()
