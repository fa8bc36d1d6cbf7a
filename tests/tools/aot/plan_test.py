"""The plan's arithmetic, against sums made by hand with small round numbers."""

import dataclasses
import json

from absl.testing import absltest

from configs import phi3_mini, qwen2_5_math_1_5b, qwen2_5_math_7b
from rstar_jax.config.schema import (
  Config,
  ExtractConfig,
  ReinforceConfig,
  RemoteConfig,
  RoundConfig,
  ServersConfig,
)
from rstar_jax.tools.aot import chips, cost, plan, programs

_FEW = plan.Assumptions(
  problems=1000,
  prompt_tokens=100,
  steps=4,
  step_tokens=50,
  calls_terminal=2.0,
  calls_ppm=5.0,
  unsolved=(0.0, 0.5),
  later=0.5,
  kept=2,
  solved=(0.6, 0.8),
  sft_epochs=2,
  mixed=0.5,
  paired_steps=3,
  pairs_per_step=4,
  ppm_epochs=1,
  test_trajectories=2,
  efficiency=0.5,
  call_seconds=0.001,
  useful=0.8,
  scored=0.7,
)
_ROUNDS = (
  RoundConfig(rollouts=8, candidates=5),
  RoundConfig(
    rollouts=10,
    candidates=3,
    annotation="ppm",
    trees=2,
    extra_rollouts=(16, 32),
  ),
)


class PlanTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.stages = self.found(*_ROUNDS)

  def found(self, *rounds: RoundConfig, **fields):
    """Returns the stages of rounds, by round and name."""
    stages = plan.stages(Config(rounds=rounds, **fields), _FEW)
    return {(each.round, each.stage): each for each in stages}

  def test_a_round_that_terminals_guide(self):
    found = self.stages[1, "search"]
    # 1000 problems x 8 rollouts x 2 calls x 5 candidates x 50 tokens.
    self.assertEqual(found.generated, 4_000_000)
    # A prompt each: all else stays in pages.
    self.assertEqual(found.prefilled, 1000 * 100)
    self.assertEqual(found.scored, 0)

  def test_a_round_that_the_ppm_guides(self):
    found = self.stages[2, "search"]
    # 20 rollouts; 16 of the half that is unsolved, 32 of the quarter.
    rollouts = 1000 * (20 + 8 + 8)
    self.assertEqual(found.generated, rollouts * 5 * 3 * 50)
    # Two trees, a policy and a PPM.
    self.assertEqual(found.prefilled, 2 * 1000 * 2 * 100)
    self.assertAlmostEqual(found.scored, 0.7 * found.generated)

  def test_training(self):
    # 600 problems x 2 solutions of 100 + 4 x 50 tokens, twice.
    self.assertEqual(self.stages[1, "sft"].trained, 600 * 2 * 300 * 2)
    # 500 problems x 3 steps x 4 pairs of 100 + (2 + 2) x 50 tokens.
    self.assertEqual(self.stages[1, "ppm"].trained, 6000 * 300)

  def test_rounds_beyond_the_papers_repeat_the_last(self):
    rounds = (*_ROUNDS, _ROUNDS[-1])
    last = plan.stages(Config(rounds=rounds), _FEW)[-4:]
    self.assertEqual([each.round for each in last], [3] * 4)
    for each in last:
      self.assertEqual(
        dataclasses.replace(each, round=2), self.stages[2, each.stage]
      )

  def test_samples_are_whole_solutions(self):
    one = RoundConfig(rollouts=8, candidates=5, rollout="samples")
    found = self.found(one)[1, "search"]
    # 1000 problems x 8 solutions x 4 steps x 50 tokens, of a prompt each.
    self.assertEqual(found.generated, 1000 * 8 * 200)
    self.assertEqual((found.prefilled, found.scored), (100_000, 0))

  def test_reinforcement_trains_on_what_its_turns_write(self):
    turns = ReinforceConfig(iterations=10, problems=20)
    one = RoundConfig(rollouts=8, algorithm="grpo", rollout="samples")
    found = self.found(one, reinforce=turns)
    self.assertEqual(
      list(found),
      [(1, each) for each in ("search", "reinforce", "ppm", "test")],
    )
    # 10 turns x 20 problems x 8 solutions x 4 steps x 50 tokens.
    self.assertEqual(found[1, "search"].generated, 320_000)
    self.assertEqual(found[1, "search"].prefilled, 200 * 100)
    # Half of the groups have something to learn from.
    self.assertEqual(found[1, "reinforce"].trained, (320_000 + 20_000) / 2)
    # Pairs of 100 of 200 problems.
    self.assertEqual(found[1, "ppm"].trained, 100 * 3 * 4 * 300)
    tree = RoundConfig(rollouts=8, candidates=5, algorithm="tree")
    found = self.found(tree, reinforce=turns)
    # 200 trees x 8 rollouts x 2 calls x 5 candidates x 50 tokens.
    self.assertEqual(found[1, "search"].generated, 800_000)
    self.assertEqual(found[1, "reinforce"].trained, (800_000 + 20_000) / 2)
    # No turn has more problems than there are; each has pairs once.
    found = self.found(one, reinforce=ReinforceConfig(problems=5000))
    self.assertEqual(found[1, "search"].generated, 100 * 1000 * 8 * 200)
    self.assertEqual(found[1, "ppm"].trained, self.stages[1, "ppm"].trained)
    rates = dict(decode=1000, prefill=4000, score=2000, reinforce=50)
    self.assertAlmostEqual(
      plan.chip_hours(plan.Stage("reinforce", 1, trained=9e3), rates), 0.05
    )

  def test_what_others_search(self):
    given = ExtractConfig(sft_source="a", pairs_source="b")
    found = self.found(*_ROUNDS, extract=given)
    self.assertEqual({name for _, name in found}, {"sft", "ppm", "test"})
    half = ExtractConfig(sft_source="a")
    self.assertIn((1, "search"), self.found(*_ROUNDS, extract=half))
    # A larger model on a server, in round 1 alone.
    remote = RemoteConfig(url="http://a/v1", model="large")
    found = self.found(*_ROUNDS, remote=remote)
    kept = dict(self.stages)
    del kept[1, "search"]
    self.assertEqual(found, kept)

  def test_what_servers_compute(self):
    found = self.found(*_ROUNDS, servers=ServersConfig(ppm="http://a/v1"))
    for name in ("search", "test"):
      mine, all_ = found[2, name], self.stages[2, name]
      self.assertEqual((mine.generated, mine.scored), (all_.generated, 0))
    # The prompts of the policy alone.
    self.assertEqual(found[2, "search"].prefilled, 1000 * 2 * 100)
    both = ServersConfig(policy="http://b/v1", ppm="http://a/v1")
    found = self.found(*_ROUNDS, servers=both)
    for (_, name), each in found.items():
      computed = each.generated, each.prefilled, each.scored
      self.assertEqual(computed, (0, 0, 0))
      self.assertEqual(each.trained > 0, name in ("sft", "ppm"))

  def test_tests(self):
    total = 500 * 5453 + 30 * 15693 + 40 * 14544 + 675 * 7889
    total += 2818 * 4503 + 1319 * 3299 + 385 * 6375
    # Two trajectories of the search, and as much in samples.
    self.assertEqual(self.stages[2, "test"].generated, 4 * total)

  def test_chip_hours(self):
    rates = dict(decode=1000, prefill=4000, score=2000, sft=100, ppm=50)
    stage = plan.Stage(
      "sft", 1, generated=5e6, prefilled=8e6, scored=6e6, trained=2e6
    )
    seconds = 5e6 / 1000 + 8e6 / 4000 + 6e6 / 2000 + 2e6 / 100
    self.assertAlmostEqual(plan.chip_hours(stage, rates), seconds / 3600)

  def test_the_papers_hours(self):
    hours = [each for _, each in plan.PAPER_GPU_HOURS]
    self.assertEqual(hours, [26_880, 4_320, 4_320, 10_080])

  def test_table_of_the_papers_rounds(self):
    rates = dict.fromkeys(programs.NAMES, 1000.0)
    found = plan.table(Config(), {"v5e:4x4": rates}, plan.Assumptions())
    self.assertLen(found["stages"], 16)
    total = sum(row["chip_hours"]["v5e:4x4"] for row in found["stages"])
    self.assertAlmostEqual(
      found["chip_hours"]["v5e:4x4"] / total, 1, delta=1e-2
    )
    self.assertEqual(json.loads(json.dumps(found))["assumptions"]["kept"], 2)


class RatesTest(absltest.TestCase):
  def rates(self, module, topology, a=_FEW):
    config = module.get_config()
    model = programs.model_config(config.policy.path, "bfloat16")
    return plan.rates(config, model, chips.parse(topology), a)

  def test_sampling(self):
    config = qwen2_5_math_7b.get_config()
    model = programs.model_config(config.policy.path, "bfloat16")
    rows, steps = config.engine.rows, config.engine.inner_steps
    found = self.rates(qwen2_5_math_7b, "v5e:4x4")["decode"]
    # Paths of 100 + 2 x 50 tokens, each shared by 16 candidates; 25 of a step.
    step = cost.step(
      model,
      tokens=rows,
      keys=rows * 225,
      read=rows * (200 / 16 + 25),
      sampled=rows,
      tensor=4,
    )
    seconds = steps * step.seconds(chips.parse("v5e:2x2")) / 0.5 + 0.001
    self.assertAlmostEqual(found, 0.8 * rows * steps / seconds / 4)

  def test_data_shards_add_up(self):
    config = qwen2_5_math_1_5b.get_config()
    self.assertEqual(config.search_mesh.tensor, 1)
    model = programs.model_config(config.policy.path, "bfloat16")
    tokens, work = plan.step_of(
      "score",
      model,
      config,
      {"data": 4, "fsdp": 1, "tensor": 1},
      _FEW,
    )
    one, alone = plan.step_of(
      "score",
      model,
      config,
      {"data": 1, "fsdp": 1, "tensor": 1},
      _FEW,
    )
    self.assertEqual(tokens, one)
    self.assertAlmostEqual(work.flops, alone.flops / 4)
    self.assertGreater(work.bytes, alone.bytes / 4)

  def test_training_is_bound_by_products(self):
    found = self.rates(qwen2_5_math_7b, "v5p:2x2x4")
    # 6 FLOPs a parameter and token, 2 more of them again, and attention; half
    # of 459 TFLOP/s.
    most = 0.5 * 459e12 / (8 * 6.5e9)
    self.assertBetween(found["sft"], 0.5 * most, most)
    # No token is sampled faster than one is read.
    self.assertLess(found["decode"], found["prefill"])

  def test_every_shipped_config_has_rates(self):
    for module in (qwen2_5_math_1_5b, phi3_mini):
      found = self.rates(module, "v5e:4x4")
      self.assertEqual(set(found), set(programs.NAMES))
      self.assertGreater(min(found.values()), 0)


if __name__ == "__main__":
  absltest.main()
