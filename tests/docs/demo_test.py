"""README.md shows what the program prints of the demo."""

import json

from absl.testing import absltest

from tests.docs import demo


class DemoTest(absltest.TestCase):
  def test_the_readme_shows_what_is_printed(self):
    self.assertEqual(
      demo.shown(demo.README.read_text()),
      demo.rendered(json.loads(demo.KEPT.read_text())),
      "python -m tests.docs.demo runs/tiny writes it",
    )

  def test_what_is_claimed_of_it_holds(self):
    rows = json.loads(demo.KEPT.read_text())["rows"]
    last = max(row["round"] for row in rows)
    of = {row["method"]: row for row in rows if row["round"] == last}
    # Policy by round, and search over policy.
    for found in (of["policy"]["less"]["base"], of["mcts"]["less"]["policy"]):
      self.assertGreater(found["low"], 0)


if __name__ == "__main__":
  absltest.main()
