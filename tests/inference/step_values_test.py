"""The value of a solution after each step, against one sequence a step."""

import numpy as np
from absl.testing import absltest
from flax import nnx

from rstar_jax import testing
from rstar_jax.inference.step_values import step_values
from rstar_jax.models.transformer import Transformer
from rstar_jax.steps import prompts
from tests.models import jitted


class StepValuesTest(absltest.TestCase):
  def test_each_is_the_value_at_the_end_of_the_solution_so_far(self):
    tokenizer = testing.ByteTokenizer()
    model = Transformer(testing.tiny_model(), head="tanh", rngs=nnx.Rngs(0))
    steps = ["<code>\nx = 2\n<end_of_step>", "\nprint(x)\n<end_of_code>"]
    found = step_values(model, tokenizer, "What is 2?", steps)
    expected = []
    for count in (1, 2):
      text = prompts.prompt("What is 2?") + "".join(steps[:count])
      ids = np.array([tokenizer.encode(text)])
      expected.append(jitted.call(model, ids)[0, -1])
    self.assertEqual((found.dtype, found.shape), (np.float32, (2,)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    self.assertNotAlmostEqual(*map(float, found))


if __name__ == "__main__":
  absltest.main()
