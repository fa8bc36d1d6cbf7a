"""Names of a run's folders, against those that runs have had from the start."""

import pathlib

from absl.testing import absltest

from rstar_jax.storage import layout


class LayoutTest(absltest.TestCase):
  def test_names_of_earlier_runs(self):
    run = pathlib.Path("run")
    self.assertEqual(
      layout.stage_folder(run, 3, "trees"), pathlib.Path("run/round_3/trees")
    )
    self.assertEqual(layout.host_folder(run, 0), run)
    self.assertEqual(layout.host_folder(run, 2), pathlib.Path("run/host_2"))
    self.assertEqual(layout.folder_name("hf:a/b/test"), "hf_a_b_test")

  def test_numbers_are_read_back_in_order(self):
    names = ["round_10", "round_2", "round_x", "host_1", "round_2.tmp", "log"]
    self.assertEqual(layout.rounds(names), [2, 10])
    self.assertEqual(layout.hosts(names), [1])

  def test_every_folder_has_the_stage_that_writes_it(self):
    self.assertEqual(
      layout.WRITERS,
      {
        **{"trees": "rollout", "sft": "extract", "pairs": "extract"},
        **{"policy": "sft", "ppm": "ppm", "eval": "evaluate"},
        **{"orm": "study", "pqm": "study"},
      },
    )


if __name__ == "__main__":
  absltest.main()
