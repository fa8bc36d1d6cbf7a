"""The sizes that are kept here read as models, and are those of the configs."""

from absl.testing import absltest

from configs import phi3_mini, qwen2_5_math_1_5b, qwen2_5_math_7b, qwen2_math_7b
from rstar_jax.hf import model_config, published


class PublishedTest(absltest.TestCase):
  def test_every_full_size_config_has_its_sizes(self):
    files = (phi3_mini, qwen2_5_math_1_5b, qwen2_5_math_7b, qwen2_math_7b)
    names = [each.get_config().policy.path for each in files]
    self.assertContainsSubset(names, published.MODELS)

  def test_reads_as_models(self):
    # Heads of keys and values, and whether the LM head is the embedding.
    known = {
      "Qwen/Qwen2.5-Math-7B": (4, False),
      "Qwen/Qwen2-Math-7B": (4, False),
      "Qwen/Qwen2.5-Math-1.5B": (2, True),
      "microsoft/Phi-3-mini-4k-instruct": (32, False),
      "Qwen/Qwen3-30B-A3B": (4, False),
      "openai/gpt-oss-20b": (8, False),
      "google/gemma-3-12b-it": (8, True),
    }
    for name, fields in published.MODELS.items():
      model = model_config.from_fields(fields, name)
      self.assertEqual((model.num_kv_heads, model.tied_embeddings), known[name])


if __name__ == "__main__":
  absltest.main()
