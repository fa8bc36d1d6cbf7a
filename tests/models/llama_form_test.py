"""A Qwen2 model in Llama's form computes the same, and comes back."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.models import llama_form
from rstar_jax.models.transformer import Transformer
from rstar_jax.testing import tiny_model
from tests.models.jitted import call


def make(head="lm"):
  return Transformer(tiny_model(), head=head, rngs=nnx.Rngs(5))


class LlamaFormTest(parameterized.TestCase):
  @parameterized.parameters("lm", "tanh", "logit")
  def test_same_function_and_back(self, head):
    model = make(head)
    llama = llama_form.from_qwen2(model)
    self.assertEqual(llama.config.family, "llama")
    self.assertTrue(llama.config.o_bias)
    ids = jnp.arange(3, 41)[None]
    np.testing.assert_array_equal(call(model, ids), call(llama, ids))
    back = llama_form.to_qwen2(llama)
    self.assertEqual(back.config, model.config)
    self.assertEqual(back.head, head)
    jax.tree.map(
      np.testing.assert_array_equal, nnx.state(back), nnx.state(model)
    )

  def test_one_that_was_trained_as_a_llama_stays_one(self):
    llama = llama_form.from_qwen2(make())
    bias = llama.layers[1].attention.o_bias
    bias.set_value(bias.get_value().at[3].set(1e-7))
    self.assertIs(llama_form.to_qwen2(llama), llama)


if __name__ == "__main__":
  absltest.main()
