"""Tests of Hugging Face folders: exact both ways, and loud when they differ."""

import contextlib
import json
import pathlib
import tracemalloc
from unittest import mock

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.hf import folders, saving, tensors
from rstar_jax.models.transformer import Transformer, ppm_from_policy
from rstar_jax.testing import tiny_model
from tests.models.jitted import call
from tests.parity import compare

BASE_MODEL = pathlib.Path(folders.__file__).parents[1] / "base_model"
GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def make(**overrides):
  model = Transformer(tiny_model(**overrides), rngs=nnx.Rngs(3))
  # Zero biases and unit scales would hide a swap of two.
  graphdef, params = nnx.split(model)
  rng = np.random.default_rng(0)
  for _, variable in nnx.to_flat_state(params):
    shape = variable.get_value().shape
    variable.set_value(jnp.asarray(rng.normal(size=shape), model.config.dtype))
  return nnx.merge(graphdef, params)


def arrays(model):
  return {
    path: np.asarray(variable.get_value())
    for path, variable in nnx.to_flat_state(nnx.split(model)[1])
  }


@contextlib.contextmanager
def traced():
  """Gives a function that returns the most bytes held since the start."""
  tracemalloc.start()
  try:
    yield lambda: tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()


class FolderCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path) / "model"

  def tensors(self):
    return safetensors.numpy.load_file(self.folder / "model.safetensors")

  def assert_same(self, first, second):
    first, second = arrays(first), arrays(second)
    self.assertEqual(first.keys(), second.keys())
    for path in first:
      np.testing.assert_array_equal(first[path], second[path], str(path))


class FoldersTest(FolderCase):
  @parameterized.parameters(True, False)
  def test_policy_comes_back_to_the_bit(self, tied):
    model = make(tied_embeddings=tied, rope_theta=1e6, rms_eps=1e-5)
    saving.save_policy(model, self.folder)
    loaded = folders.load_policy(self.folder)
    self.assert_same(model, loaded)
    self.assertEqual(loaded.config, model.config)
    self.assertEqual("lm_head.weight" in self.tensors(), not tied)

  @parameterized.parameters("tanh", "logit")
  def test_ppm_comes_back_to_the_bit(self, head):
    ppm = ppm_from_policy(make(), head, rngs=nnx.Rngs(1))
    saving.save_ppm(ppm, self.folder)
    loaded = folders.load_ppm(self.folder)
    self.assert_same(ppm, loaded)
    self.assertEqual(loaded.head, head)
    self.assertEqual(self.tensors()["score.weight"].shape, (1, 24))
    with self.assertRaisesRegex(ValueError, "is of a PPM"):
      folders.load_policy(self.folder)

  def test_bfloat16(self):
    model = make(dtype="bfloat16", param_dtype="bfloat16")
    saving.save_policy(model, self.folder)
    loaded = folders.load_policy(self.folder, jnp.bfloat16)
    self.assertEqual(loaded.config.dtype, "bfloat16")
    self.assert_same(model, loaded)
    wide = arrays(folders.load_policy(self.folder))["embedding",]
    self.assertEqual(wide.dtype, np.float32)

  def test_tensors_that_differ_raise(self):
    saving.save_policy(make(), self.folder)
    good = self.tensors()
    file = self.folder / "model.safetensors"
    name = "model.layers.0.mlp.up_proj.weight"
    safetensors.numpy.save_file(
      good | {"model.layers.2.mlp.up_proj.weight": good[name]}, file
    )
    with self.assertRaisesRegex(ValueError, "model.layers.2.mlp.up_proj"):
      folders.load_policy(self.folder)
    safetensors.numpy.save_file(
      {key: value for key, value in good.items() if key != name}, file
    )
    with self.assertRaisesRegex(ValueError, f"missing: {name}$"):
      folders.load_policy(self.folder)
    turned = np.ascontiguousarray(good[name].T)
    safetensors.numpy.save_file(good | {name: turned}, file)
    with self.assertRaisesRegex(ValueError, "shape"):
      folders.load_policy(self.folder)

  def test_a_check_reads_no_values(self):
    saving.save_policy(make(), self.folder)
    file = self.folder / "model.safetensors"
    values = self.tensors()
    name = "model.layers.0.mlp.up_proj.weight"
    with mock.patch.object(tensors.SafetensorsFolder, "read") as read:
      folders.check_policy(self.folder)
      for changed, reason in (
        (values[name].astype(np.int8), "the tensor model.*of the type I8"),
        (values[name].T.copy(), "shape"),
      ):
        safetensors.numpy.save_file(values | {name: changed}, file)
        with self.assertRaisesRegex(ValueError, reason):
          folders.check_policy(self.folder)
      file.write_bytes(file.read_bytes()[:-5])
      with self.assertRaisesRegex(ValueError, "cannot be read .*copy it again"):
        folders.check_policy(self.folder)
      (self.folder / "config.json").write_text('{"a": 1,\n"b": x}')
      with self.assertRaisesRegex(
        ValueError, "config.json is not .* in line 2"
      ):
        folders.check_policy(self.folder)
    read.assert_not_called()

  def test_a_check_of_a_ppm_reads_no_values(self):
    saving.save_ppm(ppm_from_policy(make(), rngs=nnx.Rngs(0)), self.folder)
    file = self.folder / "model.safetensors"
    values = self.tensors()
    with mock.patch.object(tensors.SafetensorsFolder, "read") as read:
      folders.check_ppm(self.folder)
      del values["model.layers.0.mlp.up_proj.weight"]
      safetensors.numpy.save_file(values, file)
      with self.assertRaisesRegex(ValueError, "missing: .*up_proj"):
        folders.check_ppm(self.folder)
    read.assert_not_called()

  def test_memory_is_the_model_and_a_few_tensors(self):
    model = make(num_layers=8, embed_dim=128, mlp_dim=1024)
    largest = 128 * 1024 * 4
    total = sum(array.nbytes for array in arrays(model).values())
    self.assertGreater(total, 20 * largest)
    # The first time, libraries keep things of their own.
    saving.save_policy(model, self.folder)
    folders.load_policy(self.folder)
    with traced() as peak:
      saving.save_policy(model, self.folder)
      self.assertLess(peak(), 4 * largest)
    with traced() as peak:
      # On a CPU, what is read into is the model.
      folders.load_policy(self.folder)
      self.assertLess(peak(), total + 4 * largest)

  def test_tied_matrix_may_be_there_twice(self):
    saving.save_policy(make(), self.folder)
    tensors = self.tensors()
    twice = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    file = self.folder / "model.safetensors"
    safetensors.numpy.save_file(twice, file)
    folders.load_policy(self.folder)
    twice["lm_head.weight"] = twice["lm_head.weight"] + 1
    safetensors.numpy.save_file(twice, file)
    with self.assertRaisesRegex(ValueError, "tie_word_embeddings"):
      folders.load_policy(self.folder)

  def test_dtypes(self):
    model = make(dtype="bfloat16", param_dtype="bfloat16")
    saving.save_policy(model, self.folder)
    own = folders.load_policy(self.folder, None)
    self.assertEqual(own.config.param_dtype, "bfloat16")
    mixed = folders.load_policy(
      self.folder, jnp.float32, compute_dtype=jnp.bfloat16
    )
    self.assertEqual(mixed.config.param_dtype, "float32")
    self.assertEqual(mixed.config.dtype, "bfloat16")
    self.assertEqual(mixed.embedding.get_value().dtype, jnp.float32)

  @parameterized.parameters("dtype", "torch_dtype")
  def test_dtypes_of_a_file(self, name):
    saving.save_policy(make(), self.folder)
    file = self.folder / "config.json"
    fields = json.loads(file.read_text())
    del fields["torch_dtype"]
    for said, expected in (
      (None, "float32"),
      ("float16", "float16"),
      ("bfloat16", "bfloat16"),
    ):
      file.write_text(json.dumps(fields | {name: said}))
      own = folders.load_policy(self.folder, None)
      self.assertEqual(own.config.param_dtype, expected)
    for said in ("auto", "torch.bfloat16", "int8", 16, ["float32"]):
      file.write_text(json.dumps(fields | {name: said}))
      with self.assertRaisesRegex(
        ValueError, f"^{file}: {name}=.* must be one of float32, bfloat16, fl"
      ):
        folders.load_policy(self.folder, None)
      folders.load_policy(self.folder)

  def test_reward_model_of_others(self):
    score = np.random.default_rng(0).normal(size=24).astype(np.float32)
    compare.write_classifier(GOLDEN / "llama_bias", score, self.folder)
    model = folders.load_reward_model(self.folder)
    policy = folders.load_policy(GOLDEN / "llama_bias")
    ids = np.arange(3, 17, dtype=np.int32)[None]
    want = np.tanh(np.asarray(call(policy, ids, name="hidden")) @ score / 5)
    np.testing.assert_allclose(call(model, ids), want, atol=1e-6)
    with self.assertRaisesRegex(ValueError, "is a causal model"):
      folders.load_reward_model(GOLDEN / "llama_bias")
    file = self.folder / "config.json"
    fields = json.loads(file.read_text()) | {"id2label": {"0": "a", "1": "b"}}
    file.write_text(json.dumps(fields))
    with self.assertRaisesRegex(ValueError, "a bad and a good class"):
      folders.load_reward_model(self.folder)
    with self.assertRaisesRegex(ValueError, "head='odds' is not a PPM"):
      saving.save_ppm(
        folders.load_reward_model(GOLDEN / "llama_bias", answers=(3, 5)),
        self.folder,
      )

  def test_what_is_no_model(self):
    self.folder.mkdir()
    (self.folder / "text").write_text("hello")
    with self.assertRaisesRegex(ValueError, "neither a folder nor a GGUF file"):
      folders.load_policy(self.folder / "text")

  def test_names_that_lead_nowhere(self):
    empty = pathlib.Path(self.create_tempdir().full_path)
    with self.assertRaisesRegex(FileNotFoundError, "neither a config.json"):
      folders.load_policy(empty)
    (empty / "config.json").write_text("{}")
    with self.assertRaisesRegex(FileNotFoundError, "no .safetensors"):
      folders.load_policy(empty)
    with self.assertRaisesRegex(ValueError, "there is no folder a/b/c"):
      folders.load_policy("a/b/c")


if __name__ == "__main__":
  absltest.main()
