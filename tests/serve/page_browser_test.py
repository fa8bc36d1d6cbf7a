"""The page in a real browser: a question, a tree that grows, other budgets."""

from unittest import mock

from absl.testing import absltest

from tests.report import opened
from tests.serve import served

setUpModule = opened.open_browser


class BrowserCase(opened.BrowserTest, served.ServedCase):
  def open(self, address: str = "") -> None:
    self.page.driver.get("about:blank")
    self.page.driver.get(f"http://127.0.0.1:{self.port}/{address}")
    self.page.wait("document.documentElement.dataset.ready")

  def type(self, selector: str, text: str) -> None:
    element = self.page.driver.find_element("css selector", selector)
    element.clear()
    element.send_keys(text)

  def choose(self, method: str) -> None:
    self.page.driver.find_element(
      "css selector", f"#method option[value={method}]"
    ).click()

  def answered(self, count: int) -> None:
    """Waits for so many answers."""
    rows = "document.querySelectorAll('.kept tbody tr').length"
    self.page.wait(f"{rows} === {count} && !Report.ask.busy()")
    self.page.settle()

  def picture(self, name: str) -> None:
    self.page.picture(opened.shared["pictures"] / f"ask-{name}.png")

  def assert_quiet(self) -> None:
    self.assertEqual(self.page.complaints(), [])
    self.assertIsNone(self.page.run("return window.hacked ?? null"))


class AskTest(BrowserCase):
  def test_a_tree_grows_and_a_solution_is_read(self):
    self.open()
    self.assertEqual(self.page.text(".brand .name"), "toy")
    self.type("#question", "<b>four</b>")
    self.policy.go.clear()
    self.policy.free.extend(range(2))
    self.page.click(".ask button.main")
    # It is seen while the search waits for the third step.
    self.page.wait("document.querySelectorAll('.canvas .node').length > 1")
    self.assertTrue(self.page.run("return Report.ask.busy()"))
    self.picture("grows")
    self.policy.go.set()
    self.answered(1)
    wanted = self.solved("<b>four</b>")
    self.assertEqual(self.page.text(".boxed"), wanted.answer)
    self.assertEqual(self.page.count(".solution li"), len(wanted.steps))
    self.assertEqual(self.page.text(".solution .output"), wanted.answer)
    self.assertEqual(self.page.count(".tree [role=treeitem]"), len(wanted.tree))
    self.assertEqual(
      self.page.count(".tree .chosen.node"), len(wanted.steps) + 1
    )
    # The tree is walked as the report's.
    self.page.click(f"#node-{wanted.node} .shape")
    self.assertIn("not graded", self.page.text(".detail"))
    self.assertNotIn("Given answer", self.page.text(".detail"))
    self.picture("solved")
    self.assert_quiet()

  def test_other_budgets_beside_it(self):
    self.open("#question=four&method=search&rollouts=1&candidates=2&seed=3")
    self.page.click(".ask button.main")
    self.answered(1)
    self.choose("best_of_n")
    self.type("#samples", "6")
    self.page.click(".ask button.main")
    self.answered(2)
    rows = self.page.texts(".kept tbody tr")
    self.assertIn("search, 1 rollouts, 2 candidates", rows[0])
    self.assertIn("best of samples, by the ppm, 6 samples", rows[1])
    wanted = self.solved("four", "best_of_n", seed=3, samples=6)
    cells = self.page.texts(".kept tbody tr:last-child td")
    self.assertEqual(cells[2:4], [wanted.answer, str(wanted.tokens)])
    self.assertEqual(self.page.count(".tree"), 0)
    self.assertIn("method=best_of_n", self.page.run("return location.hash"))
    # The first one again.
    self.page.click(".kept tbody tr:first-child button")
    self.assertEqual(self.page.count(".tree"), 1)
    self.assert_quiet()

  def test_a_step_that_was_not_valued(self):
    search = self.solver._config.eval.search
    with mock.patch.multiple(
      search,
      annotation="terminal",
      terminal_reward="ppm",
      trajectory_value="last",
    ):
      self.open("#question=four&method=search&rollouts=2&candidates=2&seed=3")
      self.page.click(".ask button.main")
      self.answered(1)
    self.assertGreater(self.page.count(".solution li"), 1)
    self.assertEqual(self.page.count(".solution .value"), 1)
    self.assertIn("PPM", self.page.text(".solution li:last-child .value"))
    self.assert_quiet()

  def test_a_phone_in_the_dark_with_keys_alone(self):
    self.page.screen(*opened.PHONE, theme="dark")
    self.open()
    self.page.run("document.getElementById('question').focus()")
    self.page.keys(*"four")
    # Past the method and the two sizes, and back.
    self.page.keys("TAB", "TAB", "TAB", "TAB", "TAB")
    self.assertEqual(self.page.text(":focus"), "Ask")
    self.page.keys("ENTER")
    self.answered(1)
    wide, room = self.page.run(
      "return [document.documentElement.scrollWidth, innerWidth]"
    )
    self.assertLessEqual(wide, room)
    self.page.run("document.querySelector('.tree').focus()")
    self.page.keys("END")
    self.assertIn("Answer, after", self.page.text(".detail h2"))
    self.picture("phone-dark")
    self.assert_quiet()

  def test_an_error_and_a_stop_are_told(self):
    self.open()
    self.type("#question", "broken")
    self.page.click(".ask button.main")
    self.page.wait("document.querySelector('.ask .bad')")
    self.assertIn("RuntimeError", self.page.text(".ask .bad"))
    self.policy.go.clear()
    self.type("#question", "four")
    self.page.click(".ask button.main")
    served.until(lambda: self.service.running == 1)
    self.page.click(".act button:nth-of-type(2)")
    self.page.wait("document.querySelector('.ask .bad')")
    self.assertEqual(self.page.text(".ask .bad"), "Stopped")
    self.policy.go.set()
    served.until(lambda: self.service.idle)


class TokenTest(BrowserCase):
  options = {"token": "s3cret"}

  def test_a_token_is_asked_for(self):
    self.open()
    self.assertIn("token is missing", self.page.text(".ask .bad"))
    self.page.keys(*"s3cret", "TAB")
    self.page.wait("document.querySelector('.brand .name').textContent")
    self.type("#question", "four")
    self.page.click(".ask button.main")
    self.answered(1)
    # The browser says that the first request was refused.
    (line,) = self.page.complaints()
    self.assertIn("401", line)


if __name__ == "__main__":
  absltest.main()
