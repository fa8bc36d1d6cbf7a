"""Tests of the command line."""

import contextlib
import io
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import types
from unittest import mock

from absl import flags
from absl.testing import absltest, flagsaver, parameterized

from rstar_jax import commands, main
from rstar_jax.config import flag as config_flag
from rstar_jax.hf import folders
from rstar_jax.pipeline import (
  branching,
  checks,
  hosts,
  questions,
  solve,
  study,
  study_tables,
)
from rstar_jax.storage import alone, stopping
from tests import tiny_run

ROOT = pathlib.Path(main.__file__).parent.parent

# A run of this file never gets beyond solving one question.
CONFIG = """
from rstar_jax.storage import alone
from tests import tiny_run

def get_config():
  return tiny_run.make_config({train!r}, {test!r})
"""
PROBLEM = {"question": "How many?", "answer": "3"}
QUESTION = (
  "A bus leaves Rofield with 47 people. How many people are on the bus after "
  "Rofield?"
)


def others(command: commands.Command) -> set[str]:
  """Returns the flags that only other commands take."""
  every = {flag for each in commands.COMMANDS.values() for flag in each.takes}
  return every - set(command.takes)


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

  def bind(self, *names: str) -> None:
    """Begins a run in the workdir, as far as folders of these names."""
    config = tiny_run.make_config(
      str(self.folder / "train.jsonl"), str(self.folder / "test.jsonl")
    )
    checks.check_workdir(config, self.workdir)
    for name in names:
      (self.workdir / name).mkdir(parents=True)

  def assert_untouched(self, before=()) -> None:
    """Checks that the workdir holds what it held, or is not there."""
    found = [str(p.relative_to(self.workdir)) for p in self.workdir.rglob("*")]
    self.assertCountEqual(found, before)
    self.assertEqual(self.workdir.exists(), bool(before))

  def test_a_traceback_where_it_is_asked_for(self):
    with mock.patch.object(main, "run", side_effect=ValueError("a fault")):
      told = self.run_main("--verbosity=1")
    self.assertIn("in main\n    run()\n", told[2])
    self.assertEndsWith(told[2], "\nrstar_jax: a fault\n")
    with mock.patch.object(main, "run", side_effect=ValueError("a fault")):
      self.assert_one_line(self.run_main(), "a fault")

  @parameterized.parameters(RuntimeError, ValueError)
  def test_the_text_of_an_error_moves_no_cursor(self, kind):
    failing = mock.patch.object(main, "run", side_effect=kind("\x1b[2J\u202e"))
    with failing:
      code, out, err = self.run_main("--stage=evolve")
    self.assertEqual((code, out), (1, ""))
    self.assertIn("\\x1b[2J\\u202e", err)
    self.assertNotIn("\x1b", err)
    self.assertEqual("Traceback" in err, kind is RuntimeError)

  def test_what_is_kept_of_questions(self):
    self.bind("round_0")
    stopped = mock.patch.object(main, "run", side_effect=stopping.Stopped)
    for more, kept in ([], "nothing"), (["--questions=a", "--out=b"], "b"):
      arguments = more or ["--question=x"]
      with stopped:
        code, _, err = self.run_main("--stage=solve", *arguments)
      self.assertEqual(code, 0)
      self.assertEndsWith(err, f"goes on from what is kept: {kept}\n")

  def test_a_data_set_s_text_moves_no_cursor(self):
    self.write("train.jsonl", '{"\\u001b[2J": 1}')
    code, _, err = self.run_main("--stage=evolve")
    self.assertEqual(code, 1)
    self.assertIn("has no field 'question', only \\x1b[2J;", err)
    self.assertNotIn("\x1b", err)

  def test_studies_and_comparisons_say_what_they_lack(self):
    self.assert_one_line(self.run_main("--stage=study"), "--round=1..2")
    self.assert_one_line(self.run_main("--stage=compare"), "--other=FOLDER")
    self.assert_untouched()
    self.bind()
    self.assert_one_line(
      self.run_main("--stage=study", "--round=1"),
      "round_1/policy is not finished",
      "rstar_jax sft --round=1",
    )
    self.assert_one_line(
      self.run_main("--stage=compare", f"--other={self.workdir}"),
      "no evaluated round in common",
    )
    self.assert_one_line(
      self.run_main("--stage=export", "--round=1"),
      "rstar_jax extract --round=1",
    )

  @parameterized.parameters(
    (["runs/tiny"], "'runs/tiny' is no flag", "--workdir=runs/tiny"),
    (["configs/tiny.py"], "'configs/tiny.py' is no flag", "--config=configs/t"),
    (["solve"], "the command comes first: rstar_jax solve --config="),
    (["--stage=solve", "What is 2 + 3?"], "given as --question='...'"),
    (["--stage=solve", "runs/tiny"], "--workdir=runs/tiny"),
    (["--workdir="], "give --workdir=FOLDER"),
    (["--workdir=", "--stage=solve", "--question=x"], "configs/tiny.py alone"),
    (["--workdir=", "--stage=status"], "give --workdir=FOLDER"),
    (["--round=1"], "--round means nothing to evolve", "leave it out"),
    (["--stage=report", "--round=1"], "--round means nothing"),
    (["--stage=status", "--round=1"], "--round means nothing"),
    (["--question=x"], "--question means nothing", "the command solve"),
    (["--other=x"], "--other means nothing", "compare|branch"),
    (["--stage=study", "--round=1", "--other=x"], "--other means nothing"),
    (["--json"], "--json means nothing", "the command status"),
    (["--push_to=a/b"], "--push_to means nothing", "the command export"),
    (["--artifact=ppm"], "--artifact means nothing", "the command export"),
    (["--topology=v5e-4"], "--topology means nothing", "the command check"),
    (["--stage=check", "--topology=v9-8"], "topology 'v9-8': want one of v4"),
    (["--stage=nothing"], "evolve|rollout"),
    (["--config="], "there is no file ''", "configs/tiny.py"),
  )
  def test_flags_that_mean_nothing(self, arguments, *words):
    self.assert_one_line(self.run_main(*arguments), *words)
    self.assert_untouched()

  @parameterized.parameters(
    (["--stage=report"],),
    (["--stage=solve", "--question=x"],),
    (["--stage=solve", "--question=x", "--round=1"],),
    (["--stage=export", "--round=1"],),
    (["--stage=study", "--round=1"],),
    (["--stage=compare", "--other=RUN"],),
    (["--stage=sft", "--round=1"],),
    (["--stage=rollout", "--round=2"],),
    (["--stage=evaluate", "--round=1"],),
  )
  def test_a_mistyped_workdir(self, arguments):
    self.bind("round_0")
    right, self.workdir = self.workdir, self.folder / "rum"
    arguments = [each.replace("RUN", str(right)) for each in arguments]
    self.assert_one_line(
      self.run_main(*arguments),
      f"there is no run in {self.workdir}; did you mean {right}?",
    )
    self.assert_untouched()

  @parameterized.parameters("compare", "branch")
  def test_a_mistyped_other(self, stage):
    self.bind("round_0")
    other, self.workdir = self.workdir, self.folder / "second"
    arguments = [f"--stage={stage}", "--round=1", f"--other={other}s"]
    self.assert_one_line(
      self.run_main(*arguments), f"no run in {other}s; did you mean {other}?"
    )
    self.assert_untouched()

  def test_a_branch_begins_where_it_is_told(self):
    self.bind("round_0")
    other, self.workdir = self.workdir, self.folder / "second"
    arguments = ["--stage=branch", "--round=1", f"--other={other}"]
    for at in ([], ["--at=rollout"]):
      with mock.patch.object(branching, "branch", return_value="so") as made:
        self.assertEqual(self.run_main(*arguments, *at)[1], "so\n")
      self.assertEqual(
        made.call_args.args[1:], (other, 1, "rollout" if at else "extract")
      )

  def test_a_workdir_of_another_identity_stays_as_it_is(self):
    self.bind("round_0")
    before = (self.workdir / "config.json").read_bytes()
    names = ["config.json", "round_0"]
    for arguments in ([], ["--stage=report"], ["--stage=sft", "--round=1"]):
      self.assert_one_line(
        self.run_main("--config.seed=7", *arguments),
        "config.seed was 0 and is 7",
        "give another --workdir",
      )
      self.assert_untouched(names)
    self.assertEqual((self.workdir / "config.json").read_bytes(), before)

  def test_a_question_may_be_asked_with_any_settings(self):
    self.bind("round_0")
    before = (self.workdir / "config.json").read_bytes()
    ask = ["--stage=solve", "--question=x", "--config.seed=7"]
    changes = ["--config.search.rollouts=99", "--config.eval.samples=1"]
    with (
      mock.patch.object(questions.Asking, "of") as opened,
      mock.patch.object(questions, "answer_one", return_value="said") as asked,
    ):
      opened.return_value.describe.return_value = "who"
      code, out, _ = self.run_main(*ask, *changes)
    self.assertEqual((code, out), (0, "said\n"))
    context, round_, method = opened.call_args.args
    self.assertEqual((context.config.seed, round_, method), (7, 0, None))
    self.assertEqual(asked.call_args.args[1], "x")
    self.assertEqual(context.config.search.rollouts, 99)
    self.assert_one_line(
      self.run_main(*ask, "--config.policy.path=elsewhere"),
      "holds a run of policy.path=''",
      "give --config.policy.path=, or another --workdir",
    )
    self.assertEqual((self.workdir / "config.json").read_bytes(), before)

  @parameterized.parameters(
    ("def get_config(:", ":1: SyntaxError"),
    ("x = 1", "has no function get_config()"),
    ("def get_config():\n  return {}", "must return a Config, not {}"),
    (
      "import rstar_jax as rj\ndef get_config():\n  config = rj.Config()\n"
      "  config.search.rolouts = 99\n  return config",
      ":4: SearchConfig has no field 'rolouts'; did you mean rollouts?",
    ),
    (
      "import rstar_jax as rj\ndef get_config():\n  return rj.Config(seed='1')",
      ":3: Config.seed='1' must be of type int",
    ),
  )
  def test_a_config_file_that_cannot_be(self, text, message):
    config = self.write("wrong.py", text)
    self.assert_one_line(self.run_main(config=config), "wrong.py", message)
    self.assert_untouched()

  def test_unknown_field(self):
    self.assert_one_line(
      self.run_main("--config.search.rollout=3"),
      "--config.search.rollout",
      "no field 'rollout'; did you mean rollouts?",
    )

  @parameterized.parameters(
    ("--config.seed=x", "--config.seed=x: 'x' is no whole number"),
    ("--config.search.c=x", "--config.search.c=x: 'x' is no number"),
  )
  def test_a_value_of_another_type(self, argument, message):
    self.assert_one_line(self.run_main(argument), message)

  def test_a_misspelt_config(self):
    self.assert_one_line(
      self.run_main(config="configs/tinny.py"), "did you mean configs/tiny.py?"
    )

  def test_a_workdir_that_holds_no_run(self):
    self.bind("round_1")
    right = self.workdir
    for name in ("rum", "run/round_1"):
      self.workdir = self.folder / name
      for stage in ("status", "report"):
        self.assert_one_line(
          self.run_main(f"--stage={stage}"),
          f"there is no run in {self.workdir}; did you mean {right}?",
        )
    self.workdir = self.folder / "config.py"
    # It is said before anything is imported.
    with mock.patch.object(main, "run") as run:
      for stage in ("status", "report", "evolve"):
        self.assert_one_line(
          self.run_main(f"--stage={stage}"), f"{self.workdir} is a file"
        )
    run.assert_not_called()

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

  @parameterized.parameters(
    ([], "--question="),
    (["--question="], "--question="),
    (["--question=x", "--questions=y"], "exclude each other"),
    (["--question=x", "--out=y"], "--out is for --questions"),
    (["--method=guess"], "greedy|majority|best_of_n|search"),
  )
  def test_solve_without_a_question(self, arguments, message):
    self.assert_one_line(self.run_main("--stage=solve", *arguments), message)

  @parameterized.parameters(
    (["--stage=evolve"],),
    (["--stage=evaluate", "--round=0"],),
    (["--stage=rollout", "--round=1"],),
    (["--stage=extract", "--round=1"],),
    (["--stage=branch", "--round=2", "--other=RUN"],),
  )
  def test_what_begins_a_run(self, arguments):
    self.bind("round_0")
    other, self.workdir = self.workdir, self.folder / "new"
    arguments = [each.replace("RUN", str(other)) for each in arguments]
    with mock.patch.object(
      hosts, "check_devices", side_effect=ValueError("it begins")
    ):
      self.assert_one_line(self.run_main(*arguments), "it begins")

  def test_a_config_with_fewer_rounds_than_the_run(self):
    self.bind("round_0")
    fewer = pathlib.Path(self.config).read_text()
    fewer = fewer.replace("return tiny_run", "config = tiny_run")
    fewer += "  config.rounds = config.rounds[:1]\n  return config\n"
    config = self.write("fewer.py", fewer)
    with (
      mock.patch.object(questions.Asking, "of") as opened,
      mock.patch.object(questions, "answer_one", return_value="said"),
    ):
      opened.return_value.describe.return_value = "who"
      code, out, err = self.run_main(
        "--stage=solve", "--question=x", "--round=2", config=config
      )
    self.assertEqual((code, out), (0, "said\n"), err)
    self.assert_one_line(
      self.run_main("--stage=export", "--round=2", config=config),
      "rstar_jax extract --round=2",
    )

  def test_questions_of_the_run_s_task(self):
    self.bind("round_0")
    with (
      mock.patch.object(questions.Asking, "of") as opened,
      mock.patch.object(questions, "answer_file", return_value="done"),
      mock.patch.object(questions, "read", return_value=[]) as read,
    ):
      opened.return_value.describe.return_value = "who"
      code, _, err = self.run_main("--stage=solve", "--questions=task:dev")
    self.assertEqual(code, 0, err)
    context = opened.call_args.args[0]
    read.assert_called_once_with(
      "task:dev", context.config.eval.data, context.task
    )

  def test_methods_are_those_of_the_solver(self):
    flag = flags.FLAGS["method"]
    self.assertEqual(tuple(flag.parser.enum_values), solve.METHODS)

  def test_a_run_has_its_config(self):
    workdir = f"--workdir={self.workdir}"
    ask = ["solve", workdir, "--question=x"]
    self.assert_one_line(
      self.run_console(*ask),
      f"there is no run in {self.workdir}, and the config is missing",
      "--workdir of a run",
    )
    self.assert_untouched()
    self.bind("round_0")
    self.assert_one_line(
      self.run_console("report", f"{workdir}/round_0"),
      f"did you mean {self.workdir}?, and",
    )
    with (
      mock.patch.object(questions.Asking, "of") as opened,
      mock.patch.object(questions, "answer_one", return_value="said"),
    ):
      opened.return_value.describe.return_value = "who"
      code, out, _ = self.run_console(*ask, "--config.eval.search.rollouts=7")
    self.assertEqual((code, out), (0, "said\n"))
    found = opened.call_args.args[0].config
    wanted = checks.find_run(self.workdir)
    wanted.eval.search.rollouts = 7
    self.assertEqual(found, wanted)
    self.assert_one_line(
      self.run_console("sft", workdir, "--round=1", "--config.seed=9"),
      "config.seed was 0 and is 9",
    )

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
      f"{stage} needs --round={message}",
    )

  @parameterized.parameters(
    (["solve", "--question=x"], "0..2"),
    (["compare", "--other=RUN"], "0..2"),
    (["export"], "1..2"),
  )
  def test_a_round_that_a_run_does_not_have(self, arguments, message):
    self.bind("round_0")
    name, *more = [each.replace("RUN", str(self.workdir)) for each in arguments]
    ask = [f"--stage={name}", *more]
    self.assert_one_line(
      self.run_main(*ask, "--round=3"), f"{name} needs --round={message}"
    )
    # Only what has no newest round needs one.
    with mock.patch.object(
      hosts, "check_devices", side_effect=ValueError("it begins")
    ):
      said = "it begins" if message[0] == "0" else f"{name} needs --round="
      for given in ([], ["--round=0"]):
        self.assert_one_line(self.run_main(*ask, *given), said)

  def test_a_stage_before_its_time(self):
    self.bind()
    self.assert_one_line(
      self.run_main("--stage=sft", "--round=1"),
      "run rstar_jax extract --round=1 first",
    )

  def test_another_config(self):
    (self.workdir / "round_0").mkdir(parents=True)
    (self.workdir / "config.json").write_text('{"seed": 3}')
    self.assert_one_line(self.run_main(), "another config", "config.seed")

  @parameterized.parameters(
    (["--processes=2"], "are for --distributed"),
    (["--distributed", "--process=0"], "--coordinator, --processes and --pr"),
    (
      [
        *("--distributed", "--process=0", "--stage=rollout", "--round=1"),
        "--config.rounds[0].algorithm=grpo",
      ],
      "--coordinator, --processes and --process go together",
    ),
    (
      ["--distributed", "--process=0", "--stage=extract", "--round=1"],
      "rstar_jax: --processes and --process go together",
    ),
    (
      ["--distributed", "--process=0", "--stage=rollout", "--round=1"],
      "--processes and --process go together",
    ),
    (
      [
        *("--distributed", "--process=2", "--processes=2"),
        *("--stage=evaluate", "--round=0"),
      ],
      "--process=2 is none of --processes=2",
    ),
  )
  def test_which_process_this_is(self, arguments, message):
    self.assert_one_line(self.run_main(*arguments), message)

  def test_a_base_model_that_is_not_there(self):
    self.assert_one_line(
      self.run_main(f"--config.policy.path={self.folder}/modle"),
      f"there is no folder {self.folder}/modle, and the hub does not give",
    )
    self.assert_untouched()

  @parameterized.parameters(
    (AssertionError(), "no such platform"),
    (RuntimeError("no\ntpu"), "(no tpu)"),
  )
  def test_a_platform_that_is_not_there(self, error, message):
    with mock.patch.object(hosts.jax, "devices", side_effect=error):
      self.assert_one_line(
        self.run_main(),
        *("jax cannot use this machine's devices", message, "docs/tpu.md"),
      )
    self.assert_untouched()

  def test_two_processes_in_one_workdir(self):
    self.bind()
    who = {"host": socket.gethostname(), "pid": 7, "began": 0}
    (self.workdir / "at_work.json").write_text(json.dumps(who))
    with mock.patch.object(alone, "_locked", return_value=None):
      self.assert_one_line(self.run_main(), "PID 7 on ", "give another --work")
      # To read it is no work.
      code, _, _ = self.run_main("--stage=report")
    self.assertEqual(code, 0)

  def test_two_studies_of_one_round(self):
    self.bind("round_1/study")
    who = json.dumps({"host": socket.gethostname(), "pid": 7, "began": 0})
    file = self.workdir / "round_1" / "study" / "at_work.json"
    file.write_text(who)
    arguments = "--stage=study", "--round=1"
    locked = alone._locked
    with (
      mock.patch.object(study, "study") as done,
      mock.patch.object(study_tables, "render", return_value="a table"),
    ):
      done.side_effect = lambda *_: self.assertNotEqual(file.read_text(), who)
      with mock.patch.object(alone, "_locked", return_value=None):
        said = self.run_main(*arguments)
      self.assert_one_line(said, "PID 7 on ", str(file.parent))
      done.assert_not_called()
      # Other rounds may be made meanwhile.
      (self.workdir / "at_work.json").write_text(who)
      with mock.patch.object(
        alone, "_locked", lambda path: locked(path) if path == file else None
      ):
        self.assertEqual(self.run_main(*arguments)[:2], (0, "a table\n"))
      done.assert_called_once()
      self.assertFalse(file.exists())
      # The first host has it for all hosts of a study.
      done.side_effect = None
      with (
        mock.patch.object(hosts, "join", return_value=hosts.Host(1, 2)),
        mock.patch.object(alone, "_locked", return_value=None),
      ):
        said = self.run_main(*arguments, "--distributed")
      self.assertEqual(said[:2], (0, ""))
      self.assertEqual(done.call_count, 2)

  def test_a_workdir_that_is_no_folder(self):
    self.workdir = "s3://bucket/run"
    self.assert_one_line(self.run_main(), "s3://bucket/run is neither on the")

  def test_the_base_model_is_asked_without_a_run(self):
    loaded = []
    load = folders.load_policy

    def recorded(path, *args, **kwargs):
      loaded.append(path)
      return load(path, *args, **kwargs)

    with mock.patch.object(folders, "load_policy", recorded):
      code, out, _ = self.run_main(
        "--stage=solve",
        "--round=0",
        f"--question={QUESTION}",
        "--config.engine.temperature=0.5",
      )
    self.assertEqual(code, 0)
    self.assertEqual(loaded, [folders.BASE_MODEL])
    self.assertIn("--- step 1\n", out)
    self.assertRegex(out, r"(?s)--- step \d+\n.*\\boxed\{47\}.*\nAnswer: 47\n")
    self.assert_untouched()

  def test_the_base_model_is_asked_without_a_workdir(self):
    ask = ["solve", f"--config={self.config}", "--question=x"]
    with (
      mock.patch.object(questions.Asking, "of") as opened,
      mock.patch.object(questions, "answer_one", return_value="said"),
    ):
      opened.return_value.describe.return_value = "who"
      for more in ([], ["--round=0"]):
        code, out, _ = self.run_console(*ask, *more)
        self.assertEqual((code, out), (0, "said\n"))
        context, round_, _ = opened.call_args.args
        self.assertEqual(round_, 0)
        self.assertFalse(context.workdir.exists())
    # Other rounds, and other commands, are of a run.
    self.assert_one_line(
      self.run_console(*ask, "--round=2"), "give --workdir=FOLDER"
    )
    self.assert_one_line(
      self.run_console("evolve", f"--config={self.config}"),
      "give --workdir=FOLDER",
    )

  def test_report_of_nothing(self):
    self.bind()
    code, out, _ = self.run_main("--stage=report")
    self.assertEqual(code, 0)
    self.assertEndsWith(out, f"report: {self.workdir / 'report.html'}\n")
    self.assertTrue((self.workdir / "report.html").exists())
    results = json.loads((self.workdir / "results.json").read_text())
    self.assertEqual((results["rows"], results["solved"]), ([], []))

  def run_console(self, *args: str):
    """Runs the whole command in this process; returns (code, out, err)."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
      flagsaver.flagsaver(),
      mock.patch.object(sys, "argv", ["rstar_jax", *args]),
      mock.patch.object(main.app, "run") as run,
      contextlib.redirect_stdout(out),
      contextlib.redirect_stderr(err),
    ):
      run.side_effect = lambda main, flags_parser: main(flags_parser(sys.argv))
      try:
        main.console()
      except SystemExit as end:
        code = end.code
    return code, out.getvalue(), err.getvalue()

  def test_a_command_is_a_stage(self):
    workdir = f"--workdir={self.workdir}"
    for first in ("status", "--stage=status"):
      self.assert_one_line(
        self.run_console(first, workdir, "--round=1"),
        "--round means nothing to status",
      )
    for stage in (["--stage=extract", "--round=1"], ["--stage", "check"]):
      self.assert_one_line(
        self.run_console("check", f"--config={self.config}", workdir, *stage),
        "the command is check: leave out --stage",
      )
    self.assert_untouched()
    self.bind("round_0")
    told = self.run_console("status", workdir, "--json")
    self.assertEqual(
      (told[0], json.loads(told[1])["workdir"]), (0, str(self.workdir))
    )

  @parameterized.parameters(
    (["sovle"], "no command 'sovle'; did you mean solve?"),
    (["status", "--jsn"], "flag 'jsn'. Did you mean: json"),
    (["runs/tiny"], "given as --workdir=runs/tiny"),
    (["configs/tiny.py"], "given as --config=configs/tiny.py"),
    (["tiny.py"], "given as --config=tiny.py"),
    (["status", "runs/tiny"], "given as --workdir=runs/tiny"),
  )
  def test_a_mistyped_command(self, arguments, message):
    self.assert_one_line(self.run_console(*arguments), message)

  @parameterized.parameters([[]], [["--help"]], [["-h"]], [["--stage=x", "-h"]])
  def test_help_lists_commands(self, arguments):
    code, out, err = self.run_console(*arguments)
    self.assertEqual((code, out, err), (0, commands.overview() + "\n", ""))

  def test_help_of_a_command_lists_its_flags(self):
    for name, each in commands.COMMANDS.items():
      if each.module:
        continue
      code, out, _ = self.run_console(name, "--help")
      self.assertEqual(code, 0)
      told = re.findall(r"(?m)^  --(\w+)  \S", out)
      self.assertContainsSubset((*each.takes, "config", "workdir"), told)
      self.assertNoCommonElements(told, {"verbosity", *others(each)})

  def test_home_is_known_where_no_shell_puts_it(self):
    with mock.patch.dict(main.outside.os.environ, HOME=str(self.folder)):
      self.assert_one_line(
        self.run_console("status", "--workdir=~/run"),
        f"there is no run in {self.folder}/run",
      )
      self.assert_one_line(
        self.run_console("status", "--workdir=a~/run"), "no run in a~/run"
      )
      # Of a command that has flags of its own.
      told = self.run_console("watch", "--workdir=~/run")
      self.assertIn(f"there is no run in {self.folder}/run", told[2])
      self.assert_one_line(
        self.run_console("evolve", "--config=~/no.py", "--workdir=a"),
        f"there is no file {self.folder}/no.py",
      )

  def test_a_command_of_another_module(self):
    asked = []
    served = types.SimpleNamespace(main=lambda given: asked.append(given) or 3)
    name = commands.COMMANDS["serve"].module
    with mock.patch.dict(sys.modules, {name: served}):
      code, _, _ = self.run_console("serve", "--port=1", "--help")
    self.assertEqual((code, asked), (3, [["--port=1", "--help"]]))

  def test_a_command_whose_libraries_are_not_there(self):
    missing = ModuleNotFoundError("no", name="uvicorn")
    with mock.patch.object(
      main.importlib, "import_module", side_effect=missing
    ):
      self.assert_one_line(
        self.run_console("serve"), "serve needs uvicorn: pip install", "[serve]"
      )

  def test_one_command_by_three_names(self):
    (script,) = ROOT.glob("setup.py")
    self.assertIn("rstar_jax = rstar_jax.__main__:console", script.read_text())
    for started in (["-m", "rstar_jax.main"], ["-m", "rstar_jax"]):
      done = subprocess.run(
        [sys.executable, *started, "sovle"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
      )
      self.assertEqual((done.returncode, done.stdout), (1, ""))
      self.assertIn("did you mean solve?", done.stderr)

  def while_it_loads(self, module: str, what: str):
    """Runs the command; an import of `module` does `what`."""
    text = (
      "import os, runpy, signal, sys\n"
      # A shell has what it runs in the background ignore it.
      "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
      "class Finder:\n"
      "  def find_spec(self, name, *_):\n"
      f"    if name == {module!r}: {what}\n"
      "sys.meta_path.insert(0, Finder())\n"
      "runpy.run_module('rstar_jax', run_name='__main__')"
    )
    done = subprocess.run(
      [sys.executable, "-c", text, "--help"],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=False,
    )
    return done.returncode, done.stdout, done.stderr

  def test_control_c_while_it_loads(self):
    self.assertEqual(
      self.while_it_loads("absl", "os.kill(os.getpid(), signal.SIGINT)"),
      (130, "", "\nrstar_jax: stopped\n"),
    )

  def test_a_python_that_lacks_what_the_package_needs(self):
    lacks = "raise ModuleNotFoundError('none', name=name)"
    self.assert_one_line(
      self.while_it_loads("absl", lacks),
      f"{sys.executable} has no absl: ",
      "pip install -e .",
    )
    # A part of the package that is missing is no fault of the user.
    _, _, err = self.while_it_loads("rstar_jax.commands", lacks)
    self.assertIn("Traceback", err)

  def test_a_check_takes_no_accelerator(self):
    done = subprocess.run(
      [sys.executable, "-m", "rstar_jax", "check", f"--config={self.config}"]
      + ["--topology=v5e-1"],
      cwd=ROOT,
      env=os.environ | {"JAX_PLATFORMS": "tpu"},
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertIn("sft memory: ", done.stdout)
    self.assertIn(" errors, ", done.stdout)
    self.assertNotIn("Traceback", done.stderr)

  def test_only_a_command_that_runs_a_model_takes_an_accelerator(self):
    with mock.patch("jax.config.update") as update:
      for stage in ("extract", "report", "compare", "branch", "export"):
        with flagsaver.flagsaver(stage=stage):
          main.spare_accelerator()
        update.assert_called_once_with("jax_platforms", "cpu")
        update.reset_mock()
      for stage in ("evolve", "rollout", "sft", "ppm", "evaluate", "solve"):
        with flagsaver.flagsaver(stage=stage):
          main.spare_accelerator()
      update.assert_not_called()

  def test_help_loads_no_jax(self):
    text = (
      "import sys\nfrom rstar_jax import main\n"
      "try: main.console()\nexcept SystemExit: pass\n"
      "print(sorted({'jax', 'flax', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
      [sys.executable, "-c", text, "--help"],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=True,
    )
    self.assertEndsWith(done.stdout, "\n[]\n")

  def test_as_a_program(self):
    def run(*args):
      return subprocess.run(
        [sys.executable, "-m", "rstar_jax.main", *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
      )

    wrong = run("solve", f"--config={self.config}", f"--workdir={self.workdir}")
    self.assertEqual((wrong.returncode, wrong.stdout), (1, ""))
    lines = [each for each in wrong.stderr.splitlines() if "rstar_jax" in each]
    self.assertLen(lines, 1)
    self.assertIn("--question=", lines[0])
    self.assertNotIn("Traceback", wrong.stderr)


if __name__ == "__main__":
  absltest.main()
