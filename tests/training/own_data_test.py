"""Training on plain lists: what is learnt, what is saved, what is refused."""

import pathlib

import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.config.schema import TrainConfig
from rstar_jax.hf import folders
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.inference.step_values import step_values
from rstar_jax.steps import prompts
from rstar_jax.training import own_data
from rstar_jax.types import PreferencePair
from tests import tiny_run

CONFIG = TrainConfig(
  epochs=8,
  batch_size=4,
  learning_rate=5e-3,
  schedule="constant",
  length=256,
)


def step(value: int) -> str:
  return f"<code>\nx = {value}\n<end_of_step>"


def pairs() -> list[dict]:
  """Even numbers are better than odd ones."""
  return [
    {"question": f"q{n}?", "chosen": [step(n)], "rejected": [step(n + 1)]}
    for n in (0, 2, 4, 6)
  ]


class OwnDataTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.base = tiny_run.make_base(self.folder / "base")

  def test_a_ppm_learns_the_order_of_the_pairs_and_is_saved(self):
    folder = self.folder / "ppm"
    trained = own_data.train_ppm(
      pairs(), policy=self.base, folder=folder, config=CONFIG
    )
    loaded, tokenizer = folders.load_ppm(folder), load_tokenizer(folder)
    for n in (0, 2, 4, 6):
      good, bad = (
        step_values(loaded, tokenizer, f"q{n}?", [step(value)])
        for value in (n, n + 1)
      )
      self.assertGreater(good, bad)
      np.testing.assert_allclose(
        good, step_values(trained, tokenizer, f"q{n}?", [step(n)]), rtol=1e-4
      )
    # The model that it began as is left as it was.
    self.assertEqual(folders.load_policy(self.base).head, "lm")

  def test_a_policy_learns_its_solutions(self):
    solutions = [
      {
        "question": "q?",
        "steps": [
          "<code>\nprint(4)\n<end_of_code>\n<output>4<end_of_output>\n",
          "<answer>\\boxed{4}<end_of_answer>",
        ],
      }
    ]
    tokenizer = load_tokenizer(self.base)
    text = prompts.prompt("q?") + "".join(solutions[0]["steps"])
    ids = np.array([tokenizer.encode(text)])

    def likelihood(model) -> float:
      logits = np.asarray(nnx.log_softmax(model(ids)[0, :-1]))
      return float(np.take_along_axis(logits, ids[0, 1:, None], 1).sum())

    folder = self.folder / "policy"
    own_data.train_policy(
      solutions, policy=self.base, folder=folder, config=CONFIG
    )
    self.assertGreater(
      likelihood(folders.load_policy(folder)),
      likelihood(folders.load_policy(self.base)) + 1,
    )

  @parameterized.parameters(
    ([], "no pairs"),
    ([{"question": "q?", "chosen": ["a"]}], "row 0: 'rejected'"),
    ([*pairs(), {"question": 1}], "row 4: 'question'"),
    ([{"question": "q?", "chosen": "ab", "rejected": ["a"]}], "'chosen'"),
    ([{"question": "q?", "chosen": [], "rejected": ["a"]}], "'chosen'"),
  )
  def test_bad_rows_are_named_before_a_model_is_loaded(self, rows, message):
    with self.assertRaisesRegex(ValueError, message):
      own_data.train_ppm(rows, policy="no/such/model")

  def test_rows_become_pairs_and_pairs_stay(self):
    made = own_data._pair(pairs()[1] | {"weight": 0.5}, 1)
    self.assertEqual(
      made,
      PreferencePair("q2?", "q2?", (step(2),), (step(3),), 0.5, "step"),
    )
    self.assertIs(own_data._pair(made, 0), made)
    longer = own_data._pair(pairs()[1] | {"chosen": [step(1), step(2)]}, 1)
    self.assertEqual(longer.kind, "final")

  def test_a_batch_is_no_larger_than_the_data(self):
    config = TrainConfig(batch_size=512, accumulate=64)
    fitted = own_data._fitted(config, 7, "pairs")
    self.assertEqual((fitted.batch_size, fitted.accumulate), (7, 1))
    self.assertIs(own_data._fitted(config, 512, "pairs"), config)


if __name__ == "__main__":
  absltest.main()
