"""What a user imports: `import rstar_jax as rj`, and nothing deeper."""

import ast
import importlib
import pathlib
import subprocess
import sys

from absl.testing import absltest

import rstar_jax as rj
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


class NamesTest(absltest.TestCase):
  def test_the_import_loads_nothing_heavy(self):
    loaded = fresh("import rstar_jax, sys; print(*sys.modules)").split()
    self.assertIn("rstar_jax", loaded)
    self.assertEmpty({name.split(".")[0] for name in loaded} & set(HEAVY))

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
      rj.SearchConfig(rollouts=9, candidates=3, groups=1),
      rj.Calls(
        expand=rj.testing.ToySum(covers=True),
        verify=rj.testing.run_trusted,
        grade=rj.testing.grade_equal,
      ),
    )
    self.assertTrue(tree.solved(found))


if __name__ == "__main__":
  absltest.main()
