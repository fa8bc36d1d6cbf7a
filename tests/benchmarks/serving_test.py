"""The questions of the benchmark of a server."""

from unittest import mock

from absl import app
from absl.testing import absltest

import rstar_jax as rj
from benchmarks import serving


class QuestionsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    config = rj.Config()
    source = self.create_tempfile(
      "problems.jsonl",
      content="".join(
        f'{{"question": "What is {n} + 0?", "answer": "{n}"}}\n'
        for n in (1, 2, 2, 3, 4)
      ),
    ).full_path
    config.eval.data = rj.DataConfig(source=source, count=1)
    self.enter_context(
      mock.patch.object(serving, "_CONFIG", mock.Mock(value=config))
    )

  def test_none_is_asked_twice(self):
    asked = list(serving.questions(3))
    self.assertEqual(asked[:3], [f"What is {n} + 0?" for n in (1, 2, 3)])

  def test_too_few_are_refused_before_any_is_asked(self):
    with self.assertRaisesRegex(app.UsageError, "4 questions, and 5 are"):
      serving.questions(5)


if __name__ == "__main__":
  absltest.main()
