"""What a user imports: `import rstar_jax as rj`, and nothing deeper."""

import ast
import importlib
import json
import pathlib
import subprocess
import sys

import numpy as np
from absl.testing import absltest
from flax import nnx

import rstar_jax as rj
from rstar_jax.models import transformer
from tests import notebooks, tiny_run
from tests.docs import reading

ROOT = reading.ROOT
# What the import itself must not load.
HEAVY = ("jax", "numpy", "transformers", "tensorflow_datasets", "sympy")


def fresh(program: str) -> str:
  """Returns what a program prints in an interpreter of its own."""
  done = subprocess.run(
    [sys.executable, "-c", program],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode:
    raise AssertionError(done.stderr)
  return done.stdout


def examples() -> dict[str, str]:
  """Returns the Python that users are shown, by where it stands."""
  found = {
    f"{name}:{block.line}": block.text
    for name, text in reading.documents().items()
    for block in reading.blocks(text)
    if block.language == "python"
  }
  for path in notebooks.paths():
    for cell in notebooks.code_cells(json.loads(path.read_text())):
      found[f"{path.name}[{cell.number}]"] = cell.source
  for folder in ("configs", "docs"):
    for path in (ROOT / folder).rglob("*.py"):
      found[str(path.relative_to(ROOT))] = path.read_text()
  return found


def deeper(text: str) -> list[str]:
  """Returns the imports of a text that reach into the package."""
  found = []
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [node.module or "."]
      if node.module == "rstar_jax":
        names = [
          f"rstar_jax.{alias.name}"
          for alias in node.names
          if alias.name not in rj.__all__
        ]
    else:
      continue
    found += [name for name in names if name.startswith("rstar_jax.")]
  return found


class NamesTest(absltest.TestCase):
  def test_the_import_loads_nothing_heavy(self):
    loaded = fresh("import rstar_jax, sys; print(*sys.modules)").split()
    self.assertIn("rstar_jax", loaded)
    self.assertEmpty({name.split(".")[0] for name in loaded} & set(HEAVY))

  def test_windows_is_told_of_its_linux(self):
    with self.assertRaisesRegex(AssertionError, "ImportError: .*within WSL 2"):
      fresh("import sys; sys.platform = 'win32'; import rstar_jax")

  def test_an_older_python_is_told_which_it_needs(self):
    said = "ImportError: .* needs Python 3.11 or later, and this is "
    with self.assertRaisesRegex(AssertionError, said):
      fresh("import sys; sys.version_info = (3, 10, 2); import rstar_jax")
    fresh("import sys; sys.version_info = (3, 11, 0); import rstar_jax")

  def test_search_and_verification_load_no_jax(self):
    host = "Problem Tree Config load_config load_problems search beam_search "
    host += "sample Sandbox Limits Grader final_answer testing presets"
    program = f"import rstar_jax, sys\nfor name in {host.split()}:\n"
    program += "  getattr(rstar_jax, name)\nprint('jax' in sys.modules)"
    self.assertEqual(fresh(program), "False\n")

  def test_every_name_is_what_its_home_has(self):
    for name, home in rj._NAMES.items():
      with self.subTest(name):
        module, _, attribute = home.partition(":")
        there = importlib.import_module(f"rstar_jax.{module}")
        self.assertIs(
          getattr(rj, name), getattr(there, attribute) if attribute else there
        )
        self.assertTrue(getattr(rj, name).__doc__)

  def test_the_names_that_programs_rely_on(self):
    contract = (
      "Problem Candidate Tree Config SearchConfig search Sandbox Limits Grader "
      "final_answer load_policy load_ppm save_policy save_ppm open_run"
    )
    self.assertContainsSubset(contract.split(), rj.__all__)
    self.assertContainsSubset(rj.__all__, dir(rj))

  def test_editors_see_the_same_names(self):
    tree = ast.parse(pathlib.Path(rj.__file__).read_text())
    [block] = [
      node
      for node in tree.body
      if isinstance(node, ast.If) and "TYPE_CHECKING" == ast.unparse(node.test)
    ]
    seen = {}
    for node in block.body:
      for alias in node.names:
        module = node.module.removeprefix("rstar_jax").removeprefix(".")
        home = f"{module}:{alias.name}" if module else alias.name
        seen[alias.asname] = home
    # For them a module is a name of its folder, and `search` a function.
    named = {
      name: home if ":" in home else ":".join(home.rsplit(".", 1))
      for name, home in rj._NAMES.items()
    }
    self.assertEqual(seen, named | {"search": "search.mcts:search"})
    self.assertTrue((pathlib.Path(rj.__file__).parent / "py.typed").exists())

  def test_an_unknown_name_is_an_attribute_error(self):
    with self.assertRaisesRegex(AttributeError, "no attribute 'serach'"):
      _ = rj.serach
    with self.assertRaises(ImportError):
      from rstar_jax import serach  # noqa: F401

  def test_search_is_called_and_imported_from(self):
    # The room of the same name stands where the function would.
    from rstar_jax.search import mcts, tree

    self.assertIs(rj.search.mcts, mcts)
    (found,) = rj.search(
      [rj.Problem("five", "Make 5.", "5")],
      rj.SearchConfig(rollouts=9, candidates=3),
      rj.Calls(
        expand=rj.testing.ToySum(covers=True),
        verify=rj.testing.run_trusted,
        grade=rj.testing.grade_equal,
      ),
    )
    self.assertTrue(tree.solved(found))


class ContractTest(absltest.TestCase):
  """What other programs may rely on, called as they call it."""

  def test_programs_in_order_and_who_holds_what(self):
    limits = rj.Limits(
      wall_seconds=100, memory_bytes=1 << 30, output_bytes=65536
    )
    with rj.Sandbox(workers=2, limits=limits) as sandbox:
      found = sandbox.run([["x = 2", "print(x + 1)"], ["1 / 0"]])
      isolation = sandbox.isolation
    self.assertEqual([each.status for each in found], ["ok", "error"])
    self.assertEqual(found[0].stdout.strip(), "3")
    self.assertContainsSubset(
      ("net", "read", "write", "exec", "fork", "degraded"), isolation
    )

  def test_answers(self):
    answer = rj.final_answer("So it is \\boxed{0.5}.")
    with rj.Grader(workers=2, seconds=100) as grader:
      verdicts = grader.grade([("1/2", answer), ("3", None), ("3", "4")])
    self.assertEqual(verdicts, ["equal", "different", "different"])

  def test_models_are_loaded_called_and_saved(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    base = tiny_run.make_base(folder / "base")
    ids = [[5, 6, 7, 8], [9, 10, 11, 12]]
    policy = rj.load_policy(base, dtype="float32")
    logits = policy(ids)
    self.assertEqual(logits.shape, (2, 4, 768))
    rj.save_policy(policy, folder / "policy")
    again = rj.load_policy(str(folder / "policy"))(ids)
    np.testing.assert_array_equal(logits, again)
    made = transformer.ppm_from_policy(policy, rngs=nnx.Rngs(0))
    rj.save_ppm(made, folder / "ppm")
    ppm = rj.load_ppm(folder / "ppm", dtype="bfloat16")
    values = np.asarray(ppm(ids))
    self.assertEqual(values.shape, (2, 4))
    self.assertLessEqual(np.abs(values).max(), 1)
    np.testing.assert_allclose(values, made(ids), atol=0.02)


class ExamplesTest(absltest.TestCase):
  def test_users_are_shown_the_front_door_alone(self):
    found = examples()
    kinds = {
      pathlib.PurePath(name.split(":")[0].split("[")[0]).suffix
      for name in found
    }
    self.assertEqual(kinds, {".md", ".ipynb", ".py"})
    for name, text in found.items():
      with self.subTest(name):
        self.assertEmpty(deeper(text))

  def test_what_reaches_in_is_seen(self):
    self.assertEmpty(
      deeper("import rstar_jax as rj\nfrom rstar_jax import Tree")
    )
    self.assertEqual(deeper("from rstar_jax import rng"), ["rstar_jax.rng"])
    self.assertEqual(
      deeper("def f():\n  from rstar_jax.search import tree"),
      ["rstar_jax.search"],
    )


if __name__ == "__main__":
  absltest.main()
