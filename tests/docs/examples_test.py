"""The Python that the documents show runs, and prints what they say."""

import contextlib
import io
import pathlib
import runpy
import sys
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized

import rstar_jax as rj
from rstar_jax.config import validation
from rstar_jax.search import named
from tests.docs import reading

# What needs a finished run is for `make docs-check`.
_NEEDS_A_RUN = "runs/tiny"
# Programs that are a page of their own, and a pattern that each prints.
FOLDER = reading.ROOT / "docs" / "examples"
PROGRAMS = {
  "own_task.py": r"(?m)3 pens of 14 .* The best answer is 42$",
  "own_search.py": r"(?m)^best_first p5 14 nodes \['2', '4', '5', '6'\]$",
  "train_a_ppm.py": r"(?m)^The better step: pens = 21 \+ 7$",
}


def pages() -> list[str]:
  """Returns the documents that show Python."""
  return [
    name
    for name, text in reading.documents().items()
    if any(each.language == "python" for each in reading.blocks(text))
  ]


def lines_of(text: str) -> list[str]:
  """Returns lines without the blanks that print leaves at an end."""
  return [line.rstrip() for line in text.strip().splitlines()]


class ExamplesTest(parameterized.TestCase):
  @parameterized.parameters(*pages())
  def test_runs_and_prints_what_is_shown(self, name):
    # In order, in one folder: a block may read what another one wrote.
    with (
      tempfile.TemporaryDirectory() as folder,
      contextlib.chdir(folder),
      mock.patch.object(sys, "path", [folder, *sys.path]),
    ):
      # Of a clone.
      pathlib.Path("docs").symlink_to(reading.ROOT / "docs")
      for block in reading.blocks(reading.documents()[name]):
        if block.language != "python" or _NEEDS_A_RUN in block.text:
          continue
        with self.subTest(f"{name}:{block.line}"):
          if block.file:
            pathlib.Path(block.file).write_text(block.text)
          out = io.StringIO()
          with contextlib.redirect_stdout(out):
            code = compile(block.text, f"{name}:{block.line}", "exec")
            exec(code, {"__name__": "__main__"})
          if block.output is not None:
            self.assertEqual(lines_of(out.getvalue()), lines_of(block.output))

  def test_all_pages_are_found(self):
    wanted = {"README.md"} | {
      f"docs/{name}.md"
      for name in (
        "concepts",
        "your_data",
        "your_model",
        "your_reward",
        "your_search",
        "your_task",
        "sandbox_and_grader",
      )
    }
    self.assertContainsSubset(wanted, pages())


class ProgramsTest(parameterized.TestCase):
  @parameterized.named_parameters((each, each) for each in PROGRAMS)
  def test_runs_to_its_end(self, name):
    out = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
      with contextlib.redirect_stdout(out):
        runpy.run_path(str(FOLDER / name), run_name="__main__")
    self.assertRegex(out.getvalue(), PROGRAMS[name])

  def test_a_search_of_one_s_own_has_a_name(self):
    config = rj.SearchConfig(rollouts=7, method="own_search:best_first")
    run = rj.Config(train=rj.DataConfig(count=1), search=config)
    problems = [rj.Problem("p5", "Make 5.", "5")]
    calls = rj.Calls(
      expand=rj.testing.ToySum(covers=True),
      verify=rj.testing.run_trusted,
      grade=rj.testing.grade_equal,
    )
    with mock.patch.object(sys, "path", [str(FOLDER), *sys.path]):
      validation.validate(run)
      (tree,) = named.search(problems, config, calls)
    self.assertEqual(tree.problem, problems[0])
    self.assertGreater(len(tree), 7)

  def test_all_are_run_and_short(self):
    files = {path.name: path.read_text() for path in FOLDER.glob("*.py")}
    self.assertEqual(set(files), set(PROGRAMS))
    for name, text in files.items():
      with self.subTest(name):
        self.assertLess(len(text.splitlines()), 40)


if __name__ == "__main__":
  absltest.main()
