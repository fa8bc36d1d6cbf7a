"""Differences of policies over problems and seeds."""

import contextlib
import io
import json

import numpy as np
from absl import app
from absl.testing import absltest

from benchmarks import orders


def line(policy, seed, right, samples=3):
  return {
    "policy": policy,
    "seed": seed,
    "set": "sums",
    "samples": samples,
    "right": right,
  }


class OrdersTest(absltest.TestCase):
  def test_shares_by_seed_and_problem(self):
    lines = [line("b", 0, "33"), line("a", 1, "03"), line("a", 0, "12")]
    np.testing.assert_allclose(
      orders.rates(lines, "a", "sums"), [[1 / 3, 2 / 3], [0, 1]]
    )
    np.testing.assert_allclose(
      orders.rates(lines, "b+a", "sums"), [[1, 1], [1 / 3, 2 / 3], [0, 1]]
    )
    for policy, problems in (("a", "differences"), ("a+c", "sums")):
      with self.assertRaisesRegex(ValueError, "only a on sums, b on sums"):
        orders.rates(lines, policy, problems)

  def test_what_all_problems_and_seeds_say_is_certain(self):
    found = orders.compare(np.full((2, 5), 0.75), np.full((3, 5), 0.5))
    for name in ("less", "low", "high"):
      self.assertEqual(found[name], 0.25)

  def test_problems_are_shared(self):
    # Each problem is as often right on both sides, and problems differ much.
    one = np.array([[0.0, 1.0] * 20])
    found = orders.compare(one, one)
    np.testing.assert_allclose([found["low"], found["high"]], 0, atol=1e-12)

  def test_seeds_that_differ_widen_the_interval(self):
    first = np.repeat([[0.2], [0.6]], 30, axis=1)
    found = orders.compare(first, np.full((1, 30), 0.1))
    self.assertAlmostEqual(found["less"], 0.3)
    # Twice the same seed, either one.
    np.testing.assert_allclose([found["low"], found["high"]], [0.1, 0.5])
    np.testing.assert_allclose(found["first_seeds"], [0.2, 0.6])

  def test_a_row_for_each_set_that_both_have(self):
    lines = [
      line("a", 0, "30"),
      line("a", 1, "33"),
      line("b", 0, "00"),
      line("a", 0, "3") | {"set": "others"},
    ]
    # One in 16 resamples has seed 0 twice, and its wrong problem twice.
    self.assertEqual(
      orders.rows(lines, "a", "b"),
      [["a, b", "sums", "75.0 (50.0, 100.0)", "0.0", "75.0 [0.0, 100.0]"]],
    )
    with self.assertRaisesRegex(ValueError, "no c on sums, only a on others"):
      orders.rows(lines, "a", "c")

  def test_sides_of_other_problems_are_refused(self):
    lines = [line("search", 0, "33"), line("cold", 0, "123")]
    with self.assertRaisesRegex(ValueError, "has 2 problems and .* 3:"):
      orders.compare(
        *(orders.rates(lines, each, "sums") for each in ("search", "cold"))
      )

  def test_the_table(self):
    lines = [line("search", 0, "33"), line("cold", 0, "12")]
    path = self.create_tempfile(content="\n".join(map(json.dumps, lines)))
    with contextlib.redirect_stdout(io.StringIO()) as out:
      orders.main(["", path.full_path, "search,cold", "cold,cold"])
    _, _, first, second = out.getvalue().splitlines()
    self.assertIn("| 100.0 | 50.0   | 50.0 [33.3, 66.7] ", first)
    self.assertIn("| 0.0 [0.0, 0.0] ", second)
    for wrong in ([], ["search"], ["search,other"]):
      with self.assertRaises(app.UsageError):
        orders.main(["", path.full_path, *wrong])


if __name__ == "__main__":
  absltest.main()
