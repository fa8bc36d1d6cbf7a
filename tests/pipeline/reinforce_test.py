"""Rounds of reinforcement with the shipped base model, and killed ones."""

import collections
import dataclasses
import pathlib
import pkgutil
import shutil
import tempfile
import unittest
from unittest import mock

import jax
import numpy as np
import safetensors.numpy
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax import testing
from rstar_jax.config import schema as config_lib
from rstar_jax.data import experience
from rstar_jax.hf import adapters
from rstar_jax.pipeline import (
  backends,
  extract,
  models,
  ppm,
  reading,
  reinforce,
  sft,
)
from rstar_jax.pipeline import run as run_lib
from rstar_jax.search import driver
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import Tree
from rstar_jax.storage import compiled, layout, manifests
from rstar_jax.training import next_token
from tests import tiny_run
from tests.pipeline import cases
from tests.pipeline.resume_test import problems

GRPO = config_lib.RoundConfig(rollout="samples", algorithm="grpo", rollouts=6)
TREE = config_lib.RoundConfig(algorithm="tree", rollouts=2, candidates=4)


def setUpModule():
  # Programs are compiled once, though each training is a function of its own.
  folder = unittest.enterModuleContext(tempfile.TemporaryDirectory())
  compiled.keep(pathlib.Path(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  unittest.enterModuleContext(tiny_run.in_a_loop())


class Killed(BaseException):
  """Raised where a process would be killed."""


class Writer:
  """Keeps what is written."""

  def __init__(self):
    self.lines = []

  def write(self, step, values, prefix=""):
    self.lines.append((step, prefix, dict(values)))

  def of(self, prefix):
    return [values for _, each, values in self.lines if each == prefix]


class Case(parameterized.TestCase):
  """A folder of runs."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.folder = pathlib.Path(folder)
    cls.source = tiny_run.write_problems(
      cls.folder / "train.jsonl", problems("train", (1, 2, 2, 3))
    )

  @classmethod
  def context(cls, name, spec=GRPO, source="", **changes):
    """Returns a run of one round of two turns, two updates each."""
    config = tiny_run.make_config(
      source or cls.source, source or cls.source, rounds=(spec,), seed=4
    )
    train = config_lib.TrainConfig(
      batch_size=2,
      length=256,
      learning_rate=3e-4,
      schedule="constant",
      weight_decay=0.0,
      checkpoint_every=1,
      log_every=1,
    )
    fields = {"iterations": 2, "problems": 2, "updates": 2, "train": train}
    config.reinforce = config_lib.ReinforceConfig(**fields | changes)
    context = tiny_run.make_context(config, cls.folder / name)
    return dataclasses.replace(
      context,
      writer=Writer(),
      sandbox=mock.Mock(run=testing.run_trusted),
      grader=mock.Mock(grade=testing.grade_equal),
    )

  def assert_sampled_by(self, once, trees, turn=1, temperature=1.0):
    """Asserts who sampled a turn: a run's base, or what one turn made of it."""
    # An engine of its own, that reads that policy's folder.
    engine = dataclasses.replace(once.config.engine, temperature=temperature)
    backend = backends.ModelBackend(once, turn, engine=engine)
    for tree in trees:
      again = Tree(tree.problem, keeps_draws=True)
      (again,) = driver.run_searches(
        [reinforce.rollout.grow(again, once.config, 1, ("reinforce", 1, turn))],
        backend.blocks(),
        1,
      )
      self.assertEqual(again.to_record(), tree.to_record())

  def kill(self, context, where, calls):
    """Reinforces until a function was called so often, and once more."""
    module, _, path = where.partition(":")
    *owner, name = path.split(".")
    place = pkgutil.resolve_name(":".join([module, *owner]))
    real, left = getattr(place, name), [None] * calls

    def kill(*args, **options):
      if not left:
        raise Killed
      left.pop()
      return real(*args, **options)

    with mock.patch.object(place, name, kill), self.assertRaises(Killed):
      reinforce.reinforce(context, 1)


def trees_of(context, turn):
  return reading.read_trees(
    context.folder(1, "trees") / layout.turn_name(turn), draws=True
  )


class ReinforceTest(Case):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.straight = cls.context("straight")
    reinforce.reinforce(cls.straight, 1)
    cls.bytes = cases.contents(cls.straight.workdir)
    cls.trees = [trees_of(cls.straight, turn) for turn in range(2)]

  def test_what_is_there(self):
    context = self.straight
    found = reading.read_trees(context.folder(1, "trees"))
    self.assertEqual(
      [tree.problem for tree in found],
      [tree.problem for turn in self.trees for tree in turn],
    )
    # Each problem once before any comes again.
    names = collections.Counter(tree.problem.id for tree in found)
    self.assertEqual(names, {f"p{n}": 1 for n in range(4)})
    manifest = manifests.read(context.folder(1, "trees"))
    self.assertEqual(manifest["problems"], 4)
    self.assertEqual(manifest["solved"], sum(map(tree_lib.solved, found)) / 4)
    for tree in self.trees[0]:
      self.assertEqual(
        tree.tokens, sum(len(draw.token_ids) for draw in tree.draws)
      )
    policy = manifests.read(context.folder(1, "policy"))
    self.assertEqual(policy["turns"], 2)

  def test_what_is_measured(self):
    writer = self.straight.writer
    for turn, (trees, found) in enumerate(
      zip(self.trees, writer.of("round_1_rollout"), strict=True)
    ):
      rewards = [
        -1.0 if end == tree_lib.NO_END else tree.reward[end]
        for tree in trees
        for _, _, end in tree.growth
      ]
      self.assertLen(rewards, 12)
      self.assertAlmostEqual(found["reward"], np.mean(rewards), msg=turn)
      self.assertEqual(found["solved"], np.mean([*map(tree_lib.solved, trees)]))
      self.assertEqual(found["uneven"], 0)
    updates = writer.of("round_1_reinforce")
    self.assertLen(updates, 4)
    # The first update of a turn is by the policy that wrote.
    learned = [each for each in updates if "ratio" in each]
    self.assertNotEmpty(learned)
    for each in learned:
      self.assertAlmostEqual(each["ratio"], 1, delta=1e-2)
    self.assertAlmostEqual(learned[0]["ratio"], 1, delta=1e-4)

  def test_the_engine_and_the_training_agree_on_each_token(self):
    arrays, counts = experience.batch(
      self.trees[0],
      self.straight.tokenizer,
      "grpo",
      normalize=True,
      length=256,
    )
    self.assertGreater(counts["rows"], 0)
    graphdef, params = nnx.split(models.load_policy(self.straight, 0))
    found = jax.jit(
      lambda params: next_token.logprobs(nnx.merge(graphdef, params), arrays)[0]
    )(params)
    there = arrays["weights"] > 0
    np.testing.assert_allclose(
      np.asarray(found)[there], arrays["old"][there], atol=1e-3
    )

  def test_a_turn_is_sampled_at_its_temperature(self):
    cold = self.context("cold", iterations=1, updates=1, temperature=0.5)
    reinforce.reinforce(cold, 1)
    self.assert_sampled_by(cold, trees_of(cold, 0), turn=0, temperature=0.5)
    (update,) = cold.writer.of("round_1_reinforce")
    self.assertEqual(update.get("ratio", 1), 1)

  def test_a_turn_is_sampled_from_the_policy_that_was_trained_before(self):
    once = self.context("once", iterations=1)
    reinforce.reinforce(once, 1)
    self.assertEqual(
      reading.read_rows(once.folder(1, "trees")),
      reading.read_rows(self.straight.folder(1, "trees") / layout.turn_name(0)),
    )
    self.assert_sampled_by(once, self.trees[1])

  def test_the_next_stages_go_on_from_there(self):
    context = self.context("straight")
    sft.train_policy(context, 1)
    extract.extract(context, 1)
    ppm.train_ppm(context, 1)
    self.assertNotEmpty(reading.read_rows(context.folder(1, "pairs")))
    model = models.load_policy(context, 1)
    self.assertEqual(model.config.dtype, "float32")
    self.assertEqual(models.ppm_round(context, 1), 1)
    self.assertEqual(
      self.bytes.items() & cases.contents(context.workdir).items(),
      self.bytes.items(),
    )

  def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(self):
    context = self.context("killed")
    for where, calls in (
      # In a search of the second turn, when a problem of it is there.
      ("rstar_jax.pipeline.units:_Part.put", 3),
      # When the trees of that turn are there, and nothing is trained on them.
      ("rstar_jax.pipeline.reinforce:_Turns._batch", 0),
      # Within the turn, between its updates.
      ("rstar_jax.pipeline.reinforce:_Turns.batch_at", 1),
      # When the policy is there, but for its manifest; and then the trees'.
      ("rstar_jax.pipeline.reinforce:finish_model", 0),
      ("rstar_jax.pipeline.rollout:info", 0),
    ):
      self.kill(context, where, calls)
      self.assertNotEqual(cases.contents(context.workdir), self.bytes)
      if where.endswith("_batch"):
        self.assert_lost(context, 0, pathlib.Path.unlink)
        # Those that no update has learned from are written again.
        folder = context.folder(1, "trees") / layout.turn_name(1)
        min(folder.glob("shard-*")).unlink()
      elif where.endswith("batch_at"):
        self.assert_lost(context, 1, pathlib.Path.unlink)
    reinforce.reinforce(context, 1)
    self.assertEqual(cases.contents(context.workdir), self.bytes)
    # Nothing is done again.
    with mock.patch.object(backends, "ModelBackend", None):
      reinforce.reinforce(context, 1)

  def assert_lost(self, context, turn, damage):
    """Asserts that a round is refused without a file of a turn's trees."""
    folder = context.folder(1, "trees") / layout.turn_name(turn)
    path = min(folder.glob("shard-*"))
    data = path.read_bytes()
    damage(path)
    with (
      mock.patch.object(models, "load_policy", None),
      mock.patch.object(backends, "ModelBackend", None),
      self.assertRaisesRegex(
        ValueError,
        f"^{folder} has lost trees .*: restore them, or delete .*round_1/trees "
        "and .*round_1/policy to have the round made again$",
      ),
    ):
      reinforce.reinforce(context, 1)
    path.write_bytes(data)

  def test_trees_that_the_policy_learned_from_are_not_left_out(self):
    def flip(path):
      data = path.read_bytes()
      path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    context = self.context("lost")
    shutil.copytree(self.straight.workdir, context.workdir)
    for turn in range(2):
      for damage in (flip, pathlib.Path.unlink):
        self.assert_lost(context, turn, damage)
    # Restored, they are as good as before.
    with mock.patch.object(backends, "ModelBackend", None):
      reinforce.reinforce(context, 1)


class LoraTest(Case):
  """Reinforcement of which only updates of low rank are trained."""

  @classmethod
  def context(cls, name, **changes):
    context = super().context(name, updates=1, **changes)
    train = context.config.reinforce.train
    train.lora_rank, train.lora_alpha, train.learning_rate = 4, 8.0, 1e-2
    return context

  def test_from_the_first_turn_to_the_adapter(self):
    straight, once = (
      self.context("straight"),
      self.context("once", iterations=1),
    )
    for context in (straight, once):
      reinforce.reinforce(context, 1)
    # The engine of the second turn has what is merged.
    trees = [trees_of(straight, turn) for turn in range(2)]
    self.assertEqual(
      *(
        [tree.to_record() for tree in each]
        for each in (trees[0], trees_of(once, 0))
      )
    )
    self.assert_sampled_by(once, trees[1])
    learned = [
      each
      for each in straight.writer.of("round_1_reinforce")
      if "ratio" in each
    ]
    self.assertNotEmpty(learned)
    for each in learned:
      # The policy that wrote is the one that is trained.
      self.assertAlmostEqual(each["ratio"], 1, delta=1e-4)

    with self.subTest("what is trained"):
      self.assert_adapted(once)
    with self.subTest("killed and resumed"):
      self.assert_the_same_if_killed(straight)

  def assert_adapted(self, context):
    """Asserts that the policy is the base model with its adapter."""
    folder = context.folder(1, "policy")
    base, policy = (
      backends.arrays_of(models.load_policy(context, n)) for n in (0, 1)
    )
    adapter = safetensors.numpy.load_file(
      folder / adapters.FOLDER / adapters.WEIGHTS
    )
    moved = 0
    for path, array in policy.items():
      if (
        path[0] == "layers"
        and path[-1] in config_lib.TrainConfig().lora_matrices
      ):
        moved += np.any(array != base[path])
      else:
        np.testing.assert_array_equal(array, base[path], err_msg=path)
    self.assertEqual(2 * moved, len(adapter))
    # An MLP's matrix is on the disk as it is here; alpha / rank is 2.
    name = "base_model.model.model.layers.0.mlp.down_proj.lora_"
    a, b = (adapter[f"{name}{each}.weight"] for each in "AB")
    path = ("layers", 0, "mlp", "down")
    np.testing.assert_allclose(
      policy[path], base[path] + 2 * b @ a, rtol=1e-5, atol=1e-6
    )
    found = models.load_policy(context, str(folder / adapters.FOLDER))
    for path, array in backends.arrays_of(found).items():
      np.testing.assert_allclose(array, policy[path], atol=1e-6, err_msg=path)

  def assert_the_same_if_killed(self, straight):
    context = self.context("killed")
    for where in (
      # When the trees of the second turn are there.
      "rstar_jax.pipeline.reinforce:_Turns._batch",
      # When all updates are made, and when the adapter is there.
      "rstar_jax.hf.adapters:save",
      "rstar_jax.pipeline.reinforce:finish_model",
    ):
      self.kill(context, where, 1 if where.endswith("_batch") else 0)
    reinforce.reinforce(context, 1)
    found = cases.contents(context.workdir)
    self.assertEqual(found, cases.contents(straight.workdir))
    self.assertIn("round_1/policy/adapter/adapter_model.safetensors", found)


class ShardSizeTest(absltest.TestCase):
  def test_few_problems_are_eight_files_and_many_leave_no_host_idle(self):
    for count, size in ((2, 1), (8, 1), (9, 2), (32, 4), (33, 4), (512, 4)):
      self.assertEqual(reinforce.shard_size(count), size)
    # 64 hosts, as of 256 chips.
    self.assertGreaterEqual(512 // reinforce.shard_size(512), 64)


class OtherRoundsTest(Case):
  def test_a_tree_of_steps_with_the_divergence(self):
    context = self.context("tree", TREE, problems=4, updates=1, kl=0.1)
    run_lib.STAGES["rollout"](context, 1)
    trees = reading.read_trees(context.folder(1, "trees"), draws=True)
    self.assertLen(trees, 2 * 4)
    for tree in trees:
      # One whose steps all fail has no second.
      self.assertBetween(tree.rollouts, 1, 2)
      self.assertLen(tree.draws, 4 * tree.expansions)
    first, second = context.writer.of("round_1_reinforce")
    self.assertLess(first["kl"], 1e-6)
    self.assertGreater(second["kl"], first["kl"])

  def test_where_all_rewards_are_equal_the_run_goes_on_and_says_so(self):
    context = self.context("equal")
    context.config.reinforce.train.weight_decay = 0.5
    context.grader.grade = lambda pairs: ["different"] * len(pairs)
    with self.assertLogs(level="WARNING") as said:
      reinforce.reinforce(context, 1)
    said = [line for line in said.output if "nothing to learn" in line]
    self.assertLen(said, 2)
    self.assertIn("round 1 turn 1: nothing to learn", said[0])
    found = context.writer.of("round_1_reinforce")
    self.assertLen(found, 4)
    for each in found:
      self.assertEqual(each["rows"], 0)
      self.assertNoCommonElements(each, {"loss", "ratio", "grad_norm"})
    base = models.load_policy(context, 0)
    found = models.load_policy(context, 1)
    for name, array in backends.arrays_of(base).items():
      np.testing.assert_array_equal(array, backends.arrays_of(found)[name])

  def test_a_policy_that_is_not_there_is_not_trained_by_sft(self):
    context = self.context("none")
    for stage in (sft.train_policy, ppm.train_ppm):
      with self.assertRaisesRegex(
        ValueError,
        "policy is not finished: run rstar_jax rollout --round=1|"
        "rstar_jax extract",
      ):
        stage(context, 1)


if __name__ == "__main__":
  absltest.main()
