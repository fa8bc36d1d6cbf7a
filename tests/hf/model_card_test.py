"""Tests of the model card: it says what the code does."""

from absl.testing import absltest, parameterized

from rstar_jax.hf import family_config, model_card
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

  @parameterized.parameters(*family_config.FAMILIES)
  def test_a_ppm_is_loaded_by_what_can(self, family):
    """`transformers` 5.24 has a classifier of each family but two."""
    there = family not in ("granite", "gemma4_text")
    card = model_card.render(tiny_model(family=family), "logit", 901_248)
    self.assertEqual("AutoModelForSequenceClassification" in card, there)
    self.assertEqual("rj.load_ppm(FOLDER)" in card, not there)
    library = "transformers" if there else "rstar_jax"
    self.assertStartsWith(card, f"---\nlibrary_name: {library}\n")
    self.assertIn("tanh(logit / 5)", card)
    self.assertIn(prompts.prompt("{question}"), card)
    self.assertNotIn("{output}", card)


if __name__ == "__main__":
  absltest.main()
