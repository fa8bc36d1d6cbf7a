"""The command line: reward models and marked solutions in, tables out."""

import contextlib
import dataclasses
import io
import json
import pathlib
import sys
from unittest import mock

import numpy as np
from absl.testing import absltest
from flax import nnx

from rstar_jax.config.schema import Config
from rstar_jax.data.rows import ProblemError
from rstar_jax.data.synthetic import generator, oracle
from rstar_jax.evaluation import prmbench
from rstar_jax.hf import folders, saving
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.models.transformer import ppm_from_policy
from rstar_jax.search.tree import RIGHT, Child, Tree
from rstar_jax.tools import judge_rewards as program
from tests import tiny_run
from tests.parity import reward_cases


def knowing(config):
  """A reward model that reads "(wrong)"."""
  del config

  def score(questions, prefixes, rows):
    del questions
    return [
      [-0.5 if "(wrong)" in "".join((*prefix, step)) else 0.25 for step in row]
      for prefix, row in zip(prefixes, rows, strict=True)
    ]

  return score


def row(label, **more):
  steps = ["One.", "Two.", "Three."]
  if label >= 0:
    steps[label] += " (wrong)"
  return {"problem": "How many?", "steps": steps, "label": label} | more


class JudgeRewardsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    sys.modules["__main__"].knowing = knowing
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def write(self, name, rows):
    text = "".join(json.dumps(each) + "\n" for each in rows)
    (self.folder / name).write_text(text)

  def test_a_model_that_knows(self):
    self.write("gsm8k.jsonl", [row(1), row(-1), row(0)])
    # A label that it does not know.
    self.write("math.json", [row(2), row(-1), row(0) | {"label": 2}])
    by_subset = program.subsets(str(self.folder))
    self.assertEqual(list(by_subset), ["gsm8k", "math"])
    errors = [
      {
        "modified_question": "q",
        "modified_process": row(1)["steps"],
        # What comes after it is not said to be wrong.
        "error_steps": [2],
        "classification": kind,
      }
      for kind in prmbench.GROUPS["simplicity"]
    ]
    self.write("errors.jsonl", errors)
    output = self.folder / "figures.json"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
      self.run_main(
        config=Config(),
        reward=["__main__:knowing"],
        processbench=str(self.folder),
        prmbench=str(self.folder / "errors.jsonl"),
        output=str(output),
      )
    found = json.loads(output.read_text())["__main__:knowing"]
    self.assertEqual(found["processbench"]["threshold"], 0.5)
    self.assertEqual(found["processbench"]["subsets"]["gsm8k"]["f1"], 1)
    self.assertAlmostEqual(
      found["processbench"]["subsets"]["math"]["f1"], 2 / (1 / 0.5 + 1)
    )
    # Of steps good, wrong, good it says good, wrong, wrong.
    self.assertAlmostEqual(
      found["prmbench"]["groups"]["simplicity"], (2 / 3 + 2 / 3) / 2
    )
    self.assertIn("| 100.0 | 66.7 | 83.3 | 0.5", printed.getvalue())
    self.assertIn("| 66.7", printed.getvalue().partition("prmbench")[2])

  def test_a_published_one_and_a_ppm(self):
    """Of random weights: the figures mean nothing, and all are there."""
    self.write("gsm8k.jsonl", [row(1), row(-1)])
    base = tiny_run.make_base(self.folder / "base")
    ppm = ppm_from_policy(folders.load_policy(base), rngs=nnx.Rngs(0))
    saving.save_ppm(ppm, self.folder / "ppm", tokenizer=load_tokenizer(base))
    names = [
      reward_cases.write(self.folder / "reward", "qwen"),
      f"ppm:{self.folder / 'ppm'}",
    ]
    by_subset = program.subsets(str(self.folder))
    found = dict(program.judge(Config(), names, by_subset=by_subset))
    self.assertEqual(list(found), names)
    for each in names:
      program.check(each)
    with self.assertRaisesRegex(ValueError, "^--reward=ppm:.* is no PPM: give"):
      program.check(f"ppm:{base}")
    with self.assertRaisesRegex(ValueError, "say how it is asked, as in"):
      program.check(str(base))
    for each in found.values():
      self.assertEqual(each["processbench"]["subsets"]["gsm8k"]["n"], [1, 1])
    (table,) = program.tables(found)
    self.assertLen(table.splitlines(), 4)

  def test_trees(self):
    (problem,) = generator.problems(split="train", count=1, seed=0)
    solved = generator.again(problem)
    right = oracle.verdicts(solved, ("<code>\nx_y_z = 1\n<end_of_step>",))
    self.assertEqual(right, [RIGHT])
    wrong = f"<code>\n{solved.plan[-1].x} = 12345 # (wrong)\n<end_of_step>"
    tree = Tree(problem)
    tree.add_children(
      0,
      [
        Child(kind=1, text="<code>\nx_y_z = 1\n<end_of_step>"),
        Child(kind=1, text=wrong),
      ],
    )
    self.assertTrue(np.isnan(tree.ppm).all())
    found = program.on_trees(knowing(None), program.labelled([tree]))
    np.testing.assert_array_equal(tree.ppm[1:], [0.25, -0.5])
    self.assertEqual(found["ppm"][0], 1)
    self.assertEqual(found["chance"][0], 0.5)

  def run_main(self, *argv, **given):
    names = ("config", "reward", "processbench", "prmbench", "trees", "output")
    values = dict.fromkeys(names, "") | {"config": None, "reward": []} | given
    with mock.patch.object(program.flags, "FLAGS", mock.Mock(**values)):
      program.main(["program", *argv])

  def test_what_is_wrong_is_said_before_a_model_is_loaded(self):
    enough = {"config": Config(), "reward": ["a"], "trees": "trees"}
    output = str(self.folder / "none" / "figures.json")
    with mock.patch.object(program, "judge") as judge:
      for argv, given, said in (
        (["a"], enough, "^'a' is no flag; --help lists"),
        ([], {"reward": ["a"]}, "^give --config, --reward, and --process"),
        ([], enough | {"output": output}, "there is no folder .*/none$"),
      ):
        with self.assertRaisesRegex(ValueError, said):
          self.run_main(*argv, **given)
    judge.assert_not_called()

  def test_what_is_wrong_is_said_before_a_model_scores(self):
    (problem,) = generator.problems(split="train", count=1, seed=0)
    problem = dataclasses.replace(problem, question="Of another version?")
    knows, nowhere = "__main__:knowing", str(self.folder / "nowhere")
    given = {"config": Config(), "reward": [knows], "trees": "trees"}
    with (
      mock.patch.object(program, "score_of") as score_of,
      mock.patch.object(
        program.reading, "read_trees", return_value=[Tree(problem)]
      ),
    ):
      for more, said in (
        ({}, "is not one of the generator's"),
        ({"reward": [knows, "__main__:knowinx"]}, "did you mean knowing"),
        ({"reward": [knows, nowhere]}, "nowhere"),
        ({"reward": [knows, f"ppm:{nowhere}"]}, "nowhere"),
      ):
        with self.assertRaisesRegex((ValueError, OSError), said):
          self.run_main(**given | more)
    score_of.assert_not_called()

  def test_what_a_model_got_is_there_when_the_next_one_breaks(self):
    def broken(config):
      raise ValueError("it breaks")

    sys.modules["__main__"].broken = broken
    self.write("gsm8k.jsonl", [row(1), row(-1), row(0)])
    output = self.folder / "figures.json"
    with (
      contextlib.redirect_stdout(io.StringIO()) as printed,
      self.assertRaisesRegex(ValueError, "it breaks"),
    ):
      self.run_main(
        config=Config(),
        reward=["__main__:knowing", "__main__:broken"],
        processbench=str(self.folder),
        output=str(output),
      )
    self.assertEqual(list(json.loads(output.read_text())), ["__main__:knowing"])
    self.assertIn("| 100.0", printed.getvalue())

  def test_files_of_any_ending(self):
    first = {"gsm8k.NDJSON": "gsm8k.ndjson", "math.JsonL": "math.jsonl"}
    for name, plain in first.items():
      self.write(plain, [row(1), row(-1)])
      (self.folder / plain).rename(self.folder / name)
    (self.folder / "math.txt").write_text("no rows")
    found = program.subsets(str(self.folder))
    self.assertEqual(list(found), ["gsm8k", "math"])

  def test_what_is_missing(self):
    with self.assertRaisesRegex(ProblemError, "has no gsm8k.jsonl, on which"):
      program.subsets(str(self.folder))


if __name__ == "__main__":
  absltest.main()
