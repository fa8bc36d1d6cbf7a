"""Tests of the report inside a notebook, in a browser where there is one."""

import base64
import html
import pathlib
import re
import tempfile

from absl.testing import absltest

from rstar_jax.report import inline
from tests.report import browser, workdirs

_SOURCE = re.compile(
  r'<iframe src="data:text/html;charset=utf-8;base64,([\w+/=]+)(#[^"]*)?" '
)


def parts(shown: str) -> tuple[str, str]:
  """Returns the page of a frame and where it opens, of the frame's HTML."""
  packed, address = _SOURCE.match(shown).groups()
  return base64.b64decode(packed).decode(), html.unescape(address or "")


class FrameTest(absltest.TestCase):
  def test_trees_open_at_the_first(self):
    frame = inline.trees([workdirs.apples(), workdirs.hostile()])
    page, address = parts(frame._repr_html_())
    self.assertEqual(address, "#view=tree&set=training&round=1&problem=apples")
    self.assertStartsWith(page, "<!doctype html>")
    self.assertIn('id="tree-1"', page)
    self.assertNotIn(workdirs.HOSTILE, page)

  def test_a_run_opens_at_its_first_page_or_at_a_tree(self):
    with tempfile.TemporaryDirectory() as folder:
      workdirs.write(pathlib.Path(folder))
      whole, first = parts(inline.workdir(folder)._repr_html_())
      at_tree = inline.workdir(folder, problem="a b&c", round_=2)
      same, tree = parts(at_tree._repr_html_())
    self.assertEqual((first, whole), ("", same))
    self.assertEqual(tree, "#view=tree&set=training&round=2&problem=a+b%26c")

  def test_the_frame_has_no_origin(self):
    text = inline.trees([workdirs.apples()])._repr_html_()
    self.assertIn(' sandbox="allow-scripts" ', text)
    self.assertEqual((text.count("<"), text.count(">")), (2, 2))


class BrowserTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.driver = browser.start()
    cls.addClassCleanup(cls.driver.quit)

  def show(self, frame: inline.Frame, name: str) -> browser.Page:
    """Opens a page that holds a frame, as a notebook does; goes into it."""
    path = pathlib.Path(self.create_tempdir().full_path) / "notebook.html"
    path.write_text(f"<!doctype html><body>{frame._repr_html_()}</body>")
    page = browser.Page(self.driver)
    page.screen(1100, 820)
    self.driver.get(path.as_uri())
    self.driver.switch_to.frame(0)
    self.addCleanup(self.driver.switch_to.default_content)
    page.wait("document.documentElement.dataset.ready")
    page.settle()
    page.picture(browser.pictures() / f"inline_{name}.png")
    return page

  def test_a_tree_can_be_walked(self):
    tree = workdirs.apples()
    page = self.show(inline.trees([tree, workdirs.hostile()]), "tree")
    self.assertEqual(page.text("h1"), "apples")
    self.assertEqual(page.count("[role=treeitem]"), len(tree))
    # A step writes its address, which a document without an origin may too.
    page.click("[role=treeitem]:nth-of-type(2)")
    self.assertTrue(page.run("return location.hash.includes('node=')"))
    page.click("nav [data-view=problems]")
    page.wait("document.querySelector('main').dataset.view === 'problems'")
    self.assertFalse(page.run("return Boolean(window.hacked)"))
    bad = [each for each in page.complaints() if "favicon" not in each]
    self.assertEmpty(bad)

  def test_a_run_shows_its_curves(self):
    with tempfile.TemporaryDirectory() as folder:
      workdirs.write(pathlib.Path(folder))
      page = self.show(inline.workdir(folder), "run")
    self.assertGreater(page.count("main svg"), 0)


if __name__ == "__main__":
  absltest.main()
