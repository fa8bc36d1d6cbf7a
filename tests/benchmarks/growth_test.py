"""Exponents of growth, and the plot of it."""

import xml.etree.ElementTree

from absl.testing import absltest

from benchmarks import growth, plot


class GrowthTest(absltest.TestCase):
  def test_exponents_are_slopes(self):
    found = growth.exponents((1, 2, 8), [3.0, 3.0, 48.0])
    self.assertSequenceAlmostEqual(found, [0.0, 2.0])

  def test_a_fit_weighs_all_sizes(self):
    self.assertAlmostEqual(growth.fitted((1, 2, 8), [5.0, 20.0, 320.0]), 2.0)
    # By hand, in powers of 2: sizes 0, 1, 2 and seconds 0, 0, 3.
    self.assertAlmostEqual(growth.fitted((1, 2, 4), [1.0, 1.0, 8.0]), 1.5)

  def test_plot_is_xml_with_a_line_for_each_name(self):
    lines = {"a": [(1, 0.1), (16, 0.2)], "b": [(2, 1.0), (4, 5.0)]}
    text = plot.svg(lines, x="size", y="seconds")
    tree = xml.etree.ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    drawn = tree.findall(f"{space}polyline")
    self.assertLen(drawn, 2)
    # Left is the least of x, and up is the most of y.
    places = [
      [tuple(map(float, point.split(","))) for point in each.split()]
      for each in (line.get("points") for line in drawn)
    ]
    points = [point for line in places for point in line]
    self.assertEqual(min(points)[0], places[0][0][0])
    self.assertEqual(min(point[1] for point in points), places[1][1][1])
    names = {each.text for each in tree.findall(f"{space}text")}
    self.assertContainsSubset({"a", "b", "size", "seconds"}, names)


if __name__ == "__main__":
  absltest.main()
