"""Tests of others' reward models: each form against its authors' recipe."""

import json
import pathlib
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.config.schema import EngineConfig, SearchConfig
from rstar_jax.hf import folders
from rstar_jax.inference import reward, reward_forms
from rstar_jax.inference.reward import RewardModel
from rstar_jax.inference.scoring import ScoringEngine
from rstar_jax.search import mcts
from rstar_jax.search.requests import Calls
from rstar_jax.testing import ByteTokenizer
from rstar_jax.types import Problem
from tests.models.jitted import call
from tests.parity import compare, reward_cases

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
CONFIG = EngineConfig(prefill_tokens=256, max_prefix_tokens=512)


class Chat(ByteTokenizer):
  """Bytes, folded into the golden model's vocabulary, with a template."""

  def __init__(self, template=True):
    super().__init__()
    self.template, self.seen = template, []

  def encode(self, text):
    self.seen.append(text)
    return [2 + i % 95 for i in text.encode()]

  def chat(self, turns):
    (_, question), (_, answer) = turns
    return f"[{question}|{answer}]" if self.template else None


class DialogueTest(absltest.TestCase):
  """A classifier with one label, on a golden model's trunk."""

  def setUp(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    score = np.random.default_rng(0).normal(size=24).astype(np.float32)
    compare.write_classifier(GOLDEN / "llama_bias", score, folder)
    self.model = folders.load_reward_model(folder)
    config = EngineConfig(prefill_tokens=64, max_prefix_tokens=150)
    self.engine = ScoringEngine(self.model, config)

  def make(self, tokenizer, **options):
    form = reward_forms.FORMS["outcome"]
    return RewardModel(
      self.engine, reward.Published("", form, tokenizer, **options)
    )

  def value(self, text):
    ids = Chat().encode(text)
    # One length for all, so that little is compiled; the model is causal.
    padded = np.array([ids + [0] * (200 - len(ids))], np.int32)
    return float(call(self.model, padded)[0, len(ids) - 1])

  def test_reads_the_dialogue_whole(self):
    tokenizer = Chat()
    prefix = ("<code>\na = 3\n<end_of_step>",)
    values = self.make(tokenizer)(
      ["one?", "two?", "three?"],
      [prefix, (), prefix],
      [["\nprint(a)\n<end_of_code>", "\nb"], [], ["\n" + "c" * 131]],
    )
    self.assertEqual([len(row) for row in values], [2, 0, 1])
    texts = [
      "[one?|a = 3\n\nprint(a)]",
      "[one?|a = 3\n\nb]",
      "[three?|a = 3\n\n" + "c" * 131 + "]",
    ]
    self.assertEqual(tokenizer.seen, texts)
    found = np.concatenate(values)
    np.testing.assert_allclose(found, [*map(self.value, texts)], atol=3e-6)
    self.assertEqual(self.engine.scored, 3)

  def test_many_rows(self):
    steps = [["x" * (7 * i % 61 + 1) for i in range(19)]]
    (values,) = self.make(Chat())(["q"], [()], steps)
    want = [self.value(f"[q|{step}]") for step in steps[0]]
    np.testing.assert_allclose(values, want, atol=3e-6)

  def test_ids_that_transformers_takes_for_padding(self):
    (pad,) = Chat().encode("]")
    scorer = self.make(Chat(), unread_id=pad)
    (values,) = scorer(["q"], [()], [["a", "b]]"]])
    # The template's own last token is one, and so is all that is before it.
    want = [self.value("[q|a"), self.value("[q|b")]
    np.testing.assert_allclose(values, want, atol=3e-6)
    self.assertNotAlmostEqual(self.value("[q|a]"), want[0], places=3)

  def test_without_a_template(self):
    tokenizer = Chat(template=False)
    scorer = self.make(tokenizer)
    scorer(["q"], [()], [["a"]])
    self.assertEqual(tokenizer.seen, ["q\n\na"])
    self.assertEqual(scorer([], [], []), [])


class FormsTest(parameterized.TestCase):
  """Random weights, against what torch and the authors' recipes give."""

  def load(self, name):
    folder = pathlib.Path(self.create_tempdir().full_path)
    return reward.load_reward(reward_cases.write(folder, name), CONFIG)

  @parameterized.parameters(*reward_cases.CASES)
  def test_a_search_has_the_values_of_the_authors_recipe(self, name):
    golden = json.loads((GOLDEN / "rewards.json").read_text())[name]
    want = dict(zip(reward_cases.paths(), golden, strict=True))
    calls = Calls(
      expand=reward_cases.POLICY,
      verify=testing.run_trusted,
      grade=testing.grade_equal,
      score=self.load(name),
    )
    config = SearchConfig(
      rollouts=5, candidates=3, annotation="ppm", terminal_reward="ppm"
    )
    problem = Problem("p", reward_cases.QUESTION)
    (tree,) = mcts.search([problem], config, calls)
    nodes = np.flatnonzero(~np.isnan(tree.ppm))
    self.assertGreater(len(nodes), 6)
    found = {tree.prefix(node): float(tree.ppm[node]) for node in nodes}
    for path, value in found.items():
      self.assertAlmostEqual(value, want[path], delta=2e-5)
    # A model of random weights tells steps apart, and so would a mistake.
    self.assertGreater(np.std(list(found.values())), 1e-4)

  def test_what_steps_share_is_computed_once(self):
    model = self.load("qwen")
    steps = ["<code>\nx = 1\n<end_of_step>", "<code>\nx = 2\n<end_of_step>"]
    model(["q" * 300], [()], [steps])
    self.assertLess(
      model.engine.prefilled_tokens, 0.7 * model.engine.prefix_tokens
    )

  def test_an_adapter_that_makes_a_classifier(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    adapter = GOLDEN / "llama_bias" / "adapter"
    for file in adapter.iterdir():
      (folder / file.name).write_bytes(file.read_bytes())
    file = folder / "adapter_config.json"
    said = json.loads(file.read_text())
    said |= {"base_model_name_or_path": str(adapter.parent)}
    file.write_text(json.dumps(said))
    with mock.patch.object(reward, "load_tokenizer"):
      found = reward.described(str(folder))
    self.assertIs(found.form, reward_forms.FORMS["outcome"])
    self.assertEqual(found.head, "logit")
    self.assertTrue(reward.is_of_others(str(folder)))

  def test_a_causal_model_needs_its_form(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    reward_cases.write(folder, "rlhflow")
    with self.assertRaisesRegex(ValueError, "say how it is asked, as in rlhf"):
      reward.load_reward(str(folder))
    self.assertTrue(reward.is_of_others(str(folder)))
    self.assertTrue(reward.is_of_others(f"rlhflow:{folder}"))


if __name__ == "__main__":
  absltest.main()
