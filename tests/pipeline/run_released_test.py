"""A round of evolution on data of the released form: no search, real training.

The rows are ours, in the form of the released ones, failed code included.
"""

import json
import pathlib
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest
from safetensors import numpy as safetensors

from rstar_jax.config import schema as config_lib
from rstar_jax.data.rows import ProblemError
from rstar_jax.evaluation import results_tables
from rstar_jax.pipeline import backends, checks, extract, reading, rollout, run
from rstar_jax.steps import prompts
from rstar_jax.storage import json_io, layout, manifests, records
from tests import tiny_run

STEP = "<code>\n# Apples\na = {n}\n<end_of_step>"
LAST = "\n\n# Now print the final answer\nprint({n})\n<end_of_code>"
SOLUTION = (
  STEP + LAST + "\n<output>{n}<end_of_output>\n"
  "<answer>There are \\boxed{{{n}}}.\n<end_of_answer>"
)
FAILED = (
  "<code>\n a = {n}\n<end_of_step><end_of_code><output>IndentationError: "
  "unexpected indent (<unknown>, line 2)<end_of_output>"
)
COUNTS = {"pos_count": 2, "neg_count": 2}


def solutions() -> list[dict]:
  """Returns 7 rows of the form of rstar_sft, the fourth without an answer."""
  rows = [
    {"query": f"How many are {n}?", "response": SOLUTION.format(n=n)}
    for n in range(7)
  ]
  rows[3]["response"] = STEP.format(n=3)
  return rows


def pairs() -> list[dict]:
  """Returns 24 rows of the form of rstar_ppm, of 12 questions."""
  rows = []
  for n in range(12):
    head, assistant = prompts.prompt(f"How many are {n}?").split("\n<|ass")
    assistant = "\n<|ass" + assistant
    rows += [
      {
        "prompt": head + assistant + STEP.format(n=n),
        "pos": LAST.format(n=n),
        "neg": LAST.format(n=n + 1),
        **COUNTS,
      },
      {
        "prompt": head + "\n Let's write a program.",
        "pos": assistant + SOLUTION.format(n=n),
        "neg": assistant + FAILED.format(n=n),
        **COUNTS,
      },
    ]
  return rows


def write(path: pathlib.Path, rows: list[dict]) -> str:
  path.write_text(json.dumps(rows, indent=4))
  return str(path)


class ReleasedRunTest(absltest.TestCase):
  """One run of one round, looked at by all."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    config = tiny_run.make_config(
      "none.jsonl",
      tiny_run.write_problems(folder / "test.jsonl", {"four": "4"}),
      rounds=(config_lib.RoundConfig(),),
      policy=config_lib.PolicyConfig(path=tiny_run.make_base(folder / "base")),
      extract=config_lib.ExtractConfig(
        sft_source=write(folder / "sft.json", solutions()),
        pairs_source=write(folder / "ppm.json", pairs()),
      ),
    )
    config.ppm.batch_size = 8
    cls.context = tiny_run.make_context(config, folder / "run")
    device = tiny_run.ScriptedBackend.scripted()
    cls.enterClassContext(mock.patch.object(backends, "ModelBackend", device))
    cls.enterClassContext(mock.patch.object(extract, "_SHARD_ROWS", 4))
    checks.check_data(config)
    cls.results = run.evolve(cls.context)

  def manifest(self, name: str) -> dict:
    return manifests.read(self.context.folder(1, name))

  def test_nothing_is_searched(self):
    self.assertFalse(self.context.folder(1, "trees").exists())
    self.assertEmpty(self.results["solved"])
    self.assertIn("\n| 1 ", results_tables.markdown(self.results))

  def test_rows_are_those_of_the_file_but_for_the_skipped(self):
    manifest = self.manifest("sft")
    self.assertEqual(
      (manifest["rows"], manifest["skipped"], manifest["reasons"]),
      (6, 1, {"'response' has no boxed answer": 1}),
    )
    self.assertEqual(
      list(manifest["files"]),
      ["shard-00000-of-00002.jsonl.zst", "shard-00001-of-00002.jsonl.zst"],
    )
    rows = reading.read_rows(self.context.folder(1, "sft"))
    given = solutions()
    del given[3]
    self.assertEqual(
      [(row["question"], "".join(row["steps"])) for row in rows],
      [(row["query"], row["response"]) for row in given],
    )
    self.assertEqual([row["answer"] for row in rows], list("012456"))

  def test_both_models_are_trained_on_them(self):
    self.assertEqual(self.manifest("policy")["solutions"], 6)
    ppm = self.manifest("ppm")
    held_out = [
      ppm[f"held_out_{kind}"]["pairs"]
      for kind in ("step", "final")
      if f"held_out_{kind}" in ppm
    ]
    self.assertEqual(ppm["pairs"] + sum(held_out), 24)
    # Both pairs of a question are on the same side.
    self.assertLen(set(held_out), 1)
    base, policy, head = (
      safetensors.load_file(folder / "model.safetensors")
      for folder in (
        pathlib.Path(self.context.config.policy.path),
        self.context.folder(1, "policy"),
        self.context.folder(1, "ppm"),
      )
    )
    for old, new in ((base, policy), (policy, head)):
      shared = old.keys() & new.keys()
      self.assertGreater(len(shared), 5)
      moved = max(np.abs(old[name] - new[name]).max() for name in shared)
      self.assertBetween(moved, 1e-5, 1e-2)

  def test_it_resumes_to_the_same_bytes(self):
    folder = self.context.folder(1, "pairs")
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    self.assertLen(before, 24 // 4 + 1)
    (folder / layout.MANIFEST).unlink()
    (folder / records.shard_name(1, 6)).rename(folder / "part-00001")
    extract.extract(self.context, 1)
    after = {each.name: each.read_bytes() for each in folder.iterdir()}
    self.assertEqual(after, before)


class OneSourceTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.problems = tiny_run.write_problems(
      self.folder / "train.jsonl", {"four": "4", "five": "5"}
    )

  def config(self, **extract) -> config_lib.Config:
    return tiny_run.make_config(
      self.problems,
      self.problems,
      extract=config_lib.ExtractConfig(**extract),
    )

  def test_the_rest_is_taken_from_trees(self):
    source = write(self.folder / "sft.json", solutions())
    context = tiny_run.make_context(
      self.config(sft_source=source), self.folder / "run"
    )
    with self.assertRaisesRegex(ValueError, "trees is not finished"):
      extract.extract(context, 1)
    device = tiny_run.ScriptedBackend.scripted()
    with mock.patch.object(backends, "ModelBackend", device):
      rollout.rollout(context, 1)
    extract.extract(context, 1)
    questions = [
      {row["question"] for row in reading.read_rows(context.folder(1, name))}
      for name in ("sft", "pairs")
    ]
    self.assertContainsSubset({"How many are 0?"}, questions[0])
    self.assertContainsSubset(questions[1], {"four", "five"})

  def test_rows_of_an_evaluation_set_are_left_out(self):
    config = tiny_run.make_config(
      "none.jsonl",
      tiny_run.write_problems(
        self.folder / "test.jsonl",
        {"how many are 2": "9", "How many are 5?": "9"},
      ),
      extract=config_lib.ExtractConfig(
        sft_source=write(self.folder / "sft.json", solutions()),
        pairs_source=write(self.folder / "ppm.json", pairs()),
      ),
    )
    config.decontaminate.ngram = 13
    context = tiny_run.make_context(config, self.folder / "run")
    json_io.write(context.workdir / layout.DECONTAMINATION, {"ngram": 13})
    extract.extract(context, 1)
    report = json_io.read(context.workdir / layout.DECONTAMINATION)
    self.assertEqual(report["ngram"], 13)
    for name, given, dropped in (("sft", 6, 2), ("pairs", 24, 4)):
      folder = context.folder(1, name)
      rows = reading.read_rows(folder)
      self.assertLen(rows, given - dropped)
      said = {row["question"] for row in rows}
      self.assertNoCommonElements(said, {"How many are 2?", "How many are 5?"})
      self.assertEqual(
        (report[name]["problems"], report[name]["dropped"]), (given, dropped)
      )
      self.assertLen(report[name]["matches"], 2)
      manifest = manifests.read(folder)
      self.assertEqual(
        (manifest["rows"], manifest["contaminated"]), (given - dropped, dropped)
      )

  def test_a_source_is_looked_at_before_anything_runs(self):
    for field in ("sft_source", "pairs_source"):
      with self.assertRaisesRegex(ProblemError, "there is no file none.json"):
        checks.check_data(self.config(**{field: "none.json"}))
    source = write(self.folder / "pairs.json", pairs())
    with self.assertRaisesRegex(ProblemError, "no text in 'response'"):
      checks.check_data(self.config(sft_source=source))
    both = self.config(
      sft_source=write(self.folder / "sft.json", solutions()),
      pairs_source=source,
    )
    checks.check_data(both)
    # What they are compared with is needed, too.
    both.decontaminate.against = (config_lib.DataConfig(source="none.csv"),)
    with self.assertRaisesRegex(ProblemError, "there is no file none.csv"):
      checks.check_data(both)


if __name__ == "__main__":
  absltest.main()
