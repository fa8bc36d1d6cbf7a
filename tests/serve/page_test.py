"""The files of the page, without a browser."""

import re

from absl.testing import absltest

from rstar_jax.report import page as report
from rstar_jax.serve import page


class PageTest(absltest.TestCase):
  def test_every_file_that_it_names_is_there(self):
    names = re.findall(r'(?:href|src)="assets/([^"]+)"', page.html())
    self.assertEqual(len(names), len(set(names)))
    self.assertContainsSubset(page.SCRIPTS, names)
    for name in names:
      text, kind = page.asset(name)
      self.assertNotEmpty(text)
      self.assertEqual(kind, f"text/{'css' if 'css' in name else 'javascript'}")

  def test_no_other_file_is(self):
    for name in (
      "page.html",
      "app.js",
      "../page.py",
      "",
      "d3-hierarchy.LICENSE",
    ):
      self.assertIsNone(page.asset(name))

  def test_names_that_clients_make_up_take_no_memory(self):
    for n in range(64):
      page.asset(f"{n}.js")
      page.asset("ask.js")
    caches = [getattr(each, "cache_info", None) for each in vars(page).values()]
    held = sum(each().currsize for each in caches if each)
    # The page and its files, no more.
    self.assertLess(held, 32)

  def test_scripts_are_in_the_report_s_order(self):
    shared = [each for each in report.SCRIPTS if each in page.SCRIPTS]
    self.assertEqual(shared, [e for e in page.SCRIPTS if e != "ask.js"])

  def test_it_makes_no_markup_of_strings(self):
    text, _ = page.asset("ask.js")
    self.assertNotRegex(
      text, r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\("
    )
    self.assertLessEqual(max(map(len, text.splitlines())), 80)

  def test_the_policy_allows_no_other_source(self):
    policy = page.HEADERS["Content-Security-Policy"]
    self.assertStartsWith(policy, "default-src 'none'; ")
    self.assertIn("require-trusted-types-for 'script'", policy)
    self.assertNotIn("unsafe", policy)
    self.assertEqual(set(re.findall(r"src '(\w+)'", policy)), {"none", "self"})
    self.assertNotRegex(page.html(), r"<script(?! defer src)|style=|<style")


if __name__ == "__main__":
  absltest.main()
