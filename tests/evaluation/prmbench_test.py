"""Tests of PRMBench's figures, by hand."""

import numpy as np
from absl.testing import absltest

from rstar_jax.data.rows import ProblemError, Row
from rstar_jax.evaluation import prmbench
from rstar_jax.evaluation.step_errors import Marked


def marked(kind, wrong=(), steps=4):
  return Marked("q", ("s",) * steps, frozenset(wrong), kind)


class PrmBenchTest(absltest.TestCase):
  def test_a_kind(self):
    both = [
      # Called good, wrong, good, wrong; 0.5 is not above 0.5.
      (marked("circular", [1, 2]), [0.6, 0.5, 0.7, 0.1]),
      (marked("circular", [3]), [0.9, 0.9, 0.9, 0.2]),
    ]
    found = prmbench.measure(*zip(*both, strict=True))
    # Good steps: 5, of which 4 are called so, and one wrong one is too.
    f1 = 2 * 4 / (5 + 5)
    # Wrong steps: 3, of which 2 are called so, and one good one is too.
    negative = 2 * 2 / (3 + 3)
    want = {
      "prm_score": (f1 + negative) / 2,
      "f1": f1,
      "negative_f1": negative,
      "n": 2,
    }
    self.assertEqual(found["kinds"].keys(), {"circular"})
    for each in (found["kinds"]["circular"], found["overall"]):
      for name, value in want.items():
        self.assertAlmostEqual(each[name], value)
    self.assertEqual(found["groups"], {})

  def test_groups_and_solutions_without_an_error(self):
    perfect = np.array([0.9, 0.1, 0.9, 0.9])
    blind = np.array([0.9, 0.9, 0.9, 0.9])
    both = [
      (marked("missing_condition", [1]), perfect),
      (marked("deception", [1]), blind),
      (marked("multi_solutions"), blind),
    ]
    found = prmbench.measure(*zip(*both, strict=True))
    deceived = (2 * 3 / (4 + 3) + 0) / 2
    self.assertAlmostEqual(
      found["groups"]["sensitivity"], (1 + deceived + 1) / 3
    )
    self.assertEqual(found["kinds"]["multi_solutions"]["negative_f1"], 0)
    # Of all steps together: 10 good, 11 called so; 2 wrong, 1 called so.
    overall = (2 * 10 / (11 + 10) + 2 * 1 / (1 + 2)) / 2
    self.assertAlmostEqual(found["overall"]["prm_score"], overall)
    self.assertEqual(found["overall"]["n"], 3)

  def test_reads_the_hub_s_rows(self):
    fields = {
      "original_question": "o",
      "modified_question": "m",
      "modified_process": ["1. a", "2. b"],
      "error_steps": [2],
      "classification": "confidence",
      "idx": "confidence_1",
    }
    (found,) = prmbench.read([Row("f:1", 0, fields)])
    self.assertEqual(
      found, Marked("m", ("1. a", "2. b"), frozenset([1]), "confidence")
    )
    for name, value in (
      ("classification", "other"),
      ("error_steps", [0]),
      ("error_steps", None),
      ("modified_process", []),
      ("modified_question", None),
    ):
      with self.assertRaisesRegex(ProblemError, f"f:1 has .*{name}"):
        prmbench.read([Row("f:1", 0, fields | {name: value})])
    with self.assertRaisesRegex(ProblemError, "has no solutions"):
      prmbench.read([])


if __name__ == "__main__":
  absltest.main()
