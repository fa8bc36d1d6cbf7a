"""Tests of Hugging Face folders: exact both ways, and loud when they differ."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.io import hf
from rstar_jax.models.transformer import Transformer, ppm_from_policy
from rstar_jax.testing import tiny_model


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


class HfTest(parameterized.TestCase):
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

  @parameterized.parameters(True, False)
  def test_policy_comes_back_to_the_bit(self, tied):
    model = make(tied_embeddings=tied, rope_theta=1e6, rms_eps=1e-5)
    hf.save_policy(model, self.folder)
    loaded = hf.load_policy(self.folder)
    self.assert_same(model, loaded)
    self.assertEqual(loaded.config, model.config)
    self.assertEqual("lm_head.weight" in self.tensors(), not tied)

  @parameterized.parameters("tanh", "logit")
  def test_ppm_comes_back_to_the_bit(self, head):
    ppm = ppm_from_policy(make(), head, rngs=nnx.Rngs(1))
    hf.save_ppm(ppm, self.folder)
    loaded = hf.load_ppm(self.folder)
    self.assert_same(ppm, loaded)
    self.assertEqual(loaded.head, head)
    self.assertEqual(self.tensors()["score.weight"].shape, (1, 24))
    with self.assertRaisesRegex(ValueError, "score.weight"):
      hf.load_policy(self.folder)

  def test_bfloat16(self):
    model = make(dtype="bfloat16", param_dtype="bfloat16")
    hf.save_policy(model, self.folder)
    loaded = hf.load_policy(self.folder, jnp.bfloat16)
    self.assertEqual(loaded.config.dtype, "bfloat16")
    self.assert_same(model, loaded)
    wide = arrays(hf.load_policy(self.folder))["embedding",]
    self.assertEqual(wide.dtype, np.float32)

  def test_layout_on_disk(self):
    model = make()
    hf.save_policy(model, self.folder)
    tensors = self.tensors()
    prefix = "model.layers.1.self_attn."
    q = np.asarray(model.layers[1].attention.q.get_value())
    # Output row n * H + h of the file is head n, dimension h.
    self.assertEqual(tensors[prefix + "q_proj.weight"].shape, (24, 24))
    self.assertEqual(
      tensors[prefix + "q_proj.weight"][5 * 4 + 3, 7], q[7, 5, 3]
    )
    o = np.asarray(model.layers[1].attention.o.get_value())
    self.assertEqual(
      tensors[prefix + "o_proj.weight"][7, 5 * 4 + 3], o[5, 3, 7]
    )
    k = np.asarray(model.layers[1].attention.k_bias.get_value())
    self.assertEqual(tensors[prefix + "k_proj.bias"][1 * 4 + 2], k[1, 2])
    # 12 tensors a layer, embedding and norm: what Qwen2ForCausalLM has.
    self.assertLen(tensors, 2 * 12 + 2)

  def test_same_model_same_bytes(self):
    hf.save_policy(make(), self.folder)
    other = self.folder.parent / "other"
    hf.save_policy(hf.load_policy(self.folder), other)
    names = sorted(file.name for file in self.folder.iterdir())
    self.assertEqual(names, ["config.json", "model.safetensors"])
    for name in names:
      self.assertEqual(
        (self.folder / name).read_bytes(), (other / name).read_bytes()
      )

  def test_tensors_that_differ_raise(self):
    hf.save_policy(make(), self.folder)
    good = self.tensors()
    file = self.folder / "model.safetensors"
    name = "model.layers.0.mlp.up_proj.weight"
    safetensors.numpy.save_file(
      good | {"model.layers.2.mlp.up_proj.weight": good[name]}, file
    )
    with self.assertRaisesRegex(ValueError, "model.layers.2.mlp.up_proj"):
      hf.load_policy(self.folder)
    safetensors.numpy.save_file(
      {key: value for key, value in good.items() if key != name}, file
    )
    with self.assertRaisesRegex(ValueError, f"{name} is missing"):
      hf.load_policy(self.folder)
    turned = np.ascontiguousarray(good[name].T)
    safetensors.numpy.save_file(good | {name: turned}, file)
    with self.assertRaisesRegex(ValueError, "shape"):
      hf.load_policy(self.folder)
    safetensors.numpy.save_file(good, file)
    safetensors.numpy.save_file(
      {name: good[name]}, self.folder / "2.safetensors"
    )
    with self.assertRaisesRegex(ValueError, "another file"):
      hf.load_policy(self.folder)

  def test_split_files_are_read(self):
    model = make()
    hf.save_policy(model, self.folder)
    tensors = self.tensors()
    (self.folder / "model.safetensors").unlink()
    names = sorted(tensors)
    for part, chosen in enumerate((names[:7], names[7:])):
      safetensors.numpy.save_file(
        {name: tensors[name] for name in chosen},
        self.folder / f"model-{part + 1:05}-of-00002.safetensors",
      )
    self.assert_same(model, hf.load_policy(self.folder))

  @parameterized.parameters(
    ("model_type", "gpt2", "known are"),
    ("hidden_act", "gelu", "hidden_act"),
    ("use_sliding_window", True, "use_sliding_window"),
    ("rope_parameters", {"rope_type": "yarn"}, "rope_type"),
  )
  def test_config_that_is_not_ours_raises(self, field, value, message):
    hf.save_policy(make(), self.folder)
    file = self.folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with self.assertRaisesRegex(ValueError, message):
      hf.load_policy(self.folder)

  def test_config_of_transformers_4(self):
    hf.save_policy(make(rope_theta=1e6), self.folder)
    file = self.folder / "config.json"
    fields = json.loads(file.read_text())
    for name in ("rope_parameters", "head_dim"):
      del fields[name]
    file.write_text(json.dumps(fields | {"rope_scaling": None}))
    config, _ = hf.read_config(self.folder)
    self.assertEqual((config.rope_theta, config.head_dim), (1e6, 4))

  def test_wrong_heads_raise(self):
    policy = make()
    with self.assertRaisesRegex(ValueError, "no PPM"):
      hf.save_ppm(policy, self.folder)
    with self.assertRaisesRegex(ValueError, "no policy"):
      hf.save_policy(ppm_from_policy(policy, rngs=nnx.Rngs(0)), self.folder)
    with self.assertRaisesRegex(ValueError, "qkv_bias"):
      hf.save_policy(make(qkv_bias=False), self.folder)
    hf.save_policy(policy, self.folder)
    with self.assertRaisesRegex(ValueError, "rstar_head"):
      hf.load_ppm(self.folder)

  def test_transformers_reads_the_config(self):
    import transformers

    hf.save_policy(make(rope_theta=1e6), self.folder)
    config = transformers.AutoConfig.from_pretrained(self.folder)
    self.assertIsInstance(config, transformers.Qwen2Config)
    self.assertEqual(config.num_key_value_heads, 2)
    self.assertEqual(config.rope_parameters["rope_theta"], 1e6)
    self.assertEqual(str(config.dtype), "float32")


if __name__ == "__main__":
  absltest.main()
