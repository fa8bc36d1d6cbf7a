"""Tests of the plots: where points come to lie."""

import re

from absl.testing import absltest

from benchmarks import plot


def dots(text):
  found = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', text)
  return [(float(x), float(y)) for x, y in found]


class PlotTest(absltest.TestCase):
  def test_logarithmic(self):
    points = [(1, 10), (10, 100), (100, 1000)]
    (a, b, c) = dots(plot.svg({"line": points}, x="x", y="y"))
    # Equal ratios are equal distances.
    self.assertAlmostEqual(b[0] - a[0], c[0] - b[0], delta=0.11)
    self.assertAlmostEqual(b[1] - a[1], c[1] - b[1], delta=0.11)
    self.assertLess(c[1], a[1])

  def test_linear_upwards(self):
    points = [(1, 41.0), (2, 47.0), (4, 53.0)]
    text = plot.svg({"line": points}, x="x", y="%", linear=True)
    (a, b, c) = dots(text)
    self.assertAlmostEqual(b[1] - a[1], c[1] - b[1], delta=0.11)
    self.assertAlmostEqual(b[0] - a[0], c[0] - b[0], delta=0.11)
    for tick in ("40", "45", "50", "55"):
      self.assertIn(f">{tick}</text>", text)

  def test_points_of_one_value_have_room(self):
    def place(*points, **options):
      return dots(plot.svg({"line": points}, x="x", y="y", **options))

    # Midway between a half and twice the value.
    middle = (place((1, 4), (4, 4))[0][1], place((3, 1), (3, 4))[0][0])
    (a, b) = place((2, 2), (8, 2))
    self.assertEqual((a[1], b[1]), (middle[0], middle[0]))
    (alone,) = place((3, 7))
    self.assertEqual(alone, (middle[1], middle[0]))
    text = plot.svg({"line": [(1, 45), (2, 45)]}, x="x", y="%", linear=True)
    for tick in ("45", "50"):
      self.assertIn(f">{tick}</text>", text)
    (a, b) = place((1, 0), (2, 0), linear=True)
    self.assertEqual(a[1], b[1])


if __name__ == "__main__":
  absltest.main()
