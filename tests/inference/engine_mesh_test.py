"""Tests of expansion and scoring on meshes of 8 devices, against one device."""

import re

import jax
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.config.schema import EngineConfig, MeshConfig
from rstar_jax.inference import engine as engine_lib
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.ppm import Scorer
from rstar_jax.models import sharding
from rstar_jax.models.transformer import Transformer
from rstar_jax.testing import ByteTokenizer, tiny_model
from tests.inference.prefix_cache_test import walk

jax.config.update("jax_num_cpu_devices", 8)

SHAPES = dict(
  prefix_buckets=(32, 64),
  leaf_buckets=(8,),
  tail_buckets=(4, 16),
  least_rows=2,
)
# 6 query heads and 2 key/value heads: a tensor axis of 4 divides neither.
MESHES = ((8, 1, 1), (2, 2, 2), (2, 1, 4), (1, 1, 8))


def model_of(head="lm", mesh=None):
  graphdef, params = nnx.split(
    Transformer(tiny_model(), head=head, rngs=nnx.Rngs(7))
  )
  params = jax.tree.map(lambda x: x * 10 if x.ndim > 1 else x, params)
  if mesh is not None:
    params = sharding.place(params, mesh)
  return nnx.merge(graphdef, params)


def mesh_of(data, fsdp, tensor):
  return sharding.make_mesh(MeshConfig(data=data, fsdp=fsdp, tensor=tensor))


def engine(mesh=None):
  return Engine(
    model_of(mesh=mesh),
    EngineConfig(**SHAPES),
    stop_ids=tuple(range(2, 267, 5)),
    max_new_tokens=7,
    pad_id=0,
    mesh=mesh,
  )


class EngineMeshTest(parameterized.TestCase):
  @parameterized.parameters(*MESHES)
  def test_steps_are_those_of_one_device(self, *sizes):
    self.assertLen(jax.devices(), 8)
    mesh = mesh_of(*sizes)
    cut = engine(mesh)
    for one, other in walk([engine(), cut], ticks=4, trees=5):
      for first, second in zip(sum(one, []), sum(other, []), strict=True):
        self.assertEqual(first.token_ids, second.token_ids)
        self.assertAlmostEqual(first.logprob, second.logprob, delta=2e-4)
    self.assertGreater(cut.path_tokens["appended"], 0)
    keys = cut._caches[0].pool.keys[0]
    rows = sizes[0] * sizes[1]
    heads = sizes[2] if sizes[2] == 2 else 1
    shard = keys.sharding.shard_shape(keys.shape)
    self.assertEqual(shard[:2], (keys.shape[0] // rows, 2 // heads))

  @parameterized.parameters(
    ((8, 1, 1), {"pred[]"}),
    ((4, 1, 2), {"pred[]", "f32[24,6]", "f32[24,3]"}),
  )
  def test_keys_and_values_stay_where_they_are(self, sizes, expected):
    """Only sums of layers [D, R] are exchanged, and whether all have ended."""
    cut = engine(mesh_of(*sizes))
    prefix_cache = cut._cache(0)
    zeros = np.zeros(8, np.int32)
    text = (
      engine_lib._expand.lower(
        cut.params,
        prefix_cache.pool,
        zeros,
        zeros,
        zeros,
        np.zeros((8, 3), np.uint32),
        zeros,
        graphdef=cut.graphdef,
        path=64,
        options=cut._options,
        data_shards=prefix_cache.slots.data_shards,
      )
      .compile()
      .as_text()
    )
    moved = re.findall(
      r"= (\w+\[[\d,]*\])\S* (all-reduce|all-gather|all-to-all|"
      r"collective-permute|reduce-scatter)(?:-start)?\(",
      text,
    )
    self.assertEqual({kind for _, kind in moved}, {"all-reduce"})
    self.assertEqual({shape for shape, _ in moved}, expected)

  @parameterized.parameters((2, 2, 2), (1, 1, 8))
  def test_values_are_those_of_one_device(self, *sizes):
    mesh = mesh_of(*sizes)
    questions = ["Why?", "How many?", "Who?"]
    rows = [["a = 1", "b"], ["c = 2", "dd", "e"], ["f"]]
    values = [
      Scorer(
        model_of("tanh", each),
        ByteTokenizer(),
        EngineConfig(prefix_buckets=(96, 192), leaf_buckets=(8,)),
        mesh=each,
      )
      for each in (None, mesh)
    ]
    prefixes = [(), (), ()]
    for _ in range(2):
      one, other = (score(questions, prefixes, rows) for score in values)
      for first, second in zip(one, other, strict=True):
        np.testing.assert_allclose(first, second, atol=2e-5)
      prefixes = [(row[0],) for row in rows]


if __name__ == "__main__":
  absltest.main()
