"""Checks the rooms of the package by reading every import.

A room imports only rooms below it, wherever in a file the import stands, and
the files of a room import each other without a circle.
"""

import ast
import graphlib
import pathlib
import re
import subprocess
import sys

from absl.testing import absltest, parameterized

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = "rstar_jax"

# From the bottom up: a room imports only what stands before it.
ROOMS = """
  outside types rng storage config steps sandbox grading tasks search models hf
  inference data training evaluation report pipeline serve tools commands main
  __main__ testing
""".split()
# These load no jax: they are numpy, text and processes. `storage` and `data`
# name no accelerator library but in the modules of ONLY_IN.
HOST = """
  outside types rng config steps sandbox grading tasks search data evaluation
  report commands
""".split()
# These know no search and no sandbox: they are tokens and arrays.
DEVICE = "models hf inference training".split()
ACCELERATOR = ("jax", "jaxlib", "flax", "optax", "orbax", "mctx", "chex")
# What only these modules import, so that a library's change is one file's.
ONLY_IN = {
  "backports": ("storage.records",),
  "gguf": ("hf.gguf",),
  "datasets": ("data.hub",),
  "huggingface_hub": ("hf.finding", "hf.upload"),
  "pyarrow": ("data.parquet",),
  "tensorflow_datasets": ("data.tfds",),
  "tensorboardX": ("storage.metrics",),
  "ray": ("pipeline.on_ray",),
  "wandb": ("storage.trackers",),
  "trackio": ("storage.trackers",),
  "orbax": ("storage.checkpoints",),
  "prometheus_client": ("serve.metrics",),
  "starlette": ("serve.app", "serve.server"),
  "uvicorn": ("serve.server",),
  "transformers": ("steps.tokenizer", "hf.folders"),
}
# A module longer than this has a test file of its name.
UNTESTED_LINES = 40

# Where text that people or programs read is kept.
FOLDERS = (
  *(PACKAGE, "tests", "configs", "launch", "benchmarks", "docs", "colab"),
  ".ci",
)
# Joined, so that this file does not hold them.
MACHINE_PATHS = tuple(f"/{name}/" for name in ("root", "work", "tmp"))


def name_of(path: pathlib.Path) -> str:
  """Returns the dotted name of a file, below the package."""
  parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> dict[str, pathlib.Path]:
  """Returns the files of the package by name, tests not included."""
  files = sorted((ROOT / PACKAGE).rglob("*.py"))
  return {name_of(path): path for path in files}


def imports(name: str, path: pathlib.Path, known) -> set[str]:
  """Returns all that a file imports, as full dotted names.

  Args:
    name: the file's own name, below the package.
    path: the file.
    known: names of the package's modules: `from rstar_jax.a import b` means
      the module a.b if there is one, and else a name within a.
  """
  package = [PACKAGE, *name.split(".")] if name else [PACKAGE]
  if path.name != "__init__.py":
    package = package[:-1]
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      base = package[: len(package) - node.level + 1] if node.level else []
      source = ".".join([*base, *(node.module or "").split(".")]).strip(".")
      for alias in node.names:
        full = f"{source}.{alias.name}"
        is_module = below(full) in known
        found.add(full if is_module else source)
    elif isinstance(node, ast.Call):
      called = getattr(node.func, "attr", getattr(node.func, "id", ""))
      if called in ("import_module", "__import__") and node.args:
        argument = node.args[0]
        if isinstance(argument, ast.Constant):
          found.add(str(argument.value))
  return found


def below(full: str) -> str | None:
  """Returns a dotted name below the package, None for another library's."""
  if full == PACKAGE:
    return ""
  if full.startswith(PACKAGE + "."):
    return full[len(PACKAGE) + 1 :]
  return None


def room(name: str) -> str:
  return name.split(".")[0]


class LayeringTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.sources = sources()
    cls.imports = {
      name: imports(name, path, cls.sources)
      for name, path in cls.sources.items()
    }
    cls.inside = {
      name: {below(each) for each in found} - {None, "", name}
      for name, found in cls.imports.items()
    }

  def test_every_room_is_named(self):
    self.assertEqual(set(map(room, self.sources)) - {""}, set(ROOMS))

  def test_a_room_imports_only_rooms_below_it(self):
    for name, found in self.inside.items():
      for other in found:
        # The package itself names things of any room, and loads none.
        if name and room(other) != room(name):
          with self.subTest(f"{name} imports {other}"):
            self.assertLess(ROOMS.index(room(other)), ROOMS.index(room(name)))

  def test_no_room_imports_the_front_door(self):
    for name, found in self.imports.items():
      with self.subTest(name):
        self.assertNotIn(PACKAGE, found)

  def test_text_is_written_as_utf_8_whatever_the_locale(self):
    for name, path in self.sources.items():
      for node in ast.walk(ast.parse(path.read_text())):
        if (
          isinstance(node, ast.Call)
          and isinstance(node.func, ast.Attribute)
          and node.func.attr == "write_text"
        ):
          given = {each.arg: ast.unparse(each.value) for each in node.keywords}
          with self.subTest(f"{name}, line {node.lineno}"):
            self.assertEqual(given.get("encoding"), "'utf-8'")

  def test_no_circle_within_a_room(self):
    try:
      graphlib.TopologicalSorter(self.inside).prepare()
    except graphlib.CycleError as error:
      self.fail(" imports ".join(reversed(error.args[1])))

  def test_host_rooms_name_no_accelerator_library(self):
    for name, found in self.imports.items():
      if room(name) in HOST:
        with self.subTest(name):
          tops = {each.split(".")[0] for each in found}
          self.assertEmpty(tops.intersection(ACCELERATOR))

  def test_host_rooms_load_no_jax(self):
    # The imports of imports too: a fresh interpreter loads them all.
    names = [f"{PACKAGE}.{name}" for name in self.sources if room(name) in HOST]
    self.assertNotEmpty(names)
    program = (
      "import importlib, sys\n"
      f"for name in {names!r}:\n"
      "  importlib.import_module(name)\n"
      "  assert 'jax' not in sys.modules, f'{name} loads jax'\n"
    )
    done = subprocess.run(
      [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    self.assertEqual(done.returncode, 0, done.stderr)

  def test_device_rooms_know_no_search_and_no_verification(self):
    for name, found in self.inside.items():
      if room(name) in DEVICE:
        with self.subTest(name):
          rooms = {room(other) for other in found}
          self.assertEmpty(rooms.intersection(("search", "sandbox", "grading")))

  def test_libraries_are_imported_in_one_place(self):
    for library, places in ONLY_IN.items():
      for name, found in self.imports.items():
        if name not in places:
          with self.subTest(f"{name} and {library}"):
            self.assertNotIn(library, {each.split(".")[0] for each in found})

  def test_every_required_library_is_imported(self):
    known = {"absl-py": "absl", "orbax-checkpoint": "orbax"}
    imported = {
      each.split(".")[0] for found in self.imports.values() for each in found
    }
    text = (ROOT / "setup.py").read_text()
    listed = text[text.index("REQUIRED = [") :].partition("]\n")[0]
    required = re.findall(r'^  "([\w-]+)', listed, re.MULTILINE)
    self.assertIn("numpy", required)
    # transformers imports jinja2.
    for name in set(required) - {"jinja2"}:
      with self.subTest(name):
        self.assertIn(known.get(name, name.replace("-", "_")), imported)

  def test_the_command_line_loads_no_heavy_library(self):
    heavy = """
      jax flax transformers datasets tensorflow_datasets pandas tensorboardX
      grain sympy tokenizers tqdm optax orbax
    """.split()
    program = (
      "import sys, rstar_jax.main, rstar_jax.data.problems\n"
      f"print([each for each in {heavy!r} if each in sys.modules])"
    )
    done = subprocess.run(
      [sys.executable, "-c", program],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=True,
    )
    self.assertEqual(done.stdout, "[]\n")


class ImportsTest(absltest.TestCase):
  """The reader itself: what it must see for the tests above to mean much."""

  def read(self, name: str, text: str, known=("a", "a.b", "")) -> set[str]:
    path = pathlib.Path(self.create_tempfile(f"{name}.py", text).full_path)
    return imports(name, path, known)

  def test_sees_nested_relative_and_dynamic_imports(self):
    text = "def f():\n  import jax.numpy as jnp\n"
    self.assertEqual(self.read("a.c", text), {"jax.numpy"})
    self.assertEqual(self.read("a.c", "from . import b"), {"rstar_jax.a.b"})
    self.assertEqual(self.read("a.c", "from .b import x"), {"rstar_jax.a.b"})
    self.assertEqual(self.read("a.c", "from .. import a"), {"rstar_jax.a"})
    text = "import importlib\nimportlib.import_module('optax')"
    self.assertEqual(self.read("a.c", text), {"importlib", "optax"})

  def test_tells_modules_from_names(self):
    text = "from rstar_jax.a import b, other"
    self.assertEqual(self.read("c", text), {"rstar_jax.a", "rstar_jax.a.b"})
    self.assertEqual(self.read("c", "from rstar_jax import a"), {"rstar_jax.a"})


class FilesTest(absltest.TestCase):
  def test_every_module_has_a_test(self):
    for name, path in sources().items():
      if path.name == "__init__.py":
        continue
      if len(path.read_text().splitlines()) > UNTESTED_LINES:
        test = ROOT / "tests" / (name.replace(".", "/") + "_test.py")
        with self.subTest(name):
          self.assertTrue(test.exists(), f"there is no {test.name}")

  def test_every_test_has_a_module(self):
    # Tests of the whole house, which mirror no module.
    house = {"layering", "docs", "run", "forked", "front_door", "release"} | {
      "pipeline.resume"
    }
    modules = set(sources())
    for path in (ROOT / "tests").rglob("*_test.py"):
      parts = path.relative_to(ROOT / "tests").with_suffix("").parts
      name = ".".join(parts).removesuffix("_test")
      if parts[0] == "colab":
        # A notebook each, and what all of them hold to.
        notebooks = {each.stem[3:] for each in (ROOT / "colab").glob("*.ipynb")}
        with self.subTest(name):
          self.assertIn(parts[-1][:-5], {"notebooks", *notebooks})
      elif parts[0] == "benchmarks":
        # What a benchmark computes is tested, where it does more than measure.
        with self.subTest(name):
          self.assertTrue((ROOT / f"{name.replace('.', '/')}.py").exists())
      elif name not in house and parts[0] not in ("docs", "launch", "mutants"):
        # A module may have a second file of tests: selection_mctx_test, say.
        words = name.split("_")
        starts = {"_".join(words[: i + 1]) for i in range(len(words))}
        with self.subTest(name):
          self.assertTrue(
            starts & (modules | house), f"no module is called {name}"
          )

  def test_every_test_folder_is_a_package(self):
    for path in (ROOT / "tests").rglob("*_test.py"):
      with self.subTest(str(path.parent.relative_to(ROOT))):
        self.assertTrue((path.parent / "__init__.py").exists())

  def test_no_path_of_a_machine(self):
    files = [each for each in ROOT.iterdir() if each.suffix in (".py", ".md")]
    for folder in FOLDERS:
      files += (ROOT / folder).rglob("*")
    for path in files:
      if (
        path.suffix in (".py", ".md", ".sh", ".ipynb")
        or path.parent.name == ".ci"
      ):
        for machine_path in MACHINE_PATHS:
          with self.subTest(f"{path.relative_to(ROOT)}: {machine_path}"):
            self.assertNotIn(machine_path, path.read_text())


if __name__ == "__main__":
  absltest.main()
