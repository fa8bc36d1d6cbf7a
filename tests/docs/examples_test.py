"""The Python that the documents show runs, and prints what they say."""

import contextlib
import io
import tempfile

from absl.testing import absltest, parameterized

from tests.docs import reading

# What needs a finished run is for `make docs-check`.
_NEEDS_A_RUN = "runs/tiny"


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
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
      for block in reading.blocks(reading.documents()[name]):
        if block.language != "python" or _NEEDS_A_RUN in block.text:
          continue
        with self.subTest(f"{name}:{block.line}"):
          out = io.StringIO()
          with contextlib.redirect_stdout(out):
            code = compile(block.text, f"{name}:{block.line}", "exec")
            exec(code, {"__name__": "__main__"})
          if block.output is not None:
            self.assertEqual(lines_of(out.getvalue()), lines_of(block.output))

  def test_all_pages_are_found(self):
    wanted = {
      f"docs/{name}.md"
      for name in (
        "concepts",
        "your_data",
        "your_model",
        "your_reward",
        "your_search",
        "sandbox_and_grader",
      )
    }
    self.assertContainsSubset(wanted, pages())


if __name__ == "__main__":
  absltest.main()
