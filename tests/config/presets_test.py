"""Tests of the presets: the paper's numbers, spelled out."""

from absl.testing import absltest

from rstar_jax.config import presets, validation


class PresetsTest(absltest.TestCase):
  def test_paper(self):
    config = presets.paper("some/policy")
    validation.validate(config)
    self.assertEqual(config.policy.path, "some/policy")
    # Section 3.4, A.1: rollouts x candidates of each round.
    self.assertEqual(
      [(each.rollouts, each.candidates) for each in config.rounds],
      [(8, 5), (16, 8), (16, 8), (16, 16)],
    )
    self.assertEqual(
      [each.annotation for each in config.rounds],
      ["terminal", "terminal", "ppm", "ppm"],
    )
    # Round 4: 64 more, and up to 128 in all.
    self.assertEqual(sum(config.rounds[3].extra_rollouts), 128)
    self.assertEqual(config.rounds[3].extra_rollouts[0], 64)
    search = config.eval.search
    self.assertEqual((search.rollouts, search.candidates), (4, 32))
    self.assertEqual((search.max_depth, search.c), (16, 2.0))
    self.assertEqual(config.sft.length, 4096)
    # Competitions, and what is held to half of its solutions: all the rest.
    (where,) = config.train.where
    self.assertEqual(
      set(where.removeprefix("source=").split(",")),
      {"olympiads", "amc_aime", *config.extract.min_correct_of},
    )
    self.assertEqual(config.extract.min_correct_share, 0.5)
    # A shard is several times what is in flight; see docs/results/fleet.md.
    self.assertGreaterEqual(config.shard_size, 4 * config.search.in_flight)
    # 2 hosts of 4 chips each, and 8 of them.
    for chips in (8, 32):
      parts = chips // config.train_mesh.tensor
      for train in (config.sft, config.ppm):
        self.assertEqual(train.batch_size // train.accumulate % parts, 0)
        self.assertEqual(train.remat, "layer")
    # A prefix and its step, or a whole block, fit into that context.
    engine = config.engine
    self.assertLessEqual(engine.max_prefix_tokens + 512, 4096)

  def test_released_code(self):
    config, paper = presets.released_code("p"), presets.paper("p")
    validation.validate(config)
    self.assertEqual(
      [(each.rollouts, each.candidates) for each in config.rounds],
      [(48, 12)] * 4,
    )
    self.assertEqual(
      [each.annotation for each in config.rounds],
      [each.annotation for each in paper.rounds],
    )
    search = config.eval.search
    self.assertEqual((search.rollouts, search.candidates), (12, 32))
    self.assertEqual(config.search.uct_unvisited, "zero")
    self.assertEqual((config.ppm_head, config.ppm.epochs), ("logit", 2))
    self.assertEqual(
      (config.extract.min_margin, config.sft.length), (0.5, 2048)
    )
    self.assertFalse(config.extract.final_pairs)
    self.assertEqual(config.extract.min_correct_share, 0.0)
    self.assertEqual((config.study.trajectories, config.study.top_k), (64, 4))
    # What it does not say is as in the paper.
    self.assertEqual(config.sft.batch_size, paper.sft.batch_size)

  def test_each_call_makes_a_config_of_its_own(self):
    first, second = presets.paper("a"), presets.paper("a")
    first.engine.top_k = 5
    self.assertEqual(second.engine.top_k, 0)


if __name__ == "__main__":
  absltest.main()
