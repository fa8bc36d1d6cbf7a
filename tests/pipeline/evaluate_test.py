"""The evaluation of a round, with a scripted policy."""

import dataclasses
import pathlib
import sys
from unittest import mock

from absl.testing import absltest

from rstar_jax.config import schema as config_lib
from rstar_jax.hf import folders
from rstar_jax.pipeline import backends, evaluate, reading
from rstar_jax.search import mcts
from rstar_jax.steps import grammar
from rstar_jax.storage import layout, manifests, records
from rstar_jax.types import Candidate
from tests import tiny_run

# Two additions of 1, 2 or 3 give 2 to 6.
ANSWERS = {"four": "4", "five": "5", "never": "99", "six": "6", "two": "2"}


def never_done(questions, prefixes, seeds):
  """Expands as a policy does that always runs into the token limit."""
  del questions, prefixes
  cut = Candidate(f"{grammar.CODE}\nx = 1", (1, 2, 3), -1.0, "length")
  return [[cut for _ in row] for row in seeds]


class SolvingCase(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    source = tiny_run.write_problems(self.folder / "test.jsonl", ANSWERS)
    self.config = tiny_run.make_config(source, source)
    self.context = tiny_run.make_context(self.config, self.folder / "run")
    self.device = tiny_run.ScriptedBackend.scripted()
    self.enter_context(mock.patch.object(backends, "ModelBackend", self.device))

  def finish(self, round_: int) -> None:
    for name in ("policy", "ppm"):
      manifests.write(self.context.folder(round_, name), {}, [])

  def rows(self, round_: int) -> dict[tuple[str, str], dict]:
    """Returns the records of an evaluation by (source, problem)."""
    rows = reading.read_rows(self.context.folder(round_, "eval"))
    found = {(row["source"], row["problem_id"]): row for row in rows}
    self.assertLen(found, len(rows))
    return found


class EvaluateTest(SolvingCase):
  def test_round_0_has_the_base_model_and_no_search(self):
    evaluate.evaluate(self.context, 0)
    self.assertEqual(self.device.made, [(folders.BASE_MODEL, None)])
    rows = self.rows(0)
    self.assertSameElements(
      rows,
      [
        (source, f"p{i}")
        for source in ("greedy", "samples")
        for i in range(len(ANSWERS))
      ],
    )
    for (source, _), row in rows.items():
      self.assertLen(row["trajectories"], 4 if source == "samples" else 1)
      self.assertEqual(
        row["tokens"], sum(each["tokens"] for each in row["trajectories"])
      )
      for each in row["trajectories"]:
        self.assertIsNone(each["value"])
        right = each["answer"] == row["gold"]
        self.assertEqual(each["verdict"], "equal" if right else "different")

  def test_later_rounds_search_too_and_have_values(self):
    self.finish(2)
    evaluate.evaluate(self.context, 2)
    models = self.context.workdir / "round_2"
    self.assertEqual(self.device.made, [(models / "policy", models / "ppm")])
    rows = self.rows(2)
    self.assertLen(rows, 3 * len(ANSWERS))
    verdicts = set()
    for row in rows.values():
      for each in row["trajectories"]:
        verdicts.add(each["verdict"])
        self.assertBetween(each["value"], -1, 1)
        right = each["answer"] == row["gold"]
        self.assertEqual(each["verdict"], "equal" if right else "different")
    self.assertEqual(verdicts, {"equal", "different"})

  def test_its_accuracy_is_a_metric_once(self):
    self.finish(1)
    written = mock.Mock()
    self.context.writer = mock.Mock(write=written)
    evaluate.evaluate(self.context, 1)
    (last,) = [
      each.args
      for each in written.call_args_list
      if "eval" in each.args[2:]
      and any("pass_at_1" in name for name in each.args[1])
    ]
    step, values, _ = last
    self.assertEqual(step, 1)
    split = layout.folder_name(self.config.eval.data.source)
    self.assertEqual(
      {name.removeprefix(f"{split}/") for name in values},
      {"pass_at_1", "majority", "best_of_n", "search", "pass_at_k"},
    )
    rows = self.rows(1)
    greedy = [
      row["trajectories"][0]["verdict"] == "equal"
      for (source, _), row in rows.items()
      if source == "greedy"
    ]
    self.assertEqual(values[f"{split}/pass_at_1"], sum(greedy) / len(ANSWERS))
    # A finished evaluation is not measured again.
    written.reset_mock()
    evaluate.evaluate(self.context, 1)
    written.assert_not_called()

  def test_the_search_does_not_see_the_answers(self):
    self.finish(2)
    evaluate.evaluate(self.context, 2)
    folder = self.context.folder(2, "eval")
    paths = sorted(folder.glob("**/trees-shard-*"))
    self.assertNotEmpty(paths)
    for row in (row for path in paths for row in records.read_shard(path)):
      for terminal, reward, ppm in zip(
        *(row["nodes"][k] for k in ("terminal", "reward", "ppm")), strict=True
      ):
        if terminal == 1:
          self.assertEqual(reward, ppm)

  def test_early_rounds_are_measured_in_full_on_some_problems(self):
    self.config.eval.early_problems = 2
    self.finish(1)
    self.finish(2)
    evaluate.evaluate(self.context, 1)
    evaluate.evaluate(self.context, 2)
    for round_, count in ((1, 2), (2, len(ANSWERS))):
      sources = [source for source, _ in self.rows(round_)]
      self.assertEqual(sources.count("greedy"), len(ANSWERS))
      self.assertEqual(sources.count("samples"), count)
      self.assertEqual(sources.count("mcts"), count)

  def test_a_search_of_the_user_s_gets_whole_shards(self):
    self.finish(1)
    evaluate.evaluate(self.context, 1)
    wanted = reading.read_rows(self.context.folder(1, "eval"))
    asked = []

    def own_search(problems, config, calls, seed, name):
      asked.append([each.question for each in problems])
      config = dataclasses.replace(config, method="mcts")
      return mcts.search(problems, config, calls, seed, name=name)

    main = sys.modules["__main__"]
    main.own_search = own_search
    self.addCleanup(delattr, main, "own_search")
    self.config.eval.search.method = "__main__:own_search"
    self.context.workdir = self.folder / "own"
    self.finish(1)
    evaluate.evaluate(self.context, 1)
    self.assertEqual(asked, [["four", "five", "never"], ["six", "two"]])
    self.assertEqual(reading.read_rows(self.context.folder(1, "eval")), wanted)

  def test_more_splits(self):
    more = tiny_run.write_problems(self.folder / "more.jsonl", {"two": "2"})
    self.config.eval.more = (config_lib.DataConfig(source=more),)
    evaluate.evaluate(self.context, 0)
    rows = reading.read_rows(self.context.folder(0, "eval"))
    self.assertEqual(
      {row["split"] for row in rows}, {self.config.eval.data.source, more}
    )

  def test_what_is_damaged_is_made_again(self):
    self.finish(1)
    evaluate.evaluate(self.context, 1)
    folder = self.context.folder(1, "eval")

    def contents():
      files = (each for each in folder.rglob("*") if each.is_file())
      return {str(each): each.read_bytes() for each in files}

    before = contents()
    shards = [path for path in sorted(before) if "shard-00001" in path]
    self.assertLen(shards, 2)  # The records and the trees.
    for path in shards:
      data = bytearray(before[path])
      data[len(data) // 3] ^= 1
      pathlib.Path(path).write_bytes(data)
      self.device.expanded.clear()
      evaluate.evaluate(self.context, 1)
      self.assertEqual(contents(), before)
      # The second shard's problems, and no others.
      self.assertEqual(
        {question for call in self.device.expanded for question in call},
        {"six", "two"},
      )


if __name__ == "__main__":
  absltest.main()
