"""Plugins: found by name, and refused in one line."""

import contextlib
import pathlib
import sys
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.config import plugins, validation
from rstar_jax.config import schema as config_lib
from rstar_jax.storage import stopping
from tests import layering_test

MODULE = """
import math
number = 7
def twice(x):
  return 2 * x
def fails(x):
  return 1 / 0
def items():
  yield 1
  raise RuntimeError("no more\\nof them")
"""


class PluginsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.create_tempdir().full_path
    self.enterContext(contextlib.chdir(folder))
    self.addCleanup(setattr, sys, "path", list(sys.path))
    pathlib.Path("own_plugin.py").write_text(MODULE)
    pathlib.Path("broken_plugin.py").write_text("x = 1\nx.y\n")
    pathlib.Path("wrong_plugin.py").write_text("x = (\n")
    pathlib.Path("needy_plugin.py").write_text("import no_such_library\n")
    self.addCleanup(sys.modules.pop, "own_plugin", None)

  def line(self, action, *args, **kwargs) -> str:
    with self.assertRaises(ValueError) as caught:
      action(*args, **kwargs)
    self.assertNotIn("\n", str(caught.exception))
    return str(caught.exception)

  @parameterized.parameters(
    ("own_plugin:twice", True),
    ("a.b.c:f", True),
    ("synthetic:train", False),
    ("hf:set/split", False),
    ("ppm:folder", False),
    ("gs://bucket/name", False),
    ("folder/name", False),
    ("mine.jsonl", False),
    ("a:b:c", False),
    ("", False),
  )
  def test_what_is_the_name_of_one(self, text, expected):
    self.assertEqual(plugins.names_one(text), expected)

  def test_a_module_of_the_current_folder(self):
    self.assertEqual(plugins.load("own_plugin:twice", "f", ("x",))(4), 8)

  @parameterized.parameters("no folder", "a folder of one's own", "a wheel")
  def test_a_config_of_the_package(self, case):
    root = str(layering_test.ROOT)
    self.enterContext(
      mock.patch.object(
        sys, "path", [each for each in sys.path if each not in ("", root)]
      )
    )
    others = {n: m for n, m in sys.modules.items() if n[:7] != "configs"}
    self.enterContext(mock.patch.dict(sys.modules, others, clear=True))
    if case == "a folder of one's own":
      pathlib.Path("configs").mkdir()
      pathlib.Path("configs/mine.py").write_text("from own_plugin import twice")
      self.assertEqual(plugins.load("configs.mine:twice", "f")(4), 8)
    name = "configs.tiny_gym:written"
    if case == "a wheel":
      package = pathlib.Path("rstar_jax").resolve()
      (package / "configs").mkdir(parents=True)
      (package / "configs" / "tiny_rl.py").write_text("def get_config(): ...")
      self.enterContext(mock.patch.object(plugins, "_PACKAGE", package))
      self.assertIsNone(plugins.load("configs.tiny_rl:get_config", "f")())
      self.assertIn(
        "no module 'configs.tiny_gym'", self.line(plugins.load, name, "f")
      )
      return
    plugins.load(name, "f", ("problem",))
    self.assertIn(
      "no module 'configs.gym'", self.line(plugins.load, "configs.gym:f", "f")
    )

  def test_the_running_program(self):
    main = sys.modules["__main__"]
    self.addCleanup(delattr, main, "thrice")
    main.thrice = lambda x: 3 * x
    self.assertEqual(plugins.load("__main__:thrice", "f", ("x",))(4), 12)

  @parameterized.parameters(
    ("twice", "f='twice' must have the form module:function"),
    ("own_plugin.twice", "must have the form module:function"),
    ("own_plugn:twice", "no module 'own_plugn' in .*; did you mean own_plugin"),
    ("own_plugin.sub:twice", "there is no module 'own_plugin.sub'"),
    ("own_plugin:twise", "own_plugin has no 'twise'; did you mean twice?"),
    ("own_plugin:number", "number is 7, and no function"),
    ("broken_plugin:f", r"raised AttributeError: .*\(broken_plugin.py:2\)"),
    ("wrong_plugin:f", r"raised SyntaxError: .*wrong_plugin.py, line 1"),
    ("needy_plugin:f", "needy_plugin needs no_such_library"),
    ("own_plugin:items", r"must take \(x\), and takes \(\)"),
  )
  def test_what_cannot_be_loaded(self, name, reason):
    self.assertRegex(self.line(plugins.load, name, "f", ("x",)), reason)

  def test_keywords(self):
    takes = ("problems", "config", "calls", "seed=", "name=")
    main = sys.modules["__main__"]
    self.addCleanup(delattr, main, "search")
    main.search = lambda problems, config, calls, seed, *, name: []
    plugins.load("__main__:search", "f", takes)
    main.search = lambda problems, config, calls: []
    self.assertRegex(
      self.line(plugins.load, "__main__:search", "f", takes),
      r"must take \(problems, config, calls, seed, name\)",
    )

  def test_what_it_raises_names_the_field_and_the_line(self):
    plugin = plugins.load("own_plugin:fails", "config.search.method", ("x",))
    self.assertRegex(
      self.line(plugin, 1),
      r"^config.search.method='own_plugin:fails' raised ZeroDivisionError: "
      r"division by zero \(own_plugin.py:7\)$",
    )
    plugin = plugins.load("own_plugin:items", "source", ())
    self.assertRegex(
      self.line(lambda: list(plugin.each(plugin()))),
      r"raised RuntimeError: no more of them \(own_plugin.py:10\)",
    )
    self.assertEndsWith(
      self.line(plugins.load("own_plugin:twice", "f"), 1, 2),
      "takes 1 positional argument but 2 were given",
    )

  def test_one_that_exits_does_not_end_the_process(self):
    exits = plugins.wrap(lambda: sys.exit("no key"), "field")
    self.assertRegex(self.line(exits), "^field=.* raised SystemExit: no key")

    def stops():
      raise stopping.Stopped

    with self.assertRaises(stopping.Stopped):
      plugins.wrap(stops, "f")()

  @parameterized.parameters(
    ("task", "maths", "one of 'math', 'code', 'reasoning_gym:', or a function"),
    ("task", "no_such:f", "no module 'no_such'"),
    ("task", "own_plugin:twice", r"must take \(\), and takes \(x\)"),
    ("policy.backend", "own_plugin:twice", r"must take \(config, folder\)"),
    ("search.method", "beam", "one of 'mcts', or a function of yours as 'mod"),
    ("eval.search.method", "own_plugin:twise", "did you mean twice"),
    ("search.selection", "pucct", "one of 'uct', 'puct', or a function of you"),
    ("search.selection", "own_plugin:twice", r"must take \(tree, node, config"),
    ("grader.function", "own_plugin", "must be a function of yours as 'modul"),
    ("grader.function", "own_plugin:twice", r"must take \(gold, predicted\)"),
    ("train.source", "own_plugin:twice", r"must take \(\), and takes \(x\)"),
    ("eval.reward_model", "own_plugin:items", r"must take \(config\)"),
    ("study.methods", ("mcts", "best"), r"study.methods\[1\]='best' must be"),
    ("study.methods", ("own_plugin:twice",), "must take .problems"),
    ("study.rewards", ("ppm", "own_plugin:thrice"), "did you mean twice"),
    ("train.answer_pattern", "(", "answer_pattern='.' is no regular expre"),
  )
  def test_a_config_is_checked(self, name, value, reason):
    config = config_lib.Config(train=config_lib.DataConfig(count=1))
    *path, field = name.split(".")
    part = config
    for each in path:
      part = getattr(part, each)
    setattr(part, field, value)
    found = self.line(validation.validate, config)
    self.assertRegex(found, reason)
    self.assertStartsWith(found, f"config.{name}")

  def test_each_round_is_checked(self):
    config = config_lib.Config(train=config_lib.DataConfig(count=1))
    config.rounds[2].ppm = "own_plugin:gone"
    self.assertIn(
      "config.rounds[2].ppm='own_plugin:gone': own_plugin has no 'gone'",
      self.line(validation.validate, config),
    )


if __name__ == "__main__":
  absltest.main()
