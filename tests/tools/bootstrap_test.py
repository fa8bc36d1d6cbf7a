"""The program that makes the base model, in tiny, and the one that ships."""

import dataclasses
import functools
import math
import pathlib
import re
from unittest import mock

import numpy as np
from absl import flags
from absl.testing import absltest
from flax import nnx

import rstar_jax
from rstar_jax.data import batches
from rstar_jax.data.synthetic import generator
from rstar_jax.hf import folders
from rstar_jax.models.transformer import Transformer
from rstar_jax.steps import grammar
from rstar_jax.steps.tokenizer import HfTokenizer
from rstar_jax.tools import bootstrap
from rstar_jax.training import sft

FOLDER = pathlib.Path(rstar_jax.__file__).parent / "base_model"
ROWS, LENGTH = 3, 320


@functools.cache
def tokenizer() -> HfTokenizer:
  return HfTokenizer(FOLDER)


def worked_batches(seed=0):
  return bootstrap.worked_batches(tokenizer(), ROWS, LENGTH, seed)


def right_batch(seed: int) -> batches.Batch:
  """Returns a batch of easy problems whose solutions contain no errors."""
  drawn = (generator.generate("train", i, seed) for i in range(20))
  rows = [
    batches.encode_row(tokenizer(), worked.problem.question, worked.steps)
    for worked in drawn
    if worked.problem.level <= 4
  ]
  packed = batches.pack([[row] for row in rows], LENGTH).arrays
  return {name: array[:ROWS] for name, array in packed.items()}


class WorkedBatchesTest(absltest.TestCase):
  def test_a_batch_is_a_function_of_its_number(self):
    batch_at = worked_batches()
    order = [batch_at(k) for k in (2, 0, 1)]
    again = [worked_batches()(k) for k in (0, 1, 2)]
    for name in order[0]:
      np.testing.assert_array_equal(order[1][name], again[0][name])
      np.testing.assert_array_equal(order[2][name], again[1][name])
      np.testing.assert_array_equal(order[0][name], again[2][name])
    self.assertFalse((again[0]["tokens"] == again[1]["tokens"]).all())
    other = worked_batches(seed=1)(0)
    self.assertFalse((again[0]["tokens"] == other["tokens"]).all())

  def test_shapes(self):
    for k in range(5):
      batch = worked_batches()(k)
      self.assertSetEqual(
        set(batch),
        {"tokens", "positions", "parents", "ends", "weights"},
      )
      for name, array in batch.items():
        self.assertEqual(array.shape, (ROWS, LENGTH))
        kind = np.float32 if name == "weights" else np.int32
        self.assertEqual(array.dtype, kind)
      # Padding is a waste of time.
      self.assertGreater((batch["ends"] > 0).mean(), 0.6)

  def test_the_mask_covers_what_the_policy_writes(self):
    # The same problems from the generator, their output cut by hand.
    numbers = {
      re.sub("\n<output>.*<end_of_output>\n", "", "".join(worked.steps)): i
      for i, worked in (
        (i, generator.generate("worked", i)) for i in range(100)
      )
    }
    batch_at, seen = worked_batches(), []
    for k in range(5):
      texts = self.policy_texts(batch_at(k))
      self.assertContainsSubset(texts, numbers)
      seen.append(sorted(numbers[text] for text in texts))
    # Each problem once, in order, and few of them left out.
    flat = sum(seen, [])
    self.assertEqual(flat, sorted(set(flat)))
    self.assertGreater(len(flat), 0.8 * (flat[-1] + 1))

  def policy_texts(self, batch) -> list[str]:
    """Checks a batch's rows; returns the text of their weighted tokens."""
    found = []
    for row in range(ROWS):
      for end in set(batch["ends"][row].tolist()) - {0}:
        where = np.flatnonzero(batch["ends"][row] == end)
        tokens, parents, weights, positions = (
          batch[name][row, where]
          for name in ("tokens", "parents", "weights", "positions")
        )
        self.assertEqual(where[-1], end - 1)
        np.testing.assert_array_equal(parents[1:], where[:-1])
        np.testing.assert_array_equal(positions, np.arange(len(where)))
        self.assertContainsSubset(weights, (0, 1))
        self.assertEqual(tokens[weights == 1][-1], tokenizer().eos_id)
        found.append(tokenizer().decode(tokens[weights == 1].tolist()))
    self.assertEqual(batch["weights"][batch["ends"] == 0].sum(), 0)
    return found


class BaseModelTest(absltest.TestCase):
  """The folder that ships with the package."""

  def test_config_is_the_programs(self):
    self.assertEqual(folders.load_policy(FOLDER).config, bootstrap.MODEL)
    self.assertEqual(tokenizer().vocab_size, bootstrap.MODEL.vocab_size)

  def test_has_learnt_to_solve_easy_problems(self):
    # Problems of a seed that it has not seen, and solutions without errors.
    loss = nnx.jit(sft.sft_loss)
    model = folders.load_policy(FOLDER)
    fresh = Transformer(bootstrap.MODEL, rngs=nnx.Rngs(0))
    for name, batch in (
      ("worked", worked_batches(seed=10**6)(0)),
      ("right", right_batch(seed=10**6)),
    ):
      with self.subTest(name):
        total, sums = loss(model, batch)
        self.assertLess(total / sums["count"], 0.2)
        self.assertGreater(sums["token_accuracy"] / sums["count"], 0.93)
        total, sums = loss(fresh, batch)
        self.assertGreater(total / sums["count"], 0.8 * math.log(768))


class FlagsTest(absltest.TestCase):
  def test_an_import_defines_none(self):
    # `main.py` has a --workdir too, and whoever reads docstrings imports both.
    self.assertNotIn("workdir", flags.FLAGS)


class TrainTest(absltest.TestCase):
  def run_tiny(
    self, folder: pathlib.Path, num_steps: int, **options
  ) -> Transformer:
    model = dataclasses.replace(
      bootstrap.MODEL,
      vocab_size=600,
      num_layers=1,
      embed_dim=16,
      num_heads=2,
      num_kv_heads=1,
      head_dim=8,
      mlp_dim=24,
    )
    config = dataclasses.replace(
      bootstrap.TRAIN,
      batch_size=2,
      optimizer="adamw",  # Quicker to compile.
      checkpoint_every=1,
      log_every=1,
    )
    with (
      mock.patch.object(bootstrap, "MODEL", model),
      mock.patch.object(
        bootstrap,
        "PHASES",
        (("worked", num_steps, config),),
      ),
      mock.patch.object(
        bootstrap,
        "LONG_PHASES",
        (("long_worked", 1, dataclasses.replace(config, length=900)),),
      ),
      mock.patch.object(bootstrap, "_TOKENIZER_PROBLEMS", 60),
    ):
      return bootstrap.train(
        folder / "workdir", folder / "model", **{"seed": 3} | options
      )

  def test_writes_a_folder_that_loads(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    trained = self.run_tiny(folder, 2)
    names = {each.name for each in (folder / "model").iterdir()}
    self.assertSetEqual(names, {each.name for each in FOLDER.iterdir()})
    loaded = folders.load_policy(folder / "model")
    self.assertEqual(loaded.config.num_layers, 1)
    for (path, one), (_, two) in zip(
      nnx.to_flat_state(nnx.state(trained, nnx.Param)),
      nnx.to_flat_state(nnx.state(loaded, nnx.Param)),
      strict=True,
    ):
      np.testing.assert_array_equal(one.get_value(), two.get_value(), str(path))
    made = HfTokenizer(folder / "model")
    self.assertEqual(made.vocab_size, 600)
    self.assertEqual(
      made.encode(grammar.END_OF_STEP), [made.id_of(grammar.END_OF_STEP)]
    )
    lines = (folder / "workdir" / "metrics.jsonl").read_text().splitlines()
    self.assertGreaterEqual(sum('"bootstrap' in line for line in lines), 2)
    # Again, from its checkpoint: the same bytes.
    before = (folder / "model" / "model.safetensors").read_bytes()
    self.run_tiny(folder, 2)
    after = (folder / "model" / "model.safetensors").read_bytes()
    self.assertEqual(before, after)
    # Checkpoints of another seed are not resumed, and nothing is written.
    files = {each: each.read_bytes() for each in (folder / "model").iterdir()}
    split = folder / "workdir" / "worked"
    with self.assertRaisesRegex(
      ValueError, f"^{split} has checkpoints .* with another policy, seed: give"
    ):
      self.run_tiny(folder, 2, seed=4)
    for file, data in files.items():
      self.assertEqual(file.read_bytes(), data)
    self.goes_on(folder)

  def goes_on(self, folder: pathlib.Path):
    """Trains the model further, on long problems."""
    on = pathlib.Path(self.create_tempdir().full_path)
    self.run_tiny(on, 0, base=str(folder / "model"))
    with self.assertRaisesRegex(ValueError, "another policy: give another"):
      self.run_tiny(on, 0, base=str(on / "model"))
    first, second = (
      nnx.to_flat_state(
        nnx.state(folders.load_policy(each / "model"), nnx.Param)
      )
      for each in (folder, on)
    )
    moved = [
      np.abs(one.get_value() - two.get_value()).max()
      for (_, one), (_, two) in zip(first, second, strict=True)
    ]
    # One update of AdamW moves a parameter by the learning rate, or not at all.
    self.assertBetween(max(moved), 1e-4, 2 * bootstrap.TRAIN.learning_rate)
    lines = (on / "workdir" / "metrics.jsonl").read_text()
    self.assertIn("bootstrap_long_worked", lines)
    self.assertNotIn("bootstrap_worked", lines)
    self.assertEqual(
      (on / "model" / "tokenizer.json").read_bytes(),
      (folder / "model" / "tokenizer.json").read_bytes(),
    )


if __name__ == "__main__":
  absltest.main()
