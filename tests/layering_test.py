"""Holds the plan of docs/architecture.md by reading imports, not by trust.

A module imports modules of strictly lower layers alone, wherever the import is.
"""

import ast
import pathlib
import subprocess
import sys

from absl.testing import absltest, parameterized

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = "rstar_jax"
MAX_LINES = 400
# A module longer than this has a test file of its name.
UNTESTED_LINES = 40

# The layer of each module, named below the package ("" is the package itself).
# Packages whose __init__.py imports nothing are not listed. A new module gets
# the lowest layer above all that it imports; docs/architecture.md has the same
# table.
LAYERS = {
  "": 0,
  "types": 0,
  "config": 1,
  "rng": 0,
  "hosts": 0,
  "models.config": 0,
  "generate.config": 0,
  "io.fields": 0,
  "io.published": 0,
  "aot.chips": 0,
  "aot.hlo": 0,
  "aot.knobs": 0,
  "aot.analytic": 1,
  "aot.flops": 1,
  "aot.moved": 1,
  "aot.cost": 2,
  "aot.plan": 2,
  "aot.programs": 7,
  "aot.compiled": 8,
  "aot.report": 9,
  "aot.__main__": 10,
  "verify.notation": 2,
  "verify.kernel": 0,
  "validation": 2,
  "presets": 2,
  "methods": 7,
  "text.steps": 1,
  "verify.algebra": 0,
  "verify.compare": 5,
  "verify.forms": 5,
  "verify.items": 3,
  "verify.labelled": 1,
  "verify.units": 3,
  "verify.voting": 6,
  "verify.wording": 0,
  "verify.__main__": 9,
  "verify.brackets": 0,
  "verify.kinds": 4,
  "verify.printed": 1,
  "verify.answers": 6,
  "verify.seccomp": 1,
  "verify.landlock": 1,
  "verify.credentials": 1,
  "verify.namespaces": 1,
  "verify.attempts": 1,
  "verify.checkable": 3,
  "verify.plain": 1,
  "verify.program": 1,
  "verify.wire": 1,
  "search.tree": 1,
  "search.choose": 7,
  "data.stories": 1,
  "data.relations": 1,
  "models.rotary": 1,
  "data.files": 1,
  "data.decontaminate": 1,
  "models.sharding": 2,
  "models.losses": 1,
  "io.families": 1,
  "io.rope_config": 1,
  "io.tensors": 1,
  "io.records": 1,
  "io.checkpoints": 1,
  "io.journal": 1,
  "io.metrics": 1,
  "io.gguf_metadata": 1,
  "io.compiled": 1,
  "generate.completions": 2,
  "config_flag": 3,
  "shards": 2,
  "evaluate": 8,
  "text.train_tokenizer": 2,
  "text.gguf_tokenizer": 2,
  "text.prompts": 2,
  "verify.process": 2,
  "verify.children": 2,
  "verify.isolation": 2,
  "search.uct": 2,
  "search.expansion": 7,
  "data.worked": 2,
  "data.reading": 2,
  "data.hub": 2,
  "data.shapes": 7,
  "data.trajectories": 2,
  "train.state": 3,
  "models.layers": 2,
  "io.hf_config": 2,
  "io.gguf": 2,
  "text.tokenizer": 3,
  "verify.snapshots": 3,
  "verify.probe": 3,
  "verify.judge": 7,
  "verify.grader": 7,
  "search.mcts": 8,
  "search.beam": 8,
  "search.sampling": 8,
  "data.synthetic": 3,
  "data.sources": 3,
  "data.pairs": 3,
  "io.model_card": 3,
  "models.branch_kernel": 3,
  "train.loop": 4,
  "models.cache": 3,
  "generate.remote": 3,
  "verify.zygote": 4,
  "verify.sandbox": 4,
  "data.problems": 8,
  "data.released": 7,
  "data.batches": 4,
  "models.branch_attention": 4,
  "models.transformer": 4,
  "verify": 8,
  "data.training": 9,
  "generate.buckets": 1,
  "generate.slots": 1,
  "generate.sampler": 2,
  "generate.weights": 5,
  "generate.decoding": 5,
  "generate.programs": 6,
  "generate.lane": 7,
  "generate.lanes": 8,
  "io.hf": 6,
  "models.llama_form": 5,
  "models.vocabulary": 5,
  "generate.engine": 9,
  "train.sft": 6,
  "train.ppm": 6,
  "generate.policy": 10,
  "generate.ppm": 9,
  "generate.few_shot": 10,
  "generate.reward": 7,
  "session": 11,
  "stages": 13,
  "rewards": 12,
  "search.values": 2,
  "study.choices": 8,
  "study.compare": 11,
  "study.markdown": 10,
  "study.paired": 9,
  "study.quality": 4,
  "study.solutions": 9,
  "study.solvers": 10,
  "study.table": 9,
  "studying": 13,
  "data.unsolved": 7,
  "search.grading": 1,
  "data.export": 3,
  "solving": 12,
  "bootstrap": 9,
  "evolve": 14,
  "main": 15,
  # Stand-ins for tests: above everything, so that nothing imports them.
  "testing": 15,
}

# Two towers that meet only in stages.py, by room.
HOST = ("text", "verify", "search", "data", "methods", "evaluate", "study")
DEVICE = ("models", "generate", "train")
ACCELERATOR = ("jax", "jaxlib", "flax", "optax", "orbax", "mctx", "chex")
# What only these modules may import.
ONLY_IN = {
  "gguf": ("io.gguf",),
  "datasets": ("data.hub",),
  "orbax": ("io.checkpoints",),
  "transformers": ("text.tokenizer", "io.hf"),
}

# Where text that people or programs read is kept.
FOLDERS = (PACKAGE, "tests", "configs", "launch", "benchmarks", "docs", ".ci")
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
      name: {below(each) for each in found} - {None, name}
      for name, found in cls.imports.items()
    }

  def test_every_module_has_a_layer(self):
    for name, path in self.sources.items():
      if path.name == "__init__.py" and not self.imports[name]:
        continue
      with self.subTest(name):
        self.assertTrue(
          name in LAYERS,
          f"{path.relative_to(ROOT)} has no layer: add it to LAYERS here and "
          "to the table of docs/architecture.md, at the lowest layer above "
          "all that it imports",
        )

  def test_every_layer_has_a_module(self):
    self.assertEmpty(set(LAYERS) - set(self.sources), "modules are gone")

  def test_imports_run_downward(self):
    for name, found in self.inside.items():
      for other in found:
        with self.subTest(f"{name} imports {other}"):
          self.assertGreater(LAYERS.get(name, 0), LAYERS.get(other, 0))

  def test_host_tower_names_no_accelerator_library(self):
    for name, found in self.imports.items():
      if room(name) in HOST:
        with self.subTest(name):
          tops = {each.split(".")[0] for each in found}
          self.assertEmpty(tops.intersection(ACCELERATOR))

  def test_host_tower_loads_no_jax(self):
    # The imports of imports too: a fresh interpreter loads the whole tower.
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

  def test_device_tower_knows_no_search_and_no_verification(self):
    for name, found in self.inside.items():
      if room(name) in DEVICE:
        with self.subTest(name):
          rooms = {room(other) for other in found}
          self.assertEmpty(rooms.intersection(("search", "verify")))

  def test_libraries_are_imported_in_one_place(self):
    for library, places in ONLY_IN.items():
      for name, found in self.imports.items():
        if name not in places:
          with self.subTest(f"{name} and {library}"):
            self.assertNotIn(library, {each.split(".")[0] for each in found})


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
  def test_no_file_is_long(self):
    for folder in FOLDERS:
      for path in (ROOT / folder).rglob("*.py"):
        with self.subTest(str(path.relative_to(ROOT))):
          lines = len(path.read_text().splitlines())
          self.assertLessEqual(lines, MAX_LINES, "make two rooms of it")

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
    house = {"layering", "docs", "launch", "resume", "run"}
    modules = set(sources())
    for path in (ROOT / "tests").rglob("*_test.py"):
      parts = path.relative_to(ROOT / "tests").with_suffix("").parts
      name = ".".join(parts).removesuffix("_test")
      if parts[0] == "benchmarks":
        # What a benchmark computes is tested, where it does more than measure.
        with self.subTest(name):
          self.assertTrue((ROOT / f"{name.replace('.', '/')}.py").exists())
      elif name not in house:
        # A module may have a second file of tests: uct_mctx_test, say.
        words = name.split("_")
        starts = {"_".join(words[: i + 1]) for i in range(len(words))}
        with self.subTest(name):
          self.assertTrue(starts & modules, f"no module is called {name}")

  def test_every_test_folder_is_a_package(self):
    for path in (ROOT / "tests").rglob("*_test.py"):
      with self.subTest(str(path.parent.relative_to(ROOT))):
        self.assertTrue((path.parent / "__init__.py").exists())

  def test_no_path_of_a_machine(self):
    files = [each for each in ROOT.iterdir() if each.suffix in (".py", ".md")]
    for folder in FOLDERS:
      files += (ROOT / folder).rglob("*")
    for path in files:
      if path.suffix in (".py", ".md", ".sh") or path.parent.name == ".ci":
        for machine_path in MACHINE_PATHS:
          with self.subTest(f"{path.relative_to(ROOT)}: {machine_path}"):
            self.assertNotIn(machine_path, path.read_text())


if __name__ == "__main__":
  absltest.main()
