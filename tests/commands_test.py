"""Tests of the commands' table and their help."""

from absl.testing import absltest, parameterized

from rstar_jax import commands


class CommandsTest(parameterized.TestCase):
  def test_find(self):
    self.assertEqual(commands.find("solve").takes[0], "question")
    with self.assertRaisesRegex(ValueError, "'evaluat'; did you mean evaluate"):
      commands.find("evaluat")
    with self.assertRaisesRegex(ValueError, "'xyz'; `rstar_jax --help` lists"):
      commands.find("xyz")
    with self.assertRaisesRegex(ValueError, "given as --workdir=runs/a; `rst"):
      commands.find("runs/a")

  @parameterized.parameters(
    ("runs/a", "", "the run's folder is given as --workdir=runs/a"),
    ("a b", "evolve", "the run's folder is given as --workdir=a b"),
    ("a b", "solve", "the question is given as --question='...'"),
    ("a.py", "solve", "the config is given as --config=a.py"),
    ("watch", "evolve", "the command comes first: rstar_jax watch --config="),
  )
  def test_what_a_word_was_meant_as(self, word, command, wanted):
    self.assertStartsWith(commands.meant(word, command), wanted)

  def test_takers(self):
    self.assertEqual(commands.takers("other"), ("compare", "branch"))
    self.assertEqual(commands.takers("workdir"), ())

  def test_help_fits_a_terminal(self):
    lines = commands.overview().splitlines()
    self.assertLess(len(lines), 25)
    for name in commands.COMMANDS:
      self.assertLen([x for x in lines if x.startswith(f"  {name} ")], 1)
      lines += commands.usage(name, lambda flag: f"{flag} " * 40).splitlines()
    self.assertLessEqual(max(map(len, lines)), 80)


if __name__ == "__main__":
  absltest.main()
