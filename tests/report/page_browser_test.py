"""The report in a real browser: what is seen, clicked, pressed and refused."""

import pathlib
import shutil
import struct
import tempfile
import unittest

from absl.testing import absltest

from rstar_jax.report import page
from tests.report import browser, workdirs

APPLES = "#view=tree&set=training&round=1&problem=apples"
# Width and height of the windows.
DESK, PHONE = (1280, 900), (390, 844)


# Of all tests of this file: a browser takes seconds to start.
_shared = {}


def setUpModule():
  _shared["driver"] = browser.start()
  unittest.addModuleCleanup(_shared["driver"].quit)
  _shared["pictures"] = browser.pictures()
  folder = pathlib.Path(tempfile.mkdtemp()) / "toy-run"
  unittest.addModuleCleanup(shutil.rmtree, folder.parent)
  folder.mkdir()
  workdirs.write(folder)
  workdirs.write_round(folder, 2, [workdirs.large()])
  _shared["file"] = pathlib.Path(page.write(folder)).resolve()


class BrowserTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.driver = _shared["driver"]
    self.page = browser.Page(self.driver)
    self.page.screen(*DESK)
    self.page.complaints()

  def open(self, address: str = "") -> None:
    self.page.open(_shared["file"], address)

  def picture(self, name: str) -> None:
    """Leaves a picture, and looks at whether it shows anything."""
    path = _shared["pictures"] / f"{name}.png"
    self.page.picture(path)
    data = path.read_bytes()
    self.assertEqual(data[:8], b"\x89PNG\r\n\x1a\n")
    size = struct.unpack(">II", data[16:24])
    self.assertEqual(size[0], self.page.run("return innerWidth"))
    # An empty page of this size takes less.
    self.assertGreater(len(data), 12_000)

  def selected(self) -> str:
    """Returns the id of the node that is looked at."""
    self.assertEqual(self.page.count(".tree [aria-selected=true]"), 1)
    name = self.page.attribute(".tree [aria-selected=true]", "id")
    self.assertEqual(
      self.page.attribute(".tree", "aria-activedescendant"), name
    )
    return name

  def assert_quiet(self) -> None:
    """Nothing was complained of, and nothing hostile has run."""
    self.assertEqual(self.page.complaints(), [])
    self.assertIsNone(self.page.run("return window.hacked ?? null"))

  def assert_no_sideways_scroll(self) -> None:
    wide, room = self.page.run(
      "return [document.documentElement.scrollWidth, innerWidth]"
    )
    self.assertLessEqual(wide, room)


class OverviewTest(BrowserTest):
  def test_shows_the_numbers_of_the_records(self):
    self.open()
    self.assertEqual(self.page.text("h1"), "How the run went")
    self.assertEqual(self.page.text(".brand .name"), "toy-run")
    self.assertEqual(
      self.page.texts(".figures .value"), ["50%", "50%", "100%", "16 s"]
    )
    # Two rounds, each with its interval.
    self.assertEqual(self.page.count(".chart .s0 .marker"), 3 - 1)
    self.assertIn("Accuracy on toy:test", self.page.texts("h2"))
    self.assertIn(
      "50.0 [0.0, 100.0]", self.page.text("[aria-labelledby=accuracy-0]")
    )
    self.assertIn("Round 1", self.page.text("[aria-labelledby=time]"))
    self.assertIn("code raised an error", self.page.text("#main"))
    self.assertIn("75.0% (4)", self.page.text("[aria-labelledby=ppm]"))
    self.assert_no_sideways_scroll()
    self.assert_quiet()
    self.picture("overview-light")

  def test_dark_follows_the_system_and_the_button(self):
    def brightness() -> float:
      self.page.settle()
      colour = self.page.run(
        "return getComputedStyle(document.body).backgroundColor"
      )
      return sum(map(int, colour.strip("rgb()").split(",")))

    self.page.screen(*DESK, theme="dark")
    self.open()
    self.assertLess(brightness(), 150)
    self.picture("overview-dark")
    self.page.click("#theme")
    self.assertGreater(brightness(), 600)
    # The choice outlasts the page, whatever the system says.
    self.open()
    self.assertGreater(brightness(), 600)
    self.page.click("#theme")
    self.assertLess(brightness(), 150)
    self.page.run("localStorage.clear()")

  def test_phone(self):
    self.page.screen(*PHONE)
    self.open()
    self.assert_no_sideways_scroll()
    self.picture("overview-phone")
    self.open("#view=problems")
    self.assert_no_sideways_scroll()
    self.picture("problems-phone")


class ProblemsTest(BrowserTest):
  def shown(self) -> list[str]:
    return self.page.texts(".list tbody .id, .list tbody .question:only-child")

  def test_search_and_filters(self):
    self.open("#view=problems")
    self.assertEqual(self.page.text(".count"), "6 of 6 problems")
    self.page.click("[name=search]")
    self.page.keys(*"pears")
    self.assertEqual(self.page.text(".count"), "2 of 6 problems")
    # The address tells it, so that it can be sent and gone back to.
    self.assertIn("search=pears", self.page.run("return location.hash"))
    self.open("#view=problems&set=test&round=1&result=unsolved")
    self.assertEqual(self.shown(), ["figs"])
    self.open("#view=problems&result=suspect")
    self.assertEqual(self.page.text(".count"), "1 of 6 problems")
    self.page.run(
      "const list = document.querySelector('[name=result]');"
      "list.value = 'solved'; list.dispatchEvent(new Event('change'))"
    )
    self.assertEqual(self.shown(), ["large", "pears", "apples"])
    self.open("#view=problems&level=5")
    self.assertEqual(self.shown(), ["large"])
    self.open("#view=problems&sort=nodes&set=training&round=1")
    self.assertEqual(self.shown()[0], "apples")
    self.assert_no_sideways_scroll()
    self.assert_quiet()

  def test_a_line_leads_to_its_tree_and_back(self):
    self.open("#view=problems&search=apples&set=training")
    self.picture("problems-light")
    self.page.click(".list tbody a")
    self.page.wait("document.querySelector('.tree')")
    self.assertEqual(self.page.text("h1"), "apples")
    self.driver.back()
    self.page.wait("document.querySelector('.list')")
    self.assertEqual(self.page.attribute("[name=search]", "value"), "apples")

  def test_a_problem_without_a_tree_says_why(self):
    self.open("#view=tree&set=test&round=1&problem=figs")
    self.assertIn("answered without a search", self.page.text("#main"))
    self.open("#view=tree&set=test&round=7&problem=figs")
    self.assertIn("no such problem", self.page.text("#main"))


class TreeTest(BrowserTest):
  def test_shows_the_tree(self):
    self.open(APPLES)
    self.assertEqual(self.page.count(".tree [role=treeitem]"), 10)
    self.assertEqual(self.selected(), "node-0")
    chosen = ".tree .node.chosen"
    self.assertEqual(self.page.count(chosen), 4)
    self.assertEqual(self.page.count(".tree .untried"), 3)
    # Q is a number and a shade, the kind is a shape, the verdict a glyph.
    self.assertEqual(self.page.text("#node-2 .q"), "−1.00")
    self.assertIn("q0", self.page.attribute("#node-2", "class").split())
    self.assertIn("q8", self.page.attribute("#node-1", "class").split())
    self.assertEqual(self.page.text("#node-7 .glyph"), "✓")
    self.assertEqual(self.page.text("#node-9 .glyph"), "✗")
    self.assertEqual(self.page.text("#node-5 .words"), "prints 14")
    self.assertEqual(self.page.count("#node-5 rect.shape"), 1)
    sizes = [
      float(self.page.attribute(f"#node-{i} circle.shape", "r")) for i in (1, 2)
    ]
    self.assertGreater(*sizes)
    self.assertEqual(
      self.page.attribute("#node-7", "aria-label"),
      "answer 3, = 14, right, Q +1.00, 2 visits, on the chosen solution",
    )
    self.assertEqual(self.page.attribute("#node-7", "aria-level"), "4")
    self.assert_quiet()
    self.picture("tree-light")
    self.page.screen(*DESK, theme="dark")
    self.picture("tree-dark")

  def test_a_click_shows_a_node(self):
    self.open(APPLES)
    self.page.click("#node-1 .shape")
    self.assertEqual(self.selected(), "node-1")
    detail = self.page.text(".detail")
    self.assertIn("# Tom has 9 Tom = 9", detail)
    self.assertNotIn("<code># Tom", self.page.text(".detail .code"))
    self.assertIn("+0.500", detail)
    self.assertIn("Preference pairs", detail)
    self.assertIn("As a step it is better than", detail)
    self.assertIn("Tom = 10", self.page.text(".detail .pairs + ul"))
    self.assertEqual(self.page.count(".siblings tbody tr"), 4)
    # The other side of the pair is a click away.
    self.page.click(".detail .pairs + ul button")
    self.assertEqual(self.selected(), "node-2")
    self.assertIn("worse than", self.page.text(".detail"))
    self.page.click("#node-5 .shape")
    self.assertEqual(self.page.text(".detail .output"), "14")
    self.page.click("#node-9 .shape")
    self.assertIn("✗ wrong", self.page.text(".facts"))
    self.assertIn(
      "Given answer 14", self.page.text(".facts").replace("answer1", "answer 1")
    )
    self.assert_quiet()

  def test_keys_walk_the_tree(self):
    self.open(APPLES)
    self.page.run("document.querySelector('.tree').focus()")
    for key, node in (
      ("ARROW_RIGHT", 1),
      ("ARROW_DOWN", 2),
      ("ARROW_RIGHT", 8),
      ("ARROW_UP", 6),
      ("ARROW_UP", 5),
      ("ARROW_RIGHT", 7),
      ("ARROW_RIGHT", 7),
      ("ARROW_LEFT", 5),
      ("HOME", 0),
      ("ARROW_LEFT", 0),
      ("END", 7),
    ):
      self.page.keys(key)
      self.assertEqual(self.selected(), f"node-{node}", key)
    self.assertIn("node=7", self.page.run("return location.hash"))
    # Enter goes to the text, Escape back to the tree.
    self.page.keys("ENTER")
    self.assertEqual(
      self.page.run("return document.activeElement.id"), "detail"
    )
    self.page.keys("ESCAPE")
    self.assertEqual(
      self.page.run("return document.activeElement.getAttribute('role')"),
      "tree",
    )
    self.picture("tree-keyboard")

  def test_a_link_leads_to_a_node(self):
    self.open(f"{APPLES}&node=8")
    self.assertEqual(self.selected(), "node-8")
    self.assertIn("ends the code", self.page.text("#detail-title"))
    for nonsense in ("10", "-1", "x", "1.5", ""):
      self.open(f"{APPLES}&node={nonsense}")
      self.assertEqual(self.selected(), "node-0", nonsense)
    self.assert_quiet()

  def test_replay(self):
    self.open(f"{APPLES}&rollout=1")
    self.assertEqual(self.page.count(".tree .later"), 2)
    self.assertEqual(self.page.count(".tree .fresh"), 7)
    self.assertIn(
      "rollout 1 of 3: 8 nodes, 40 tokens", self.page.text(".replay")
    )
    self.picture("tree-replay")
    self.page.click("[aria-label='One rollout on']")
    self.assertEqual(self.page.count(".tree .later"), 0)
    self.assertEqual(self.page.count(".tree .fresh"), 2)
    self.assertIn("rollout=2", self.page.run("return location.hash"))
    for _ in range(2):
      self.page.click("[aria-label='One rollout back']")
    self.assertIn("before the first rollout: 1 node", self.page.text(".replay"))
    self.assertEqual(self.page.count(".tree .later"), 9)
    self.page.click(".replay .play")
    self.assertIn("Pause", self.page.text(".replay .play"))
    # It goes on by itself, and ends with the whole tree.
    self.page.wait(
      "document.querySelector('.play').textContent.includes('Replay')"
    )
    self.assertIn("all 3 rollouts: 10 nodes", self.page.text(".replay"))
    self.assertEqual(self.page.count(".tree .later, .tree .fresh"), 0)
    self.page.run("document.getElementById('rollout').focus()")
    self.page.keys("ARROW_LEFT")
    self.assertIn("rollout 2 of 3", self.page.text(".replay"))

  def test_an_evaluation_says_what_each_method_made_of_it(self):
    self.open("#view=tree&set=test&round=1&split=toy:test&problem=pears")
    outcome = self.page.text(".outcome")
    for words in ("14 ✓ right", "1 of 3", "Policy alone"):
      self.assertIn(words, outcome)
    self.assertEqual(self.page.count(".tree .chosen.node"), 4)

  def test_phone(self):
    self.page.screen(*PHONE)
    self.open(f"{APPLES}&node=5")
    self.assert_no_sideways_scroll()
    self.picture("tree-phone")
    self.page.click("#node-2 .shape")
    self.assertEqual(self.selected(), "node-2")
    self.assertIn("Tom = 10", self.page.text(".detail"))

  def test_what_is_seen_can_be_told_by_a_machine_too(self):
    for address in ("", "#view=problems", APPLES):
      self.open(address)
      with self.subTest(address):
        unnamed = self.page.run(
          "return [...document.querySelectorAll('button, a, input, select')]"
          ".filter((each) => !(each.textContent.trim() || each.labels?.length"
          " || each.getAttribute('aria-label'))).length"
        )
        self.assertEqual(unnamed, 0)
        self.assertEqual(self.page.count("h1"), 1)
        self.assertEqual(
          self.page.count("svg:not([aria-label]):not([aria-hidden])"), 0
        )


class LargeTest(BrowserTest):
  ADDRESS = "#view=tree&set=training&round=2&problem=large"

  def test_five_thousand_nodes(self):
    self.open(self.ADDRESS)
    # What was never tried is folded until it is asked for.
    self.assertLess(self.page.count(".tree [role=treeitem]"), 2500)
    self.assertGreater(self.page.count(".tree .rest"), 100)
    self.picture("tree-5000-folded")
    self.page.click("#fold")
    self.assertEqual(self.page.count(".tree [role=treeitem]"), 5000)
    self.picture("tree-5000")
    self.page.click("#node-4321 .shape")
    self.assertEqual(self.selected(), "node-4321")
    self.page.keys("ARROW_LEFT", "ARROW_LEFT")
    self.assertNotEqual(self.selected(), "node-4321")
    self.page.click("[aria-label='Fit the tree into the window']")
    self.picture("tree-5000-fit")
    self.assert_quiet()

  def test_folded_steps_open_by_a_click_by_a_key_and_by_a_link(self):
    self.open(self.ADDRESS)
    before = self.page.count(".tree .node")
    self.page.click(".tree .rest .pill")
    after = self.page.count(".tree .node")
    self.assertGreater(after, before)
    # Folded siblings stand below those that were tried.
    tree = workdirs.large()
    tried = next(
      node
      for node in range(len(tree))
      if tree.depth[node] == 4
      and tree.num_children[node]
      and sum(tree.visits[tree.span(int(tree.parent[node]))] == 0) > 2
    )
    self.open(f"{self.ADDRESS}&node={tried}")
    after = self.page.count(".tree .node")
    self.page.run("document.querySelector('.tree').focus()")
    for _ in range(8):
      if self.selected().startswith("node-"):
        self.page.keys("ARROW_DOWN")
    self.assertEqual(self.selected(), f"rest-{tree.parent[tried]}")
    self.page.keys("ENTER")
    self.assertStartsWith(self.selected(), "node-")
    self.assertGreater(self.page.count(".tree .node"), after)
    self.open(f"{self.ADDRESS}&node=4999")
    self.assertEqual(self.selected(), "node-4999")


class HostileTest(BrowserTest):
  def test_nothing_that_a_model_wrote_runs(self):
    self.open()
    self.assertIn("window.hacked = 1", self.page.text("#main"))
    self.assert_quiet()
    self.open("#view=problems")
    self.assert_quiet()
    self.page.run(
      "[...document.querySelectorAll('.list a')].find((each) =>"
      " each.textContent.includes('hacked')).click()"
    )
    self.page.wait("document.querySelector('.tree')")
    self.page.run("document.querySelector('.tree').focus()")
    for key in (
      "ARROW_RIGHT",
      "ARROW_DOWN",
      "ARROW_UP",
      "ARROW_RIGHT",
      "ARROW_RIGHT",
    ):
      self.page.keys(key)
      self.assertIn("window.hacked = 1", self.page.text(".detail"))
    self.assertEqual(self.selected(), "node-5")
    # No element of the page was made of a text.
    self.assertEqual(self.page.count("#main img, #main script, [onload]"), 0)
    self.assert_quiet()
    self.picture("tree-hostile")

  def attempt(self) -> list[str]:
    """Tries to run scripts in the page; returns the names of the errors."""
    # Not within the driver's own call, to which the policy does not apply.
    return self.driver.execute_async_script(
      """
      const done = arguments[0], tried = [];
      function attempt(act) {
        try { act(); } catch (error) { tried.push(error.name); }
      }
      setTimeout(() => {
        const script = document.createElement("script");
        attempt(() => {
          script.textContent = "window.hacked = 4";
          document.body.append(script);
        });
        attempt(() => {
          const text = "<img src=x onerror='window.hacked = 5'>";
          document.body.insertAdjacentHTML("beforeend", text);
        });
        attempt(() => eval("window.hacked = 6"));
        fetch(location.href).then(() => tried.push("fetched"), () => 0)
          .then(() => setTimeout(() => done(tried)));
      });
      """
    )

  def test_the_policy_stands(self):
    self.open()
    self.assertEqual(self.attempt(), ["TypeError", "TypeError", "EvalError"])
    self.assertIsNone(self.page.run("return window.hacked ?? null"))

  def test_it_stands_where_trusted_types_are_not_known(self):
    text = _shared["file"].read_text()
    later = page.TRUSTED_TYPES.replace("'", "&#x27;")
    self.assertEqual(text.count(later), 1)
    older = _shared["file"].with_name("older.html")
    older.write_text(text.replace(later, ""))
    self.page.open(older)
    self.assertEqual(self.attempt(), ["EvalError"])
    self.assertIsNone(self.page.run("return window.hacked ?? null"))
    said = " ".join(self.page.complaints())
    self.assertGreaterEqual(said.count("Content Security Policy"), 3)


if __name__ == "__main__":
  absltest.main()
