import functools
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest
from flax import nnx

from rstar_jax import testing
from rstar_jax.data import batches
from rstar_jax.models.transformer import Transformer
from rstar_jax.training import next_token
from tests.models import jitted


class NextTokenTest(absltest.TestCase):
  def test_each_path_of_a_tree_has_its_own_log_probabilities(self):
    model = Transformer(testing.tiny_model(), rngs=nnx.Rngs(1))
    rng = np.random.default_rng(0)
    stem = rng.integers(0, 99, 9)
    rows = [
      np.concatenate([stem, rng.integers(0, 99, 1 + i)]).astype(np.int32)
      for i in range(4)
    ]
    arrays = batches.pack(
      [[(row, np.ones(len(row), np.int32)) for row in rows]], 48
    ).arrays
    whole, hits, _ = nnx.jit(next_token.logprobs)(model, arrays)
    most = 7 * model.config.vocab_size
    with mock.patch.object(next_token, "_MAX_LOGITS", most):
      parts, _, _ = nnx.jit(functools.partial(next_token.logprobs))(
        model, arrays
      )
    np.testing.assert_allclose(whole, parts, rtol=1e-5, atol=1e-5)
    found = {}
    for at in range(1, np.count_nonzero(arrays["ends"][0])):
      path, here = [], at
      while here:
        path.append(here)
        here = arrays["parents"][0, here]
      path = [0, *path[::-1]]
      found[tuple(arrays["tokens"][0, path].tolist())] = at
    for row in rows:
      # One length for all; the model is causal.
      padded = np.pad(row, (0, len(rows[-1]) - len(row)))[None]
      expected = jax.nn.log_softmax(jitted.call(model, padded)[0])
      for size in range(2, len(row) + 1):
        at = found[tuple(row[:size].tolist())]
        one = expected[size - 2]
        self.assertAlmostEqual(whole[0, at], one[row[size - 1]], places=4)
        self.assertEqual(hits[0, at], one.argmax() == row[size - 1])

  def test_parts_are_the_fewest_that_fit(self):
    for length in range(1, 41):
      for most in (1, 7, 50, 130, 999):
        fits = [
          n
          for n in range(1, length + 1)
          if length % n == 0 and length // n * 7 <= most
        ]
        with self.subTest(f"{length} {most}"):
          # A token a part, if even that is too much.
          with mock.patch.object(next_token, "_MAX_LOGITS", most):
            self.assertEqual(next_token.parts(length, 7), (*fits, length)[0])


if __name__ == "__main__":
  absltest.main()
