"""A page that stays open while the run goes on, in a real browser."""

import pathlib
import threading
import time
from unittest import mock

from absl.testing import absltest

from rstar_jax.report import live
from tests.report import growing, opened, workdirs

setUpModule = opened.open_browser


class LiveTest(opened.BrowserTest):
  def setUp(self):
    super().setUp()
    self.enter_context(mock.patch.object(live, "_SECONDS", 0.0))
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def tearDown(self):
    # A page that stays would go on asking.
    self.driver.get("about:blank")
    super().tearDown()

  def serve(self, folder: pathlib.Path, port: int = 0) -> live._Server:
    """Serves a folder until `shut`."""
    self.watch = live.Watch(folder)
    server = live.serve(self.watch, port=port)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    self.addCleanup(self.shut, server)
    self.at = f"http://127.0.0.1:{server.server_address[1]}/"
    return server

  def shut(self, server: live._Server) -> None:
    server.shutdown()
    server.server_close()

  def visit(self, address: str = "") -> None:
    self.driver.get("about:blank")
    self.driver.get(self.at + address)
    self.page.wait("document.documentElement.dataset.ready")

  def wait_for(self, selector: str, text: str) -> None:
    """Waits until the first element has a text."""
    self.page.wait(
      f"document.querySelector({selector!r})?.textContent.includes({text!r})"
    )

  def test_a_run_grows_while_the_page_is_open(self):
    run = self.enter_context(growing.Run(self.folder))
    run.workdir.mkdir()
    self.serve(run.workdir)
    self.visit()
    self.wait_for("#live", "Nothing is there yet")
    self.assertIn("No run was begun", self.page.text("#main"))
    run.begin()
    self.wait_for("#live", "Live: last sign of life")
    run.stage("evaluate", 0)
    self.wait_for("[aria-labelledby=samples]", "policy, sampled")
    # The reader opens the newest sample, and goes to it by keys alone.
    self.page.run("document.querySelector('#main').focus()")
    for _ in range(20):
      self.page.keys("TAB")
      if self.page.run("return document.activeElement.tagName") == "SUMMARY":
        break
    self.page.keys("ENTER")
    self.page.run("window.opened = document.querySelector('details[open]')")
    self.assertIn("p1", self.page.text("details[open]"))
    self.page.run("scrollTo(0, 90)")
    with run.midway():
      self.wait_for("[aria-labelledby=progress]", "(1 begun)")
      self.wait_for("[aria-labelledby=samples]", "five")
      self.picture("live")
      self.assertStartsWith(
        self.page.text("[aria-labelledby=hosts] tbody"), "0eval01"
      )
    run.train(2.0, 1.0)
    self.wait_for("[aria-labelledby=losses]", "Last values: 1.00")
    self.wait_for("[aria-labelledby=hosts]", "round 1 sft")
    # The same element, open, focused and in its place.
    self.assertEqual(
      self.page.run(
        "const each = document.querySelector('details[open]');"
        "return [each === window.opened, document.activeElement.parentNode"
        " === each, scrollY > 0, document.querySelectorAll('[open]').length]"
      ),
      [True, True, True, 1],
    )
    self.assert_quiet()

  def test_a_page_that_is_opened_after_the_run(self):
    with growing.Run(self.folder) as run:
      run.workdir.mkdir()
      self.serve(run.workdir)
      run.begin()
      run.stage("evaluate", 0)
    look, answer = self.watch._look, live._Handler._answer
    shown = threading.Event()

    def late() -> None:
      shown.wait()
      look()

    def heard(handler, *args) -> None:
      answer(handler, *args)
      if handler.path == "/overview":
        shown.set()

    with (
      mock.patch.object(self.watch, "_look", late),
      mock.patch.object(live._Handler, "_answer", heard),
    ):
      self.visit()
      self.wait_for("#live", "Live: last sign of life")
      self.wait_for("[aria-labelledby=samples]", "policy, sampled")
    self.assert_quiet()

  def test_the_list_grows_under_a_reader(self):
    run = self.enter_context(growing.Run(self.folder))
    run.begin()
    run.stage("evaluate", 0)
    self.serve(run.workdir)
    self.visit("#view=problems")
    self.assertEqual(self.page.text(".count"), "2 of 2 problems")
    self.page.run(
      "window.line = [...document.querySelectorAll('.list a')]"
      ".find((each) => each.textContent.includes('p0'));"
      "window.line.focus()"
    )
    with run.midway():
      self.wait_for(".count", "4 of 4 problems")
      self.assertTrue(
        self.page.run("return document.activeElement === window.line")
      )
      self.assertIn("p0", self.page.run("return window.line.textContent"))
      self.assertIn("training", self.page.texts("[name=set] option"))
      self.page.run(
        "[...document.querySelectorAll('.list a')]"
        ".find((each) => each.textContent.includes('five')).click()"
      )
      self.page.wait("document.querySelector('.tree')")
      self.assertIn("five", self.page.text(".asked"))
      # What is new meanwhile leaves the way through the list as it is.
      self.page.run("return Report.app.renew()")
      for problem in ("four", "five"):
        self.page.click(".steps a")
        self.wait_for(".asked", problem)
    self.assert_quiet()

  def test_on_a_phone_in_the_dark(self):
    run = self.enter_context(growing.Run(self.folder))
    run.begin()
    run.stage("evaluate", 0)
    run.train(3.0, 2.0)
    self.serve(run.workdir)
    self.page.screen(*opened.PHONE, theme="dark")
    self.visit()
    self.wait_for("#live", "Live")
    # The path of the problems is long, and stands in a heading.
    self.wait_for("h2[id=accuracy-0]", "test.jsonl")
    self.assert_no_sideways_scroll()
    self.assertEqual(self.page.run("return innerWidth"), opened.PHONE[0])
    colour = self.page.run(
      "return getComputedStyle(document.body).backgroundColor"
    )
    self.assertLess(sum(map(int, colour.strip("rgb()").split(","))), 150)
    self.picture("live-phone")
    self.assert_quiet()

  def test_a_run_that_is_silent_and_a_server_that_is_gone(self):
    run = self.enter_context(growing.Run(self.folder))
    run.begin()
    server = self.serve(run.workdir)
    self.visit()
    self.wait_for("#live", "Live")
    self.watch._life = time.monotonic() - 185
    self.wait_for("#live", "Last sign of life 3 min ago")
    self.shut(server)
    self.wait_for("#live", "The server of this page is gone since")
    self.wait_for("#said", "gone")
    # What was shown stays.
    self.assertIn("Where it is", self.page.texts("h2"))
    self.serve(run.workdir, server.server_address[1])
    self.wait_for("#live", "Live")
    # The browser itself notes each question that nobody answered.
    said = [each for each in self.page.complaints() if "/now" not in each]
    self.assertEqual(said, [])

  def test_a_problem_that_cannot_be_had(self):
    self.serve(workdirs.write(self.folder))
    self.visit("#view=problems")
    line = "[data-key*='problem=apples'] a"
    # Newer trees have taken the room of this one.
    self.watch._newest._trees.clear()
    self.page.click(line)
    self.wait_for("h1", "This page could not be shown")
    said = self.page.text("#main")
    self.assertIn("this tree is not kept here any more.", said)
    self.assertNotIn("cut short", said)
    self.assertIn("could not be shown", self.driver.title)
    self.driver.back()
    self.page.wait("document.querySelector('.list')")
    self.driver.set_network_conditions(
      offline=True, latency=0, throughput=1 << 20
    )
    self.addCleanup(self.driver.delete_network_conditions)
    self.page.click(line)
    self.wait_for("#main", "Failed to fetch.")


if __name__ == "__main__":
  absltest.main()
