"""Sizes and shapes, against those of the engines and of real models."""

import dataclasses
import json
import pathlib

import jax
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.config.schema import MeshConfig, TrainConfig
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.scoring import ScoringEngine
from rstar_jax.models import int8, meshes, sharding
from rstar_jax.models.paged_attention import PagedAttention
from rstar_jax.models.step import stacked
from rstar_jax.models.transformer import Transformer
from rstar_jax.tools.aot import programs
from tests.tools.aot import small

jax.config.update("jax_num_cpu_devices", 4)


def _mesh(data, tensor):
  config = MeshConfig(data=data, tensor=tensor)
  return meshes.make(config, jax.devices()[: data * tensor])


def _tiny():
  return dataclasses.replace(
    small.MODEL, embed_dim=16, head_dim=4, mlp_dim=32, vocab_size=64
  )


class ModelTest(absltest.TestCase):
  def test_published(self):
    found = programs.model_config("Qwen/Qwen2.5-Math-1.5B", "bfloat16")
    self.assertEqual(found.num_layers, 28)
    self.assertEqual((found.dtype, found.param_dtype), ("bfloat16",) * 2)

  def test_folder(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    fields = {
      "model_type": "qwen2",
      "vocab_size": 512,
      "hidden_size": 64,
      "intermediate_size": 96,
      "num_hidden_layers": 3,
      "num_attention_heads": 4,
      "num_key_value_heads": 2,
      "max_position_embeddings": 128,
    }
    (folder / "config.json").write_text(json.dumps(fields))
    found = programs.model_config(str(folder), "float32")
    self.assertEqual((found.num_layers, found.head_dim), (3, 16))
    (folder / "config.json").write_text('{"model_type": "qwen2"')
    with self.assertRaisesRegex(ValueError, "config.json .*: copy it again"):
      programs.model_config(str(folder), "float32")

  def test_neither(self):
    with self.assertRaisesRegex(ValueError, "'nobody/nothing' is no folder"):
      programs.model_config("nobody/nothing", "float32")


class SizesTest(parameterized.TestCase):
  @parameterized.parameters((256, 64, 64), (150, 40, 64), (256, 64, 2))
  def test_as_the_engines(self, rows, prefill_tokens, pages):
    config, mesh = small.config(), _mesh(2, 2)
    config.engine.rows, config.engine.prefill_tokens = rows, prefill_tokens
    config.engine.max_block_tokens, config.engine.pages = 80, pages
    policy, scores = programs.sizes_of(config, 2)
    engine = Engine(
      Transformer(_tiny(), rngs=nnx.Rngs(0)), config.engine, mesh=mesh
    )
    ppm = ScoringEngine(
      Transformer(_tiny(), head="tanh", rngs=nnx.Rngs(0)),
      config.engine,
      mesh=mesh,
    )
    self.assertEqual(
      (
        policy.few,
        policy.rows,
        policy.prefill_tokens,
        policy.prefill_paths,
        policy.path_pages,
        scores.path_pages,
        policy.shard_pages,
      ),
      (
        # The slots of both of its sampling programs.
        *sorted({engine.sizes.few, engine.sizes.rows}),
        engine.sizes.prefill_tokens,
        len(engine._prefill_plan().tables),
        engine.sizes.path_pages,
        ppm.sizes.path_pages,
        engine.sizes.shard_pages,
      ),
    )

  def test_pages_have_to_be_given(self):
    config = small.config()
    config.engine.pages = 0
    with self.assertRaisesRegex(ValueError, "engine.pages"):
      programs.sizes_of(config, 1)


class KernelsTest(absltest.TestCase):
  def test_kernels_that_no_tpu_runs_are_refused(self):
    config, mesh = small.config(), _mesh(1, 1)
    config.engine.kernels = "cpp"
    with self.assertRaisesRegex(ValueError, "'cpp' is for one CPU"):
      programs.pages_shapes(_tiny(), config, mesh)
    with self.assertRaisesRegex(ValueError, "'cpp' is for one CPU"):
      programs.search_program("decode", _tiny(), config, mesh)


class ShapesTest(parameterized.TestCase):
  @parameterized.parameters((1, 4, "float"), (4, 1, "float"), (2, 2, "int8"))
  def test_as_stacked_models(self, data, tensor, weights):
    mesh = _mesh(data, tensor)
    model = Transformer(_tiny(), rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model)
    params = sharding.place(params, mesh)
    if weights == "int8":
      params = int8.quantized(params)
    graphdef, params = nnx.split(stacked(nnx.merge(graphdef, params)))
    found, shapes = programs.stacked_shapes(_tiny(), "lm", mesh, weights)
    self.assertEqual(found, graphdef)
    jax.tree.map(
      lambda a, b: self.assertEqual(
        (a.shape, a.dtype, a.sharding.shard_shape(a.shape)),
        (b.shape, b.dtype, b.sharding.shard_shape(b.shape)),
      ),
      shapes,
      params,
    )

  @parameterized.product(sizes=[(1, 4), (2, 2)], kind=["xla", "pallas"])
  def test_pages_as_of_the_engine(self, sizes, kind):
    mesh, config = _mesh(*sizes), small.config()
    config.engine.kernels = kind
    found = programs.pages_shapes(_tiny(), config, mesh)
    count = programs.sizes_of(config, sizes[0])[0].shard_pages
    pages = PagedAttention(kind, mesh).empty(_tiny(), 2, count)
    self.assertEqual((found.shape, found.dtype), (pages.shape, pages.dtype))
    self.assertEqual(
      found.sharding.shard_shape(found.shape),
      pages.sharding.shard_shape(pages.shape),
    )
    self.assertEqual(programs.bytes_of(found), pages.nbytes / 4)


class ProgramsTest(parameterized.TestCase):
  @parameterized.parameters(*programs.SEARCH)
  def test_of_a_search(self, name):
    program = programs.search_program(
      name, _tiny(), small.config(), _mesh(2, 2)
    )
    pages, *_ = jax.tree.leaves(program.lower().out_info)
    self.assertEqual(pages.shape, program.arguments[1].shape)

  @parameterized.parameters(*programs.TRAINING)
  def test_of_training(self, name):
    config = small.config()
    mesh = meshes.make(MeshConfig(data=1, fsdp=2, tensor=2))
    of = config.reinforce if name == "reinforce" else config
    training = TrainConfig(batch_size=8, length=32, accumulate=2)
    setattr(of, "train" if name == "reinforce" else name, training)
    program = programs.training_program(name, _tiny(), config, mesh)
    compiled = program.lower().compile()
    memory = compiled.memory_analysis()
    # The state is written over, where each array stays.
    self.assertEqual(
      memory.alias_size_in_bytes, programs.bytes_of(program.arguments[0])
    )

  def test_of_training_of_low_rank_with_rounded_moments(self):
    config = small.config()
    mesh = meshes.make(MeshConfig(data=1, fsdp=2, tensor=2))
    options = dict(batch_size=8, length=32, accumulate=2)
    model = dataclasses.replace(_tiny(), dtype="bfloat16", num_layers=1)
    found = {}
    for rank in (0, 2):
      config.sft = TrainConfig(
        lora_rank=rank, ema=0.9, optimizer="adamw_8bit", **options
      )
      found[rank] = programs.training_program("sft", model, config, mesh)
    (whole, *_), (begun, _, step) = (each.arguments for each in found.values())
    _, frozen = step.args
    size = programs.bytes_of(whole.params)
    self.assertEqual(programs.bytes_of(whole.average), size)
    # Both moments have 2 bytes a parameter in the place of 8, and scales, which
    # are many in so narrow a model.
    self.assertBetween(programs.bytes_of(whole.opt_state) / size, 0.5, 1.5)
    self.assertLess(programs.bytes_of(begun.params), programs.bytes_of(frozen))
    self.assertEqual(
      2 * programs.bytes_of(frozen), programs.bytes_of(whole.params)
    )
    memory = found[2].lower().compile().memory_analysis()
    self.assertEqual(memory.alias_size_in_bytes, programs.bytes_of(begun))

  def test_rows_that_do_not_divide(self):
    config = small.config()
    config.sft = TrainConfig(batch_size=8, accumulate=4)
    mesh = meshes.make(MeshConfig(data=1, fsdp=4))
    with self.assertRaisesRegex(ValueError, "or accumulate=2"):
      programs.training_program("sft", _tiny(), config, mesh)


if __name__ == "__main__":
  absltest.main()
