"""Tests of marked solutions and of what a reward model says of them."""

import numpy as np
from absl.testing import absltest

from rstar_jax.data.rows import ProblemError, Row
from rstar_jax.evaluation import step_errors
from rstar_jax.evaluation.step_errors import Marked
from rstar_jax.steps import grammar


class StepErrorsTest(absltest.TestCase):
  def test_chances(self):
    seen = []

    def score(questions, prefixes, rows):
      """Values by the number of steps so far."""
      for question, prefix, row in zip(questions, prefixes, rows, strict=True):
        seen.extend((question, "".join((*prefix, step))) for step in row)
      return [
        np.full(len(row), 1 - 0.5 * len(prefix), np.float32)
        for prefix, row in zip(prefixes, rows, strict=True)
      ]

    marked = [
      Marked("one?", ("a", "b", "c"), frozenset(), "x"),
      # Shares its first step with the one before.
      Marked("one?", ("a", "d"), frozenset([1]), "x"),
    ] * 40
    found = step_errors.chances(score, marked)
    self.assertLen(found, 80)
    np.testing.assert_allclose(found[0], [1, 0.75, 0.5])
    np.testing.assert_allclose(found[79], [1, 0.75])
    # Each path once in each part of 64 solutions.
    self.assertLen(seen, 2 * 4)
    self.assertIn(
      (
        "one?",
        "<code>\na\n<end_of_step>b\n<end_of_step>c\n<end_of_step>",
      ),
      seen,
    )

  def test_others_see_the_steps_as_they_are(self):
    steps = ("First line.\nSecond.", "Then.")
    nodes = step_errors.nodes_of(steps)
    texts = [grammar.MARKER.sub("", node).strip() for node in nodes]
    self.assertEqual(texts, list(steps))

  def test_reads_rows(self):
    def parse(fields):
      name = step_errors.text(fields, "name")
      return Marked(name, ("a",), frozenset(), "x")

    rows = [Row(f"f:{i}", 0, {"name": name}) for i, name in enumerate("ab")]
    found = step_errors.read(rows, parse, "it")
    self.assertEqual([each.question for each in found], ["a", "b"])
    with self.assertRaisesRegex(ProblemError, "^f:7 has .*name"):
      step_errors.read([*rows, Row("f:7", 0, {"name": 3})], parse, "it")
    with self.assertRaisesRegex(ProblemError, "^it has no solutions$"):
      step_errors.read([], parse, "it")

  def test_rows_that_are_none(self):
    for row in (Row("here:1", 0, error="is cut short"), Row("here:1", 0, [])):
      with self.assertRaisesRegex(ProblemError, "here:1: is"):
        step_errors.read([row], self.fail, "it")


if __name__ == "__main__":
  absltest.main()
