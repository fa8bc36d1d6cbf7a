"""Tests of the model card: it says what the code does."""

from absl.testing import absltest, parameterized

from rstar_jax.hf import model_card
from rstar_jax.steps import prompts
from rstar_jax.testing import tiny_model


class ModelCardTest(parameterized.TestCase):
  def test_policy(self):
    card = model_card.render(tiny_model(), "lm", 7_615_616_512)
    self.assertStartsWith(card, "---\nlibrary_name: transformers\n")
    self.assertIn("7.6 billion parameters", card)
    self.assertIn(prompts.prompt("{question}"), card)
    self.assertNotIn("tanh", card)

  @parameterized.parameters(
    ("tanh", "tanh(logit),", "torch.tanh(raw)\n"),
    ("logit", "tanh(logit / 5),", "torch.tanh(raw / 5)\n"),
  )
  def test_ppm_says_where_tanh_is(self, head, formula, code):
    card = model_card.render(tiny_model(), head, 901_248)
    self.assertIn(f"The value is {formula}", card)
    self.assertIn(f"value = {code}", card)
    self.assertIn("901248 parameters", card)


if __name__ == "__main__":
  absltest.main()
