"""Tests of the command line."""

import contextlib
import io
import json
import pathlib
import subprocess
import sys
from unittest import mock

from absl.testing import absltest, flagsaver, parameterized

from rstar_jax import main
from rstar_jax.config import flag as config_flag
from rstar_jax.pipeline import context

ROOT = pathlib.Path(main.__file__).parent.parent

# A run of this file never gets beyond solving one question.
CONFIG = """
from tests import tiny_run

def get_config():
  return tiny_run.make_config({train!r}, {test!r})
"""
PROBLEM = {"question": "How many?", "answer": "3"}
QUESTION = (
  "A bus leaves Rofield with 47 people. How many people are on the bus after "
  "Rofield?"
)


class MainTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.workdir = self.folder / "run"
    self.write("train.jsonl", json.dumps(PROBLEM))
    self.write("test.jsonl", json.dumps(PROBLEM))
    self.config = self.write(
      "config.py",
      CONFIG.format(
        train=str(self.folder / "train.jsonl"),
        test=str(self.folder / "test.jsonl"),
      ),
    )

  def write(self, name: str, text: str) -> str:
    path = self.folder / name
    path.write_text(text)
    return str(path)

  def run_main(self, *args: str, config: str | None = None):
    """Runs the command in this process; returns (exit code, out, err)."""
    argv = [
      "main",
      f"--config={config or self.config}",
      f"--workdir={self.workdir}",
      *args,
    ]
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
      flagsaver.flagsaver(),
      mock.patch.object(sys, "argv", argv),
      contextlib.redirect_stdout(out),
      contextlib.redirect_stderr(err),
    ):
      try:
        main.main(config_flag.parse_flags(argv))
      except SystemExit as end:
        code = end.code
    return code, out.getvalue(), err.getvalue()

  def assert_one_line(self, result, *words: str) -> None:
    code, out, err = result
    self.assertEqual((code, out), (1, ""))
    # What is logged, and warnings that only tests show, are not counted.
    said = [
      line
      for line in err.splitlines()
      if line.startswith(("rstar_jax: ", "main: "))
    ]
    self.assertLen(said, 1, err)
    for word in words:
      self.assertIn(word, said[0])
    self.assertNotIn("Traceback", err)

  def test_studies_and_comparisons_say_what_they_lack(self):
    self.assert_one_line(self.run_main("--stage=study"), "--round=1..2")
    self.assert_one_line(
      self.run_main("--stage=study", "--round=1"),
      "round_1/policy is not finished",
      "--stage=sft --round=1",
    )
    self.assert_one_line(self.run_main("--stage=compare"), "--other=FOLDER")
    self.assert_one_line(
      self.run_main("--stage=compare", f"--other={self.folder}"),
      "no evaluated round in common",
    )
    self.assert_one_line(
      self.run_main("--stage=export", "--round=1"), "--stage=extract --round=1"
    )

  def test_unknown_field(self):
    self.assert_one_line(
      self.run_main("--config.search.rollout=3"),
      "--config.search.rollout",
      "no field 'rollout'; did you mean rollouts?",
    )

  def test_missing_config(self):
    self.assert_one_line(self.run_main(config="missing.py"), "missing.py")

  @parameterized.parameters(
    (None, "there is no file"),
    ("", "holds no problems"),
    ('{"question": "How many?", "answer": {"a": 3}}', "train.jsonl:1: "),
    ('{"question": "How many?", "answer": ', "train.jsonl:1: is not JSON"),
    ('{"question": "How many?"}', "train.jsonl:1: "),
  )
  def test_wrong_data(self, text, message):
    path = self.folder / "train.jsonl"
    path.unlink()
    if text is not None:
      path.write_text(text)
    self.assert_one_line(self.run_main(), "train.jsonl", message)
    # Once it is mended the same folder can be used with any config.
    self.assertFalse((self.workdir / "config.json").exists())

  @parameterized.parameters("", "--question=")
  def test_solve_without_a_question(self, argument):
    arguments = ["--stage=solve", *([argument] if argument else [])]
    self.assert_one_line(self.run_main(*arguments), "--question=")

  @parameterized.parameters(
    ("sft", None, "1..2"),
    ("sft", 0, "1..2"),
    ("sft", 3, "1..2"),
    ("rollout", -1, "1..2"),
    ("evaluate", None, "0..2"),
    ("evaluate", 3, "0..2"),
  )
  def test_a_stage_without_its_round(self, stage, round_, message):
    arguments = [] if round_ is None else [f"--round={round_}"]
    self.assert_one_line(
      self.run_main(f"--stage={stage}", *arguments),
      f"--stage={stage} needs --round={message}",
    )

  def test_a_stage_before_its_time(self):
    self.assert_one_line(
      self.run_main("--stage=sft", "--round=1"),
      "run --stage=extract --round=1 first",
    )

  def test_another_config(self):
    self.workdir.mkdir()
    (self.workdir / "config.json").write_text('{"seed": 3}')
    self.assert_one_line(self.run_main(), "another config", "config.seed")

  @parameterized.parameters(
    (["--processes=2"], "are for --distributed"),
    (["--distributed", "--process=0"], "go together"),
  )
  def test_which_process_this_is(self, arguments, message):
    self.assert_one_line(self.run_main(*arguments), message)

  def test_a_workdir_that_is_no_folder(self):
    self.workdir = "s3://bucket/run"
    self.assert_one_line(self.run_main(), "s3://bucket/run is neither a folder")

  def test_solve_on_a_fresh_folder_asks_the_base_model(self):
    loaded = []
    load = context.hf.load_policy

    def recorded(path, *args, **kwargs):
      loaded.append(path)
      return load(path, *args, **kwargs)

    with mock.patch.object(context.hf, "load_policy", recorded):
      code, out, _ = self.run_main(
        "--stage=solve",
        f"--question={QUESTION}",
        "--config.engine.temperature=0.5",
      )
    self.assertEqual(code, 0)
    self.assertEqual(loaded, [context.BASE_MODEL])
    self.assertIn("--- step 1\n", out)
    self.assertRegex(out, r"(?s)--- step \d+\n.*\\boxed\{47\}.*\nAnswer: 47\n")

  def test_report_of_nothing(self):
    code, out, _ = self.run_main("--stage=report")
    self.assertEqual(code, 0)
    self.assertEndsWith(out, f"report: {self.workdir / 'report.html'}\n")
    self.assertTrue((self.workdir / "report.html").exists())
    results = json.loads((self.workdir / "results.json").read_text())
    self.assertEqual((results["rows"], results["solved"]), ([], []))

  def test_as_a_program(self):
    def run(*args):
      return subprocess.run(
        [sys.executable, "-m", "rstar_jax.main", *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
      )

    told = run("--help")
    for flag in ("config", "workdir", "stage", "round", "question"):
      self.assertRegex(told.stdout, rf"--(\[no\])?{flag}\b")
    wrong = run(
      f"--config={self.config}", f"--workdir={self.workdir}", "--stage=solve"
    )
    self.assertEqual((wrong.returncode, wrong.stdout), (1, ""))
    lines = [each for each in wrong.stderr.splitlines() if "rstar_jax" in each]
    self.assertLen(lines, 1)
    self.assertIn("--question=", lines[0])
    self.assertNotIn("Traceback", wrong.stderr)


if __name__ == "__main__":
  absltest.main()
