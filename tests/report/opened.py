"""Opens the report of a small run in a browser, for tests."""

import pathlib
import shutil
import struct
import tempfile
import unittest

from absl.testing import absltest

from rstar_jax.report import page
from tests.report import browser, workdirs

APPLES = "#view=tree&set=training&round=1&problem=apples"
LARGE = "#view=tree&set=training&round=2&problem=large"
# Width and height of the windows.
DESK, PHONE = (1280, 900), (390, 844)

# Shared by all tests of a file: a browser takes seconds to start.
shared = {}


def open_all() -> None:
  """Starts the browser and writes the page; for `setUpModule`."""
  temporary = open_browser()
  if temporary is None:
    return
  folder = temporary / "toy-run"
  folder.mkdir()
  workdirs.write(folder)
  workdirs.write_round(folder, 2, [workdirs.large()])
  # The same problem in the round before, with three nodes.
  early = [workdirs.apples(), workdirs.hostile(), workdirs.small("large")]
  workdirs.write_round(folder, 1, early)
  shared["file"] = pathlib.Path(page.write(folder)).resolve()


def open_browser() -> pathlib.Path | None:
  """Starts the browser; returns a temporary folder, None without a browser."""
  temporary = pathlib.Path(tempfile.mkdtemp())
  unittest.addModuleCleanup(shutil.rmtree, temporary, ignore_errors=True)
  try:
    shared["driver"] = browser.start(temporary / "profile")
  except unittest.SkipTest as reason:
    # Each test skips: a file without tests would look as if it had passed.
    shared["missing"] = str(reason)
    return None
  unittest.addModuleCleanup(shared["driver"].quit)
  shared["pictures"] = browser.pictures()
  print(f"pictures: {shared['pictures']}")
  return temporary


class BrowserTest(absltest.TestCase):
  """A test with the page in a browser."""

  def setUp(self):
    super().setUp()
    if "missing" in shared:
      self.skipTest(shared["missing"])
    self.driver = shared["driver"]
    self.page = browser.Page(self.driver)
    self.page.screen(*DESK)
    self.page.complaints()

  def open(self, address: str = "") -> None:
    self.page.open(shared["file"], address)

  def picture(self, name: str) -> None:
    """Writes a screenshot, and checks that it is not empty."""
    path = shared["pictures"] / f"{name}.png"
    self.page.picture(path)
    data = path.read_bytes()
    self.assertEqual(data[:8], b"\x89PNG\r\n\x1a\n")
    size = struct.unpack(">II", data[16:24])
    self.assertEqual(size[0], self.page.run("return innerWidth"))
    # A screenshot of an empty page is smaller.
    self.assertGreater(len(data), 12_000)

  def selected(self) -> str:
    """Returns the id of the selected node."""
    self.assertEqual(self.page.count(".tree [aria-selected=true]"), 1)
    name = self.page.attribute(".tree [aria-selected=true]", "id")
    self.assertEqual(
      self.page.attribute(".tree", "aria-activedescendant"), name
    )
    return name

  def assert_quiet(self) -> None:
    """Checks that there are no errors and no injected script has run."""
    self.assertEqual(self.page.complaints(), [])
    self.assertIsNone(self.page.run("return window.hacked ?? null"))

  def assert_no_sideways_scroll(self) -> None:
    wide, room = self.page.run(
      "return [document.documentElement.scrollWidth, innerWidth]"
    )
    self.assertLessEqual(wide, room)
