"""The list of what `make docs-check` does not run is whole and not too long."""

import contextlib
import io
import re
import sys
from unittest import mock

from absl.testing import absltest, flagsaver, parameterized

from rstar_jax import main
from tests.docs import check, reading

# What may be run, by how a command begins: a new kind wants a thought.
_KNOWN = (
  r"(\.venv/bin/)?python -m rstar_jax\.",
  r'python -c "import jax; ',
  r"(\.venv/bin/)?rstar_jax [a-z]+ ",
  r"(\.venv/bin/)?python -m tests\.search\.mcts_test$",
  r"make quick$",
  r"mkdir -p runs$",
  r"(printf|echo) ",
  r"launch/\w+\.sh --dry-run ",
)


def commands() -> list[str]:
  """Returns all commands that the documents show."""
  return [
    command
    for _, block in check.shown()
    if block.language == "bash"
    for command in reading.commands(block.text)
  ]


def refusal(words: list[str]) -> str:
  """Returns what the command line says against its flags, "" if nothing."""
  argv, said = ["rstar_jax", *words], io.StringIO()
  if not any(word.startswith("--config=") for word in words):
    argv.append("--config=configs/tiny.py")  # The run's, which is not here.
  with (
    flagsaver.flagsaver(),
    mock.patch.object(sys, "argv", argv),
    contextlib.redirect_stderr(said),
  ):
    try:
      main.check_flags(main.parse(argv))
    except (SystemExit, ValueError) as error:
      return said.getvalue() or str(error)
  return ""


class ListTest(parameterized.TestCase):
  def test_every_command_is_run_or_listed(self):
    self.assertGreater(len(commands()), 20)
    for command in commands():
      if check.is_assignment(command) or check.reason(command):
        continue
      with self.subTest(command):
        self.assertTrue(any(re.match(each, command) for each in _KNOWN))

  def test_every_line_of_the_list_is_of_use(self):
    wanted = {why for _, why in check.NOT_RUN}
    self.assertEqual(set(map(check.reason, commands())) - {None}, wanted)

  def test_documents_share_no_workdir(self):
    # They are checked in one folder, and read by one reader. A workdir holds
    # one config, so only the demo's, and the same commands, may come again.
    shown = {}
    for name, block in check.shown():
      if block.language == "bash":
        for command in reading.commands(block.text):
          for workdir in re.findall(r"--workdir=(runs/\S+)", command):
            plain = " ".join(command.split())
            shown.setdefault(workdir, {}).setdefault(name, []).append(plain)
    self.assertGreater(len(shown), 10)
    self.assertGreater(len(shown.pop("runs/tiny")), 3)
    for workdir, commands in shown.items():
      with self.subTest(workdir):
        self.assertLen(set(map(tuple, commands.values())), 1, commands)

  @parameterized.parameters(
    ("A=b", True),
    ("export A=b", True),
    ('OPTIONS="--a=1   --b=2"', True),
    ("export A=b C='d e' F=", True),
    ("A=b python -m c", False),
    ("python -m c --a=b", False),
  )
  def test_assignments(self, command, expected):
    self.assertEqual(check.is_assignment(command), expected)

  @parameterized.parameters(
    ("make demo", ["make", "--dry-run", "--always-make", "demo"]),
    (
      "pip install -e '.[hub]'",
      ["grep", "-q", '^  "hub": ', "setup.py"],
    ),
  )
  def test_what_is_asked_instead(self, command, expected):
    self.assertEqual(check.without_running(command, []), [expected])

  def test_flags_are_looked_for(self):
    (command,) = check.without_running(
      "python -m benchmarks.growth --plot=a --no-size 3", []
    )
    self.assertIn("benchmarks.growth --help", command[-1])
    self.assertIn("?plot\\b", command[-1])
    (command,) = check.without_running(
      "rstar_jax sft $O ${R}1 --config.rounds='(1, 2)'",
      ["O='--config=a --workdir=b'", "export R=--round="],
    )
    flags = ["--config=a", "--workdir=b", "--round=1", "--config.rounds=(1, 2)"]
    self.assertEqual(command[-5:], ["--stage=sft", *flags])
    (command,) = check.without_running(
      "python -m benchmarks.growth $O", ["O=--plot=a"]
    )
    self.assertIn("?plot\\b", command[-1])
    # A command with flags of its own.
    (command,) = check.without_running("rstar_jax serve --port=8000", [])
    self.assertIn("-m rstar_jax serve --help", command[-1])
    self.assertIn("?port\\b", command[-1])

  def test_every_command_takes_its_flags(self):
    tried = 0
    for name, block in check.shown():
      before = []
      script = reading.commands(block.text) if block.language == "bash" else []
      for command in script:
        if check.is_assignment(command):
          before.append(command)
        for asked in check.without_running(command, before):
          if asked[2] == check.CHECK_FLAGS:
            with self.subTest(f"{name}: {command}"):
              tried += 1
              self.assertEqual(refusal(asked[3:]), "")
    self.assertGreater(tried, 20)

  def test_what_is_listed_is_not_run(self):
    clone = mock.Mock()
    clone.do.return_value = ""
    block = reading.Block(
      "bash", "A=1\nvllm serve NAME\npython -m rstar_jax.tools.verify $A\n", 1
    )
    done = list(check.check(clone, block, demo=False))
    self.assertEqual([what for _, what, _ in done][1], "run")
    self.assertStartsWith(done[0][1], "not run: ")
    clone.do.assert_called_once_with(
      ["bash", "-euc", "A=1\npython -m rstar_jax.tools.verify $A"]
    )


if __name__ == "__main__":
  absltest.main()
