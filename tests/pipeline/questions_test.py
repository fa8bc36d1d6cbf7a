"""Questions of a file and of a person, with a scripted policy."""

import contextlib
import dataclasses
import io
import json
import operator
import os
import signal
import types
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.pipeline import questions, solve
from rstar_jax.storage import manifests, stopping
from rstar_jax.tasks import task
from rstar_jax.types import Problem
from tests.pipeline.evaluate_test import SolvingCase, never_done


def same(pairs):
  return ["equal" if a == b else "different" for a, b in pairs]


class QuestionsTest(SolvingCase, parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.context.grader = types.SimpleNamespace(grade=same)
    self.context.sandbox = types.SimpleNamespace(run=None)
    self.finish(1)
    self.source = self.folder / "questions.jsonl"
    self.target = self.folder / "deep" / "answers.jsonl"

  def ask(self, *rows, method=None, round_=1):
    """Answers a file of rows; returns the lines of the file of answers."""
    self.source.write_text(
      "".join(
        (each if isinstance(each, str) else json.dumps(each)) + "\n"
        for each in rows
      )
    )
    asking = questions.Asking.of(self.context, round_, method)
    rows = questions.read(str(self.source), self.config.eval.data)
    self.told = questions.answer_file(asking, rows, str(self.target))
    return list(map(json.loads, self.target.read_text().splitlines()))

  def test_what_has_no_reward_model_is_not_loaded(self):
    with (
      mock.patch.object(questions, "Solver") as loading,
      self.assertRaisesRegex(ValueError, "best_of_n' needs a reward model"),
    ):
      questions.Asking.of(self.context, 0, "best_of_n")
    loading.assert_not_called()

  def test_a_line_for_each_row(self):
    rows = self.ask(
      {"id": "x", "question": "four", "answer": "4", "level": 3},
      {"problem": "five"},
      {"question": ""},
      "{",
      {"id": "y", "question": "four", "answer": "99"},
    )
    self.assertEqual(
      sorted(
        (each["id"].rpartition("/")[2], each["question"]) for each in rows
      ),
      [
        *(("1", "five"), ("questions.jsonl:3", None)),
        *(("questions.jsonl:4", None), ("x", "four"), ("y", "four")),
      ],
    )
    found = {each["id"]: each for each in rows}
    x, y = found["x"], found["y"]
    alone = solve.solve(self.context, 1, "four")
    for each in (x, y):
      self.assertEqual(tuple(each["steps"]), alone.steps)
      self.assertEqual(each["answer"], alone.answer)
      self.assertEqual(each["values"], alone.values)
      self.assertEqual((each["round"], each["method"]), (1, "search"))
      self.assertGreater(each["tokens"], 0)
      # What the code printed is what was boxed.
      self.assertIn(alone.answer, each["outputs"])
      self.assertLen(each["outputs"], len(each["steps"]))
    self.assertEqual((x["right"], y["right"]), (alone.answer == "4", False))
    bad = found[f"{self.source}:4"]
    self.assertIn("is not JSON", bad["error"])
    self.assertNotIn("answer", bad)
    self.assertStartsWith(self.told, "3 of 5 questions answered; ")
    self.assertEndsWith(self.told, "2 rows could not be read")

  def test_what_is_there_is_not_done_again(self):
    every = [{"question": each} for each in ("four", "five", "six")]
    self.ask(*every[:2], "{")
    text = self.target.read_text()
    # A process is killed in the middle of a line.
    self.target.write_text(text + '{"id": "questions/2", "quest')
    del self.device.expanded[:]
    rows = self.ask(*every[:2], "{", every[2])
    self.assertStartsWith(self.target.read_text(), text)
    self.assertLen(rows, 4)
    asked = {each for call in self.device.expanded for each in call}
    self.assertEqual(asked, {"six"})
    # An id that is there with another question is another question.
    self.assertLen(self.ask({"id": rows[0]["id"], "question": "two"}), 5)

  @parameterized.parameters(
    ({"seed": 1}, "another model or config"),
    ({"method": "greedy"}, "round 1 by search, not round 1 by greedy"),
    ({"round": 0}, "round 1 by search, not round 0 by majority"),
    ({"ppm": 1}, "another model or config"),
  )
  def test_answers_of_something_else_are_refused(self, change, message):
    self.ask({"question": "four"})
    before = self.target.read_bytes()
    if "seed" in change:
      self.context.config.seed = 1
    if "ppm" in change:
      manifest = self.context.folder(1, "ppm") / "MANIFEST.json"
      manifest.unlink()
      manifests.write(self.context.folder(1, "ppm"), {"pairs": 9}, [])
    with self.assertRaisesRegex(ValueError, f":1 is of {message}: give anothe"):
      self.ask(
        {"question": "five"},
        method=change.get("method"),
        round_=change.get("round", 1),
      )
    self.assertEqual(self.target.read_bytes(), before)

  @parameterized.parameters(
    ("grader.percent_is_ratio", True, False),
    ("sandbox.wall_seconds", 7.0, False),
    ("servers.policy", "http://a/v1", False),
    ("search_mesh.tensor", 2, False),
    ("eval.answer_select", "majority", False),
    ("task", "code", False),
    ("sandbox.workers", 7, True),
    ("sft.epochs", 7, True),
    ("shard_size", 7, True),
    ("eval.data.count", 7, True),
    ("eval.early_problems", 7, True),
  )
  def test_a_setting_that_answers_depend_on(self, name, value, same_answers):
    before = questions.Asking.of(self.context, 1).identity()
    owner, _, field = name.rpartition(".")
    holder = operator.attrgetter(owner) if owner else lambda each: each
    setattr(holder(self.context.config), field, value)
    after = questions.Asking.of(self.context, 1).identity()
    self.assertEqual(after == before, same_answers)

  def test_a_file_that_has_no_answers_is_left_alone(self):
    self.target.parent.mkdir()
    for line in ('{"id": "a", "question": "four"}', "# notes"):
      for text in (line, f"{line}\n"):
        self.target.write_text(text)
        with self.assertRaisesRegex(ValueError, "answers.jsonl:1 is no"):
          self.ask({"question": "four"})
        self.assertEqual(self.target.read_text(), text)

  def test_a_line_that_lacks_only_its_end_is_asked_again(self):
    rows = self.ask({"question": "four"}, {"question": "five"})
    text = self.target.read_text()
    for size in (len(text) - 1, text.index("\n"), text.index("question")):
      self.target.write_text(text[:size])
      again = self.ask({"question": "four"}, {"question": "five"})
      self.assertCountEqual(
        [each["question"] for each in again],
        [each["question"] for each in rows],
      )

  def test_no_answer(self):
    self.device.policy = mock.Mock(side_effect=never_done)
    self.device.policy.block = never_done
    for method in ("greedy", "majority", "best_of_n", "search"):
      self.target = self.folder / method
      (row,) = self.ask({"question": "four", "answer": "4"}, method=method)
      self.assertEqual((row["answer"], row["right"]), (None, False))
      self.assertStartsWith(row["error"], "no candidate reached an answer")
      self.assertGreater(row["tokens"], 0)

  def test_a_question_that_is_too_long(self):
    self.device.policy = mock.Mock(side_effect=never_done)
    self.device.policy.block = never_done
    long = "How many are four? " * 100
    most = self.config.engine.max_prefix_tokens
    said = rf"^the question has \d{{3}} tokens .*max_prefix_tokens={most}:"
    (row,) = self.ask({"question": long})
    self.assertRegex(row["error"], said)
    asking = questions.Asking.of(self.context, 1)
    with self.assertRaisesRegex(ValueError, said):
      questions.answer_one(asking, long)
    with self.assertRaisesRegex(ValueError, said):
      solve.solve(self.context, 1, long)

  def test_two_processes(self):
    self.ask({"question": "four"})
    asking = questions.Asking.of(self.context, 1)
    with questions._Answers.opened(str(self.target), asking):
      with self.assertRaisesRegex(ValueError, "another process writes"):
        self.ask({"question": "five"})

  def test_standard_input_and_output(self):
    asking = questions.Asking.of(self.context, 1)
    out = io.TextIOWrapper(io.BytesIO())
    given = io.TextIOWrapper(io.BytesIO(b'{"id":"a","question":"four"}\n'))
    with mock.patch("sys.stdin", given), mock.patch("sys.stdout", out):
      rows = questions.read("-", self.config.eval.data)
      questions.answer_file(asking, rows, "-")
    (row,) = out.buffer.getvalue().splitlines()
    self.assertEqual(json.loads(row)["id"], "a")

  def test_questions_of_the_task(self):
    own = task.Task(
      problems=lambda split: [Problem(split, "four"), {"question": "five"}]
    )
    rows = questions.read("task:dev", self.config.eval.data, own)
    self.assertEqual(rows[0], ("dev", Problem("dev", "four")))
    self.assertEqual(rows[1][1].question, "five")

  @parameterized.parameters(
    ("", "holds no questions"), (None, "there is no file")
  )
  def test_nothing_to_read(self, text, message):
    if text is not None:
      self.source.write_text(text)
    with self.assertRaisesRegex(ValueError, message):
      questions.read(str(self.source), self.config.eval.data)

  def test_a_target_that_is_no_file(self):
    for target in ("gs://b/answers.jsonl", str(self.folder)):
      with self.assertRaisesRegex(ValueError, f"--out={target}: want the name"):
        questions.check_target(target)
    questions.check_target(questions.STANDARD)

  def test_who_answers(self):
    asking = questions.Asking.of(self.context, 1)
    self.assertEqual(
      asking.describe(),
      f"round 1 of {self.context.workdir} answers by a search of 2 rollouts "
      f"x 4 candidates; policy {self.context.folder(1, 'policy')}, the PPM of "
      "round 1",
    )
    asking = questions.Asking.of(self.context, 0)
    self.assertStartsWith(
      asking.describe(), "the base model answers by the majority of at most 4"
    )
    self.assertEndsWith(asking.describe(), "no reward model")

  def test_a_person_is_answered_until_the_end(self):
    asking = questions.Asking.of(self.context, 1)
    wanted = solve.solve(self.context, 1, "four").render()
    out = io.StringIO()
    said = mock.Mock(side_effect=["four", "", "four", EOFError])
    with mock.patch("builtins.input", said), contextlib.redirect_stdout(out):
      questions.converse(asking)
    self.assertEqual(out.getvalue().count(wanted), 2)

  def test_ctrl_c_ends_a_question_and_not_the_program(self):
    asking = questions.Asking.of(self.context, 1)
    wanted = solve.solve(self.context, 1, "five").render()
    expand = self.device.policy

    def interrupting(asked, prefixes, seeds):
      if "four" in asked:
        os.kill(os.getpid(), signal.SIGINT)
      return expand(asked, prefixes, seeds)

    self.device.policy = mock.Mock(side_effect=interrupting)
    asking = dataclasses.replace(asking, solver=solve.Solver(self.context, 1))
    out = io.StringIO()
    said = mock.Mock(side_effect=["four", "five", EOFError])
    with (
      stopping.listening(signals=(signal.SIGTERM, signal.SIGINT)),
      mock.patch("builtins.input", said),
      contextlib.redirect_stdout(out),
    ):
      questions.converse(asking)
      self.assertFalse(stopping.asked())
    self.assertEqual(out.getvalue().count("Answer:"), 1)
    self.assertIn(wanted, out.getvalue())


if __name__ == "__main__":
  absltest.main()
