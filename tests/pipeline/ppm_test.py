"""What reward models learn from, and from what they are kept."""

import concurrent.futures
import copy
import dataclasses
import pathlib
import shutil
import tempfile
import threading
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.config import schema as config_lib
from rstar_jax.data import held_out, sides
from rstar_jax.data.held_out import is_held_out
from rstar_jax.hf import folders
from rstar_jax.pipeline import (
  backends,
  extract,
  hosts,
  models,
  ppm,
  reading,
  rollout,
  shards,
)
from rstar_jax.search import tree as tree_lib
from rstar_jax.steps.tokenizer import encode_solution
from rstar_jax.storage import layout, manifests
from rstar_jax.training import ppm as ppm_lib
from tests import tiny_run

# One problem of ten is held out; of thirty some are.
ANSWERS = {f"make {i}": str(2 + i % 6) for i in range(30)}


class RewardsTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    made = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.made = pathlib.Path(made)
    source = tiny_run.write_problems(cls.made / "train.jsonl", ANSWERS)
    base = tiny_run.make_base(cls.made / "base")
    cls.config = tiny_run.make_config(
      source, source, policy=config_lib.PolicyConfig(path=base)
    )
    cls.config.ppm.epochs, cls.config.ppm.batch_size = 1, 64
    context = tiny_run.make_context(cls.config, cls.made / "run")
    cls.enterClassContext(
      mock.patch.object(
        backends, "ModelBackend", tiny_run.ScriptedBackend.scripted()
      )
    )
    rollout.rollout(context, 1)
    extract.extract(context, 1)
    cls.trees = reading.read_trees(context.folder(1, "trees"))

  def setUp(self):
    super().setUp()
    # Each test may change the config, and trains in a run of its own.
    workdir = pathlib.Path(self.create_tempdir().full_path) / "run"
    shutil.copytree(self.made / "run", workdir)
    config = copy.deepcopy(self.config)
    self.context = tiny_run.make_context(config, workdir)

  def learn(self, name: str, kind: str) -> list:
    """Returns what a model of a kind would be trained on, as texts."""
    given = []

    def train(model, items, *args, **options):
      given.extend(self.texts(items))
      self.measured = self.texts(options["held_out"])
      self.assertEqual(options["kind"], kind)
      self.assertIs(options["balanced"], self.context.config.reward_balanced)
      return model

    policy = self.context.config.policy.path
    with (
      mock.patch.object(ppm_lib, "train_sides", train),
      mock.patch.object(models, "policy_of", lambda *_: policy),
    ):
      ppm.train(self.context, 1, name, kind)
    folder = self.context.folder(1, name)
    self.assertFalse((folder / layout.ROWS).exists())
    self.manifest = manifests.read(folder)
    self.kept_out = ppm.kept_out_of(self.context, 1, name)
    # So that it can be asked again.
    (folder / layout.MANIFEST).unlink()
    return given

  def texts(self, items: sides.Sides) -> list[tuple]:
    """Returns the question, the nodes of each side, and the target of items."""
    tokenizer = self.context.tokenizer
    known = {}
    for tree in self.trees:
      question = tree.problem.question
      for node in range(1, len(tree)):
        nodes = tree.prefix(node)
        ids = encode_solution(tokenizer, tokenizer.prompt(question), nodes)
        known[tuple(ids)] = question, nodes
    found = []
    for number in range(len(items.counts)):
      group = items.group(number)
      for ids, target in zip(group.ids, group.target.tolist(), strict=True):
        read = [known[tuple(each.tolist())] for each in ids]
        found.append((read[0][0], *(nodes for _, nodes in read), target))
    return found

  def known(self, held_out: bool) -> list:
    """Returns the solutions in the trees of one part of the problems."""
    return [
      each
      for tree in self.trees
      if is_held_out(self.context.config.seed, tree.problem.id, 10) == held_out
      for each in tree_lib.trajectories(tree)
    ]

  def test_some_problems_are_held_out_and_most_are_not(self):
    self.assertNotEmpty(self.known(True))
    self.assertGreater(len(self.known(False)), 3 * len(self.known(True)))

  def test_outcomes(self):
    items = self.learn("orm", "orm")
    expected = {
      (t.question, t.steps, float(t.correct)) for t in self.known(False)
    }
    self.assertEqual(set(items), expected)
    self.assertLen(items, len(expected))
    self.assertEqual({target for *_, target in items}, {0.0, 1.0})

  def test_q_values(self):
    items = self.learn("pqm", "pqm")
    expected = {}
    for tree in self.trees:
      if is_held_out(self.context.config.seed, tree.problem.id, 10):
        continue
      for end in range(1, len(tree)):
        if tree.terminal[end] == tree_lib.ANSWERED:
          for node in tree.path(end)[1:]:
            key = tree.problem.question, tree.prefix(node)
            expected[key] = float(np.float32(tree.q(node)))
    self.assertEqual({(q, nodes): t for q, nodes, t in items}, expected)
    self.assertLen(items, len(expected))

  @parameterized.parameters("ppm", "orm", "pqm")
  def test_what_is_measured_while_it_is_trained(self, kind):
    self.learn(kind, kind)
    self.assertEmpty(self.measured)
    self.context.config.ppm.eval_every = 5
    self.context.config.reward_balanced = True
    items = self.learn(kind, kind)
    self.assertNotEmpty(self.measured)
    kept = {t.question for t in self.known(True)}
    questions = [
      {question for question, *_ in some} for some in (items, self.measured)
    ]
    self.assertNoCommonElements(questions[0], kept)
    self.assertContainsSubset(questions[1], kept)
    # Or none, or more of them.
    self.context.config.ppm.held_out = 0
    self.assertGreater(len(self.learn(kind, kind)), len(items))
    self.assertEmpty(self.measured)

  def test_pairs(self):
    items = self.learn("ppm", "ppm")
    kept = {t.question for t in self.known(True)}
    self.assertNotEmpty(items)
    self.assertNoCommonElements({question for question, *_ in items}, kept)
    expected = [
      (pair.question, pair.chosen, pair.rejected, 0.0)
      for pair in reading.read_pairs(self.context.folder(1, "pairs"))
      if pair.question not in kept
    ]
    self.assertCountEqual(items, expected)
    self.assertEqual(self.manifest["pairs"], len(expected))

  @parameterized.parameters(("ppm", "pairs"), ("pqm", "items"))
  def test_items_that_are_too_long_are_not_counted(self, kind, count):
    everything = self.learn(kind, kind)
    tokenizer = self.context.tokenizer

    def longest(item):
      prompt = tokenizer.prompt(item[0])
      return max(
        len(encode_solution(tokenizer, prompt, nodes)) for nodes in item[1:-1]
      )

    lengths = sorted(map(longest, everything))
    self.context.config.ppm.length = lengths[len(lengths) // 2]
    items = self.learn(kind, kind)
    self.assertLess(len(items), len(everything))
    self.assertEqual(self.manifest[count], len(items))

  @parameterized.parameters("ppm", "orm")
  def test_nothing_is_held_out_where_nothing_would_be_left(self, kind):
    self.context.config.ppm.held_out = 0
    everything = self.learn(kind, kind)
    self.assertNotIn("held_out", self.manifest)
    self.assertEqual(self.kept_out, 0)
    self.context.config.ppm.held_out = 10
    with mock.patch.object(held_out, "is_held_out", lambda *_: True):
      self.assertCountEqual(self.learn(kind, kind), everything)
    self.assertEmpty([n for n in self.manifest if n.startswith("held_out_")])
    self.assertEqual(self.kept_out, 0)

  def test_the_main_model_is_what_the_config_says(self):
    self.context.config.reward = "orm"
    with mock.patch.object(ppm, "train") as train:
      ppm.train_ppm(self.context, 1)
    train.assert_called_once_with(self.context, 1, "ppm", "orm")

  @parameterized.parameters("orm", "pqm")
  def test_is_trained_and_measured(self, kind):
    policy = self.context.config.policy.path
    with mock.patch.object(models, "policy_of", lambda *_: policy):
      ppm.train(self.context, 1, kind, kind)
    folder = self.context.folder(1, kind)
    manifest = manifests.read(folder)
    self.assertEqual(manifest["kind"], kind)
    self.assertGreater(manifest["items"], 0)
    self.assertGreater(manifest["held_out_final"]["pairs"], 0)
    self.assertNotIn("held_out", manifest)
    self.assertEqual(ppm.kept_out_of(self.context, 1, kind), 10)
    trained, base = folders.load_ppm(folder), folders.load_policy(policy)
    moved = trained.embedding.get_value() - base.embedding.get_value()
    self.assertGreater(float(abs(moved).max()), 0)
    # What is there is not trained again.
    with mock.patch.object(ppm_lib, "train_sides") as train:
      ppm.train(self.context, 1, kind, kind)
    train.assert_not_called()

  def test_no_host_waits_for_a_round_without_pairs(self):
    pairs = self.context.folder(1, "pairs")
    shutil.rmtree(pairs)
    manifests.write(pairs, {}, [])
    barrier = threading.Barrier(2, timeout=60)
    left, real = threading.Event(), shards.wait_until

    class Joined(hosts.Host):
      """One of two hosts, which meet where they agree."""

      met = 0

      def agree(self, value):
        if self.leads:
          Joined.met += 1
          if Joined.met > 1:
            left.set()
        barrier.wait()
        return value

    def wait_until(done, what):
      looks = iter(range(9))

      def look():
        self.assertLess(next(looks), 8, what)
        return done()

      # The second host looks for the rows once the first has left them.
      late = f"{layout.ROWS}/{layout.MANIFEST}" in what
      self.assertTrue(left.wait(60 * late) or not late)
      real(look if late else done, what)

    def run(index):
      context = dataclasses.replace(self.context, host=Joined(index, 2))
      try:
        ppm.train_ppm(context, 1)
      finally:
        left.set()
      return manifests.read(context.folder(1, "ppm"))["pairs"]

    with (
      mock.patch.object(hosts, "_POLL_SECONDS", 0.01),
      mock.patch.object(shards, "wait_until", wait_until),
      concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
      self.assertEqual(list(pool.map(run, (0, 1))), [0, 0])
    self.assertFalse((self.context.folder(1, "ppm") / layout.ROWS).exists())

  def test_updates_of_its_own(self):
    policy = self.context.config.policy.path
    folder = self.context.folder(1, "orm")

    def killed(model, items, config, session, **options):
      self.assertEqual(config.updates, 3)
      # The config of the PPM is as it was.
      self.assertEqual(self.context.config.ppm.updates, 0)
      raise InterruptedError

    def other(updates):
      with self.assertRaisesRegex(ValueError, f"updates=3 and not {updates}"):
        ppm.train(self.context, 1, "orm", "orm", updates=updates)

    with mock.patch.object(models, "policy_of", lambda *_: policy):
      with mock.patch.object(ppm_lib, "train_sides", killed):
        with self.assertRaises(InterruptedError):
          ppm.train(self.context, 1, "orm", "orm", updates=3)
      other(0)  # Its rows are packed.
      ppm.train(self.context, 1, "orm", "orm", updates=3)
    other(4)
    self.assertEqual(manifests.read(folder)["updates"], 3)
    self.assertIn("3", {p.name for p in (folder / "checkpoints").iterdir()})


if __name__ == "__main__":
  absltest.main()
