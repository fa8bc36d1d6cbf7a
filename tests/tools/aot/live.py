"""Compiles for TPUs without a TPU: what `make aot` runs.

Needs libtpu. The tests of the default command count programs compiled for the
CPU, and texts that were kept; here a TPU's compiler itself is asked.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
from absl.testing import absltest, parameterized

from rstar_jax.config.schema import Config, MeshConfig, TrainConfig
from rstar_jax.models import sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot import chips, compiler, lower_bound, programs, shapes

# No device is used; libtpu would look for one.
jax.config.update("jax_platforms", "cpu")

ROOT = pathlib.Path(__file__).resolve().parents[3]

# Sizes that fill a TPU's tiles, so that little is padding.
_MODEL = ModelConfig(
  vocab_size=1024,
  num_layers=2,
  embed_dim=256,
  num_heads=8,
  num_kv_heads=4,
  head_dim=128,
  mlp_dim=512,
  dtype="bfloat16",
  param_dtype="bfloat16",
  tied_embeddings=False,
)
_SHAPES = shapes.Shapes(
  slots=8, leaves=8, candidates=8, path=256, room=512, step=32, tail=64, moved=8
)


@functools.cache
def _mesh(name, tensor):
  devices = compiler.devices(chips.parse(name))
  return sharding.make_mesh(MeshConfig(data=1, fsdp=-1, tensor=tensor), devices)


class ChipsTest(parameterized.TestCase):
  @parameterized.parameters("v4:2x2x4", "v5e:4x4", "v5p:2x2x4", "v6e:4x4")
  def test_devices_are_chips(self, name):
    where = chips.parse(name)
    found = compiler.devices(where)
    self.assertLen(found, where.chips)
    self.assertLen({each.process_index for each in found}, where.hosts)

  def test_what_does_not_fit_says_what_it_needs(self):
    mesh = _mesh("v5e:1x1", 1)
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    array = jax.ShapeDtypeStruct((1 << 16, 1 << 17), "float32", sharding=place)
    program = programs.DeviceProgram(
      "advance", lambda x: x + 1, (array,), (), (), 1
    )
    # 2^33 numbers of 4 bytes.
    found = compiler.compile_program(program)
    self.assertGreaterEqual(found.refused, 32 * 2**30)


class ProgramsTest(parameterized.TestCase):
  @parameterized.parameters("v5e:2x2", "v5p:2x2x1")
  def test_expand_computes_what_it_must(self, name):
    program = programs.search_program("expand", _MODEL, _SHAPES, _mesh(name, 4))
    found = compiler.compile_program(program)
    least = lower_bound.decode(
      _MODEL, leaves=8, candidates=8, path=256, step=32
    )
    # Attention is to all of a step's places, also those that are not yet there.
    seen = 31 * 31 - sum(range(1, 32))
    masked = 64 * 4 * 2 * 8 * 128 * seen
    self.assertAlmostEqual(
      found.cost.flops / ((least.flops + masked) / 4), 1, delta=0.02
    )
    self.assertEqual(
      [loop[1:] for loop in found.cost.loops if not loop[2]], [(31, False)]
    )
    self.assertIn("all-reduce", found.cost.collectives)

  def test_training_loops_are_counted(self):
    config = Config()
    flops = []
    for accumulate in (1, 2):
      config.sft = TrainConfig(batch_size=16, length=256, accumulate=accumulate)
      program = programs.training_program(
        "sft", _MODEL, config, _mesh("v5e:2x2", 2)
      )
      found = compiler.compile_program(program)
      flops.append(found.cost.flops)
      self.assertGreater(found.aliased, 0)
    self.assertAlmostEqual(flops[1] / flops[0], 1, delta=0.02)
    least = lower_bound.training(_MODEL, rows=16, length=256, head=True)
    self.assertBetween(flops[0] * 4 / least.flops, 1, 1.5)


class CommandTest(absltest.TestCase):
  def test_prints_a_line_of_json(self):
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
        sys.executable,
        "-m",
        "rstar_jax.tools.aot",
        "--config=configs/qwen2_5_math_7b.py",
        f"--config.policy.path={folder}",
        "--topology=v5e:4x4",
        "--stage=rollout",
        "--programs=commit",
      ],
      cwd=ROOT,
      env=os.environ | {"PYTHONPATH": str(ROOT)},
      capture_output=True,
      text=True,
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    row = json.loads(done.stdout)
    self.assertEqual(row["program"], "commit")
    self.assertEqual(row["topology"], "v5e:2x2")
    self.assertEqual(row["slice"], "v5e:4x4")
    self.assertEqual(row["mesh"], {"data": 1, "fsdp": 1, "tensor": 4})
    self.assertTrue(row["fits"])


if __name__ == "__main__":
  absltest.main()
