"""The stage that makes training data; and inputs that are not there."""

import dataclasses
import pickle
import shutil
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.config import schema as config_lib
from rstar_jax.data import pairs, trajectories
from rstar_jax.grading import answers
from rstar_jax.pipeline import extract, ppm, reading, rollout, sft
from rstar_jax.search import tree as tree_lib
from rstar_jax.steps import grammar
from rstar_jax.storage import layout, manifests, records
from tests import tiny_run
from tests.pipeline.cases import ANSWERS, StagesCase, contents, finish


class ExtractTest(StagesCase):
  def test_rows_are_right_and_pairs_rank_them(self):
    context = self.context()
    rollout.rollout(context, 1)
    extract.extract(context, 1)
    rows = reading.read_rows(context.folder(1, "sft"))
    self.assertNotEmpty(rows)
    for row in rows:
      gold = ANSWERS[row["question"]]
      self.assertEqual(answers.final_answer(row["steps"][-1]), gold)
      # The program says what the answer says.
      (result,) = testing.run_trusted([grammar.program(row["steps"])])
      self.assertEqual(result.stdout, gold)
    ranked = reading.read_rows(context.folder(1, "pairs"))
    final = [pair for pair in ranked if pair["kind"] == "final"]
    self.assertNotEmpty(final)
    for pair in final:
      gold = ANSWERS[pair["question"]]
      self.assertEqual(answers.final_answer(pair["chosen"][-1]), gold)
      self.assertNotEqual(answers.final_answer(pair["rejected"][-1]), gold)
    for name, count in (("sft", "rows"), ("pairs", "final")):
      manifest = manifests.read(context.folder(1, name))
      made = rows if name == "sft" else final
      self.assertEqual(manifest[count], len(made))

  @parameterized.parameters((1, 0), (2, 1), (5, 1))
  def test_pools_the_trees_of_so_many_rounds(self, rounds, pooled):
    spec = config_lib.RoundConfig(rollouts=2, candidates=4)
    context = self.context(
      rounds=(spec, spec), extract=config_lib.ExtractConfig(rounds=rounds)
    )
    finish(context, 1, "policy")
    found = []
    for round_ in (1, 2):
      rollout.rollout(context, round_)
      trees = reading.read_trees(context.folder(round_, "trees"))
      found.append(sum(len(tree_lib.trajectories(tree)) for tree in trees))
    extract.extract(context, 2)
    manifest = manifests.read(context.folder(2, "sft"))
    self.assertEqual(manifest["answers"], found[1] + pooled * found[0])

  def test_what_is_not_solved_is_listed(self):
    context = self.context()
    rollout.rollout(context, 1)
    extract.extract(context, 1)
    folder = context.folder(1, "sft")
    files = sorted(folder.glob(f"{layout.UNSOLVED}*"))
    rows = [row for each in files for row in records.read_shard(each)]
    trees = reading.read_trees(context.folder(1, "trees"))
    left = [t.problem.question for t in trees if not tree_lib.solved(t)]
    self.assertIn("never", left)
    self.assertCountEqual([row["question"] for row in rows], left)
    self.assertLen(files, 3)
    listed = manifests.read(folder)["files"]
    self.assertContainsSubset([each.name for each in files], listed)

  def test_files_and_rounds_change_no_row(self):
    # As of all trees together, in memory.
    spec = config_lib.RoundConfig(rollouts=2, candidates=4)
    context = self.context(
      rounds=(spec, spec), extract=config_lib.ExtractConfig(rounds=2)
    )
    finish(context, 1, "policy")
    trees = []
    for round_ in (1, 2):
      rollout.rollout(context, round_)
      trees += reading.read_trees(context.folder(round_, "trees"))
    extract.extract(context, 2)
    config, seed = context.config.extract, context.config.seed
    for name, (found, stats), record in (
      (
        "sft",
        trajectories.sft_rows(trees, config, seed),
        trajectories.from_dict,
      ),
      ("pairs", pairs.pairs(trees, config), pairs.from_dict),
    ):
      folder = context.folder(2, name)
      self.assertEqual(list(map(record, reading.read_rows(folder))), found)
      manifest = manifests.read(folder)
      self.assertEqual(manifest, manifest | stats)
    self.assertNotEmpty(found)

  @parameterized.parameters("sft", "pairs", "unsolved-")
  def test_a_killed_extraction_goes_on(self, name):
    context = self.context()
    rollout.rollout(context, 1)
    extract.extract(context, 1)
    before = contents(context.workdir / "round_1")
    folder = context.folder(1, "pairs" if name == "pairs" else "sft")
    for each in ("sft", "pairs"):
      (context.folder(1, each) / layout.MANIFEST).unlink()
    start = name if name == "unsolved-" else ""
    (folder / (start + records.shard_name(1, 3))).unlink()
    written, writer = set(), records.ShardWriter

    def wrapped(path):
      written.add(path.name)
      return writer(path)

    with mock.patch.object(records, "ShardWriter", wrapped):
      extract.extract(context, 1)
    self.assertEqual(contents(context.workdir / "round_1"), before)
    shard = records.shard_name(1, 3)
    also = [] if name == "pairs" else [f"unsolved-{shard}"]
    self.assertEqual(written, {shard, *also})

  def test_the_same_by_others_in_any_order(self):
    alone = self.context()
    rollout.rollout(alone, 1)
    extract.extract(alone, 1)
    before = contents(alone.workdir / "round_1")
    for each in ("sft", "pairs"):
      shutil.rmtree(alone.folder(1, each))

    class Others:
      def map(self, function, items):
        # As other processes get it.
        sent = pickle.loads(pickle.dumps((function, list(items))))
        for item in reversed(sent[1]):
          yield item, sent[0](item)

    divided = dataclasses.replace(alone, work=Others())
    with mock.patch.object(extract, "_FEW", 0):
      extract.extract(divided, 1)
    self.assertEqual(contents(alone.workdir / "round_1"), before)


class InputsTest(StagesCase):
  @parameterized.parameters(
    (rollout.rollout, 2, "policy", "rstar_jax sft --round=1"),
    (extract.extract, 2, "trees", "rstar_jax rollout --round=2"),
    (sft.train_policy, 1, "sft", "rstar_jax extract --round=1"),
    (ppm.train_ppm, 1, "pairs", "rstar_jax extract --round=1"),
  )
  def test_an_unfinished_input_is_named(self, stage, round_, name, command):
    context = self.context()
    with self.assertRaisesRegex(ValueError, f"{name} is not.*{command} first"):
      stage(context, round_)
    # A shard without a manifest is a stage that was killed.
    where = 1 if name == "policy" else round_
    records.write_shard(
      context.folder(where, name) / records.shard_name(0, 1), []
    )
    with self.assertRaisesRegex(ValueError, command):
      stage(context, round_)

  def test_nothing_solved(self):
    self.problems = tiny_run.write_problems(
      self.folder / "hard.jsonl", {"never": "99"}
    )
    context = self.context()
    rollout.rollout(context, 1)
    extract.extract(context, 1)
    with self.assertRaisesRegex(ValueError, "^round 1 solved no problem.*$"):
      sft.train_policy(context, 1)
    finish(context, 1, "policy")
    with self.assertLogs(level="WARNING") as said:
      ppm.train_ppm(context, 1)
    self.assertIn("round 1 made no preference pairs", said.output[-1])
    manifest = manifests.read(context.folder(1, "ppm"))
    self.assertEqual((manifest["pairs"], manifest["files"]), (0, {}))


if __name__ == "__main__":
  absltest.main()
