"""Training on plain lists: what is learnt, what is saved, what is refused."""

import dataclasses
import functools
import json
import math
import pathlib
import shutil
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax import testing
from rstar_jax.config.schema import Config, PolicyConfig, TrainConfig
from rstar_jax.hf import folders, saving
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.inference.step_values import step_values
from rstar_jax.models.transformer import Transformer, arrays_of
from rstar_jax.rng import seed_for
from rstar_jax.steps import prompts
from rstar_jax.training import loop, own_data, sft
from rstar_jax.types import PreferencePair
from tests import tiny_run
from tests.models.jitted import call

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


class Items(list):
  """A list that tells its length as encoded pairs do."""

  @property
  def counts(self) -> np.ndarray:
    return np.array([len(self)])


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

  def test_a_training_goes_on_where_it_was_killed(self):
    config = dataclasses.replace(CONFIG, checkpoint_every=1)
    straight = own_data.train_ppm(pairs(), policy=self.base, config=config)
    kept = self.folder / "kept"
    count = loop._tokens

    def killed(batch, calls=[]):  # noqa: B006, a counter.
      calls.append(1)
      if len(calls) == 4:
        raise KeyboardInterrupt
      return count(batch)

    train = functools.partial(
      own_data.train_ppm,
      pairs(),
      policy=self.base,
      config=config,
      checkpoints=kept,
    )
    with mock.patch.object(loop, "_tokens", killed):
      with self.assertRaises(KeyboardInterrupt):
        train()
    resumed = train()
    jax.tree.map(
      np.testing.assert_array_equal, arrays_of(resumed), arrays_of(straight)
    )
    steps = [
      json.loads(line)["step"]
      for line in (kept / "metrics.jsonl").read_text().splitlines()
    ]
    self.assertEqual(steps, sorted(steps))

  def test_checkpoints_are_of_one_training(self):
    kept, options = self.folder / "kept", {"policy": self.base}
    begun = []

    def begin(model, training, config, session, **_):
      begun.append(training)
      (pathlib.Path(session.folder) / "3").mkdir(parents=True, exist_ok=True)

    def train(rows=None, **changes):
      own_data.train_ppm(
        rows or pairs(),
        **{"config": CONFIG, "checkpoints": kept} | options | changes,
      )

    library, name = own_data.ppm_lib, "train_sides"
    self.enter_context(mock.patch.object(library, name, begin))
    # What cannot be trained on binds nothing.
    with mock.patch.object(library, name, side_effect=OSError):
      with self.assertRaises(OSError):
        train(pairs()[:2])
    train()
    other = tiny_run.make_base(self.folder / "other")
    model = folders.load_policy(self.base)
    array = model.norm.scale
    array.set_value(array.get_value().at[1].multiply(1.01))
    saving.save_policy(model, other, tokenizer=load_tokenizer(self.base))
    for name, changes in (
      ("rows", dict(rows=pairs()[::-1])),
      ("rows", dict(rows=[*pairs()[:3], pairs()[3] | {"weight": 2.0}])),
      ("config", dict(config=dataclasses.replace(CONFIG, learning_rate=1e-3))),
      ("policy", dict(policy=other)),
      ("head", dict(head="logit")),
      ("seed", dict(seed=1)),
      ("dtype, seed", dict(dtype="bfloat16", seed=1)),
    ):
      with (
        self.subTest(name, **changes),
        self.assertRaisesRegex(
          ValueError,
          f"^{kept} has checkpoints .* with another {name}: give another",
        ),
      ):
        train(**changes)
    self.assertLen(begun, 1)
    # The same, said otherwise, is the same.
    copied = shutil.copytree(self.base, self.folder / "copied")
    train(
      [own_data._pair(row, 0) for row in pairs()],
      policy=copied,
      config=dataclasses.replace(CONFIG, checkpoint_every=1),
    )
    self.assertLen(begun, 2)
    # An earlier version bound nothing.
    (kept / own_data._GIVEN).write_text("[]")
    train(seed=1)
    (kept / own_data._GIVEN).unlink()
    train(seed=1)
    self.assertLen(begun, 4)

  def test_checkpoints_are_of_one_policy(self):
    kept, begun = self.folder / "kept", []
    rows = [{"question": "q?", "steps": ["<answer>\\boxed{4}<end_of_answer>"]}]

    def begin(model, training, config, session, **_):
      begun.append(training)
      (pathlib.Path(session.folder) / "3").mkdir(parents=True, exist_ok=True)

    train = functools.partial(
      own_data.train_policy, policy=self.base, config=CONFIG, checkpoints=kept
    )
    with mock.patch.object(sft, "train_packed", begin):
      train(rows)
      with self.assertRaisesRegex(ValueError, "with another rows, seed: give"):
        train([rows[0] | {"question": "p?"}], seed=1)
      train(rows)
    self.assertLen(begun, 2)

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
      logits = np.asarray(nnx.log_softmax(call(model, ids)[0, :-1]))
      return float(np.take_along_axis(logits, ids[0, 1:, None], 1).sum())

    folder = self.folder / "policy"
    own_data.train_policy(
      solutions, policy=self.base, folder=folder, config=CONFIG
    )
    self.assertGreater(
      likelihood(folders.load_policy(folder)),
      likelihood(folders.load_policy(self.base)) + 1,
    )

  def test_what_lora_trained_is_saved_beside_the_model(self):
    folder = self.folder / "lora"
    config = dataclasses.replace(CONFIG, epochs=1, lora_rank=2, lora_alpha=8.0)
    base = folders.load_policy(self.base)
    trained = own_data.train_policy(
      [{"question": "q?", "steps": ["<answer>\\boxed{4}<end_of_answer>"]}],
      policy=self.base,
      folder=folder,
      config=config,
    )
    adapted = folders.load_policy(folder / "adapter")
    moved = 0
    for path, array in arrays_of(adapted).items():
      saved = arrays_of(trained)[path]
      np.testing.assert_allclose(array, saved, atol=1e-6, err_msg=path)
      moved += bool(np.any(saved != arrays_of(base)[path]))
    # Seven matrices a layer.
    self.assertEqual(moved, 7 * base.config.num_layers)
    self.assertTrue(
      load_tokenizer(folder / "adapter").has_ids_of(load_tokenizer(self.base))
    )

  def test_what_cannot_be_saved_is_told_before_it_is_trained(self):
    rows = [{"question": "q?", "steps": ["<answer>\\boxed{4}<end_of_answer>"]}]
    # A Llama has no heads whose number does not divide the width.
    odd = self.folder / "odd"
    sizes = {"num_heads": 5, "num_kv_heads": 5, "num_layers": 1}
    config = testing.tiny_model(vocab_size=768, **sizes)
    saving.save_policy(Transformer(config, rngs=nnx.Rngs(0)), odd)
    load_tokenizer(self.base).save(odd)
    rank_2 = dataclasses.replace(CONFIG, epochs=1, lora_rank=2)
    folder = self.folder / "lora"
    own_data.train_policy(rows, policy=self.base, folder=folder, config=rank_2)
    saved = self.folder / "saved"
    train_all = (
      functools.partial(own_data.train_policy, rows),
      functools.partial(own_data.train_ppm, pairs()),
    )
    with (
      mock.patch.object(sft, "train_packed") as policies,
      mock.patch.object(own_data.ppm_lib, "train_sides") as ppm,
      mock.patch.object(saving, "_save"),
    ):
      for train in train_all:
        with self.assertRaisesRegex(ValueError, f"^{odd} loads, but once"):
          train(policy=odd, folder=saved, config=CONFIG)
        with self.assertRaisesRegex(ValueError, "adapter is an adapter, and"):
          train(policy=folder / "adapter", folder=saved, config=rank_2)
        policies.assert_not_called()
        ppm.assert_not_called()
        # What is not saved, or is saved whole, may be trained.
        train(policy=odd, config=CONFIG)
        train(policy=folder / "adapter", folder=saved, config=CONFIG)
        policies.reset_mock()
        ppm.reset_mock()

  @parameterized.parameters("folder", "checkpoints")
  def test_a_bucket_that_is_none_is_told_before_a_model_is_loaded(self, name):
    with mock.patch.object(
      own_data.store, "check", side_effect=ValueError("no bucket")
    ) as check:
      with self.assertRaisesRegex(ValueError, "no bucket"):
        own_data.train_ppm(
          pairs(), policy="no/such/model", **{name: "gs://none/here"}
        )
    self.assertEqual(str(check.call_args.args[0]), "gs://none/here")

  @parameterized.parameters(
    (dict(batch_size=0), "config.batch_size=0 must be above 0"),
    (dict(epochs=0), "config.epochs=0 must be above 0"),
    (dict(learning_rate=math.nan), "config.learning_rate=nan must be finite"),
    (dict(batch_size=6, accumulate=4), "accumulate=4 must divide config.batch"),
    (dict(lora_rank=2, lora_matrices=()), "config.lora_matrices is empty"),
    (dict(held_out=1), "config.held_out=1 would leave no problem"),
    (dict(eval_every=3), "config.eval_every=3 would measure nothing"),
  )
  def test_a_bad_config_is_told_before_a_model_is_loaded(self, changes, said):
    config = dataclasses.replace(CONFIG, **changes)
    rows = [{"question": "q?", "steps": ["a"]}]
    for train, given in (
      (own_data.train_policy, rows),
      (own_data.train_ppm, pairs()),
    ):
      with self.assertRaisesRegex(ValueError, said):
        train(given, policy="no/such/model", config=config)

  @parameterized.parameters(
    ([], "no pairs"),
    ([{"question": "q?", "chosen": ["a"]}], "row 0: 'rejected'"),
    ([*pairs(), {"question": 1}], "row 4: 'question'"),
    ([{"question": "q?", "chosen": "ab", "rejected": ["a"]}], "'chosen'"),
    ([{"question": "q?", "chosen": [], "rejected": ["a"]}], "'chosen'"),
    ([{"question": "q?", "chosen": ["a", ""], "rejected": ["a"]}], "'chosen'"),
    ([{"question": "q?", "chosen": ["a", 1], "rejected": ["a"]}], "'chosen'"),
    *(
      (
        [*pairs(), pairs()[0] | {"weight": weight}],
        "row 4: 'weight' .*" + shown,
      )
      for weight, shown in (
        (math.nan, "nan"),
        (math.inf, "inf"),
        (0, "0"),
        (-1, "-1"),
        (None, "None"),
        ("two", "'two'"),
        # float32 would make them infinite, and 0.
        (1e39, "1e[+]39"),
        (10**400, "1000"),
        (1e-50, "1e-50"),
      )
    ),
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

  def test_what_a_training_is_given(self):
    """The seed is 0 unless given, and seeds the order and the head."""
    loaded = object(), object()
    solutions = [{"question": "q?", "steps": ["a", "b"]}]
    for given, seed in (({}, 0), ({"seed": 7}, 7)):
      with (
        mock.patch.object(own_data, "_load", return_value=loaded) as load,
        mock.patch.object(
          sft, "pack", side_effect=lambda rows, *_: rows
        ) as pack,
        mock.patch.object(
          own_data.sides, "encode_pairs", side_effect=lambda _, x, __: Items(x)
        ) as encode,
        mock.patch.object(sft, "train_packed") as policies,
        mock.patch.object(own_data.ppm_lib, "train_sides") as ppm,
        mock.patch.object(own_data, "ppm_from_policy") as with_head,
      ):
        policy = own_data.train_policy(solutions, policy="x", **given)
        trained = own_data.train_ppm(pairs(), dtype="bfloat16", **given)
      self.assertEqual(
        load.call_args_list,
        [
          mock.call("x", Config().sft, "float32"),
          mock.call(folders.BASE_MODEL, Config().ppm, "bfloat16"),
        ],
      )
      self.assertIs(policy, loaded[0])
      # The paper's numbers, but for the batch.
      one = dataclasses.replace(Config().sft, batch_size=1)
      four = dataclasses.replace(Config().ppm, batch_size=4)
      rows = [("q?", ("a", "b"))]
      policies.assert_called_once_with(
        *(loaded[0], rows, one), loop.Session("sft", seed), held_out=[]
      )
      self.assertEqual(
        pack.call_args_list,
        [mock.call(each, loaded[1], one.length) for each in (rows, [])],
      )
      ((base, head), options) = with_head.call_args
      self.assertIs(base, loaded[0])
      self.assertEqual(head, "tanh")
      self.assertEqual(
        options["rngs"].params(), nnx.Rngs(seed_for(seed, "ppm head")).params()
      )
      self.assertIs(trained, with_head.return_value)
      rows = [own_data._pair(row, 0) for row in pairs()]
      ppm.assert_called_once_with(
        *(trained, Items(rows), four),
        loop.Session("ppm", seed),
        held_out=Items(),
      )
      self.assertEqual(
        encode.call_args_list,
        [mock.call(loaded[1], each, four.length) for each in (rows, [])],
      )
      self.assertEqual(ppm.call_args.args[1][0].weight, 1.0)

  def test_the_model_to_train(self):
    config = TrainConfig(remat="layer", attention_block=64)
    model, tokenizer = own_data._load(self.base, config, "bfloat16")
    self.assertEqual(model.config.remat, "layer")
    self.assertEqual(model.config.attention_block, 64)
    self.assertEqual(model.config.dtype, "bfloat16")
    params = nnx.split(model)[1]
    self.assertEqual(
      {str(x.dtype) for x in jax.tree.leaves(params)}, {"float32"}
    )
    frozen, _ = own_data._load(
      self.base, dataclasses.replace(config, lora_rank=2), "bfloat16"
    )
    self.assertEqual(
      {str(x.dtype) for x in jax.tree.leaves(nnx.split(frozen)[1])},
      {"bfloat16"},
    )
    rows = model.config.vocab_size
    self.assertEqual(rows % PolicyConfig().vocab_multiple, 0)
    self.assertGreaterEqual(rows, tokenizer.vocab_size)

  @parameterized.parameters(
    *((7, 7, 7), (64, 64, 64), (65, 66, 33), (100, 100, 50), (511, 512, 64)),
    *((512, 512, 64), (513, 512, 64)),
  )
  def test_a_batch_is_no_larger_than_the_data(self, count, rows, parts):
    """Micro-batches are no larger than the config's, of 8 rows."""
    config = TrainConfig(batch_size=512, accumulate=64)
    fitted = own_data._fitted(config, count)
    self.assertEqual((fitted.batch_size, fitted.accumulate), (rows, parts))
    self.assertEqual(
      dataclasses.replace(fitted, batch_size=512, accumulate=64), config
    )

  def test_a_batch_has_packed_rows_and_not_solutions(self):
    solutions = [
      {"question": f"q{n}?", "steps": ["<answer>\\boxed{4}<end_of_answer>"]}
      for n in range(20)
    ]
    config = dataclasses.replace(CONFIG, batch_size=128, accumulate=2)
    with mock.patch.object(loop, "fit_model") as fit:
      own_data.train_policy(solutions, policy=self.base, config=config)
    (_, _, batch_at, updates, fitted, _), _ = fit.call_args
    rows = len(batch_at(0)["tokens"])
    self.assertLess(rows, 20)
    self.assertEqual(rows, fitted.batch_size)
    # Two micro-batches; all rows but a last one have tokens.
    self.assertEqual((fitted.accumulate, rows % 2), (2, 0))
    there = (batch_at(0)["ends"] > 0).any(axis=1).sum()
    self.assertBetween(there, rows - 1, rows)
    self.assertEqual(updates, config.epochs)


if __name__ == "__main__":
  absltest.main()
