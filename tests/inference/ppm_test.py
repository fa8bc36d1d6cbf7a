"""Tests of scoring, against a decoder that runs whole sequences."""

import functools

import numpy as np
from absl.testing import absltest

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference.ppm import Scorer
from rstar_jax.inference.scoring import ScoringEngine
from rstar_jax.steps import prompts
from rstar_jax.testing import ByteTokenizer
from tests.inference import small
from tests.models import plain

QUESTIONS = ("How many?", "What is 2 + 3?", "Why?", "Who?")
PREFIXES = (
  (),
  ("<code>\nx = 2\n<end_of_step>", "print(x)\n<end_of_code>\n<output>2"),
  ("<code>\ny = 3<end_of_step>",),
  (),
)
STEPS = (
  ("<code>\na = 1<end_of_step>", "b", "<code>" + "c" * 40),
  ("<end_of_output>\n<answer>\\boxed{5}<end_of_answer>",),
  (),
  ("d", "e" * 3, "f" * 31, "g" * 32, "h" * 33),
)


@functools.cache
def scorer():
  config = EngineConfig(
    prefill_tokens=96, max_prefix_tokens=128, max_step_tokens=64, kernels="xla"
  )
  return Scorer(ScoringEngine(small.model("tanh"), config), ByteTokenizer())


@functools.cache
def exact(text):
  return decoder().values(ByteTokenizer().encode(text))[-1]


@functools.cache
def decoder():
  return plain.Decoder(small.model("tanh"))


class ScorerTest(absltest.TestCase):
  def test_values_are_those_of_whole_texts(self):
    out = scorer()(QUESTIONS, PREFIXES, STEPS)
    self.assertEqual([len(row) for row in out], [3, 1, 0, 5])
    values = []
    for question, prefix, row, steps in zip(
      QUESTIONS, PREFIXES, out, STEPS, strict=True
    ):
      self.assertEqual(row.dtype, np.float32)
      start = prompts.prompt(question) + "".join(prefix)
      for value, step in zip(row, steps, strict=True):
        self.assertAlmostEqual(value, exact(start + step), delta=2e-5)
        values.append(value)
    # Values that all agree would prove little.
    self.assertGreater(np.std(values), 0.01)
    one = scorer().submit(QUESTIONS[3], PREFIXES[3], STEPS[3]).result()
    self.assertEqual(one.tobytes(), out[3].tobytes())

  def test_a_prefix_that_was_scored_is_not_computed_again(self):
    engine = scorer().engine
    scorer().submit("Which?", (), ["ab", "cde"]).result()
    before = engine.prefilled_tokens
    scorer().submit("Which?", ("cde",), ["fg", "hi"]).result()
    self.assertEqual(engine.prefilled_tokens - before, 4)

  def test_nothing_to_score(self):
    (row,) = scorer()(["?"], [()], [[]])
    self.assertEqual(row.shape, (0,))
    self.assertEqual(scorer()([], [], []), [])
    with self.assertRaisesRegex(ValueError, "a step has no tokens"):
      scorer()(["?", "?"], [(), ()], [["x"], ["y", ""]])


if __name__ == "__main__":
  absltest.main()
