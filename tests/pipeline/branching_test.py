"""A run that goes on from another: what is shared, and what is made anew."""

import json
import operator
import pathlib
from unittest import mock

from absl.testing import absltest

from rstar_jax.config import schema as config_lib
from rstar_jax.pipeline import (
  backends,
  branching,
  checks,
  extract,
  reading,
  rollout,
)
from rstar_jax.storage import layout, manifests
from tests import tiny_run

ANSWERS = {f"make {i}": str(2 + i % 5) for i in range(7)}


def files(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file() and not path.name.startswith(layout.VERIFIED)
  }


class BranchingTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.source = tiny_run.write_problems(self.folder / "train.jsonl", ANSWERS)
    self.device = tiny_run.ScriptedBackend.scripted()
    self.enter_context(mock.patch.object(backends, "ModelBackend", self.device))

  def context(self, name, **changes):
    spec = config_lib.RoundConfig(rollouts=9, candidates=4)
    config = tiny_run.make_config(self.source, self.source, rounds=(spec, spec))
    for key, value in changes.items():
      setattr(config.extract, key, value)
    context = tiny_run.make_context(config, self.folder / name)
    checks.check_workdir(config, context.workdir)
    return context

  def first(self):
    context = self.context("first")
    rollout.rollout(context, 1)
    extract.extract(context, 1)
    for name in ("policy", "ppm"):
      folder = context.folder(1, name)
      (folder / "checkpoints").mkdir(parents=True)
      (folder / "checkpoints" / "big").write_text("of no use elsewhere")
      (folder / "weights").write_text(name)
      manifests.write(folder, {}, ["weights"])
    rollout.rollout(context, 2)
    extract.extract(context, 2)
    return context

  def test_one_choice_is_changed_and_the_rest_shared(self):
    first = self.first()
    second = self.context("second", sft_per_problem=1)
    said = branching.branch(second, first.workdir, 2)
    self.assertIn("config.extract.sft_per_problem was 2 and is 1", said)
    self.device.made.clear()
    for round_ in (1, 2):
      rollout.rollout(second, round_)
      extract.extract(second, round_)
    self.assertEmpty(self.device.made)
    counts = [
      [
        len(reading.read_rows(context.folder(round_, "sft")))
        for context in (first, second)
      ]
      for round_ in (1, 2)
    ]
    self.assertEqual(*counts[0])
    self.assertGreater(*counts[1])
    self.assertFalse((second.folder(1, "policy") / "checkpoints").exists())
    note = json.loads((second.workdir / layout.BRANCH).read_text())
    self.assertEqual(note["round"], 2)
    self.assertCountEqual(
      note["taken"],
      [
        *(f"round_1/{n}" for n in ("trees", "sft", "pairs", "policy", "ppm")),
        "round_2/trees",
      ],
    )

  def test_a_search_is_changed_and_the_rounds_before_shared(self):
    first = self.first()
    second = self.context("second")
    second.config.search.selection = "puct"
    (second.workdir / "config.json").unlink()
    checks.check_workdir(second.config, second.workdir)
    second.config.search.rollouts = 4  # That of rounds counts.
    with self.assertRaisesRegex(
      ValueError, "^config.search.rollouts=4 does no"
    ):
      branching.branch(second, first.workdir, 2, "rollout")
    self.assertFalse((second.workdir / layout.BRANCH).exists())
    second.config.search.rollouts = 16
    said = branching.branch(second, first.workdir, 2, "rollout")
    self.assertIn("config.search.selection was 'uct' and is 'puct'", said)
    note = json.loads((second.workdir / layout.BRANCH).read_text())
    self.assertCountEqual(
      note["taken"],
      [f"round_1/{n}" for n in ("trees", "sft", "pairs", "policy", "ppm")],
    )
    self.device.made.clear()
    rollout.rollout(second, 1)
    self.assertEmpty(self.device.made)
    rollout.rollout(second, 2)
    self.assertLen(self.device.made, 1)

  def test_a_round_is_evaluated_in_another_way(self):
    first = self.first()
    for name in ("policy", "ppm"):
      first.folder(2, name).mkdir()
      (first.folder(2, name) / "weights").write_text(f"{name} of round 2")
      manifests.write(first.folder(2, name), {}, ["weights"])
    manifests.write(first.folder(2, "eval"), {}, [])
    for at, taken in (
      ("sft", ("trees", "sft", "pairs")),
      ("ppm", ("trees", "sft", "pairs", "policy")),
      ("evaluate", ("trees", "sft", "pairs", "policy", "ppm")),
    ):
      second = self.context(at)
      branching.branch(second, first.workdir, 2, at)
      round_ = second.workdir / "round_2"
      there = [each.name for each in round_.iterdir() if each.is_dir()]
      self.assertCountEqual(there, taken)
    self.assertEqual((round_ / "ppm" / "weights").read_text(), "ppm of round 2")
    (first.folder(2, "ppm") / layout.MANIFEST).unlink()
    with self.assertRaisesRegex(ValueError, "round_2/ppm is not finished"):
      branching.branch(self.context("none"), first.workdir, 2, "evaluate")

  def test_a_policy_that_was_trained_with_the_trees_comes_with_them(self):
    first = self.first()
    manifests.write(first.folder(2, "policy"), {}, [])
    grpo = config_lib.RoundConfig(rollout="samples", algorithm="grpo")

    def rounds(name, *specs):
      context = self.context(name)
      context.config.rounds = specs
      (context.workdir / "config.json").unlink()
      checks.check_workdir(context.config, context.workdir)
      return context

    theirs, spec = first.config.rounds[:1], first.config.rounds[0]
    first.config.rounds = (*theirs, grpo)
    (first.workdir / "config.json").unlink()
    checks.check_workdir(first.config, first.workdir)
    second = rounds("second", spec, grpo)
    branching.branch(second, first.workdir, 2)
    for name in ("trees", "policy"):
      self.assertIsNotNone(manifests.read(second.folder(2, name)))
    whole = rounds("whole", spec, grpo)
    branching.branch(whole, first.workdir, 2, "ppm")
    self.assertTrue(whole.folder(2, "policy").exists())
    # Trees alone are enough to fine-tune on.
    third = rounds("third", spec, spec)
    branching.branch(third, first.workdir, 2)
    self.assertFalse(third.folder(2, "policy").exists())
    fourth = rounds("fourth", spec, spec)
    with self.assertRaisesRegex(ValueError, "algorithm='sft', but the policy"):
      branching.branch(fourth, first.workdir, 2, "ppm")
    tree = rounds("tree", spec, config_lib.RoundConfig(algorithm="tree"))
    with self.assertRaisesRegex(ValueError, "was trained by 'grpo': branch at"):
      branching.branch(tree, first.workdir, 2)
    self.assertFalse(tree.folder(2, "trees").exists())
    branching.branch(tree, first.workdir, 2, "rollout")
    self.assertIsNotNone(manifests.read(tree.folder(1, "trees")))
    self.assertFalse(tree.folder(2, "trees").exists())

  def test_an_evaluation_of_another_kind_is_not_shared(self):
    first = self.first()
    manifests.write(first.folder(1, "eval"), {}, [])
    for name, value, shared in (
      ("eval.samples", 4, True),
      ("eval.samples", 5, False),
      ("sft.epochs", 9, True),
      ("shard_size", 4, False),
      ("task", "code", False),
      ("search_mesh.tensor", 2, False),
      ("servers.policy", "http://a/v1", False),
      ("sandbox.wall_seconds", 7.0, False),
      ("sandbox.workers", 3, True),
      ("grader.percent_is_ratio", True, False),
    ):
      with self.subTest(name, value=value):
        second = self.context(f"{name} {value}")
        owner, _, field = name.rpartition(".")
        holder = operator.attrgetter(owner) if owner else lambda each: each
        setattr(holder(second.config), field, value)
        (second.workdir / "config.json").unlink()
        checks.check_workdir(second.config, second.workdir)
        branching.branch(second, first.workdir, 2)
        self.assertEqual(second.folder(1, "eval").exists(), shared)
        self.assertTrue(second.folder(1, "policy").exists())

  def test_of_a_run_from_before_a_field_was_there(self):
    first = self.first()
    manifests.write(first.folder(1, "eval"), {}, [])
    path = first.workdir / "config.json"
    config = json.loads(path.read_text())
    del config["eval"]["top_k"], config["sft_from"]
    path.write_text(json.dumps(config))
    second = self.context("second")
    said = branching.branch(second, first.workdir, 2)
    self.assertIn("no change", said)
    self.assertTrue(second.folder(1, "eval").exists())

  def test_neither_run_can_touch_the_other(self):
    first = self.first()
    second = self.context("second")
    branching.branch(second, first.workdir, 2)
    before = {p: p.read_bytes() for p in first.workdir.rglob("*.jsonl")}
    weights = first.folder(1, "policy") / "weights"
    (second.folder(1, "policy") / "weights").write_text("written in place")
    self.assertEqual(weights.read_text(), "policy")
    # A stage that is made again writes new files and leaves the old ones.
    for path in second.folder(1, "trees").iterdir():
      path.unlink()
    rollout.rollout(second, 1)
    self.assertEqual(
      before, {p: p.read_bytes() for p in first.workdir.rglob("*.jsonl")}
    )

  def test_what_cannot_be(self):
    first = self.first()
    with self.assertRaisesRegex(ValueError, "round_3/trees is not finished"):
      branching.branch(self.context("second"), first.workdir, 3)
    with self.assertRaisesRegex(ValueError, "rounds of its own"):
      branching.branch(first, first.workdir, 1)
    second = self.context("third")
    branching.branch(second, first.workdir, 1)
    with self.assertRaisesRegex(ValueError, "began otherwise"):
      branching.branch(second, first.workdir, 2)

  def test_one_that_was_killed_goes_on(self):
    first = self.first()
    whole = self.context("whole")
    said = branching.branch(whole, first.workdir, 2)
    link, total = branching._link, len(files(whole.workdir))
    for kill in range(0, total - 2, 5):
      second = self.context(f"killed at {kill}")
      left = [None] * kill

      def take(source, target, left=left):
        if not left:
          # A part of it is there.
          target.parent.mkdir(parents=True, exist_ok=True)
          target.write_text("cut")
          raise KeyboardInterrupt
        left.pop()
        link(source, target)

      with (
        mock.patch.object(branching, "_link", take),
        self.assertRaises(KeyboardInterrupt),
      ):
        branching.branch(second, first.workdir, 2)
      again = branching.branch(second, first.workdir, 2)
      self.assertEqual(
        again.partition(" goes ")[2], said.partition(" goes ")[2]
      )
      self.assertEqual(files(second.workdir), files(whole.workdir))


if __name__ == "__main__":
  absltest.main()
