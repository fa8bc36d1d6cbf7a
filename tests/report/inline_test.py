"""Tests of the report inside a notebook; inline_browser_test.py opens it."""

import base64
import html
import pathlib
import re
import tempfile

from absl.testing import absltest

from rstar_jax.report import inline
from tests.report import workdirs

_SOURCE = re.compile(
  r'<iframe src="data:text/html;charset=utf-8;base64,([\w+/=]+)(#[^"]*)?" '
)


def parts(shown: str) -> tuple[str, str]:
  """Returns the page of a frame and where it opens, of the frame's HTML."""
  packed, address = _SOURCE.match(shown).groups()
  return base64.b64decode(packed).decode(), html.unescape(address or "")


class FrameTest(absltest.TestCase):
  def test_trees_open_at_the_first(self):
    frame = inline.show_trees([workdirs.apples(), workdirs.hostile()])
    page, address = parts(frame._repr_html_())
    self.assertEqual(address, "#view=tree&set=training&round=1&problem=apples")
    self.assertStartsWith(page, "<!doctype html>")
    self.assertIn('id="tree-1"', page)
    self.assertNotIn(workdirs.HOSTILE, page)

  def test_a_run_opens_at_its_first_page_or_at_a_tree(self):
    with tempfile.TemporaryDirectory() as folder:
      workdirs.write(pathlib.Path(folder))
      whole, first = parts(inline.show_run(folder)._repr_html_())
      at_tree = inline.show_run(folder, problem="a b&c", round_=2)
      same, tree = parts(at_tree._repr_html_())
    self.assertEqual((first, whole), ("", same))
    self.assertEqual(tree, "#view=tree&set=training&round=2&problem=a+b%26c")

  def test_the_frame_has_no_origin(self):
    text = inline.show_trees([workdirs.apples()])._repr_html_()
    self.assertIn(' sandbox="allow-scripts" ', text)
    # What a notebook keeps beside it, for where no HTML is shown.
    self.assertLess(len(repr(inline.show_trees([workdirs.apples()]))), 200)
    self.assertEqual((text.count("<"), text.count(">")), (2, 2))

  def test_no_trees(self):
    with self.assertRaisesRegex(ValueError, "no trees to show"):
      inline.show_trees([])


if __name__ == "__main__":
  absltest.main()
