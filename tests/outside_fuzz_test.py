"""Every place where text from outside comes in, with hostile input.

`python -m tests.fuzz` tries many more.
"""

import json
import pathlib
import tempfile
from unittest import mock

import hypothesis
from absl import logging
from absl.testing import absltest, parameterized
from hypothesis import strategies as st

from rstar_jax import outside
from tests.fuzz import entries

NAMES = (
  *("a server's answer", "a server's bytes", "problems, JSON lines"),
  *("problems, a JSON list", "problems, CSV", "problems, a table"),
  *("problems, compressed",),
  *("released solutions", "released pairs", "labelled answers"),
  *("a model's JSON", "a pickle of weights"),
  *("a journal's line", "a journal's end", "a begun shard", "metrics"),
  *("a manifest", "a shard"),
  *("a run's config", "a program's output", "a policy's text"),
  *("a tokenizer's input", "a terminal"),
)


def unbounded(data, *, constant=None, number=None, **bounds):
  """Reads JSON as readers did that checked nothing."""
  del bounds
  return json.loads(
    data, parse_constant=constant, parse_int=number, parse_float=number
  )


class FuzzTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = cls.enterClassContext(tempfile.TemporaryDirectory())
    opened = entries.opened(pathlib.Path(folder), entries.tokenizer())
    cls.entries = cls.enterClassContext(opened)
    verbosity = logging.get_verbosity()
    cls.addClassCleanup(logging.set_verbosity, verbosity)
    logging.set_verbosity(logging.FATAL)

  def test_all_are_tried(self):
    self.assertEqual(tuple(self.entries), NAMES)

  @parameterized.parameters(*NAMES)
  def test_no_input_ends_a_run(self, name):
    entry = self.entries[name]

    @hypothesis.settings(max_examples=37, deadline=None)
    @hypothesis.given(st.integers(0, 10**9))
    def try_one(index):
      self.assertIn(
        entry(entries.number(name, index)), ("used", "set aside", "refused")
      )

    try_one()

  @parameterized.parameters(*NAMES)
  def test_an_input_is_known_by_its_number(self, name):
    entry = self.entries[name]
    first, second = (
      [entry(entries.number(name, index)) for index in range(20)]
      for _ in range(2)
    )
    self.assertEqual(first, second)

  @parameterized.parameters(
    ("a server's answer", "parse", unbounded),
    ("problems, JSON lines", "parse", unbounded),
    ("released pairs", "parse", unbounded),
    ("a journal's line", "parse", unbounded),
    ("metrics", "parse", unbounded),
    ("a program's output", "valid", str),
    ("a tokenizer's input", "valid", str),
    ("a terminal", "shown", str),
  )
  def test_the_inputs_find_a_reader_that_checks_nothing(
    self, name, function, unchecked
  ):
    entry, failures = self.entries[name], 0
    with mock.patch.object(outside, function, unchecked):
      for index in range(100):
        try:
          entry(entries.number(name, index))
        except Exception:
          failures += 1
    self.assertGreater(failures, 0)


if __name__ == "__main__":
  absltest.main()
