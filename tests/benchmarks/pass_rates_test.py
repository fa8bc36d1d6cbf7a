"""What the benchmark of pass rates makes of samples, by hand."""

from absl.testing import absltest

from benchmarks import pass_rates
from rstar_jax.search.sampling import Sample


def samples(answers: str) -> list[Sample]:
  """Returns samples of as many steps as the digit, of which "1" is right.

  "-" is one without an answer.
  """
  return [
    Sample((), None, None, 4, "error")
    if each == "-"
    else Sample(
      ("",) * int(each), each, "equal" if each == "1" else "different", 10, "ok"
    )
    for each in answers
  ]


FOUND = [
  (samples("1")[0], samples("1122")),
  (samples("2")[0], samples("2-21")),
  (samples("-")[0], samples("----")),
]


class PassRatesTest(absltest.TestCase):
  def test_figures(self):
    found = pass_rates.describe(FOUND)
    self.assertAlmostEqual(found["pass@1"], 3 / 12)
    self.assertAlmostEqual(found["pass@4"], 2 / 3)
    self.assertAlmostEqual(found["greedy"], 1 / 3)
    # Of two answers that are as frequent, the first one.
    self.assertAlmostEqual(found["majority"], 1 / 3)
    self.assertAlmostEqual(found["tokens"], (7 * 10 + 5 * 4) / 12)
    self.assertEqual(found["statuses"], {"ok": 0.583, "error": 0.417})
    self.assertEqual(found["steps"], {1: [0.429, 1.0], 2: [0.571, 0.0]})
    self.assertEqual((found["low"], found["high"]), (0.0, 0.5))

  def test_less(self):
    rows = [pass_rates.rates(f"p{n}", one) for n, one in enumerate(FOUND)]
    self.assertEqual(rows[0], {"id": "p0", "pass@1": 0.5, "greedy": True})
    before = [
      {"id": "p1", "pass@1": 0.5},
      {"id": "p2", "pass@1": 0.0},
      {"id": "p0", "pass@1": 0.25},
      {"id": "p3", "pass@1": 1.0},
    ]
    mean, low, high = pass_rates.less(rows, before)["less"]
    self.assertAlmostEqual(mean, (0.25 - 0.25 + 0) / 3)
    self.assertEqual((low, high), (-0.25, 0.25))
    with self.assertRaisesRegex(ValueError, "no rates of p1"):
      pass_rates.less(rows[1:], before[1:])


if __name__ == "__main__":
  absltest.main()
