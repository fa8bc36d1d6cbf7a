"""Tests of the page as text; page_browser_test.py opens it."""

import base64
import hashlib
import html.parser
import json
import pathlib
import re
import typing
from unittest import mock

from absl.testing import absltest

from rstar_jax import outside, types
from rstar_jax.report import inputs, page, trees
from rstar_jax.storage import layout
from rstar_jax.storage import records as record_files
from tests.report import workdirs

ROOT = pathlib.Path(page.__file__).parent


class Parser(html.parser.HTMLParser):
  """Reads what is in a page.

  Attributes:
    elements: (tag, attributes) in order.
    texts: of script and style elements, as (tag, attributes, text).
  """

  def __init__(self):
    super().__init__()
    self.elements, self.texts = [], []

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if tag in ("script", "style"):
      self.texts.append((tag, dict(attrs), ""))

  def handle_data(self, data):
    if self.elements and self.lasttag in ("script", "style") and self.texts:
      tag, attributes, text = self.texts[-1]
      self.texts[-1] = (tag, attributes, text + data)

  def handle_endtag(self, tag):
    self.lasttag = ""


def contrast(one: str, other: str) -> float:
  """Returns the contrast of two colours, 1 to 21 (WCAG 2)."""

  def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (
      part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
      for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

  low, high = sorted((luminance(one), luminance(other)))
  return (high + 0.05) / (low + 0.05)


class PageTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = (
      pathlib.Path(self.create_tempdir().full_path) / "a<b>&{{title}}"
    )
    self.folder.mkdir()
    workdirs.write(self.folder)

  def parse(self) -> Parser:
    parser = Parser()
    parser.feed(page.write(self.folder).read_text())
    return parser

  def test_same_records_same_bytes(self):
    first = page.write(self.folder).read_bytes()
    self.assertEqual(page.write(self.folder).read_bytes(), first)
    self.assertEqual((self.folder / layout.REPORT).read_bytes(), first)
    self.assertEmpty(
      list(self.folder.glob("*.tmp")) + list(self.folder.glob(".*"))
    )
    (self.folder / "metrics.jsonl").write_text("")
    self.assertNotEqual(page.write(self.folder).read_bytes(), first)

  def test_policy_allows_what_is_in_the_page_and_nothing_else(self):
    parser = self.parse()
    (policy,) = (
      attributes["content"]
      for tag, attributes in parser.elements
      if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(each.strip().split(" ", 1) for each in policy.split(";"))
    self.assertEqual(rules["default-src"], "'none'")
    self.assertEqual(rules["base-uri"], "'none'")
    self.assertEqual(rules["require-trusted-types-for"], "'script'")
    self.assertNotIn("unsafe", policy)
    hashes = {"script": [], "style": []}
    for tag, attributes, text in parser.texts:
      if attributes.get("type") != "application/json":
        digest = hashlib.sha256(text.encode()).digest()
        hashes[tag].append(f"'sha256-{base64.b64encode(digest).decode()}'")
    self.assertLen(hashes["script"], len(page.SCRIPTS))
    self.assertEqual(rules["script-src"].split(), hashes["script"])
    self.assertEqual(rules["style-src"].split(), hashes["style"])

  def test_nothing_is_fetched_and_nothing_is_inline(self):
    for tag, attributes in self.parse().elements:
      self.assertNotIn(tag, ("link", "iframe", "img", "object", "base", "form"))
      self.assertEmpty({"src", "style"} & set(attributes))
      self.assertEmpty([name for name in attributes if name.startswith("on")])
      self.assertStartsWith(attributes.get("href", "#"), "#")

  def test_hostile_texts_stay_data(self):
    text = page.write(self.folder).read_text()
    self.assertNotIn("window.hacked = 1</script>", text)
    self.assertNotIn("<img src", text)
    parser = self.parse()
    kinds = [tag for tag, _ in parser.elements]
    self.assertNotIn("img", kinds)
    self.assertNotIn("svg", kinds)
    overview = next(
      json.loads(text)
      for _, attributes, text in parser.texts
      if attributes.get("id") == "overview"
    )
    # Whole, and only as text.
    self.assertEqual(overview["name"], self.folder.name)
    self.assertEqual(
      overview["unsolved"]["rows"][0]["gold"], outside.valid(workdirs.HOSTILE)
    )
    self.assertEqual(
      overview["study"][0]["blocks"][1]["text"], "How {{title}} <b>went</b>."
    )
    self.assertIn("<title>a&lt;b&gt;&amp;{{title}} ·", text)

  def test_assets_make_no_markup_of_strings(self):
    for name in page.LIVE_SCRIPTS:
      text = (ROOT / "assets" / name).read_text()
      self.assertNotRegex(
        text, r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\("
      )
      if name != "d3-hierarchy.min.js":
        for number, line in enumerate(text.splitlines(), 1):
          self.assertLessEqual(len(line), 80, f"{name}:{number}")
        self.assertLess(len(text.splitlines()), 300, name)

  def test_every_asset_is_used_and_the_library_has_its_licence(self):
    used = {
      *page.LIVE_SCRIPTS,
      "style.css",
      "page.html",
      "d3-hierarchy.LICENSE",
    }
    found = {each.name for each in (ROOT / "assets").iterdir()}
    self.assertEqual(found, used)
    script = (ROOT / "assets" / "d3-hierarchy.min.js").read_text()
    licence = (ROOT / "assets" / "d3-hierarchy.LICENSE").read_text()
    owner = re.search(r"Copyright ([\d-]+ [\w ]+)", script)[1]
    self.assertIn(f"Copyright {owner}", licence)
    self.assertIn("v3.1.3", script)

  def test_every_reason_to_drop_a_step_has_words(self):
    script = (ROOT / "assets" / "costs.js").read_text()
    named = re.search(r"const REASONS = {(.*?)};", script, re.DOTALL)[1]
    known = set(re.findall(r"(\w+): \"", named))
    drops = (ROOT.parent / "search" / "expansion.py").read_text()
    reasons = set(re.findall(r'\.drop\("(\w+)"\)', drops))
    self.assertContainsSubset({"duplicate", "malformed"}, reasons)
    statuses = set(typing.get_args(types.Status)) - {"ok"}
    self.assertEqual(known, reasons | statuses)

  def test_texts_stand_out_from_what_is_behind_them(self):
    style = (ROOT / "assets" / "style.css").read_text()
    pairs = dict(re.findall(r"--([\w-]+): light-dark\(([^)]*)\);", style))
    for theme, side in (("light", 0), ("dark", 1)):
      colours = {k: v.split(", ")[side] for k, v in pairs.items()}
      for text in ("ink", "soft", "link", "good", "bad", "accent"):
        for behind in ("paper", "card", "wash"):
          with self.subTest(f"{theme}: {text} on {behind}"):
            # Of WCAG 2, level AA.
            self.assertGreaterEqual(
              contrast(colours[text], colours[behind]), 4.5
            )
      for shade in range(9):
        glyph = "on-strong" if shade in (0, 1, 7, 8) else "on-weak"
        with self.subTest(f"{theme}: a glyph on shade {shade}"):
          # Large for a glyph that is bold, and beside which stands a number.
          self.assertGreaterEqual(
            contrast(colours[glyph], colours[f"q{shade}"]), 3.0
          )
      for series in range(5):
        with self.subTest(f"{theme}: series {series}"):
          self.assertGreaterEqual(
            contrast(colours[f"s{series}"], colours["card"]), 3.0
          )

  def test_an_asset_that_would_end_its_element_is_refused(self):
    for text in ("a</SCRIPT>", "a<!--"):
      with (
        mock.patch.object(pathlib.Path, "read_text", return_value=text),
        self.assertRaisesRegex(ValueError, "write it apart"),
      ):
        page.render(inputs.read(self.folder))

  def test_trees_that_do_not_say_where_rollouts_ended_are_drawn(self):
    tree = workdirs.apples().to_record()
    older = [[tokens, nodes] for tokens, nodes, _ in tree["growth"]]
    rows = [tree | {"schema": 2, "growth": older}]
    shard = next(self.folder.glob("round_1/trees/shard-*"))
    record_files.write_shard(shard, rows)
    found = inputs.read(self.folder)
    (row,) = [each for each in found["problems"] if each["set"] == "training"]
    drawn = trees.decode(found["trees"][row["block"]])
    self.assertEqual(drawn["growth"], [[40, 8, -1], [61, 10, -1], [61, 10, -1]])
    self.assertEqual(drawn["visits"], tree["nodes"]["visits"])

  def test_a_run_does_not_fail_for_want_of_a_report(self):
    self.assertEqual(
      page.try_write(self.folder), f"report: {self.folder / layout.REPORT}"
    )
    shard = next(self.folder.glob("round_1/trees/shard-*"))
    shard.write_text('{"schema": 1}\n')
    said = page.try_write(self.folder)
    self.assertStartsWith(said, f"no report: ValueError: {shard}: tree has")
    self.assertIn(f"python -m rstar_jax.report {self.folder}", said)


if __name__ == "__main__":
  absltest.main()
