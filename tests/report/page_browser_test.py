"""The report in a real browser: numbers, the list, and refused scripts."""

import json
import pathlib

from absl.testing import absltest

from rstar_jax.report import page
from tests.report import opened, workdirs

setUpModule = opened.open_all


class OverviewTest(opened.BrowserTest):
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
    self.assertIn("1PPM75.0% (4)100.0% (1)3 pairs", self.page.text("#main"))
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

    self.page.screen(*opened.DESK, theme="dark")
    self.open()
    self.assertLess(brightness(), 150)
    self.picture("overview-dark")
    self.page.click("#theme")
    self.assertGreater(brightness(), 600)
    # The choice outlasts the page, whatever the system says.
    self.driver.refresh()
    self.page.wait("document.documentElement.dataset.ready")
    self.assertGreater(brightness(), 600)
    self.page.click("#theme")
    self.assertLess(brightness(), 150)
    self.page.run("localStorage.clear()")

  def test_phone(self):
    self.page.screen(*opened.PHONE)
    self.open()
    self.assert_no_sideways_scroll()
    self.picture("overview-phone")
    self.open("#view=problems")
    self.assert_no_sideways_scroll()
    self.picture("problems-phone")


class GeneratedTest(opened.BrowserTest):
  def test_shows_who_picks_right_steps_and_why_searches_fail(self):
    folder = opened.shared["file"].parent / "generated"
    folder.mkdir()
    trees = [workdirs.generated(i, right=i < 3) for i in range(4)]
    rows = [
      workdirs.record(each.problem.id, "mcts", "equal", split="synthetic:test")
      for each in trees
    ]
    workdirs.write_round(folder, 1, tests=trees, rows=rows)
    self.page.open(page.write(folder).resolve())
    text = self.page.text("[aria-labelledby=decisions-0]")
    self.assertIn("Who picks right steps, synthetic:test", text)
    self.assertIn("RoundDecisionsChancePolicyPPMPairsAcross", text)
    self.assertIn("14 (4 problems)50 [50, 50]100 [100, 100]75 [25, 100]", text)
    self.assertIn("RoundSearchesRightPolicySearchChoice", text)
    self.assertIn("143 (75%)0 (0%)1 (25%)0 (0%)", text)
    self.assert_no_sideways_scroll()
    self.assert_quiet()


class LossesTest(opened.BrowserTest):
  def draw(self, name: str, *losses: float) -> list[float]:
    """Shows a training's losses; returns the heights of its line's points."""
    folder = pathlib.Path(self.create_tempdir().full_path)
    lines = [
      {"step": step, f"round_1_{name}/loss": loss}
      for step, loss in enumerate(losses, 1)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    self.page.open(page.write(folder).resolve())
    self.assert_quiet()
    path = self.page.attribute(".series .line[d*=L]", "d")
    return [float(each.split()[1]) for each in path[1:].split("L")]

  def test_of_reinforcement_may_be_negative(self):
    heights = self.draw("reinforce", 0.02, -0.01, 0.03, -0.05)
    # From the top margin to the axis, 10 to 186, as far apart as the losses.
    for found, loss in zip(heights, (0.02, -0.01, 0.03, -0.05), strict=True):
      self.assertAlmostEqual(found, 10 + 176 * (0.03 - loss) / 0.08, delta=0.1)
    self.assertEqual(
      self.page.texts("[aria-labelledby=losses] .tick.end"),
      ["-0.04", "-0.02", "0", "0.02"],
    )
    said = self.page.text("[aria-labelledby=losses] .meaning")
    self.assertIn("stays around 0, above or below", said)
    self.picture("losses-reinforce")

    # All of them below 0: the axis ends at the highest.
    self.assertEqual(self.draw("reinforce", -0.05, -0.01), [186.0, 10.0])

  def test_of_others_begin_at_zero(self):
    first, last = self.draw("sft", 12.0, 3.0)
    self.assertAlmostEqual(first, 10, delta=0.1)
    self.assertAlmostEqual(last, 10 + 176 * 9 / 12, delta=0.1)
    self.assertEqual(
      self.page.texts("[aria-labelledby=losses] .tick.end"), ["0", "5", "10"]
    )
    self.assertNotIn("reinforcement", self.page.text("#main"))


class EmptyTest(opened.BrowserTest):
  def test_a_run_that_has_just_begun(self):
    folder = opened.shared["file"].parent / "empty"
    folder.mkdir()
    path = page.write(folder).resolve()
    self.page.open(path)
    # Nothing but the heading and the settings, and no stray zero.
    self.assertEqual(
      self.page.texts("#main h1, #main h2"), ["How the run went", "Settings"]
    )
    self.assertEqual(
      self.page.text("#main"), "How the run wentSettingsThe run's config{}"
    )
    self.page.open(path, "#view=problems")
    self.assertEqual(self.page.text(".count"), "0 of 0 problems")
    self.assert_quiet()


class CutShortTest(opened.BrowserTest):
  def test_says_so_and_that_the_browser_may_be_old(self):
    text = opened.shared["file"].read_text()
    begin, end = text.split('id="problems">')
    short = opened.shared["file"].with_name("short.html")
    short.write_text(f'{begin}id="problems">AAA{end[40:]}')
    self.page.open(short)
    self.assertEqual(self.page.text("h1"), "This page could not be shown")
    self.assertIn("the file may be cut short", self.page.text("#main"))
    self.page.click("nav [data-view=problems]")
    self.assertEqual(self.page.text("h1"), "This page could not be shown")
    self.assertNotEmpty(self.page.complaints())


class ProblemsTest(opened.BrowserTest):
  def shown(self) -> list[str]:
    return self.page.texts(".list tbody .id, .list tbody .question:only-child")

  def test_search_and_filters(self):
    self.open("#view=problems")
    self.assertEqual(self.page.text(".count"), "7 of 7 problems")
    self.page.click("[name=search]")
    self.page.keys(*"pears")
    self.assertEqual(self.page.text(".count"), "2 of 7 problems")
    # The address tells it, so that it can be sent and gone back to.
    self.assertIn("search=pears", self.page.run("return location.hash"))
    self.open("#view=problems&set=test&round=1&result=unsolved")
    self.assertEqual(self.shown(), ["figs"])
    self.open("#view=problems&result=suspect")
    self.assertEqual(self.page.text(".count"), "1 of 7 problems")
    self.page.run(
      "const list = document.querySelector('[name=result]');"
      "list.value = 'solved'; list.dispatchEvent(new Event('change'))"
    )
    self.assertEqual(self.shown(), ["large", "pears", "apples"])
    self.open("#view=problems&level=5")
    self.assertEqual(self.shown(), ["large", "large"])
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


class HostileTest(opened.BrowserTest):
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
    self.assertIn("Judged bytests", self.page.text(".outcome"))
    self.assertIn("a right program passes", self.page.text(".detail"))
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
    text = opened.shared["file"].read_text()
    later = page.TRUSTED_TYPES.replace("'", "&#x27;")
    self.assertEqual(text.count(later), 1)
    older = opened.shared["file"].with_name("older.html")
    older.write_text(text.replace(later, ""))
    self.page.open(older)
    self.assertEqual(self.attempt(), ["EvalError"])
    self.assertIsNone(self.page.run("return window.hacked ?? null"))
    said = " ".join(self.page.complaints())
    self.assertGreaterEqual(said.count("Content Security Policy"), 3)


if __name__ == "__main__":
  absltest.main()
