"""The plain decoder against `transformers`, by the golden files."""

import pathlib

import jax
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.hf import folders
from rstar_jax.models.transformer import Transformer
from rstar_jax.testing import tiny_model
from tests.models import plain
from tests.parity import cases, compare

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


class PlainTest(parameterized.TestCase):
  @parameterized.parameters(*cases.CASES)
  def test_is_what_transformers_computes(self, name):
    expected = np.load(GOLDEN / name / "expected.npz")
    decoder = plain.Decoder(folders.load_policy(GOLDEN / name))
    for length in cases.lengths(name):
      for ids, logits in zip(
        expected[f"ids_{length}"], expected[f"logits_{length}"], strict=True
      ):
        np.testing.assert_allclose(
          decoder.logits(ids), logits, rtol=0, atol=1e-4
        )
    prompt, greedy = expected["prompt_0"], expected["greedy_0"][:5]
    span = len(prompt) + len(expected["greedy_0"])
    step = decoder.step(prompt, len(greedy), span=span)
    np.testing.assert_array_equal(step.token_ids, greedy)
    self.assertAlmostEqual(
      step.logprob, decoder.logprob(prompt, step.token_ids, span), places=9
    )
    self.assertEqual(step.stopped, -1)

  def test_values(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    expected = np.load(GOLDEN / "qwen2" / "expected.npz")
    compare.write_classifier(GOLDEN / "qwen2", expected["score"], folder)
    decoder = plain.Decoder(folders.load_reward_model(folder))
    for ids, raw in zip(expected["ids_53"], expected["raw_53"], strict=True):
      self.assertAlmostEqual(decoder.values(ids)[-1], np.tanh(raw / 5), 5)

  def test_draws_by_the_inverse_of_the_distribution(self):
    decoder = plain.Decoder(Transformer(tiny_model(), rngs=nnx.Rngs(3)))
    (chances,) = np.exp(decoder.logprobs([7]))
    self.assertAlmostEqual(chances.sum(), 1, 12)
    for token in (0, 11, 100):
      for share in (0.01, 0.99):
        uniform = chances[:token].sum() + share * chances[token]
        step = decoder.step([7], 1, uniforms=[uniform])
        self.assertEqual(step.token_ids, (token,))
        self.assertAlmostEqual(step.logprob, np.log(chances[token]), 9)
    uniforms = jax.random.uniform(jax.random.key(5), (9,))
    free = decoder.step([7], 9, uniforms=uniforms)
    self.assertLen(free.token_ids, 9)
    stop = free.token_ids[3]
    step = decoder.step([7], 9, (stop,), uniforms)
    self.assertEqual(step.token_ids, free.token_ids[: len(step.token_ids)])
    self.assertEqual((step.stopped, step.token_ids[-1]), (stop, stop))


if __name__ == "__main__":
  absltest.main()
