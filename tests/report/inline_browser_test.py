"""The report in a frame of another page, as in a notebook."""

import pathlib
import tempfile

import numpy as np
from absl.testing import absltest

from rstar_jax import testing
from rstar_jax.report import inline
from rstar_jax.search import ab_mcts, beam, driver, mcts
from rstar_jax.search.tree import Tree
from tests.report import opened, workdirs
from tests.search.toys import PROBLEMS, calls_of, config_of

setUpModule = opened.open_all


class FrameTest(opened.BrowserTest):
  def show(self, frame: inline.Frame, name: str) -> None:
    """Opens a page with a frame, and switches to the frame."""
    path = pathlib.Path(self.create_tempdir().full_path) / "notebook.html"
    path.write_text(f"<!doctype html><body>{frame._repr_html_()}</body>")
    self.driver.get(path.as_uri())
    self.driver.switch_to.frame(0)
    self.addCleanup(self.driver.switch_to.default_content)
    self.page.wait("document.documentElement.dataset.ready")
    self.page.picture(opened.shared["pictures"] / f"inline-{name}.png")

  def test_a_tree_can_be_walked(self):
    tree = workdirs.apples()
    self.show(inline.show_trees([tree, workdirs.hostile()]), "tree")
    self.assertEqual(self.page.text("h1"), "apples")
    self.assertEqual(self.page.count("[role=treeitem]"), len(tree))
    # A step writes its address, which a document without an origin may too.
    self.page.click("[role=treeitem]:nth-of-type(2)")
    self.assertTrue(self.page.run("return location.hash.includes('node=')"))
    self.page.click("nav [data-view=problems]")
    self.page.wait("document.querySelector('main').dataset.view === 'problems'")
    self.assert_quiet()

  def test_the_end_of_a_replay_is_the_tree(self):
    # Visits that the PPM's value counts as, none of these, and failed rollouts.
    broken = testing.ToySum(("x += 1", "x += 2", "x += nope"))
    searches = [
      mcts.search_tree(Tree(PROBLEMS[0]), config_of(annotation="ppm")),
      beam.beams(Tree(PROBLEMS[1]), 2, config_of(annotation="ppm")),
      ab_mcts.search_tree(Tree(PROBLEMS[2]), config_of(rollouts=20)),
    ]
    trees = driver.run_searches(searches, calls_of(broken), 3)
    self.assertGreater(trees[2].failed_rollouts, 0)
    self.show(inline.show_trees(trees), "replay")
    for block, tree in enumerate(trees):
      visits, q = self.page.run(
        "return Report.data.tree(arguments[0]).then((tree) => {"
        "const { visits, q } = Report.data.backedUp(tree, tree.growth.length,"
        "tree.parent.length); return [visits, q]; })",
        block,
      )
      self.assertEqual(visits, tree.visits.tolist())
      np.testing.assert_allclose(
        q, list(map(tree.q, range(len(tree)))), atol=2e-3
      )

  def test_a_run_shows_its_curves(self):
    with tempfile.TemporaryDirectory() as folder:
      workdirs.write(pathlib.Path(folder))
      self.show(inline.show_run(folder), "run")
    self.assertGreater(self.page.count(".chart"), 0)
    self.assert_quiet()


if __name__ == "__main__":
  absltest.main()
