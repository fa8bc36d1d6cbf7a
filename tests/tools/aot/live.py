"""Compiles for TPUs without a TPU: what `make aot` runs.

Needs libtpu. The tests of the default command compile for the CPU; here a TPU's
compiler itself is asked.
"""

import dataclasses
import functools
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
from absl.testing import absltest, parameterized

from rstar_jax.config.schema import MeshConfig, TrainConfig
from rstar_jax.models import meshes, sharding
from rstar_jax.models.grouped_products import grouped
from rstar_jax.models.kernels import tree_attention
from rstar_jax.tools.aot import chips, compiler, cost, programs
from tests.tools.aot import small

# No device is used; libtpu would look for one.
jax.config.update("jax_platforms", "cpu")

_ROOT = pathlib.Path(__file__).resolve().parents[3]
_MODEL = dataclasses.replace(
  small.MODEL, head_dim=128, dtype="bfloat16", param_dtype="bfloat16"
)


@functools.cache
def _mesh(name, tensor):
  where = chips.parse(name)
  config = MeshConfig(data=where.slices, fsdp=-1, tensor=tensor)
  return meshes.make(config, compiler.devices(where))


class ChipsTest(parameterized.TestCase):
  @parameterized.parameters(
    *("v4:2x2x4", "v5e:2x4", "v5e:4x4", "v5p:2x2x4", "v6e:2x4", "v6e:4x4")
  )
  def test_devices_are_chips(self, name):
    where = chips.parse(name)
    found = compiler.devices(where)
    self.assertLen(found, where.chips)
    self.assertLen({each.process_index for each in found}, where.hosts)

  def test_two_slices_share_data_alone(self):
    config = small.config()
    config.sft = TrainConfig(batch_size=16, length=256, remat="layer")
    texts, held = [], []
    for name in ("v5e-16", "2x v5e-16"):
      mesh = _mesh(name, 4)
      for slice_, part in enumerate(mesh.devices):
        found = {getattr(each, "slice_index", 0) for each in part.flat}
        self.assertEqual(found, {slice_})
      program = programs.training_program("sft", _MODEL, config, mesh)
      held.append(programs.bytes_of(program.arguments[0]))
      texts.append(program.lower().compile().as_text())
    # Each slice has all of the state, and sends to the other one.
    self.assertEqual(*held)
    self.assertNotRegex(texts[0], r" send\(")
    self.assertRegex(texts[1], r" send\(")

  def test_what_does_not_fit_says_what_it_needs(self):
    place = jax.NamedSharding(_mesh("v5e:1x1", 1), jax.P())
    array = jax.ShapeDtypeStruct((1 << 16, 1 << 17), "float32", sharding=place)
    found = compiler.compile_program(jax.jit(lambda x: x + 1).lower(array))
    # 2^33 numbers of 4 bytes.
    self.assertGreaterEqual(found.refused, 32 * 2**30)


class ProgramsTest(parameterized.TestCase):
  @parameterized.product(
    topology=("v5e:2x2", "v5p:2x2x1", "v6e:2x2"), kind=("pallas", "ragged")
  )
  def test_of_a_search(self, topology, kind):
    config = small.config()
    config.engine.kernels = kind
    for name in programs.SEARCH:
      program = programs.search_program(
        name, _MODEL, config, _mesh(topology, 4)
      )
      found = compiler.compile_program(program.lower())
      self.assertBetween(found.code, 1, 32 * 2**20)
      # Pages are written where they are.
      pages = programs.bytes_of(program.arguments[1])
      self.assertLess(found.outputs, pages / 2)

  def test_heads_of_two_registers(self):
    """Gemma 3's."""
    config = small.config()
    config.engine.kernels = "pallas"
    program = programs.search_program(
      "decode",
      dataclasses.replace(_MODEL, head_dim=256, num_kv_heads=8),
      config,
      _mesh("v5e:2x2", 4),
    )
    found = compiler.compile_program(program.lower())
    self.assertBetween(found.code, 1, 32 * 2**20)

  @parameterized.parameters("pallas", "ragged")
  def test_heads_that_are_no_registers_have_no_pages_copied(self, kind):
    config = small.config()
    config.engine.kernels, config.engine.pages = kind, 4096
    program = programs.search_program(
      "decode",
      dataclasses.replace(_MODEL, head_dim=96),
      config,
      _mesh("v5e:2x2", 4),
    )
    found = compiler.compile_program(program.lower())
    pages = programs.bytes_of(program.arguments[1])
    self.assertLess(found.temporaries, pages / 8)

  def test_products_are_counted(self):
    config = small.config()
    program = programs.search_program(
      "prefill", _MODEL, config, _mesh("v5e:2x2", 4)
    )
    compiled = program.lower().compile()
    # The body of a scan counts once, with one block of keys.
    least = cost.step(
      dataclasses.replace(_MODEL, num_layers=1),
      tokens=64,
      keys=64 * 128,
      read=0,
      tensor=4,
    )
    ratio = compiled.cost_analysis()["flops"] / least.flops
    self.assertBetween(ratio, 0.9, 1.2)

  def test_int8_adds_no_arrays_and_no_traffic(self):
    # Layers and a head whose copies would be seen.
    model = dataclasses.replace(
      _MODEL, vocab_size=1 << 17, embed_dim=2048, mlp_dim=8192
    )
    config, found, sums = small.config(), {}, {}
    for weights in ("float", "int8"):
      config.engine.weights = weights
      program = programs.search_program(
        "decode", model, config, _mesh("v5e:2x2", 4)
      )
      compiled = program.lower().compile()
      found[weights] = compiled.memory_analysis()
      sums[weights] = sorted(
        re.findall(r" = (\w+\[[\d,]+\])\S* all-reduce\(", compiled.as_text())
      )
    floats, ints = found["float"], found["int8"]
    # The head alone would be 128 MiB of a chip in bfloat16.
    self.assertLess(ints.temp_size_in_bytes, floats.temp_size_in_bytes + 2**24)
    self.assertLess(
      ints.argument_size_in_bytes, 0.76 * floats.argument_size_in_bytes
    )
    # Sums of 16 bits, whatever multiplies them after.
    self.assertIn("bf16[64,2048]", sums["float"])
    self.assertEqual(sums["int8"], sums["float"])

  def test_layers_add_no_code(self):
    sizes = []
    for layers in (2, 8):
      model = dataclasses.replace(_MODEL, num_layers=layers)
      program = programs.search_program(
        "decode", model, small.config(), _mesh("v5e:2x2", 4)
      )
      sizes.append(compiler.compile_program(program.lower()).code)
    self.assertLess(sizes[1] / sizes[0], 1.1)

  def test_of_training(self):
    config = small.config()
    config.sft = TrainConfig(batch_size=16, length=256, accumulate=2)
    program = programs.training_program(
      "sft", _MODEL, config, _mesh("v5e:2x2", 2)
    )
    found = compiler.compile_program(program.lower(), turns=2)
    self.assertLess(found.outputs, 2**20)
    self.assertBetween(found.peak, found.arguments, 2**30)
    # In each micro-batch at least the float32 sums of gradients.
    begun = program.arguments[0]
    sums = 2 * 2 * programs.bytes_of(begun.params)
    self.assertGreater(found.moved.hbm, sums)
    self.assertGreater(found.moved.wire, 0)

  # The last two are layers of GPT-OSS and of Gemma 2.
  @parameterized.parameters(
    (64, 0), (96, 50), (128, 0), (64, 50, 0.0, True), (256, 50, 30.0)
  )
  def test_attention_in_training_leaves_no_scores(
    self, dim, window, softcap=0.0, sinks=False
  ):
    mesh = _mesh("v5e:2x2", 2)
    rows = programs.array(mesh, (4, 1024), "int32", sharding.RULES.batch)
    q, k = (
      programs.array(mesh, (4, 1024, heads, dim), "bfloat16")
      for heads in (8, 2)
    )
    sunk = programs.array(mesh, (8,), "float32") if sinks else None

    def loss(q, k, v, sunk, ends, positions):
      mixed = tree_attention.attend_on_mesh(
        *(q, k, v, sunk, (ends, positions)),
        tree_attention.Options(window, softcap),
      )
      return mixed.astype("float32").sum()

    by = (0, 1, 2, 3) if sinks else (0, 1, 2)
    with jax.set_mesh(mesh):
      run = jax.jit(jax.grad(loss, by))
      lowered = run.lower(q, k, k, sunk, rows, rows)
    found = compiler.compile_program(lowered)
    # Two of the rows and four of the heads of a chip.
    self.assertLess(found.temporaries, 2 * 4 * 1024 * 1024 * 4)

  def test_experts_are_multiplied_group_by_group(self):
    """No copy of the weights, and not every expert for every pair."""
    place = jax.NamedSharding(_mesh("v5e:1x1", 1), jax.P())
    pairs, count, inputs, outputs = 2048, 32, 512, 256
    x, weights, sizes = (
      jax.ShapeDtypeStruct(shape, dtype, sharding=place)
      for shape, dtype in (
        ((pairs, inputs), "bfloat16"),
        ((count, inputs, outputs), "bfloat16"),
        ((count,), "int32"),
      )
    )

    def loss(x, weights, sizes):
      return grouped(x, weights, sizes).astype("float32").sum()

    useful = 2 * pairs * inputs * outputs
    for run, products in (
      (grouped, 1),
      (jax.grad(loss, (0, 1)), 2),
    ):
      compiled = jax.jit(run).lower(x, weights, sizes).compile()
      flops = compiled.cost_analysis()["flops"]
      self.assertBetween(flops, products * useful, 1.5 * products * useful)
      temporaries = compiled.memory_analysis().temp_size_in_bytes
      self.assertLess(temporaries, programs.bytes_of(weights) / 2)


class CommandTest(absltest.TestCase):
  def test_prints_lines_of_json(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    fields = {
      "model_type": "qwen2",
      "vocab_size": 1024,
      "hidden_size": 256,
      "intermediate_size": 512,
      "num_hidden_layers": 2,
      "num_attention_heads": 4,
      "num_key_value_heads": 4,
      "max_position_embeddings": 4096,
    }
    (folder / "config.json").write_text(json.dumps(fields))
    done = subprocess.run(
      [
        *(sys.executable, "-m", "rstar_jax.tools.aot"),
        "--config=configs/qwen2_5_math_7b.py",
        f"--config.policy.path={folder}",
        "--config.engine.kernels=xla",
        "--topology=v5e:4x4",
        "--programs=prefill",
      ],
      cwd=_ROOT,
      env=os.environ | {"PYTHONPATH": str(_ROOT)},
      capture_output=True,
      text=True,
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    row, search = map(json.loads, done.stdout.splitlines())
    self.assertEqual((row["program"], search["programs"]), ("prefill", 1))
    self.assertEqual(row["topology"], "v5e:2x2")
    self.assertEqual(row["slice"], "v5e:4x4")
    self.assertEqual(row["mesh"], {"data": 1, "fsdp": 1, "tensor": 4})
    self.assertTrue(search["fits"])


if __name__ == "__main__":
  absltest.main()
