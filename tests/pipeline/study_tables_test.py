"""Tables of studies that a scripted policy and reward models made."""

import dataclasses
import itertools
from unittest import mock

from absl.testing import absltest

from rstar_jax.pipeline import study, study_tables
from rstar_jax.storage import layout, metrics
from tests.pipeline import studying


class RenderTest(studying.StudyingCase):
  def test_time_is_shown_and_in_no_file_of_the_study(self):
    self.config.study.methods = ("greedy", "mcts")
    self.config.study.rewards = ("ppm",)
    texts, clock = [], itertools.count(step=10)
    for name, pace in (("slow", 7), ("quick", 1)):

      def usage(backend, pace=pace):
        # Ten problems' worth between two calls.
        now = next(clock)
        return {"seconds": pace * now, "generated_tokens": 3.0 * now}

      with mock.patch.object(self.device, "usage", usage):
        context = self.context(name)
        # The command holds this file meanwhile.
        context.folder(1, "study").mkdir()
        (context.folder(1, "study") / layout.AT_WORK).write_text("{}")
        with metrics.MetricsWriter(context.workdir) as writer:
          context = dataclasses.replace(context, writer=writer)
          study.study(context, 1)
        said = study_tables.render(context, 1)
      texts.append((context.folder(1, "study") / "tables.md").read_text())
      table, time = said.split("### Time")
      self.assertEqual(table, texts[-1] + "\n")
      rows = [line.replace(" ", "") for line in time.splitlines()]
      # Readings at the beginning, after each shard, and at the end.
      shards = {"Greedy": 2, "Onesearch": 2}
      for method, count in shards.items():
        seconds = 10 * (count + 1) / 5
        guide = "-" if method == "Greedy" else "ppm"
        self.assertIn(
          f"|{method}|{guide}|5|{pace * seconds:.3g}|0|{3 * seconds:.0f}|0|0|",
          rows,
        )
    self.assertEqual(*texts)

  def test_tables_of_nothing(self):
    with self.assertRaisesRegex(ValueError, "rstar_jax study --round=1"):
      study_tables.render(self.context(), 1)


class CompareTest(studying.StudyingCase):
  def test_two_studies_and_none(self):
    first, second = self.context("a"), self.context("b")
    study.study(first, 1)
    with self.assertRaisesRegex(ValueError, "neither an evaluation nor"):
      study_tables.compare(first, second.workdir, 1)
    with self.assertRaisesRegex(ValueError, "no evaluated round in common"):
      study_tables.compare(first, second.workdir, None)
    study.study(second, 1)
    text = study_tables.compare(first, second.workdir, 1)
    self.assertIn("not distinguishable", text)
    self.assertNotIn("better", text)


if __name__ == "__main__":
  absltest.main()
