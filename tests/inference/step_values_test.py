"""The value of a solution after each step, against one sequence a step."""

import numpy as np
from absl.testing import absltest
from flax import nnx

from rstar_jax import testing
from rstar_jax.inference.step_values import step_values
from rstar_jax.models.config import RopeScaling
from rstar_jax.models.transformer import Transformer
from rstar_jax.steps import prompts
from tests.inference import small
from tests.models import jitted

TOKENIZER = testing.ByteTokenizer()
STEPS = [
  "<code>\nx = 2\n<end_of_step>",
  "\ny = 3\n<end_of_step>",
  "\nprint(x)\n<end_of_code>",
]
# The tokens of each prefix.
PATHS = [
  TOKENIZER.encode(prompts.prompt("What is 2?") + "".join(STEPS[:count]))
  for count in (1, 2, 3)
]


class StepValuesTest(absltest.TestCase):
  def check(self, model):
    found = step_values(model, TOKENIZER, "What is 2?", STEPS)
    expected = [jitted.call(model, np.array([ids]))[0, -1] for ids in PATHS]
    self.assertEqual((found.dtype, found.shape), (np.float32, (3,)))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    self.assertLen({round(float(each), 4) for each in found}, 3)

  def test_each_is_the_value_at_the_end_of_the_solution_so_far(self):
    self.check(Transformer(testing.tiny_model(), head="tanh", rngs=nnx.Rngs(0)))

  def test_longrope_goes_by_the_length_of_each_prefix(self):
    # All prefixes are short, but not so with padding; one; and none.
    for length in (len(PATHS[2]), len(PATHS[0]), len(PATHS[0]) - 1):
      with self.subTest(length):
        rope = RopeScaling(
          kind="longrope",
          original_length=length,
          short_factor=(1.0,) * 16,
          long_factor=(4.0,) * 16,
        )
        self.check(small.model("tanh", rope=rope))


if __name__ == "__main__":
  absltest.main()
