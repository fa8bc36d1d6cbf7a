"""The sizes of calls, worked out by hand from the engine's settings."""

from absl.testing import absltest, parameterized
from jax.sharding import AbstractMesh

from rstar_jax.config.schema import Config, EngineConfig, RoundConfig
from rstar_jax.models import sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot import shapes


def _config(**engine):
  config = Config()
  config.search.in_flight, config.eval.search.in_flight = 7, 13
  config.eval.search.candidates, config.eval.samples = 11, 3
  config.rounds = (
    RoundConfig(candidates=17),
    RoundConfig(candidates=5, annotation="ppm"),
  )
  config.engine = EngineConfig(
    **{
      "max_step_tokens": 19,
      "max_block_tokens": 97,
      "prefix_buckets": (23, 101),
      "tail_buckets": (3, 29),
      "score_buckets": (2, 6, 18),
      "step_buckets": (31,),
      "leaf_buckets": (2, 6, 13),
      "most_tokens": 6 * 17 * 19,
      "score_rows": 40,
    }
    | engine
  )
  return config


def _sizes(config, stage, data_shards=1, path=None):
  mesh = AbstractMesh((data_shards, 1, 2), sharding.AXES)
  return shapes.of_config(config, ModelConfig(), mesh, stage, path)


class ShapesTest(parameterized.TestCase):
  def test_rollout(self):
    found = _sizes(_config(), "rollout")
    # The larger search's trees; a call has the largest bucket of leaves whose
    # candidates fit, and candidates of all slots do not.
    self.assertEqual((found.slots, found.leaves, found.candidates), (13, 6, 17))
    self.assertFalse(found.keep)
    # Paths of 101 and 19, 29 or 31 more.
    self.assertEqual((found.room, found.value_room), (101 + 29, 101 + 31))
    self.assertEqual((found.path, found.tail, found.moved), (101, 29, 13))
    # 17 are padded to 18, of which 40 are two leaves.
    self.assertEqual((found.scored, found.columns), (2, 18))
    self.assertEqual(found.others, ())

  def test_a_server_makes_the_first_round(self):
    config = _config()
    config.remote.url = "http://localhost"
    found = _sizes(config, "rollout")
    # 13 x 5 x 19 tokens are fewer than 6 x 17 x 19.
    self.assertEqual((found.leaves, found.candidates), (13, 5))
    self.assertTrue(found.keep)

  def test_no_ppm_where_no_round_is_annotated_by_one(self):
    config = _config()
    config.rounds = config.rounds[:1]
    self.assertEqual(_sizes(config, "rollout").value_room, 0)

  def test_evaluation_has_lanes_for_blocks_besides(self):
    found = _sizes(_config(), "evaluation")
    self.assertEqual((found.candidates, found.leaves), (11, 6))
    self.assertEqual(found.others, (198, 198))
    blocks = _sizes(_config(), "blocks")
    self.assertEqual((blocks.candidates, blocks.step), (3, 97))
    self.assertEqual((blocks.room, blocks.others), (198, (130, 198)))

  def test_a_call_has_the_least_bucket_where_none_fits(self):
    found = _sizes(_config(most_tokens=5), "rollout")
    self.assertEqual(found.leaves, 2)

  def test_banks(self):
    # Buckets of 2, 6 and 13 are 1, 1 and 3 rows of each of 4 banks, and 13
    # slots are 4 in each.
    found = _sizes(_config(), "rollout", data_shards=4)
    self.assertEqual((found.slots, found.moved, found.leaves), (16, 12, 4))

  @parameterized.parameters((1, 23), (23, 23), (24, 101))
  def test_a_path_is_padded_to_a_bucket(self, path, bucket):
    self.assertEqual(_sizes(_config(), "rollout", path=path).path, bucket)

  @parameterized.parameters(0, 102)
  def test_no_such_path(self, path):
    with self.assertRaisesRegex(ValueError, "1 to 101"):
      _sizes(_config(), "rollout", path=path)

  def test_no_such_stage(self):
    with self.assertRaisesRegex(ValueError, "'sft' is no stage"):
      _sizes(_config(), "sft")


if __name__ == "__main__":
  absltest.main()
