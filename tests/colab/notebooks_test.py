"""What every notebook holds to; each is run by the test of its name."""

import ast
import builtins
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
from unittest import mock

from absl.testing import absltest, parameterized

import rstar_jax as rj
from tests import docs_test, notebooks

MOST_LINES = 15
_NAMES = [path.name for path in notebooks.paths()]
_CELL = {
  "markdown": {"cell_type", "id", "metadata", "source"},
  "code": {
    *("cell_type", "execution_count", "id", "metadata", "outputs", "source")
  },
}


class FormTest(parameterized.TestCase):
  def read(self, name: str) -> dict:
    return json.loads((notebooks.FOLDER / name).read_text())

  def test_there_are_four_and_each_is_run(self):
    self.assertLen(_NAMES, 4)
    for number, name in enumerate(_NAMES, 1):
      self.assertRegex(name, rf"^0{number}_[a-z_]+\.ipynb$")
      test = pathlib.Path(__file__).with_name(
        f"{name[3:].removesuffix('.ipynb')}_test.py"
      )
      self.assertTrue(test.exists(), f"{name} has no {test.name}")

  @parameterized.parameters(_NAMES)
  def test_it_is_a_notebook_of_format_4(self, name):
    notebook = self.read(name)
    self.assertSameElements(
      notebook, ["cells", "metadata", "nbformat", "nbformat_minor"]
    )
    self.assertEqual((notebook["nbformat"], notebook["nbformat_minor"]), (4, 5))
    self.assertEqual(notebook["metadata"]["kernelspec"]["name"], "python3")
    for cell in notebook["cells"]:
      self.assertSameElements(cell, _CELL[cell["cell_type"]])
      self.assertRegex(cell["id"], r"^[\w-]{1,64}$")
      self.assertIsInstance(cell["source"], list)
      for line in cell["source"][:-1]:
        self.assertEndsWith(line, "\n")
    ids = [cell["id"] for cell in notebook["cells"]]
    self.assertLen(ids, len(set(ids)))

  @parameterized.parameters(_NAMES)
  def test_nothing_of_a_run_is_kept(self, name):
    text = (notebooks.FOLDER / name).read_text()
    self.assertEqual(
      text,
      notebooks.cleaned(json.loads(text), name, notebooks.repository()),
      "python -m tests.notebooks strips it",
    )

  def test_a_run_is_stripped_that_colab_has_saved(self):
    notebook = self.read(_NAMES[0])
    notebook["nbformat_minor"] = 0
    notebook["metadata"]["colab"] = {"provenance": []}
    for cell in notebook["cells"]:
      cell["metadata"]["id"] = cell.pop("id")
      if cell["cell_type"] == "code":
        cell["execution_count"] = 7
        cell["outputs"] = [{"output_type": "stream", "text": ["secret"]}]
    text = (notebooks.FOLDER / _NAMES[0]).read_text()
    cleaned = notebooks.cleaned(notebook, _NAMES[0], notebooks.repository())
    self.assertEqual(cleaned, text)

  @parameterized.parameters(_NAMES)
  def test_an_address_is_filled_in_and_taken_out(self, name):
    notebook = self.read(name)
    text = notebooks.cleaned(notebook, name, "")
    self.assertNotIn("Open in Colab", text)
    for url in ("https://github.com/me/it", "https://github.com/me/it.git"):
      notebook = json.loads(notebooks.cleaned(notebook, name, url))
      first = "".join(notebook["cells"][0]["source"])
      self.assertEndsWith(
        first,
        "(https://colab.research.google.com/github/me/it/blob/main/colab/"
        f"{name})",
      )
      install = next(notebooks.code_cells(notebook)).source
      self.assertIn(f'\nREPOSITORY = "{url}"', install)
    self.assertEqual(notebooks.cleaned(notebook, name, ""), text)

  @parameterized.parameters(_NAMES)
  def test_what_it_names_is_there(self, name):
    """Beside what tests/docs_test.py sees, which is between backticks."""
    notebook = self.read(name)
    for cell in notebook["cells"]:
      text = "".join(cell["source"])
      with self.subTest(cell["id"]):
        if cell["cell_type"] == "markdown":
          bare = re.sub(r"`[^`]+`|\]\([^)]+\)", "", text)
          self.assertNotRegex(bare, r"\.(md|py|ipynb)\b")
        for path in re.findall(r'"((?:configs|docs|launch)/[^"]+)"', text):
          self.assertTrue((notebooks.ROOT / path).exists(), path)
        for each in re.findall(r"\brj\.(\w+)", text):
          self.assertIn(each, rj.__all__)
        for path in re.findall(r"\bconfig((?:\.[a-z_]+)+)\b(?!\()", text):
          self.assertTrue(docs_test.has_field(path), path)

  @parameterized.parameters(_NAMES)
  def test_cells_are_thin_and_stand_between_text(self, name):
    notebook = self.read(name)
    kinds = [cell["cell_type"] for cell in notebook["cells"]]
    self.assertEqual(kinds[0], "markdown")
    self.assertNotIn(("code", "code"), list(zip(kinds, kinds[1:], strict=False)))
    for cell in notebooks.code_cells(notebook):
      lines = cell.source.splitlines()
      with self.subTest(f"cell {cell.number}"):
        self.assertLessEqual(len(lines), MOST_LINES)
        self.assertLessEqual(max(map(len, lines)), 80)
        # Python alone: no magic, so that it runs anywhere.
        ast.parse(cell.source)

  @parameterized.parameters(_NAMES)
  def test_cells_are_tagged(self, name):
    tags = [cell.tags for cell in notebooks.code_cells(self.read(name))]
    self.assertEqual(tags[0], (notebooks.INSTALL,))
    self.assertEqual(tags.count((notebooks.PARAMETERS,)), 1)
    at = tags.index((notebooks.PARAMETERS,))
    self.assertEqual(set(tags[:at]), {(notebooks.INSTALL,)})
    self.assertEqual(set(tags[at + 1 :]), {()})

  @parameterized.parameters(_NAMES)
  def test_settings_are_values_alone(self, name):
    for cell in notebooks.code_cells(self.read(name)):
      if notebooks.PARAMETERS in cell.tags:
        for statement in ast.parse(cell.source).body:
          self.assertIsInstance(statement, ast.Assign)
          ast.literal_eval(statement.value)

  def test_a_setting_that_is_not_there_is_no_setting(self):
    self.assertEqual(
      notebooks.with_parameters("A = 1\nB = 2", {"B": "x"}),
      "A = 1\nB = 2\nB = 'x'",
    )
    with self.assertRaisesRegex(ValueError, "no setting is called C"):
      notebooks.with_parameters("A = 1", {"C": 2})

  def test_what_a_cell_shows(self):
    shown = notebooks.execute(
      [["<a>", "x = 3"], ["<b>", "x\nx + 1"], ["<c>", "print()"]]
    )
    self.assertEqual(shown, ["4"])


class InstallTest(parameterized.TestCase):
  """The first cell, with git and pip and nothing else replaced."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.calls = []

    def run(command, check):
      self.assertTrue(check)
      self.calls.append([str(each) for each in command])
      if command[0] == "git":
        package = pathlib.Path(command[-1]) / "rstar_jax"
        package.mkdir(parents=True)
        (package / "types.py").touch()

    self.enter_context(mock.patch.object(subprocess, "run", run))
    self.enter_context(mock.patch.object(sys, "path", list(sys.path)))

  def install(self, name: str, at: pathlib.Path, repository: str = "") -> str:
    """Runs the cell in a folder; returns the folder that it ends in.

    Args:
      name: of the notebook.
      at: the folder.
      repository: what is answered to the question for an address.
    """
    notebook = json.loads((notebooks.FOLDER / name).read_text())
    source = next(notebooks.code_cells(notebook)).source
    with (
      contextlib.chdir(at),
      mock.patch.object(builtins, "input", lambda _: repository),
    ):
      exec(compile(source, name, "exec"), {})
      return os.getcwd()

  @parameterized.parameters(_NAMES)
  def test_in_a_clone_the_clone_is_installed(self, name):
    end = self.install(name, notebooks.FOLDER)
    self.assertEqual(end, str(notebooks.ROOT))
    [pip] = self.calls
    self.assertEqual(pip[:4], [sys.executable, "-m", "pip", "install"])
    extras = re.fullmatch(r"\.(?:\[([a-z,]+)\])?", pip[-1])[1] or ""
    declared = (notebooks.ROOT / "setup.py").read_text()
    for extra in filter(None, extras.split(",")):
      self.assertRegex(declared, rf'\n  "{extra}": ')
    self.assertNotIn("--upgrade", pip)
    self.assertEqual(sys.path[0], str(notebooks.ROOT))

  def test_elsewhere_it_is_cloned_once(self):
    for _ in range(2):
      end = self.install(_NAMES[0], self.folder, "https://example.org/x.git")
      self.assertEqual(end, str(self.folder / "rstar_jax"))
    self.assertEqual([each[0] for each in self.calls].count("git"), 1)
    self.assertEqual(self.calls[0][-2], "https://example.org/x.git")

  def test_with_an_address_it_asks_nothing(self):
    url = "https://example.org/y.git"
    notebook = json.loads((notebooks.FOLDER / _NAMES[0]).read_text())
    text = notebooks.cleaned(notebook, _NAMES[0], url)
    source = next(notebooks.code_cells(json.loads(text))).source
    with contextlib.chdir(self.folder):
      exec(compile(source, "cell", "exec"), {"input": None})
    self.assertEqual(self.calls[0][-2], url)

  def test_the_cell_is_one(self):
    cells = set()
    for name in _NAMES:
      notebook = json.loads((notebooks.FOLDER / name).read_text())
      source = next(notebooks.code_cells(notebook)).source
      lines = source.splitlines()
      cells.add("\n".join(x for x in lines if not x.startswith("EXTRAS")))
    self.assertLen(cells, 1)


if __name__ == "__main__":
  absltest.main()
