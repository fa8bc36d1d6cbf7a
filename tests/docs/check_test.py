"""The list of what `make docs-check` does not run is whole and not too long."""

import re
from unittest import mock

from absl.testing import absltest, parameterized

from tests.docs import check, reading

# What may be run, by how a command begins: a new kind wants a thought.
_KNOWN = (
  r"(\.venv/bin/)?python -m rstar_jax\.",
  r'python -c "import jax; ',
  r"(\.venv/bin/)?rstar_jax [a-z]+ ",
  r"(\.venv/bin/)?python -m tests\.search\.mcts_test$",
  r"make quick$",
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
      "rstar_jax sft $O --round=1", ["O=--config=a"]
    )
    self.assertTrue(command[-1].startswith("O=--config=a\n"))
    # A command with flags of its own.
    (command,) = check.without_running("rstar_jax serve --port=8000", [])
    self.assertIn("-m rstar_jax serve --help", command[-1])
    self.assertIn("?port\\b", command[-1])

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
