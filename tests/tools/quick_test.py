"""The first tree, of a scripted policy."""

import contextlib
import io
import pathlib
import re
import urllib.parse
from unittest import mock

from absl.testing import absltest

from rstar_jax import testing
from rstar_jax.search.requests import Calls
from rstar_jax.tools import quick


class QuickTest(absltest.TestCase):
  def run_with(self, *options: str) -> str:
    """Returns what is printed where a solution adds one of the options."""
    policy = testing.ToySum(options, levels=1, covers=True)
    calls = Calls(policy, testing.run_trusted, testing.grade_equal)
    folder = self.create_tempdir().full_path
    printed = io.StringIO()
    with (
      mock.patch.object(
        quick.run, "open_run", lambda *_, **__: contextlib.nullcontext()
      ),
      mock.patch.object(quick.backends, "load_calls", lambda *_: calls),
      contextlib.redirect_stdout(printed),
    ):
      quick.main([f"--workdir={folder}", "--candidates=3", "--rollouts=6"])
    return printed.getvalue()

  def test_it_shows_a_tree_and_an_answer(self):
    printed = self.run_with("x += 291", "x += 7", "x += 0 / 0")
    self.assertRegex(printed, r"A bus leaves Elgate with 89 people\.")
    # The root, two steps that run, and the answers of these.
    self.assertIn("a tree of 5 nodes", printed)
    self.assertIn("1 of its 2 solutions are right.", printed)
    self.assertIn(
      "The answer of most, 1 of them: 291, which is right.", printed
    )
    [address] = re.findall(r"(?m)^Open (file://\S+)$", printed)
    parts = urllib.parse.urlsplit(address)
    page = pathlib.Path(urllib.parse.unquote(parts.path)).read_text()
    self.assertIn('id="tree-0"', page)
    self.assertStartsWith(parts.fragment, "view=tree&")

  def test_without_a_solution_it_says_what_to_try(self):
    printed = self.run_with("x += 0 / 0", "y", "x +=")
    self.assertIn("0 of its 0 solutions are right.", printed)
    self.assertIn("No solution has an answer: try", printed)

  def test_what_cannot_be_is_said(self):
    file = self.create_tempfile("a").full_path
    with self.assertRaisesRegex(ValueError, "^--problem=-1: they are numbered"):
      quick.main(["--problem=-1"])
    for flag in ("--rollouts=0", "--rollouts=-1", "--candidates=0"):
      with self.assertRaisesRegex(ValueError, f"^{flag} must be above 0$"):
        quick.main([flag])
    with (
      contextlib.redirect_stdout(io.StringIO()),
      self.assertRaisesRegex(OSError, file),
    ):
      quick.main([f"--workdir={file}"])


if __name__ == "__main__":
  absltest.main()
