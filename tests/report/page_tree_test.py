"""A search tree in a real browser: drawing, clicks, keys and replay."""

from absl.testing import absltest

from tests.report import opened, workdirs

setUpModule = opened.open_all


class TreeTest(opened.BrowserTest):
  def test_shows_the_tree(self):
    self.open(opened.APPLES)
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
      "+1.00 = 14, answer 3, right, 2 visits, on the chosen solution",
    )
    self.assertEqual(self.page.attribute("#node-7", "aria-level"), "4")
    self.assert_quiet()
    self.picture("tree-light")
    self.page.screen(*opened.DESK, theme="dark")
    self.picture("tree-dark")

  def test_a_click_shows_a_node(self):
    self.open(opened.APPLES)
    self.page.click("#node-1 .shape")
    self.assertEqual(self.selected(), "node-1")
    detail = self.page.text(".detail")
    self.assertIn("# Tom has 9 Tom = 9", detail)
    self.assertNotIn("<code># Tom", self.page.text(".detail .code"))
    self.assertIn("+0.500", detail)
    self.assertIn("Preference pairs", detail)
    self.assertIn("As a step it is better than", detail)
    self.assertIn("After another prefix it is better than", detail)
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

  def test_the_question_lists_the_answers(self):
    self.open(opened.APPLES)
    self.assertEqual(
      self.page.texts(".answers tbody tr"), ["✓ = 141+1.00", "✗ = 151−1.00"]
    )
    self.page.click(".answers tbody tr:last-child button")
    self.assertEqual(self.selected(), "node-9")

  def test_the_same_problem_in_other_rounds(self):
    # Found in one round alone.
    self.open(opened.APPLES)
    self.assertEqual(self.page.count(".rounds"), 0)
    self.open(opened.LARGE)
    self.assertEqual(self.page.texts(".rounds a"), ["1 ✗", "2 ✓"])
    self.assertEqual(self.page.text(".rounds [aria-current]"), "2 ✓")
    self.page.click(".rounds a")
    self.page.wait("location.hash.includes('round=1')")
    self.page.wait("document.querySelectorAll('.tree .node').length < 9")
    self.assertEqual(self.page.text(".rounds [aria-current]"), "1 ✗")

  def test_keys_walk_the_tree(self):
    self.open(opened.APPLES)
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
    self.open(f"{opened.APPLES}&node=8")
    self.assertEqual(self.selected(), "node-8")
    self.assertIn("ends the code", self.page.text("#detail-title"))
    for nonsense in ("10", "-1", "x", "1.5", ""):
      self.open(f"{opened.APPLES}&node={nonsense}")
      self.assertEqual(self.selected(), "node-0", nonsense)
    self.assert_quiet()

  def test_replay(self):
    self.open(f"{opened.APPLES}&rollout=1")
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
    # Node 1 has one of its two visits; the answer of the second rollout already
    # has its value.
    self.assertIn("1 visit,", self.page.attribute("#node-1", "aria-label"))
    self.assertIn("q0", self.page.attribute("#node-9", "class").split())
    # Before that, node 2 has the PPM's value.
    self.page.click("[aria-label='One rollout back']")
    self.assertEqual(self.page.text("#node-2 .q"), "−0.50")
    self.assertEqual(self.page.text("#node-0 .q"), "+1.00")
    self.page.click("#node-2 .shape")
    self.assertIn("-0.500", self.page.text(".facts").replace("−", "-"))
    self.page.click("[aria-label='One rollout on']")
    self.assertEqual(self.page.text("#node-2 .q"), "−1.00")
    self.assertEqual(self.page.text("#node-0 .q"), "0.00")
    self.assertIn("-1.000", self.page.text(".facts").replace("−", "-"))
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
    self.assertIn("2 visits,", self.page.attribute("#node-1", "aria-label"))
    self.assertEqual(self.page.text("#node-0 .q"), "+0.33")
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
    self.page.screen(*opened.PHONE)
    self.open(f"{opened.APPLES}&node=5")
    self.assert_no_sideways_scroll()
    self.picture("tree-phone")
    self.page.click("#node-2 .shape")
    self.assertEqual(self.selected(), "node-2")
    self.assertIn("Tom = 10", self.page.text(".detail"))

  def test_what_is_seen_can_be_told_by_a_machine_too(self):
    for address in ("", "#view=problems", opened.APPLES):
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


class LargeTest(opened.BrowserTest):
  def test_five_thousand_nodes(self):
    self.open(opened.LARGE)
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
    self.open(opened.LARGE)
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
    self.open(f"{opened.LARGE}&node={tried}")
    after = self.page.count(".tree .node")
    self.page.run("document.querySelector('.tree').focus()")
    for _ in range(8):
      if self.selected().startswith("node-"):
        self.page.keys("ARROW_DOWN")
    self.assertEqual(self.selected(), f"rest-{tree.parent[tried]}")
    self.page.keys("ENTER")
    self.assertStartsWith(self.selected(), "node-")
    self.assertGreater(self.page.count(".tree .node"), after)
    self.open(f"{opened.LARGE}&node=4999")
    self.assertEqual(self.selected(), "node-4999")


if __name__ == "__main__":
  absltest.main()
