"""An open run: its folders, and what starts and ends with it."""

import pathlib

from absl.testing import absltest, parameterized

from rstar_jax.pipeline import context as session
from rstar_jax.storage import layout, manifests, records
from tests import tiny_run


class ContextCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.config = tiny_run.make_config("train.jsonl", "test.jsonl")

  def context(self) -> session.Context:
    return tiny_run.make_context(self.config, self.folder / "run")


class ContextTest(ContextCase):
  @parameterized.parameters(*layout.WRITERS.items())
  def test_finished(self, name, stage):
    context = self.context()
    message = f"{name} is not finished: run rstar_jax {stage} --round=2 first"
    with self.assertRaisesRegex(ValueError, message):
      context.finished(2, name)
    folder = context.workdir / "round_2" / name
    records.write_shard(folder / "shard-00000-of-00001.jsonl.zst", [{"a": 1}])
    with self.assertRaisesRegex(ValueError, message):
      context.finished(2, name)
    manifests.write(folder, {})
    self.assertEqual(context.finished(2, name), folder)
    (folder / "shard-00000-of-00001.jsonl.zst").write_text("changed")
    with self.assertRaisesRegex(ValueError, message):
      context.finished(2, name)

  def test_the_grader_reads_percentages_as_the_config_says(self):
    for asked, verdict in ((False, "different"), (True, "equal")):
      self.config.grader.percent_is_ratio = asked
      with session.open_context(
        self.config, self.folder / str(asked)
      ) as context:
        self.assertEqual(context.grader.grade([("1/4", "25%")]), [verdict])

  def test_open_context_starts_and_ends_what_stages_need(self):
    workdir = self.folder / "opened"
    with session.open_context(self.config, workdir) as context:
      (result,) = context.sandbox.run([["x = 3", "print(x * 7)"]])
      self.assertEqual((result.status, result.stdout.strip()), ("ok", "21"))
      self.assertEqual(
        context.grader.grade([("21", "21.0"), ("21", "20")]),
        ["equal", "different"],
      )
      context.writer.write(3, {"loss": 0.5}, "sft")
      self.assertEqual(
        context.tokenizer.decode(context.tokenizer.encode("a = 1")), "a = 1"
      )
    self.assertIn('"sft/loss": 0.5', (workdir / "metrics.jsonl").read_text())
    with self.assertRaisesRegex(RuntimeError, "closed"):
      context.sandbox.run([["x = 3"]])


if __name__ == "__main__":
  absltest.main()
