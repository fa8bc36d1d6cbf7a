"""The auxiliary loss of experts: its gradient, its weight, and what is said."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from flax import nnx

from rstar_jax import testing
from rstar_jax.models import experts
from rstar_jax.models.config import Mixture
from rstar_jax.models.transformer import Transformer, reconfigured
from rstar_jax.training import balance, sft

MIXTURE = Mixture(experts=5, chosen=2, dim=7)


def build(**fields):
  config = testing.tiny_model(num_layers=2, mixture=MIXTURE, **fields)
  model = Transformer(config, rngs=nnx.Rngs(0))
  rng = np.random.default_rng(0)
  for layer in model.layers:
    router = layer.experts.router
    router.set_value(jnp.asarray(rng.normal(size=router.shape), "float32"))
  return model


def batch():
  rng = np.random.default_rng(1)
  ends = np.zeros((3, 20), np.int32)
  for row, length in enumerate((20, 14, 9)):
    ends[row, :length] = length
  positions = np.broadcast_to(np.arange(20, dtype=np.int32), ends.shape)
  return {
    "tokens": rng.integers(1, 99, ends.shape, np.int32),
    "positions": positions,
    "parents": np.maximum(positions - 1, 0),
    "ends": ends,
    "weights": (ends > 0).astype(np.float32),
  }


class BalanceTest(absltest.TestCase):
  def test_gradient_is_the_slope(self):
    """By differences; the first router has a part in what the next is given.

    Where a token changes its experts, the loss jumps: not between these ends.
    """
    graphdef, params = nnx.split(build(balance=1.0))
    arrays = batch()

    def loss(params):
      _, load = nnx.merge(graphdef, params).hidden_and_load(
        arrays["tokens"], ends=arrays["ends"]
      )
      return experts.imbalance(load, MIXTURE.chosen), load.tokens

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, tokens), grad = run(params)
    # Of experts that have as many tokens it would be 2.
    self.assertGreater(value, 2.01)
    for layer in (0, 1):
      router = params["layers"][layer]["experts"]["router"]
      start = router.get_value()
      slope = grad["layers"][layer]["experts"]["router"].get_value()
      size, ends = float(jnp.linalg.norm(slope)), []
      for step in (2e-4, -2e-4):
        router.set_value(start + step / size * slope)
        end, same = run(params)[0]
        np.testing.assert_array_equal(same, tokens)
        ends.append(float(end))
      router.set_value(start)
      with self.subTest(f"layer {layer}"):
        self.assertGreater(size, 0.01)
        found = (ends[0] - ends[1]) / 4e-4
        self.assertAlmostEqual(found / size, 1, delta=0.05)

  def test_weight_padding_and_loops(self):
    model, arrays = build(), batch()

    def run(model, arrays):
      graphdef, params = nnx.split(model)
      return jax.jit(
        lambda params, arrays: sft.sft_loss(nnx.merge(graphdef, params), arrays)
      )(params, arrays)

    total, sums = run(model, arrays)
    self.assertEqual(
      sums.keys() - {"count", "token_accuracy"},
      {"expert_imbalance", "expert_peak", "expert_entropy"},
    )
    # Sums, of what is a mean of tokens: 43 here.
    self.assertEqual(sums["count"], 43)
    self.assertBetween(sums["expert_peak"] / 43, 1.01, 5)
    self.assertBetween(sums["expert_entropy"] / 43, 0.5, 0.999)
    arrays["tokens"] = np.where(arrays["ends"], arrays["tokens"], 7)
    other = reconfigured(model, balance=0.5, scan=True, remat="layer")
    weighed, same = run(other, arrays)
    self.assertAlmostEqual(
      float(weighed - total), 0.5 * float(sums["expert_imbalance"]), places=2
    )
    for name, value in sums.items():
      np.testing.assert_allclose(same[name], value, rtol=1e-5, err_msg=name)

  def test_a_dense_model_has_none(self):
    sums, config = {"count": 1.0}, testing.tiny_model(balance=1.0)
    self.assertEqual(balance.added(2.0, sums, None, config), (2.0, sums))
    self.assertIsNone(experts.no_load(config))


if __name__ == "__main__":
  absltest.main()
