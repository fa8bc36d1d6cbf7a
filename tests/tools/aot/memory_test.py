"""What a chip holds by sizes, against what libtpu's compiler said of it."""

import dataclasses
import json
import pathlib

from absl.testing import absltest, parameterized
from jax.sharding import AbstractMesh

from configs import phi3_mini, qwen2_5_math_1_5b, qwen2_5_math_7b
from rstar_jax.config.schema import Config, TrainConfig
from rstar_jax.models import meshes
from rstar_jax.tools.aot import memory, programs
from tests.tools.aot import small

RESULTS = pathlib.Path(__file__).parents[3] / "docs" / "results"
# Others were compiled with the settings of the 7B.
CONFIGS = {
  "Qwen/Qwen2.5-Math-1.5B": qwen2_5_math_1_5b,
  "microsoft/Phi-3-mini-4k-instruct": phi3_mini,
}


def compiled(file: str, *names: str) -> list[dict]:
  """Returns the rows of programs that fit, as the compiler had them."""
  rows = map(json.loads, (RESULTS / file).read_text().splitlines())
  return [row for row in rows if row["program"] in names and row["fits"]]


def mesh(*sizes: int) -> AbstractMesh:
  return AbstractMesh(sizes, meshes.AXES)


def mesh_of(row: dict) -> AbstractMesh:
  return mesh(*(row["mesh"][axis] for axis in meshes.AXES))


class CompiledTest(parameterized.TestCase):
  def assert_near(self, found: float, row: dict):
    share = found / 2**30 / row["hbm_needed_gib"]
    self.assertBetween(share, 1 - memory.MARGIN, 1 + memory.MARGIN)

  @parameterized.parameters(*compiled("training_aot.jsonl", "sft", "ppm"))
  def test_trainings(self, **row):
    config = CONFIGS.get(row["model"], qwen2_5_math_7b).get_config()
    training = getattr(config, row["program"])
    for name in ("remat", "accumulate", "batch_size", "length"):
      setattr(training, name, row[name])
    model = programs.model_config(row["model"], "bfloat16")
    head = programs.head_of(row["program"], config)
    found = memory.training(head, model, training, mesh_of(row))
    self.assert_near(found.chip, row)

  @parameterized.parameters(*compiled("aot.jsonl", "search"))
  def test_searches(self, **row):
    config = CONFIGS.get(row["model"], qwen2_5_math_7b).get_config()
    self.assertEqual(config.engine.rows, row["rows"])
    model = programs.model_config(row["model"], "bfloat16")
    self.assert_near(memory.search(model, config, mesh_of(row)).total, row)


class SearchTest(absltest.TestCase):
  def test_models_that_a_search_loads_itself(self):
    config = Config()
    servers, rounds = config.servers, config.rounds

    def loaded(here: str) -> None:
      found = programs.loaded(config)
      self.assertEqual(found, ("policy" in here, "reward" in here))

    loaded("policy, reward")
    servers.policy = "http://a/v1"
    loaded("reward")
    servers.ppm = "http://b/v1"
    loaded("")
    config.eval.reward_model = "Qwen/Qwen2.5-Math-PRM-7B"
    loaded("reward")
    servers.reward = "http://c/v1"
    loaded("")
    # Rounds 3 and 4 ask the PPM; a plugin has no engine.
    servers.ppm = servers.reward = ""
    config.eval.reward_model = "mine:score"
    loaded("reward")
    for each in rounds[2:]:
      each.ppm = "mine:score"
    loaded("")
    rounds[3].ppm = "ppm:runs/other"
    loaded("reward")
    servers.ppm = "http://b/v1"
    loaded("")
    servers.policy, config.policy.backend = "", "mine:policy"
    loaded("")

  def test_a_model_less_is_its_weights_and_its_pages(self):
    config = small.config()
    both = memory.search(small.MODEL, config, mesh(1, 1, 4))
    config.servers.ppm = "http://a/v1"
    one = memory.search(small.MODEL, config, mesh(1, 1, 4))
    self.assertEqual((one.policy, one.value), (both.policy, 0))
    self.assertEqual(2 * one.pages, both.pages)
    config.servers.ppm, config.servers.policy = "", "http://a/v1"
    one = memory.search(small.MODEL, config, mesh(1, 1, 4))
    self.assertEqual((one.policy, one.value), (0, both.value))
    # Heads, key/value heads, MLP and vocabulary are cut in four.
    alone = memory.search(small.MODEL, small.config(), mesh(1, 1, 1))
    self.assertEqual(memory.whole(small.MODEL), alone.policy)


class TrainingTest(absltest.TestCase):
  def test_a_checkpoint_is_masters_and_moments_whatever_the_mesh(self):
    config = Config()
    # Of a layer: 512 x (8 + 2 x 4 + 8) x 64 with biases of queries, keys and
    # values, 3 x 512 x 1536, two norms; embeddings, an LM head, a last norm.
    layer = 512 * 24 * 64 + 16 * 64 + 3 * 512 * 1536 + 2 * 512
    count = 2 * layer + 2 * 2048 * 512 + 512
    for sizes in ((1, 1, 1), (1, 4, 4), (2, 2, 1)):
      found = memory.training("lm", small.MODEL, config.sft, mesh(*sizes))
      # The model, two moments, and two counts.
      self.assertBetween(found.state - 3 * 4 * count, 0, 64)
    config.sft.ema = 0.9
    averaged = memory.training("lm", small.MODEL, config.sft, mesh(1, 1, 1))
    self.assertEqual(averaged.state - found.state, 4 * count)
    config.sft.lora_rank = 2
    adapted = memory.training("lm", small.MODEL, config.sft, mesh(1, 1, 1))
    self.assertLess(adapted.state, found.state / 20)

  def test_what_makes_it_less(self):
    def chip(sizes=(1, 4, 1), **fields) -> float:
      train = TrainConfig(**{"batch_size": 16, "length": 512} | fields)
      return memory.training("lm", small.MODEL, train, mesh(*sizes)).chip

    self.assertLess(chip((1, 8, 1)), chip())
    self.assertLess(chip((1, 4, 2)), chip())
    # Copies do not share the state.
    self.assertGreater(chip((4, 1, 1)), chip())
    self.assertLess(chip(accumulate=4), chip())
    order = [
      chip(remat=each) for each in ("layer", "mlp", "elementwise", "none")
    ]
    self.assertEqual(order, sorted(set(order)))

  def test_pages_left_to_the_engine(self):
    config = small.config()
    config.engine.pages = 0
    with self.assertRaisesRegex(ValueError, "config.engine.pages is 0: say"):
      memory.search(small.MODEL, config, mesh(1, 1, 4))
    config.engine.pages = 64
    model = dataclasses.replace(small.MODEL, vocab_size=4096)
    more, less = (
      memory.search(each, config, mesh(1, 1, 4))
      for each in (model, small.MODEL)
    )
    self.assertEqual(more.pages, less.pages)
    # Four float32 logits of 64 rows, a fourth of them on a chip.
    self.assertEqual(more.temporaries - less.temporaries, 4 * 4 * 64 * 2048 / 4)


if __name__ == "__main__":
  absltest.main()
