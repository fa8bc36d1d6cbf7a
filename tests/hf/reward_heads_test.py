"""Tests of others' heads as one scalar head, by hand."""

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.hf import reward_heads


class Arrays(dict):
  """Arrays as `Tensors`."""

  def names(self):
    return sorted(self)

  def shape(self, name):
    return self[name].shape

  def read(self, name, index):
    return self[name][index]


def fields_of(kind, **more):
  return {"architectures": [f"Qwen2{kind}"]} | more


def read(kind, answers=None, more=None, config=None, **arrays):
  arrays = Arrays(
    {
      name.replace("_at_", "."): np.array(each, np.float16)
      for name, each in arrays.items()
    }
  )
  return reward_heads.read(
    fields_of(kind, **(more or {})),
    config or testing.tiny_model(),
    arrays,
    "here",
    answers,
  )


class HeadsTest(parameterized.TestCase):
  def assert_head(self, found, weight, bias):
    head, tensors = found
    whole = (slice(None),)
    np.testing.assert_array_equal(
      tensors.read("score.weight", 2 * whole), [weight]
    )
    np.testing.assert_array_equal(tensors.read("score.bias", whole), [bias])
    self.assertEqual(tensors.read("score.bias", whole).dtype, np.float32)
    self.assertEqual(tensors.shape("score.weight"), (1, 2))
    return head, tensors.names()

  def test_two_classes_are_their_difference(self):
    rows = {"score_at_weight": [[1, 5], [4, 3]], "score_at_bias": [2, 8]}
    found = read("ForTokenClassification", **rows, norm=[0])
    head, names = self.assert_head(found, [3, -2], 6)
    self.assertEqual(head, "odds")
    self.assertEqual(names, ["norm", "score.bias", "score.weight"])
    more = {"id2label": {"0": "GOOD", "1": "bad"}}
    found = read("ForTokenClassification", more=more, **rows)
    self.assert_head(found, [-3, 2], -6)

  def test_the_answers_of_a_causal_model(self):
    rows = {
      "lm_head_at_weight": [[1, 2], [3, 5], [7, 11]],
      "model_at_embed_tokens_at_weight": [[0, 0], [1, 0], [1, 4]],
    }
    found = read("ForCausalLM", (2, 0), **rows)
    _, names = self.assert_head(found, [6, 9], 0)
    self.assertNotIn("lm_head.weight", names)
    del rows["lm_head_at_weight"]
    found = read("ForCausalLM", (2, 1), **rows)
    _, names = self.assert_head(found, [0, 4], 0)
    self.assertIn("model.embed_tokens.weight", names)
    config = testing.tiny_model(logits_scaling=4.0)
    found = read("ForCausalLM", (2, 1), config=config, **rows)
    self.assert_head(found, [0, 1], 0)
    config = testing.tiny_model(logits_softcap=30.0)
    with self.assertRaisesRegex(ValueError, "softcapping=30 bends"):
      read("ForCausalLM", (2, 1), config=config, **rows)
    with self.assertRaisesRegex(ValueError, "has no row 3"):
      read("ForCausalLM", (3, 1), **rows)
    with self.assertRaisesRegex(ValueError, "say how it is asked"):
      read("ForCausalLM", **rows)

  def test_a_value_head_whatever_the_class_is_called(self):
    rows = {
      "v_head_at_summary_at_weight": [[2, 3]],
      "v_head_at_summary_at_bias": [5],
      "lm_head_at_weight": [[1, 2]],
    }
    for kind in ("ForPrmModel", "ForCausalLM"):
      head, names = self.assert_head(read(kind, **rows), [2, 3], 5)
      self.assertEqual((head, names), ("odds", ["score.bias", "score.weight"]))

  def test_a_hidden_layer(self):
    rows = {
      "score_at_0_at_weight": [[1, 0], [0, 1]],
      "score_at_0_at_bias": [1, 1],
      "score_at_2_at_weight": [[1, 2], [5, 4]],
      "score_at_2_at_bias": [1, 0],
    }
    head, names = self.assert_head(
      read("ForProcessRewardModel", **rows), [4, 2], -1
    )
    self.assertEqual(head, "odds_mlp")
    self.assertEqual(
      names, ["score.0.bias", "score.0.weight", "score.bias", "score.weight"]
    )
    with self.assertRaisesRegex(ValueError, "want one row"):
      read("ForRewardModel", **rows)

  def test_one_label_stays(self):
    weights = Arrays({"score.weight": np.zeros((1, 2))})
    for more, head in (({}, "logit"), ({"rstar_head": "tanh"}, "tanh")):
      found = reward_heads.read(
        fields_of("ForSequenceClassification", num_labels=1, **more),
        testing.tiny_model(),
        weights,
        "here",
      )
      self.assertEqual(found, (head, weights))

  @parameterized.parameters(
    {"num_labels": 3},
    {"num_labels": None},
    {"id2label": ["a", "b"]},
    {"id2label": {"0": "a", "1": "b"}},
    {"id2label": {"0": "good", "1": "right"}},
  )
  def test_classes_of_unknown_meaning(self, **more):
    with self.assertRaisesRegex(ValueError, "a bad and a good class"):
      reward_heads.classes(more, "here")

  @parameterized.parameters(
    ([],), (None,), (["Qwen2Model"],), ([7],), ("ForCausalLM",)
  )
  def test_classes_that_are_no_reward_model(self, names):
    with self.assertRaisesRegex(ValueError, "none of a reward model"):
      reward_heads.kind_of({"architectures": names}, "here")

  def test_a_head_that_is_missing(self):
    with self.assertRaisesRegex(ValueError, "score.weight of the reward mod"):
      read("ForTokenClassification")

  @parameterized.parameters(
    ({}, 2),
    ({"num_labels": 1}, 1),
    ({"id2label": {"0": "a"}}, 1),
    ({"id2label": {}}, 0),
    ({"id2label": None, "num_labels": 1}, 1),
    # The number comes before the names, as `transformers` sets it last.
    ({"id2label": {"0": "a", "1": "b"}, "num_labels": 1}, 1),
    ({"id2label": {"0": "a"}, "num_labels": 2}, 2),
    ({"id2label": 1}, 2),
  )
  def test_labels(self, fields, expected):
    self.assertEqual(reward_heads.labels(fields), expected)


if __name__ == "__main__":
  absltest.main()
