"""The FLOPs that shares of the roofline rest on, counted token by token."""

from absl.testing import absltest

from benchmarks import engines
from rstar_jax.testing import tiny_model


def counted(config, shape) -> int:
  """Counts each product of each token that has to be run."""
  leaves, candidates, prefix, new = shape
  total = 0

  def token(seen: int) -> int:
    d, h = config.embed_dim, config.head_dim
    n, k = config.num_heads, config.num_kv_heads
    products = d * n * h + 2 * d * k * h + n * h * d
    products += 3 * d * config.mlp_dim
    products += 2 * n * h * seen
    return 2 * config.num_layers * products

  unembed = 2 * config.embed_dim * config.vocab_size
  for _ in range(leaves):
    total += sum(token(i + 1) for i in range(prefix)) + unembed
    for _ in range(candidates):
      for i in range(new - 1):
        total += token(prefix + i + 1) + unembed
  return total


class FlopsTest(absltest.TestCase):
  def test_counts_each_token_once(self):
    config = tiny_model()
    for shape in ((2, 3, 5, 7), (1, 1, 1, 1), (3, 2, 11, 2)):
      self.assertEqual(engines.flops(config, shape), counted(config, shape))


if __name__ == "__main__":
  absltest.main()
