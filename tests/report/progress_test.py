"""A run's folder as it is at several moments, and what is read of each."""

import dataclasses
import json
import os
import pathlib
import re
import time

from absl.testing import absltest, parameterized

from rstar_jax.config import schema as config_lib
from rstar_jax.pipeline import checks
from rstar_jax.pipeline import run as evolve
from rstar_jax.report import progress, status
from rstar_jax.storage import layout, manifests, metrics, records


class RunTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir().full_path)
    self.clock = 1e9

  def begin(self, **changes) -> None:
    """Writes a config of two rounds."""
    config = config_lib.Config(
      rounds=(
        config_lib.RoundConfig(rollouts=2, candidates=4),
        config_lib.RoundConfig(rollouts=3, candidates=8, extra_rollouts=(2,)),
      ),
      eval=config_lib.EvalConfig(
        data=config_lib.DataConfig(source="synthetic:test", count=50),
        early_problems=10,
      ),
    )
    config = dataclasses.replace(config, **changes)
    checks.check_workdir(config, self.workdir)

  def shards(self, name: str, done: int, total: int) -> None:
    for index in range(done):
      path = self.workdir / name / records.shard_name(index, total)
      records.write_shard(path, [{"a": 1}])

  def finish(self, name: str, **info) -> None:
    folder = self.workdir / name
    folder.mkdir(parents=True, exist_ok=True)
    manifests.write(folder, info)

  def finish_round(self, number: int) -> None:
    for name in ("trees", "eval"):
      self.shards(f"round_{number}/{name}", 2, 2)
    for name in ("trees", "sft", "policy", "ppm", "eval"):
      self.finish(f"round_{number}/{name}")
    self.finish(f"round_{number}/pairs", step=30, final=10)

  def measure(self, *lines, pause: float = 0.0, host: str = "") -> None:
    """A process writes lines, (seconds that it took, step, its name)."""
    folder = self.workdir / host
    folder.mkdir(exist_ok=True)
    self.clock += pause
    elapsed = 0.0
    with (folder / "metrics.jsonl").open("a") as file:
      for seconds, step, name, *values in lines:
        self.clock += seconds
        elapsed += seconds
        row = {"step": step, f"{name}/loss": 0.5} | dict(*values)
        times = {"time": self.clock, "elapsed": elapsed}
        file.write(json.dumps(row | times) + "\n")

  def of(self, number: int, name: str) -> progress.Stage:
    (found,) = [
      each
      for each in progress.look(self.workdir).stages
      if (each.round, each.name) == (number, name)
    ]
    return found


class ProgressTest(RunTest):
  def test_stages_are_those_that_are_run(self):
    self.assertSequenceEqual(list(layout.STAGES), list(evolve.STAGES))
    self.begin()
    found = progress.look(self.workdir)
    self.assertEqual(
      [(each.round, each.name) for each in found.stages],
      [(0, "evaluate")]
      + [(number, name) for number in (1, 2) for name in evolve.STAGES],
    )
    self.assertEqual({each.state for each in found.stages}, {"left"})
    self.assertIn("time left: unknown", status.render(found))

  def test_a_round_of_given_data_has_no_search(self):
    given = config_lib.ExtractConfig(sft_source="a", pairs_source="b")
    self.begin(extract=given)
    names = [each.name for each in progress.look(self.workdir).stages]
    self.assertNotIn("rollout", names)

  def test_turns_of_reinforcement(self):
    first = config_lib.RoundConfig(algorithm="grpo", rollout="samples")
    self.begin(rounds=(config_lib.RoundConfig(), first, first))
    names = [
      each.name
      for each in progress.look(self.workdir).stages
      if each.round == 2
    ]
    # The policy is trained with the trees.
    self.assertEqual(names, ["rollout", "extract", "ppm", "evaluate"])
    self.finish_round(1)
    rollout = self.of(2, "rollout")
    self.assertEqual(
      (rollout.state, rollout.done, rollout.of), ("left", 0, 100)
    )
    for turn in range(3):
      self.shards(f"round_2/trees/turn-{turn:05d}", 1, 2)
      if turn < 2:
        self.finish(f"round_2/trees/turn-{turn:05d}")
    self.measure(
      (10.0, 1, "round_1_sft"),
      (30.0, 1, "round_2_rollout"),
      (10.0, 2, "round_2_reinforce"),
    )
    rollout = self.of(2, "rollout")
    self.assertEqual(
      (rollout.state, rollout.done, rollout.begun), ("begun", 2, 1)
    )
    self.assertEqual(rollout.seconds, 40.0)
    self.assertAlmostEqual(rollout.left, 40.0 * 98 / 2)
    text = status.render(progress.look(self.workdir))
    self.assertIn("| 2/100 turns (1 begun) |", text)
    # Its shards are counted in turns, so that a search tells nothing of it.
    self.finish("round_2/trees")
    self.assertEqual(self.of(2, "rollout").state, "begun")
    self.finish("round_2/policy")
    self.assertEqual(self.of(2, "rollout").state, "done")
    self.assertEqual(self.of(3, "rollout").left, 40.0)

  def test_counts_of_what_is_begun(self):
    self.begin()
    self.shards("round_1/trees", 3, 8)
    self.shards("round_1/eval/a", 1, 2)
    self.shards("round_1/eval/b", 0, 5)
    for name in ("trees-shard-00000-of-00002.jsonl", ".shard-00001.tmp"):
      (self.workdir / "round_1/eval/a" / name).touch()
    rollout, evaluation = self.of(1, "rollout"), self.of(1, "evaluate")
    self.assertEqual((rollout.done, rollout.of), (3, 8))
    self.assertEqual((evaluation.done, evaluation.of), (1, 2))
    self.assertEqual((rollout.state, evaluation.state), ("begun", "begun"))
    self.assertIn("| 3/8 shards |", status.render(progress.look(self.workdir)))

  def test_shards_of_several_splits(self):
    more = config_lib.DataConfig(source="synthetic:train", count=50)
    self.begin(eval=config_lib.EvalConfig(more=(more,)))
    self.finish("round_0/eval")
    self.finish_round(1)
    self.measure((30.0, 1, "eval"))
    self.shards("round_2/eval/a", 2, 2)
    self.shards("round_2/study/ppm/mcts/a", 1, 1)
    self.measure((10.0, 2, "eval"))
    # The other split is not begun: as long as in the last round.
    found = self.of(2, "evaluate")
    self.assertEqual((found.done, found.of, found.left), (2, None, 20.0))
    said = status.render(progress.look(self.workdir))
    self.assertIn("| 2/? shards |", said)
    self.assertIn("1/? shards of round_2/ppm/mcts", said)
    # Splits are of test problems; these are of the training set.
    self.shards(f"round_2/study/ppm/{layout.VALUES}/round_1/trees", 1, 3)
    said = status.render(progress.look(self.workdir))
    self.assertIn(f"1/3 shards of round_2/ppm/{layout.VALUES}", said)
    self.shards("round_2/eval/b", 1, 3)
    self.shards("round_2/study/ppm/mcts/b", 1, 3)
    found = self.of(2, "evaluate")
    self.assertEqual((found.done, found.of), (3, 5))
    self.assertAlmostEqual(found.left, 10.0 * 2 / 3)
    said = status.render(progress.look(self.workdir))
    self.assertIn("2/4 shards of round_2/ppm/mcts", said)

  def test_shards_of_which_some_problems_are_there(self):
    self.begin()
    folder = self.workdir / "round_1/trees"
    folder.mkdir(parents=True)
    # Two processes began the one, the other is in a bucket; of the third the
    # journal was not removed.
    for name in (
      "1-of-00008-ab12",
      "1-of-00008-cd",
      "2-of-00008-e",
      "0-of-00008-f",
    ):
      (folder / f"begun-shard-0000{name}.jsonl").touch()
    (folder / "begun-shard-00002-of-00008-e.jsonl.00001").touch()
    found = self.of(1, "rollout")
    self.assertEqual(
      (found.state, found.done, found.begun, found.of), ("begun", 0, 3, 8)
    )
    self.shards("round_1/trees", 1, 8)
    found = progress.look(self.workdir)
    self.assertIn("| 1/8 shards (2 begun) |", status.render(found))
    self.assertEqual(
      status.kept(found), "round 1 1/8 shards (2 begun) of rollout"
    )

  def test_who_is_at_work(self):
    self.begin()
    self.shards("round_1/trees", 1, 4000)
    now = time.time()
    # Host 0 has two journals of a shard, since it was started again; that of
    # host 7 was not removed. One is of a version that did not name its host.
    for name, age in (
      ("round_1/trees/begun-shard-00001-of-04000-0-ab12.jsonl", 4000),
      ("round_1/trees/begun-shard-00001-of-04000-0-cd34.jsonl", 50),
      ("round_1/trees/begun-shard-00002-of-04000-3-ef.jsonl", 7200),
      ("round_1/trees/begun-shard-00003-of-04000-3-ab.jsonl", 8000),
      ("round_1/trees/begun-shard-00000-of-04000-7-ab.jsonl", 1),
      ("round_1/eval/a/begun-shard-00000-of-00002-ab.jsonl", 20),
      # A clock may be late.
      ("round_1/eval/a/begun-shard-00001-of-00002-12-ab.jsonl.00003", -30),
      (
        "round_1/study/ppm/held_out/round_1/trees/"
        "begun-shard-00002-of-00009-15-ab.jsonl",
        40,
      ),
    ):
      path = self.workdir / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.touch()
      os.utime(path, (now - age, now - age))
    found = progress.look(self.workdir)
    self.assertEqual(
      [(each.host, each.shards, round(each.age, -1)) for each in found.at_work],
      [(0, 2, 20), (3, 2, 7200), (12, 1, 0), (15, 1, 40)],
    )
    self.assertRegex(
      status.render(found),
      r"\nsearching: 4 hosts, on 6 shards, the last problem was done 0 s ago; "
      r"silent since long: host 3 2 h.*\n",
    )

  def test_a_training_is_at_what_it_saved(self):
    self.begin()
    self.assertEqual(self.of(1, "sft").state, "left")
    updates = {"round_1_sft/updates": 60.0}
    self.measure((5.0, 1, "round_1_sft", updates))
    self.measure((20.0, 40, "round_1_sft", updates))
    for name in ("30", "tmp.40"):
      folder = self.workdir / "round_1/policy/checkpoints" / name
      folder.mkdir(parents=True)
      (folder / "state").touch()
    found = self.of(1, "sft")
    self.assertEqual((found.state, found.done, found.of), ("begun", 30, 60))
    self.assertEqual((found.seconds, found.left), (25.0, 25.0))
    kept = status.kept(progress.look(self.workdir))
    self.assertEqual(kept, "round 1 30/60 updates of sft")

  def test_what_is_damaged_is_not_done(self):
    self.begin()
    self.shards("round_1/trees", 2, 2)
    self.finish("round_1/trees")
    self.assertEqual(self.of(1, "rollout").state, "done")
    path = self.workdir / "round_1/trees" / records.shard_name(0, 2)
    data = path.read_bytes()
    path.write_bytes(data + b" ")
    self.assertEqual(self.of(1, "rollout").state, "begun")
    path.unlink()
    self.assertEqual(self.of(1, "rollout").state, "begun")
    path.write_bytes(data)
    self.assertEqual(self.of(1, "rollout").state, "done")
    path = self.workdir / "round_1/trees" / layout.MANIFEST
    for text in ("", "{", "[]", "{}"):
      path.write_text(text)
      self.assertEqual(self.of(1, "rollout").state, "begun")

  def test_metrics_of_nonsense_are_left_out(self):
    self.begin()
    self.measure((5.0, 1, "round_1_sft"))
    before = status.render(progress.look(self.workdir))
    nonsense = [
      *('{"step": 1, "time": "x", "elapsed": 1}', "[" * 99999, "3", "{"),
      *('{"step": 1, "time": 1}', '{"step": null, "time": 1, "elapsed": 1}'),
      '{"step": 1, "time": 1, "elapsed": 1, "round_1_sft/updates": []}',
      "{}" * 99,
    ]
    with (self.workdir / "metrics.jsonl").open("a") as file:
      file.write("".join(f"{line}\n" for line in nonsense))
    after = status.render(progress.look(self.workdir))
    ago = re.compile(r"last wrote .* ago")
    self.assertEqual(ago.sub("", after), ago.sub("", before))

  @parameterized.parameters(
    *('{"a": 1}', '{"extract": 3, "rounds": 4}', '{"a"'),
    '{"extract": {"sft_source": ""}, "rounds": ["a"]}',
  )
  def test_a_config_of_nonsense(self, text):
    (self.workdir / "config.json").write_text(text)
    with self.assertRaisesRegex(ValueError, "config.json is not the config"):
      progress.look(self.workdir)

  def test_a_config_says_what_it_lacks(self):
    (self.workdir / "config.json").write_text('{"seed": 3}')
    with self.assertRaisesRegex(ValueError, r"a run \(it lacks 'extract'\): "):
      progress.look(self.workdir)

  def test_time_of_a_stage_leaves_pauses_out(self):
    self.begin()
    self.measure((9.0, 0, "eval"), (10.0, 1, "rollout"), (20.0, 1, "rollout"))
    self.measure((7.0, 1, "rollout"), (2.0, 1, "sft"), pause=5000.0)
    with (self.workdir / "metrics.jsonl").open("a") as file:
      file.write('{"step": 1, "rollout/sec')
    self.assertEqual(self.of(0, "evaluate").seconds, 9.0)
    self.assertEqual(self.of(1, "rollout").seconds, 37.0)
    self.assertEqual(self.of(1, "extract").seconds, 2.0)
    self.assertIsNone(self.of(1, "ppm").seconds)

  def test_time_left_from_earlier_rounds(self):
    self.begin()
    self.finish("round_0/eval")
    self.finish_round(1)
    lines = [(40.0, 1, "rollout"), (3.0, 1, "sft"), (6.0, 1, "round_1_sft")]
    lines += [(12.0, 1, "round_1_ppm"), (30.0, 1, "eval")]
    self.measure(*lines)
    left = {
      each.name: each.left
      for each in progress.look(self.workdir).stages
      if each.round == 2
    }
    # Rollouts times candidates: 8 then, (3 + half of 2) * 8 now.
    self.assertEqual(left["rollout"], 40.0 * 32 / 8)
    # All 50 problems in the last round, 10 before.
    self.assertEqual(left["evaluate"], 30.0 * 5)
    self.assertEqual((left["extract"], left["sft"]), (3.0, 6.0))
    self.assertEqual(left["ppm"], 12.0)
    self.assertEqual(
      progress.look(self.workdir).left, 160.0 + 3.0 + 6.0 + 12.0 + 150.0
    )
    # By its own pace as soon as it has one, and by the pairs that there are.
    self.shards("round_2/trees", 1, 4)
    self.finish("round_2/pairs", step=100, final=20)
    self.measure((50.0, 2, "rollout"))
    self.assertEqual(self.of(2, "rollout").left, 150.0)
    self.assertEqual(self.of(2, "ppm").left, 36.0)

  def test_who_wrote_last(self):
    self.begin()
    self.clock = time.time() - 90
    self.measure((1.0, 1, "rollout"))
    self.measure((30.0, 1, "rollout"), host="host_1")
    found = progress.look(self.workdir)
    self.assertSequenceEqual(list(found.last), [0, 1])
    self.assertBetween(found.last[0]["age"], 89, 89 + 60)
    self.assertBetween(found.last[1]["age"], 59, 59 + 60)
    text = status.render(found)
    self.assertRegex(text, r"host 1 last wrote .* ago: step 1, rollout/loss")
    json.dumps(dataclasses.asdict(found), allow_nan=False)

  def test_what_a_writer_writes_is_understood(self):
    self.begin()
    with metrics.MetricsWriter(self.workdir) as writer:
      writer.write(1, {"solved": 0.5}, "rollout")
    self.assertBetween(self.of(1, "rollout").seconds, 0, 60)
    self.assertLess(progress.look(self.workdir).last[0]["age"], 600)


if __name__ == "__main__":
  absltest.main()
