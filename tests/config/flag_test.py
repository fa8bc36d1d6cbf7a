import contextlib
import io
import pathlib
import re
import sys
from unittest import mock

from absl import flags
from absl.testing import absltest, parameterized

from rstar_jax.config import flag, plugins

ROOT = pathlib.Path(flag.__file__).resolve().parents[2]
FILE = """
from rstar_jax.config import schema as config

def get_config():
  result = config.Config()
  result.train.count = 7
  return result
"""


class LoadConfigTest(parameterized.TestCase):
  def test_a_file_and_its_argument(self):
    path = self.create_tempfile("run.py", FILE).full_path
    self.assertEqual(flag.load_config(path).train.count, 7)
    text = FILE.replace("()", "(arg)", 1).replace("= 7", "= int(arg)")
    path = self.create_tempfile("argument.py", text).full_path
    self.assertEqual(flag.load_config(f"{path}:5").train.count, 5)

  def test_what_cannot_run_is_refused(self):
    text = FILE.replace("train.count = 7", "shard_size = 0")
    path = self.create_tempfile("bad.py", text).full_path
    with self.assertRaisesRegex(ValueError, "shard_size"):
      flag.load_config(path)

  @parameterized.parameters(
    ("def get_config(arg): return 0", "", "get_config() needs an argument"),
    ("def get_config(): return 0", ":a", "so leave out :a"),
    ("def get_config(): return 0", "", "must return a Config, not 0; does"),
    ("def get_config():\n  return {}['a']", "", ":2: KeyError: 'a'"),
    ("x = 1\nimport nothing_here", "", ":2: ModuleNotFoundError: No module"),
    ("get_config = 3", "", "has no function get_config()"),
    ("x = [", "", ":1: SyntaxError: '[' was never closed"),
  )
  def test_what_is_no_config_file(self, text, argument, message):
    path = self.create_tempfile("wrong.py", text).full_path
    with self.assertRaises(ValueError) as raised:
      flag.load_config(path + argument)
    self.assertIn(message, str(raised.exception))
    self.assertStartsWith(str(raised.exception), path)
    self.assertNotIn("\n", str(raised.exception))


class ShippedTest(absltest.TestCase):
  """Configs that come with the package, wherever one is."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.enter_context(contextlib.chdir(self.folder))

  def test_they_are_found_from_another_folder(self):
    for name in ("configs/tiny.py", "tiny.py", "configs/tiny.py:full"):
      config = flag.load_config(name)
      count = 400 if name.endswith(":full") else 200
      self.assertEqual(config.train.count, count)

  def test_a_file_of_one_s_own_goes_first(self):
    (self.folder / "configs").mkdir()
    (self.folder / "configs" / "tiny.py").write_text(FILE)
    self.assertEqual(flag.load_config("configs/tiny.py").train.count, 7)

  def test_a_wheel_s_configs_are_inside_the_package(self):
    inside = self.folder / "rstar_jax"
    (inside / "configs").mkdir(parents=True)
    (inside / "configs" / "mine.py").write_text(FILE)
    with mock.patch.object(plugins, "_PACKAGE", inside):
      self.assertEqual(flag.load_config("configs/mine.py").train.count, 7)
      with self.assertRaisesRegex(OSError, "come configs/mine.py$"):
        flag.load_config("configs/tiny.py")

  def test_a_missing_file_s_message_lists_them(self):
    with self.assertRaises(OSError) as raised:
      flag.load_config("configs/tinny.py")
    said = str(raised.exception)
    near = "(did you mean configs/tiny.py?); with the package come "
    self.assertStartsWith(said, f"there is no file configs/tinny.py {near}")
    names = {each.name for each in (ROOT / "configs").glob("*.py")}
    self.assertCountEqual(
      re.findall(r"configs/(\w+\.py)", said),
      [*names, "tinny.py", "tiny.py"],
    )

  def test_a_folder_is_not_looked_into(self):
    with self.assertRaisesRegex(OSError, "no file elsewhere/tiny.py"):
      flag.load_config("elsewhere/tiny.py")

  def test_a_run_is_no_config(self):
    folder = self.create_tempdir().full_path
    with self.assertRaisesRegex(OSError, f"given as --workdir={folder}$"):
      flag.load_config(folder)


class ConfigFlagTest(parameterized.TestCase):
  def parse(self, *arguments, text=FILE):
    """Returns the config of a file and overrides."""
    file = self.create_tempfile("run.py", text).full_path
    return self.parse_only(f"--config={file}", *arguments)

  def parse_only(self, *arguments):
    values = flags.FlagValues()
    flag.define_config(values)
    self.parse_into(["main.py", *arguments], values)
    return values.config

  def parse_into(self, argv, values):
    with mock.patch.object(sys, "argv", argv):
      flag.parse_flags(argv, values)

  def complaint(self, *arguments, only=False, **keywords):
    """Returns the one line that a wrong command line gets."""
    parse = self.parse_only if only else self.parse
    return self.one_line(lambda: parse(*arguments, **keywords))

  def complaint_of(self, argv, values):
    return self.one_line(lambda: self.parse_into(argv, values))

  def one_line(self, parse):
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
      with self.assertRaises(SystemExit) as raised:
        parse()
    self.assertNotEqual(raised.exception.code, 0)
    # `ml_collections` uses what newer Pythons warn of; the rest is ours.
    lines = [
      line
      for line in stderr.getvalue().splitlines()
      if "DeprecationWarning" not in line
    ]
    self.assertLen(lines, 1)
    return lines[0]

  def test_file(self):
    self.assertEqual(self.parse().train.count, 7)

  def test_overrides(self):
    config = self.parse(
      "--config.search.c=1.5",
      "--config.search.annotation=ppm",
      "--config.rounds[0].extra_rollouts=(3,5)",
      "--config.sandbox.require=('net','read')",
      "--config.rounds[1].rollouts=11",
      "--config.extract.final_pairs=false",
      "--config.train.source=problems.jsonl",
    )
    self.assertEqual(config.search.c, 1.5)
    self.assertEqual(config.search.annotation, "ppm")
    self.assertEqual(config.rounds[0].extra_rollouts, (3, 5))
    self.assertEqual(config.sandbox.require, ("net", "read"))
    self.assertEqual(config.rounds[1].rollouts, 11)
    self.assertIs(config.extract.final_pairs, False)
    self.assertEqual(config.train.source, "problems.jsonl")
    # A part that was not named stays as the file has it.
    self.assertEqual(config.rounds[0].rollouts, 8)

  @parameterized.named_parameters(
    ("part", "--config.serch.c=1", "no field 'serch'; did you mean search?"),
    ("field", "--config.search.rolouts=1", "did you mean rollouts?"),
    (
      "nothing near",
      "--config.search.zzzz=1",
      "SearchConfig has no field 'zzzz'",
    ),
    ("round", "--config.rounds[0].rolouts=1", "RoundConfig has no field"),
    ("past", "--config.rounds[9].rollouts=1", "past the end"),
    ("letter", "--config.rounds[k].rollouts=1", "number, as in rounds[0]"),
    ("none", "--config.rounds.rollouts=1", "index, as in config.rounds[0]"),
    (
      "beyond 64 bits",
      "--config.seed=100000000000000000000",
      "config.seed has a number of 21 digits",
    ),
    ("not UTF-8", "--config.train.source=d\udcff", "train.source is not valid"),
    ("tracker", "--config.trackers=wand", "must be one of 'tensorboard', 'w"),
    ("several", "--config.extract.min_correct_of=a,b", "\"('a', 'b')\""),
    ("choice", "--config.search.annotation=no", "<terminal|ppm>"),
    ("number", "--config.search.rollouts=many", "search.rollouts=many"),
    ("flag", "--confg.seed=1", "Unknown command line flag"),
    ("range", "--config.search.rollouts=0", "rollouts=0 must be above 0"),
  )
  def test_wrong_override(self, argument, expected):
    self.assertIn(expected, self.complaint(argument))

  def test_an_override_before_its_config(self):
    line = self.complaint(
      *("--config.seed=1", "--config=configs/tiny.py"), only=True
    )
    self.assertEndsWith(line, "give --config first, before --config.seed=1")

  @parameterized.parameters(
    (["--config=configs/none.py"],),
    (["--config=configs/none.py:full", "--config.seed=1"],),
    (["--config", "configs/none.py"],),
  )
  def test_missing_file(self, arguments):
    line = self.complaint(*arguments, only=True)
    self.assertIn("there is no file configs/none.py", line)

  @parameterized.parameters(
    (["main.py", "--config=FILE"], "--workdir"),
    (["main.py", "--workdir=runs/x"], "--config"),
  )
  def test_a_required_flag_is_named_in_one_line(self, argv, missing):
    file = self.create_tempfile("run.py", FILE).full_path
    values = flags.FlagValues()
    flag.define_config(values)
    flags.DEFINE_string("workdir", None, "A folder.", flag_values=values)
    flags.mark_flags_as_required(["config", "workdir"], flag_values=values)
    argv = [each.replace("FILE", file) for each in argv]
    self.assertIn(missing, self.complaint_of(argv, values))

  def test_help_lists_it(self):
    # The flag belongs to the program that defines it, not to this module.
    values = flags.FlagValues()
    flag.define_config(values)
    self.assertIn("--config", values.main_module_help())

  @parameterized.named_parameters(
    ("syntax", "def get_config(:", "SyntaxError"),
    ("no function", "x = 1", "get_config"),
    (
      "keyword",
      "from rstar_jax.config import schema\ndef get_config():\n"
      "  return schema.Config(sed=1)",
      "'sed'",
    ),
    ("import", "import no_such_module_here", "no_such_module_here"),
  )
  def test_wrong_file(self, text, expected):
    self.assertIn(expected, self.complaint("--config.seed=1", text=text))

  def test_error_in_a_file_is_not_blamed_on_an_override(self):
    line = self.complaint(
      "--config.seed=1", text="def get_config():\n  return {}['gone']"
    )
    self.assertIn("gone", line)
    self.assertNotIn("no field", line)


if __name__ == "__main__":
  absltest.main()
