import dataclasses

from absl.testing import absltest, parameterized

from rstar_jax import types

RECORDS = (
  types.Problem("p", "How many?"),
  types.Candidate("x = 1\n<end_of_step>", (5, 7), -1.5, "step"),
  types.ExecResult("ok"),
  types.Trajectory("p", "How many?", ("a", "b"), (0.5, -1.0), "3", True),
  types.PreferencePair("p", "How many?", ("a",), ("b",), 0.25, "step"),
)


class RecordsTest(parameterized.TestCase):
  @parameterized.parameters(*RECORDS)
  def test_is_a_value(self, record):
    field = dataclasses.fields(record)[0].name
    with self.assertRaises(dataclasses.FrozenInstanceError):
      setattr(record, field, "changed")
    copy = dataclasses.replace(record)
    self.assertEqual(copy, record)
    self.assertEqual(hash(copy), hash(record))

  def test_record_of_a_problem_keeps_its_keys(self):
    problem = types.Problem("p", "q", "3", "file", 2, alternatives=("-3", "7"))
    record = {
      "id": "p",
      "question": "q",
      "answer": "3",
      "source": "file",
      "level": 2,
      "also": ["-3", "7"],
    }
    self.assertEqual(problem.to_record(), record)
    self.assertEqual(types.Problem.from_record(record), problem)
    self.assertTrue(problem.judged)

  def test_alternatives_are_texts(self):
    for wrong in ("34", (3, 4)):
      with self.assertRaisesRegex(TypeError, "alternatives=.*want a tuple of"):
        types.Problem("p", "q", "1", alternatives=wrong)

  def test_a_problem_with_tests(self):
    problem = types.Problem("p", "q", tests="assert f(1) == 2")
    self.assertTrue(problem.judged)
    self.assertFalse(types.Problem("p", "q").judged)
    record = problem.to_record()
    self.assertEqual(record["tests"], "assert f(1) == 2")
    self.assertEqual(types.Problem.from_record(record), problem)

  def test_tests_are_a_text(self):
    with self.assertRaisesRegex(TypeError, "tests=.'assert f.*want a text"):
      types.Problem("p", "q", tests=["assert f(1) == 2"])

  def test_texts_are_valid_unicode(self):
    texts = "a\ud800", "\udfff"
    fixed = "a\ufffd", "\ufffd"
    self.assertEqual(
      types.Problem("\ud800", *texts, alternatives=texts),
      types.Problem("\ufffd", *fixed, alternatives=fixed),
    )
    self.assertEqual(
      types.Candidate(texts[0], (1,), 0.0, "step"),
      types.Candidate(fixed[0], (1,), 0.0, "step"),
    )
    self.assertEqual(
      types.ExecResult("ok", *texts), types.ExecResult("ok", *fixed)
    )
    same = types.Candidate("\U0001f600", (1,), 0.0, "step")
    self.assertEqual(same.text, "\U0001f600")
    replaced = dataclasses.replace(same, text="\ud83d")
    self.assertEqual(replaced.text, "\ufffd")

  def test_mean_q(self):
    trajectory = types.Trajectory(
      "p", "?", ("a", "b", "c"), (0.5, -1.0, 1.0), "3", True
    )
    self.assertAlmostEqual(trajectory.mean_q, 0.5 / 3)


if __name__ == "__main__":
  absltest.main()
