"""Tests of sampling and scoring on meshes of 8 devices, against one device."""

import re

import jax
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.config.schema import EngineConfig, MeshConfig
from rstar_jax.inference import engine as engine_lib
from rstar_jax.inference import paged_model
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.generated import Stop
from rstar_jax.inference.scoring import ScoringEngine
from rstar_jax.models import meshes, sharding
from tests.inference import small

jax.config.update("jax_num_cpu_devices", 8)

# 4 query heads and 2 key/value heads: a tensor axis of 4 cuts the former alone.
MESHES = ((8, 1, 1), (2, 2, 2), (2, 1, 4), (1, 1, 8))
STOP = Stop(6, frozenset(range(0, 265, 7)))
COLLECTIVES = (
  r"= \(?(\w+)\[([\d,]*)\]\S* (?:all-reduce|all-gather|all-to-all|"
  r"collective-permute|reduce-scatter)(?:-start)?\("
)


def model_of(head, mesh):
  graphdef, params = nnx.split(small.model(head))
  if mesh is not None:
    params = sharding.place(params, mesh)
  return nnx.merge(graphdef, params)


def mesh_of(data, fsdp, tensor):
  return meshes.make(MeshConfig(data=data, fsdp=fsdp, tensor=tensor))


def config(weights="float"):
  return EngineConfig(
    weights=weights,
    rows=32,
    inner_steps=3,
    prefill_tokens=64,
    max_prefix_tokens=64,
    max_step_tokens=6,
    max_block_tokens=6,
    kernels="xla",
  )


def engine(mesh=None):
  return Engine(model_of("lm", mesh), config(), mesh=mesh)


class EngineMeshTest(parameterized.TestCase):
  @parameterized.parameters(*MESHES)
  def test_steps_are_those_of_one_device(self, *sizes):
    self.assertLen(jax.devices(), 8)
    cut, one = engine(mesh_of(*sizes)), engine()
    prefixes = [small.prefix(n, n % 3) for n in (1, 2, 15, 17, 33, 34, 35, 50)]
    for turn in range(2):
      seeds = np.arange(24, dtype=np.uint32).reshape(8, 3) + 100 * turn
      rows = [each.expand(prefixes, seeds, STOP) for each in (one, cut)]
      for first, second in zip(*(sum(each, []) for each in rows), strict=True):
        self.assertEqual(first.token_ids, second.token_ids)
        self.assertEqual(first.stopped, second.stopped)
        self.assertAlmostEqual(first.logprob, second.logprob, delta=5e-4)
      # Forks inside of pages are copied within their shards.
      prefixes = [
        [*ids, *row[2].token_ids]
        for ids, row in zip(prefixes, rows[0], strict=True)
      ]
    self.assertEmpty(small.leaks(cut))
    # Each data shard has its own pages, and some requests.
    self.assertLen(cut.memory.shards, sizes[0] * sizes[1])
    self.assertTrue(all(each.cache.used for each in cut.memory.shards))
    pages, heads = cut.memory.arrays, sizes[2] if sizes[2] == 2 else 1
    part = pages.sharding.shard_shape(pages.shape)
    self.assertEqual(
      pages.shape[0], 2 * cut.sizes.shard_pages * len(cut.memory.shards)
    )
    self.assertEqual(part, (2 * cut.sizes.shard_pages, 16, 4 // heads, 32))

  @parameterized.parameters((8, 1, 1), (4, 1, 2))
  def test_keys_and_values_stay_where_they_are(self, *sizes):
    cut = engine(mesh_of(*sizes))
    cut.memory.allocate()
    prefill = cut._prefill_plan()
    fixed = {"structure": cut.structure, "options": cut._options}
    for lowered in (
      engine_lib._decode.lower(
        cut.params,
        cut.memory.arrays,
        cut._to_devices(cut._decode_plan(cut.sizes.rows).array, 1),
        **fixed,
      ),
      paged_model._prefill.lower(
        cut.params,
        cut.memory.arrays,
        cut._to_devices(prefill.array, 1),
        cut._to_devices(prefill.by_path, 0),
        **fixed,
      ),
    ):
      moved = re.findall(COLLECTIVES, lowered.compile().as_text())
      self.assertNotEmpty(moved)
      # A page has 16 tokens of 4 heads of 32, or of 2: nothing so large goes
      # but rows of activations, which have one axis less.
      for dtype, shape in moved:
        self.assertNotRegex(f"{dtype}[{shape}]", r"\[\d+,16,[24],32\]")

  @parameterized.parameters((2, 2, 2), (1, 1, 8), (2, 2, 2, "int8"))
  def test_values_are_those_of_one_device(self, data, fsdp, tensor, *weights):
    mesh = mesh_of(data, fsdp, tensor)
    scoring = [
      ScoringEngine(model_of("tanh", each), config(*weights), mesh=each)
      for each in (None, mesh)
    ]
    requests = [
      [[*small.prefix(n), *small.prefix(m, 5)] for m in (1, 3, 5)]
      for n in (1, 16, 20, 40, 59)
    ]
    values = [[each.submit(paths) for paths in requests] for each in scoring]
    for first, second in zip(*values, strict=True):
      np.testing.assert_allclose(first.result(), second.result(), atol=5e-5)


if __name__ == "__main__":
  absltest.main()
