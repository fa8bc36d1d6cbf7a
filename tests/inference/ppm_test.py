"""Tests of scoring, against a decoder that runs whole sequences."""

import functools

import jax
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference.ppm import Scorer
from rstar_jax.models.kernels import build
from rstar_jax.models.transformer import Transformer
from rstar_jax.steps import prompts
from rstar_jax.testing import ByteTokenizer, tiny_model
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
def model(head):
  graphdef, params = nnx.split(
    Transformer(tiny_model(), head=head, rngs=nnx.Rngs(7))
  )
  # Not the norms: what they scale up are the last bits as well.
  params = jax.tree.map(lambda x: x * 10 if x.ndim > 1 else x, params)
  return nnx.merge(graphdef, params)


@functools.cache
def decoder(head):
  return plain.Decoder(model(head))


def exact(head, text):
  return decoder(head).values(ByteTokenizer().encode(text))[-1]


class ScorerTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(head="tanh"),
    dict(head="logit", leaf_buckets=(4,), prefix_buckets=(256,)),
    # Prefixes past the largest bucket are scored too.
    dict(head="tanh", leaf_buckets=(1,), prefix_buckets=(16, 32)),
    # Few rows, and so by kernels for CPUs.
    dict(head="tanh", leaf_buckets=(1,), step_buckets=(32,), native=True),
  )
  def test_equals_plain_forward(self, head, **config):
    if config.get("native") and not build.compiler():
      self.skipTest("no C++ compiler")
    scorer = Scorer(
      model(head),
      ByteTokenizer(),
      EngineConfig(
        **{"leaf_buckets": (1, 2), "prefix_buckets": (128, 192)} | config
      ),
    )
    out = scorer(QUESTIONS, PREFIXES, STEPS)
    self.assertEqual([len(row) for row in out], [3, 1, 0, 5])
    values = []
    for question, prefix, row, steps in zip(
      QUESTIONS, PREFIXES, out, STEPS, strict=True
    ):
      self.assertEqual(row.dtype, np.float32)
      start = prompts.prompt(question) + "".join(prefix)
      for value, step in zip(row, steps, strict=True):
        self.assertAlmostEqual(value, exact(head, start + step), delta=1e-5)
        values.append(value)
    # Values that all agree would prove little.
    self.assertGreater(np.std(values), 0.01)
    self.assertEqual(scorer.scored, 9)
    self.assertGreaterEqual(scorer.programs.calls, len(scorer.programs.shapes))

  def test_programs_are_reused(self):
    scorer = Scorer(
      model("tanh"),
      ByteTokenizer(),
      EngineConfig(leaf_buckets=(2,), prefix_buckets=(128,)),
    )
    for count in (3, 4):
      scorer(["?"], [()], [["step"] * count])
    shapes = [each for each in scorer.programs.shapes if each[0] == "score"]
    self.assertEqual(shapes, [("score", 2, 128, 4, 32)])

  def test_steps_that_were_scored_are_not_run_again(self):
    config = EngineConfig(
      leaf_buckets=(1, 3), prefix_buckets=(64, 256), step_buckets=(32, 64)
    )
    scorer, fresh = (
      Scorer(model("tanh"), ByteTokenizer(), config) for _ in range(2)
    )
    prefixes = [(), (), ()]
    for tick in range(4):
      rows = [
        [f"{name} {tick} {i}\n" * (i + 1) for i in range(3)] for name in "abc"
      ]
      values = scorer(QUESTIONS[:3], prefixes, rows)
      fresh.begin(0)
      for one, other in zip(
        values, fresh(QUESTIONS[:3], prefixes, rows), strict=True
      ):
        np.testing.assert_allclose(one, other, atol=1e-5)
      prefixes = [
        (*prefix, row[(tick + i) % 3])
        for i, (prefix, row) in enumerate(zip(prefixes, rows, strict=True))
      ]
    first = sum(
      len(ByteTokenizer().encode(prompts.prompt(each)))
      for each in QUESTIONS[:3]
    )
    # Prompts alone: all else was kept, or committed from what was scored.
    self.assertEqual(scorer.path_tokens["prefilled"], first)
    self.assertGreater(scorer.path_tokens["appended"], 0)
    self.assertEqual(fresh.path_tokens["prefilled"], scorer.prefix_tokens)

  def test_nothing_compiles_after_the_warm_up(self):
    config = EngineConfig(
      leaf_buckets=(1, 2),
      prefix_buckets=(128,),
      step_buckets=(32,),
      score_buckets=(1, 4),
      tail_buckets=(32,),
    )
    scorer = Scorer(model("tanh"), ByteTokenizer(), config)
    for call in scorer.warm_up_calls(3):
      call()
    made = list(scorer.programs.shapes)
    for row in (["x"], ["x", "yy", "z"]):
      scorer(["?", "!"], [(), ("x",)], [row, row])
    self.assertEqual(scorer.programs.shapes, made)

  def test_nothing_to_score(self):
    scorer = Scorer(model("tanh"), ByteTokenizer(), EngineConfig())
    (row,) = scorer(["?"], [()], [[]])
    self.assertEqual(row.shape, (0,))
    self.assertEqual(scorer([], [], []), [])
    self.assertEqual(scorer.programs.calls, 0)
    with self.assertRaisesRegex(ValueError, "leaf 1 has a step of no tokens"):
      scorer(["?", "?"], [(), ()], [["x"], ["y", ""]])


if __name__ == "__main__":
  absltest.main()
