"""The dataclasses themselves, and every file in configs/."""

import ast
import dataclasses
import inspect
import json
import pathlib
import sys
import typing
from unittest import mock

from absl import flags
from absl.testing import absltest

from rstar_jax.config import flag
from rstar_jax.config import schema as config_lib

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load(file: pathlib.Path) -> config_lib.Config:
  """Loads and validates a file as the command line does."""
  argv = ["main.py", f"--config={file}"]
  values = flags.FlagValues()
  flag.define_config(values)
  # `ml_collections` looks for overrides in sys.argv.
  with mock.patch.object(sys, "argv", argv):
    flag.parse_flags(argv, values)
  return values.config


class FieldsTest(absltest.TestCase):
  def test_every_field_has_a_comment_above_it(self):
    fields = 0
    text = pathlib.Path(config_lib.__file__).read_text()
    lines = text.splitlines()
    for owner in ast.parse(text).body:
      for node in owner.body if isinstance(owner, ast.ClassDef) else ():
        if isinstance(node, ast.AnnAssign):
          fields += 1
          with self.subTest(f"{owner.name}.{node.target.id}"):
            above = lines[node.lineno - 2].strip()
            self.assertStartsWith(above, "# ")
    # The walk did see the fields.
    declared = sum(
      len(inspect.get_annotations(each))
      for each in vars(config_lib).values()
      if dataclasses.is_dataclass(each)
    )
    self.assertEqual(fields, declared)

  def test_fields_can_be_assigned(self):
    # `--config.search.c=1` assigns: a frozen dataclass would fail there.
    config = config_lib.Config()
    config.search.c = 1.0
    self.assertEqual(config.search.c, 1.0)

  def test_no_two_configs_share_a_part(self):
    first, second = config_lib.Config(), config_lib.Config()
    for field in dataclasses.fields(config_lib.Config):
      if dataclasses.is_dataclass(getattr(first, field.name)):
        with self.subTest(field.name):
          self.assertIsNot(
            getattr(first, field.name), getattr(second, field.name)
          )
    first.rounds[0].rollouts = 77
    self.assertEqual(config_lib.Config(), second)

  def test_every_type_is_one_that_the_command_line_can_parse(self):
    plain = {bool, int, float, str}
    for owner in vars(config_lib).values():
      if not dataclasses.is_dataclass(owner):
        continue
      for name, hint in typing.get_type_hints(owner).items():
        with self.subTest(f"{owner.__name__}.{name}"):
          self.assertTrue(
            hint in plain
            or dataclasses.is_dataclass(hint)
            or typing.get_origin(hint) in (tuple, typing.Literal)
          )


class PaperTest(absltest.TestCase):
  """Defaults that the paper states (arXiv 2501.04519, section 4.1 and A)."""

  def test_search(self):
    search = config_lib.Config().search
    self.assertEqual(search.c, 2.0)
    self.assertEqual(search.max_depth, 16)
    evaluation = config_lib.Config().eval.search
    self.assertEqual((evaluation.rollouts, evaluation.candidates), (4, 32))

  def test_rounds(self):
    rounds = config_lib.Config().rounds
    self.assertEqual([each.rollouts for each in rounds], [8, 16, 16, 16])
    self.assertEqual([each.candidates for each in rounds], [5, 8, 8, 16])
    self.assertEqual(
      [each.annotation for each in rounds],
      ["terminal", "terminal", "ppm", "ppm"],
    )
    self.assertEqual(rounds[-1].extra_rollouts, (64, 64))

  def test_round_1_by_a_larger_model(self):
    remote, first = config_lib.Config().remote, config_lib.Config().rounds[0]
    self.assertEqual((remote.url, remote.temperature), ("", 0.7))
    self.assertEqual(remote.samples_per_request, first.candidates)
    self.assertIsInstance(json.loads(remote.extra), dict)

  def test_sampling_is_from_the_whole_vocabulary(self):
    engine = config_lib.EngineConfig()
    self.assertEqual((engine.temperature, engine.top_k), (1.0, 0))
    self.assertEqual((engine.top_p, engine.min_p), (1.0, 0.0))

  def test_training(self):
    config = config_lib.Config()
    self.assertEqual((config.sft.epochs, config.ppm.epochs), (2, 1))
    self.assertEqual((config.sft.batch_size, config.ppm.batch_size), (128, 512))
    self.assertEqual(config.sft.learning_rate, 7e-6)


class FilesTest(absltest.TestCase):
  def test_every_file_loads_and_validates(self):
    files = sorted((ROOT / "configs").glob("*.py"))
    self.assertNotEmpty(files)
    for file in files:
      with self.subTest(file.name):
        self.assertIsInstance(load(file), config_lib.Config)

  def test_every_file_says_how_to_run_it(self):
    for file in sorted((ROOT / "configs").glob("*.py")):
      with self.subTest(file.name):
        docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
        self.assertIn(f"--config=configs/{file.name}", docstring)


if __name__ == "__main__":
  absltest.main()
