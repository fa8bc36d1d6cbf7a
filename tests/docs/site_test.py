"""The site's contents are the pages; what `make docs` builds has no dead link.

The build itself is strict, and `.ci/run` makes it: Sphinx is not among what the
tests need.
"""

import importlib.util
import pathlib
import re

from absl.testing import absltest

from tests import layering_test
from tests.docs import reading

_FILE = reading.ROOT / "docs" / "site" / "build.py"
_SPEC = importlib.util.spec_from_file_location("site_build", _FILE)
build = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(build)


class ContentsTest(absltest.TestCase):
  def test_every_page_is_listed(self):
    index = reading.documents()["docs/README.md"]
    listed = [page for _, pages in build.contents(index) for page in pages]
    self.assertCountEqual(listed, set(listed))
    # The first page is the site's root.
    self.assertCountEqual([*listed, "README.md"], build.documents())

  def test_a_page_is_listed_once(self):
    text = "# A\n\n[r](../README.md) [d](../launch/README.md)\n\n"
    text += "## B\n\n[b](b.md) `[c](c.md)`\n"
    text += "[me](#x)\n\n## C\n\n[b](b.md#y) [d](../launch/README.md)\n"
    self.assertEqual(
      build.contents(text),
      [("B", ["docs/b.md", "docs/README.md"]), ("C", ["launch/README.md"])],
    )

  def test_rooms_are_those_of_the_package(self):
    page = reading.documents()["docs/architecture.md"]
    found = [name for name, _ in build.rooms(page)]
    wanted = [each for each in layering_test.ROOMS if each != "__main__"]
    self.assertEqual(found, wanted)
    named = {each for room in found for each in build.modules(room)}
    runs = {"__main__", ""}
    self.assertEqual(
      named,
      {
        f"rstar_jax.{name}"
        for name in layering_test.sources()
        if name.rpartition(".")[2] not in runs
      },
    )


class StagedTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(absltest.get_default_test_tmpdir()) / "staged"
    build.Staged(cls.folder, api=False).stage()

  def test_links_lead_to_pages(self):
    pages = sorted(self.folder.rglob("*.md"))
    self.assertGreater(len(pages), 60)
    for page in pages:
      text = page.read_text()
      for link in reading.links(text):
        file, _, anchor = link.partition("#")
        if "://" in link or not file or link.startswith("mailto:"):
          continue
        with self.subTest(f"{page.relative_to(self.folder)}: {link}"):
          there = page.parent / file
          self.assertTrue(there.exists())
          if anchor and there.suffix == ".md":
            self.assertIn(anchor, reading.anchors(there.read_text()))

  def test_a_module_is_a_heading_of_its_room(self):
    text = (self.folder / "README.md").read_text()
    self.assertIn("(api/pipeline.md#rstar_jaxpipelinerun)", text)
    page = (self.folder / "api" / "pipeline.md").read_text()
    self.assertIn("\n## rstar_jax.pipeline.run\n", page)

  def test_code_is_left_alone(self):
    staged = build.Staged(self.folder, api=False)
    text = "`[a](x.py)` and\n```\n[a](../setup.py)\n```\n"
    self.assertEqual(staged.linked("docs/a.md", text), text)

  def test_the_gallery_has_its_trees(self):
    text = (self.folder / "docs" / "gallery.md").read_text()
    frames = re.findall(r'<iframe src="(gallery/[\w-]+\.html)#', text)
    self.assertLen(frames, 5)
    for each in frames:
      page = (self.folder / "extra" / "docs" / each).read_text()
      self.assertIn("Content-Security-Policy", page)


class BrokenTest(absltest.TestCase):
  def test_links_that_lead_nowhere(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / "a.html").write_text(
      '<p id="x"><a href="b.html#y"><a href="b.html#z"><a href="#x">'
      '<a href="#w"><a href="http://a.b/c"><img src="no.png">'
      '<iframe src="b.html#view=tree">'
    )
    (folder / "b.html").write_text('<p id="y"><a href="a%2Ehtml">')
    (folder / "_static").mkdir()
    (folder / "_static" / "template.html").write_text('<a href="{{ path }}">')
    self.assertCountEqual(
      build.broken(folder),
      ["a.html: b.html#z", "a.html: #w", "a.html: no.png"],
    )

  def test_versions_newest_first(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    for name in ("dev", "0.9.0", "0.10.0", "no_site"):
      (folder / name).mkdir()
      if name != "no_site":
        (folder / name / "README.html").write_text("")
    build.write_versions(folder)
    found = re.findall(
      r'"version": "(.*?)"', (folder / "versions.json").read_text()
    )
    self.assertEqual(found, ["0.10.0", "0.9.0", "dev"])
    self.assertIn("url=0.10.0/", (folder / "index.html").read_text())


if __name__ == "__main__":
  absltest.main()
