"""Plugins of every kind, from the command line to the folder of a run."""

import contextlib
import io
import json
import pathlib
import re
import sys
from unittest import mock

from absl.testing import absltest, flagsaver, parameterized

from rstar_jax import main
from rstar_jax.config import flag
from rstar_jax.pipeline import reading, run
from rstar_jax.tools import harness
from tests import tiny_run

MODULE = """
import numpy as np
import rstar_jax as rj

asked = []

def problems():
  for number in range(5):
    yield {"body": f"Make {number}.", "question": "What is it?"}

def own_task():
  return rj.Task(problems=own_problems, prompt=prompt, reward=reward)

def own_problems(split):
  assert split in ("train", "test")
  return problems()

def tested():
  for number in (4, 5):
    test = f"def check(x):\\n  assert x == {number}"
    yield {"prompt": f"Make {number}.", "test": test, "entry_point": "x"}

def wrong_reward():
  return rj.Task(reward=wrong)

def wrong_prompt():
  return rj.Task(prompt=wrong)

def failing_reward():
  return rj.Task(reward=fails)

def failing_prompt():
  return rj.Task(prompt=fails)

def reward(problem, answer):
  asked.append(problem.question)
  number = int(problem.question.split()[1].strip("."))
  return max(-1.0, 0.75 - abs(int(answer) - number) / 2)

def prompt(question):
  return f"Q: {question}\\nA: "

def policy(config, folder):
  return rj.testing.ToySum(covers=not config.engine.temperature)

def score(config):
  return rj.testing.score_by_hash

def wide(tree, config, seed, name):
  for _ in range(config.rollouts):
    for leaf in tree.leaves()[:1]:
      if not (yield from rj.grow(tree, leaf, config, seed, name)):
        tree.give_up(leaf)
  return tree

def widest(problems, config, calls, seed, name):
  searches = [wide(rj.Tree(each), config, seed, name) for each in problems]
  return rj.run_searches(searches, calls, config.in_flight)

def grade(gold, predicted):
  return gold == predicted

def fails(*args, **kwargs):
  raise RuntimeError("out of\\norder")

def wrong(*args, **kwargs):
  return 7
"""


class PluginsCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.enter_context(contextlib.chdir(self.folder))
    self.addCleanup(setattr, sys, "path", list(sys.path))
    self.addCleanup(sys.modules.pop, "own_plugins", None)
    pathlib.Path("own_plugins.py").write_text(MODULE)
    train = tiny_run.write_problems(self.folder / "train.jsonl", {"q": "3"})
    pathlib.Path("config.py").write_text(
      "from tests import tiny_run\n\n\ndef get_config():\n"
      f"  return tiny_run.make_config({train!r}, {train!r})\n"
    )

  def run_main(self, *arguments: str):
    """Runs the command in this process; returns (exit code, out, err)."""
    argv = ["main", "--config=config.py", "--workdir=run", *arguments]
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
      flagsaver.flagsaver(),
      mock.patch.object(sys, "argv", argv),
      contextlib.redirect_stdout(out),
      contextlib.redirect_stderr(err),
    ):
      try:
        main.main(flag.parse_flags(argv))
      except SystemExit as end:
        code = end.code
    return code, out.getvalue(), err.getvalue()


class WrongTest(PluginsCase):
  def assert_refused(self, *arguments: str) -> str:
    code, out, err = self.run_main(*arguments)
    self.assertEqual((code, out), (1, ""))
    self.assertNotIn("Traceback", err)
    (line,) = re.findall(r"(?m)^rstar_jax: .*$", err)
    return line

  @parameterized.product(
    field=(
      *("grader.function", "task", "train.source"),
      *("search.method", "eval.search.method", "policy.backend"),
      *("search.selection", "eval.search.selection"),
      *("eval.reward_model", "rounds[1].ppm"),
    ),
    found=(
      ("no_plugins:f", "there is no module 'no_plugins'", "did you mean own_p"),
      ("own_plugins:wrnog", "own_plugins has no 'wrnog'", "did you mean wrong"),
    ),
  )
  def test_what_is_not_there(self, field, found):
    name, *words = found
    line = self.assert_refused(f"--config.{field}={name}")
    for word in (f"config.{field}={name!r}", *words):
      self.assertIn(word, line)
    self.assertFalse(pathlib.Path("run").exists())

  @parameterized.parameters(
    ("grader.function", "must return True or False, or 'equal'.* not 7"),
    ("task", "must return an rstar_jax.Task, not 7"),
    ("train.source", "must return a list of problems or of rows .* not 7"),
  )
  def test_what_is_quick_is_tried_before_anything_is_made(self, field, reason):
    line = self.assert_refused(f"--config.{field}=own_plugins:wrong")
    self.assertRegex(line, f"{field.split('.')[-1]}='own_plugins:wrong' ")
    self.assertRegex(line, reason)
    line = self.assert_refused(f"--config.{field}=own_plugins:fails")
    self.assertRegex(
      line,
      f"{field.split('.')[-1]}='own_plugins:fails' raised RuntimeError: out of "
      r"order \(own_plugins.py:\d+\)$",
    )
    self.assertFalse(pathlib.Path("run/config.json").exists())

  @parameterized.parameters(
    ("reward", "must return a number from -1 to 1, not 7"),
    ("prompt", "must return a text that holds the question 'q', not 7"),
  )
  def test_what_a_task_does_is_tried_before_anything_is_made(self, part, why):
    line = self.assert_refused(f"--config.task=own_plugins:wrong_{part}")
    self.assertIn(f"task.{part}='wrong' {why}", line)
    line = self.assert_refused(f"--config.task=own_plugins:failing_{part}")
    self.assertRegex(
      line,
      f"task.{part}='fails' raised RuntimeError: out of order "
      r"\(own_plugins.py:\d+\)$",
    )
    self.assertFalse(pathlib.Path("run/config.json").exists())

  @parameterized.parameters(
    ("policy.backend", "must return an Expand, which can be called, not 7"),
    ("eval.reward_model", "must return a Score, which can be called, not 7"),
  )
  def test_what_is_not_stops_the_stage(self, field, reason):
    stage = ("--stage=evaluate", "--round=0")
    if field == "eval.reward_model":
      stage += ("--config.policy.backend=own_plugins:policy",)
    for name, said in (("wrong", reason), ("fails", "raised RuntimeError")):
      line = self.assert_refused(f"--config.{field}=own_plugins:{name}", *stage)
      self.assertIn(said, line)

  def test_a_search_of_one_s_own_stops_the_stage_and_keeps_what_is_whole(self):
    own = "--config.policy.backend=own_plugins:policy"
    stage = (own, "--stage=rollout", "--round=1")
    for name, said in (
      ("wrong", "must return a list of 1 trees, one for each problem"),
      ("fails", "raised RuntimeError: out of order"),
    ):
      line = self.assert_refused(
        f"--config.search.method=own_plugins:{name}", *stage
      )
      self.assertIn(f"search.method='own_plugins:{name}' {said}", line)
      for path in pathlib.Path("run").glob("round_*"):
        self.assertEmpty(list(path.rglob("shard*")))


class RunTest(PluginsCase):
  def test_a_rollout_on_programs_that_tests_judge(self):
    fields = {
      "task": "code",
      "train.source": "own_plugins:tested",
      "policy.backend": "own_plugins:policy",
      "rounds[0].rollouts": 15,
    }
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    stage = ("--stage=rollout", "--round=1")
    code, _, err = self.run_main(*overrides, *stage)
    self.assertEqual(code, 0, err)
    trees = reading.read_trees("run/round_1/trees")
    self.assertLen(trees, 2)
    for number, tree in zip((4, 5), trees, strict=True):
      self.assertIn(f"assert x == {number}", tree.problem.tests)
      found = [
        (program, right)
        for program, right in zip(tree.answers, tree.correct, strict=True)
        if program is not None
      ]
      self.assertLen({right for _, right in found}, 2)
      for program, right in found:
        scope = {"print": str}
        exec(program, scope)
        self.assertEqual(right == 1, scope["x"] == number)

  def test_all_of_them_in_a_run(self):
    base = tiny_run.make_base(self.folder / "base")
    fields = {
      "train.source": "task:train",
      "eval.data.source": "task:test",
      "decontaminate.ngram": 0,
      "train.question_field": "{body} {question}",
      "eval.data.question_field": "{body} {question}",
      "task": "own_plugins:own_task",
      "policy.path": base,
      "policy.backend": "own_plugins:policy",
      "search.method": "own_plugins:widest",
      "eval.search.method": "own_plugins:widest",
      "eval.reward_model": "own_plugins:score",
      "rounds[1].ppm": "own_plugins:score",
      "study.methods": '("own_plugins:widest", "samples")',
      "study.rewards": '("own_plugins:score",)',
      "study.trajectories": "15",
      "study.samples": "15",
      "eval.search.rollouts": 15,
      "rounds[0].rollouts": 15,
      "rounds[1].rollouts": 15,
    }
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    code, out, err = self.run_main(*overrides)
    self.assertEqual(code, 0, err)
    self.assertIn("### task:test", out)
    self.assertRegex(out, r"\| Best-of-N +\| own_plugins:widest +\|")
    results = json.loads(pathlib.Path("run/results.json").read_text())
    self.assertEqual(
      {row["method"] for row in results["rows"]},
      {"policy", "pass@k", "majority", "best_of_n", "mcts"},
    )
    own = sys.modules["own_plugins"]
    for round_ in (1, 2):
      trees = reading.read_trees(f"run/round_{round_}/trees")
      self.assertLen(trees, 5)
      for tree in trees:
        self.assertIsNone(tree.problem.answer)
        for node, answer in enumerate(tree.answers):
          if answer is not None:
            worth = own.reward(tree.problem, answer)
            self.assertEqual(tree.reward[node], worth)
            self.assertEqual(tree.correct[node] == 1, worth > 0)
    # Trained with the prompt, which goes with the policy.
    template = pathlib.Path("run/round_1/policy/chat_template.jinja")
    self.assertIn('"Q: "', template.read_text())
    # A study of it, and one question, by the same search and models.
    stage = ("--stage=study", "--round=1")
    code, out, err = self.run_main(*overrides, *stage)
    self.assertEqual(code, 0, err)
    self.assertIn("own_plugins:widest", out)
    question = "Make 4. What is it?"
    code, out, err = self.run_main(
      *overrides, "--stage=solve", f"--question={question}"
    )
    self.assertEqual(code, 0, err)
    answer = out.rpartition("Answer: ")[2].strip()
    config = flag.load_config("config.py")
    for name, value in fields.items():
      if not name.startswith(("study", "rounds")):
        *path, last = name.split(".")
        part = config
        for each in path:
          part = getattr(part, each)
        setattr(part, last, value)
    asked = mock.Mock(
      doc={"question": question, "answer": "4"}, args=("prompt", {})
    )
    with run.open_run(config, "run", reads=True) as context:
      (text,) = harness.answer_all(context, 2, [asked])
    self.assertEndsWith(text, f"#### {answer}")


if __name__ == "__main__":
  absltest.main()
