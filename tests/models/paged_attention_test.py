"""Tests of the choice of an implementation, and of its cut over a mesh."""

import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.config.schema import MeshConfig
from rstar_jax.models import meshes
from rstar_jax.models import pages as pages_lib
from rstar_jax.models.kernels import build, cpu
from rstar_jax.models.paged_attention import PagedAttention, kind_for
from rstar_jax.models.paths import Layer, Paths
from rstar_jax.testing import tiny_model

jax.config.update("jax_num_cpu_devices", 8)

LAYERS, COUNT, SLOTS, WIDTH = 2, 5, 16, 3
LAYER = Layer(jnp.int32(1), COUNT)
CONFIG = tiny_model(num_heads=4, num_kv_heads=2, head_dim=32)
# One tensor shard, two, and more than there are key/value heads.
MESHES = ((2, 2, 2), (8, 1, 1), (2, 1, 4))


def inputs(shards=1):
  """Returns queries, keys, values and paths of a step."""
  rng = np.random.default_rng(0)
  normal = lambda heads: jnp.asarray(  # noqa: E731
    rng.normal(size=(SLOTS, heads, 32)), jnp.float32
  )
  each = SLOTS // shards
  tables = [rng.permutation(COUNT)[:WIDTH] for _ in range(shards)]
  return (
    *(normal(n) for n in (4, 2, 2)),
    Paths(
      jnp.asarray(np.array(tables), jnp.int32),
      # Rows count within a data shard, which has one here.
      jnp.zeros(SLOTS, jnp.int32),
      jnp.asarray(np.tile(np.arange(each) + 15, shards), jnp.int32),
    ),
  )


def by_xla(q, k, v, paths):
  """Computes each shard's step by `pages.attend`, from empty pages."""
  each = SLOTS // len(paths.tables)
  outs = []
  for shard, table in enumerate(paths.tables):
    part = slice(shard * each, (shard + 1) * each)
    outs.append(
      pages_lib.attend(
        *(x[part] for x in (q, k, v)),
        pages_lib.empty(CONFIG, LAYERS * COUNT),
        Paths(table[None], paths.rows[part], paths.positions[part]),
        LAYER,
      )
    )
  return [np.concatenate(x) for x in zip(*outs, strict=True)]


class KindTest(parameterized.TestCase):
  @parameterized.parameters(
    ("cpu", True, None, "cpp"),
    ("cpu", False, None, "xla"),
    ("cpu", True, 2, "xla"),
    ("tpu", True, None, "pallas"),
    ("tpu", True, 2, "pallas"),
    ("gpu", True, None, "xla"),
  )
  def test_kernels_are_those_of_the_machine(self, backend, compiler, of, want):
    mesh = of and mock.Mock(size=of)
    with mock.patch.object(build, "available", return_value=compiler):
      same = ("xla", "pallas", "ragged") if backend == "tpu" else ("xla",)
      for asked, found in (("auto", want), *zip(same, same, strict=True)):
        self.assertEqual(kind_for(asked, CONFIG, mesh, backend), found)

  @parameterized.parameters(
    ("cpp", "cpu", 2, {}, "are cpu, a mesh of 2, heads of 32"),
    ("cpp", "tpu", None, {}, "are tpu, a mesh of 1"),
    ("cpp", "cpu", None, {"head_dim": 8}, "heads of 8"),
    ("cpp", "cpu", None, {"attention_softcap": 5.0}, "softcap=5"),
    ("ragged", "tpu", None, {"sinks": True}, "'ragged' has no sinks"),
    ("pallas", "cpu", None, {}, "'pallas' is for TPUs, and here is cpu: set"),
    ("pallas", "gpu", 2, {}, "'pallas' is for TPUs, and here is gpu"),
    ("ragged", "gpu", None, {}, "'ragged' is for TPUs, and here is gpu"),
  )
  def test_kernels_that_cannot_run_are_refused(
    self, asked, backend, of, changes, message
  ):
    model, mesh = (
      dataclasses.replace(CONFIG, **changes),
      of and mock.Mock(size=of),
    )
    with self.assertRaisesRegex(ValueError, message):
      kind_for(asked, model, mesh, backend)


class PagedAttentionTest(parameterized.TestCase):
  @parameterized.parameters(*MESHES)
  def test_a_mesh_has_pages_for_each_of_its_data_shards(self, *sizes):
    mesh = meshes.make(
      MeshConfig(data=sizes[0], fsdp=sizes[1], tensor=sizes[2])
    )
    shards, heads = sizes[0] * sizes[1], 2 if sizes[2] == 2 else 1
    attention = PagedAttention("xla", mesh)
    pages = attention.empty(CONFIG, LAYERS, COUNT)
    self.assertEqual(pages.shape, (shards * LAYERS * COUNT, 16, 4, 32))
    self.assertEqual(
      pages.sharding.shard_shape(pages.shape),
      (LAYERS * COUNT, 16, 4 // heads, 32),
    )
    abstract = attention.abstract(CONFIG, LAYERS, COUNT)
    self.assertEqual(
      (abstract.shape, abstract.dtype, abstract.sharding),
      (pages.shape, pages.dtype, pages.sharding),
    )
    part = pages.addressable_shards[0].data
    self.assertEqual(attention.page_bytes(CONFIG, LAYERS), part.nbytes / COUNT)
    q, k, v, paths = inputs(shards)
    mixed, pages = jax.jit(attention.attend)(q, k, v, pages, paths, LAYER)
    want, after = by_xla(q, k, v, paths)
    np.testing.assert_allclose(mixed, want, atol=1e-6)
    np.testing.assert_array_equal(pages, after)
    # Each shard copies a page of its own to another one, and one shard none.
    tables = paths.tables.tolist()
    free = np.array([set(range(COUNT)) - set(row) for row in tables])
    targets = np.array([min(each) for each in free], np.int32)
    targets[-1] = COUNT
    sources = paths.tables[:, 0]
    pages = jax.jit(lambda *each: attention.copy(*each, CONFIG, LAYERS))(
      pages, sources, targets
    )
    want = after.reshape(shards, LAYERS, COUNT, -1)
    for shard in range(shards - 1):
      want[shard, :, targets[shard]] = want[shard, :, int(sources[shard])]
    np.testing.assert_array_equal(np.asarray(pages).reshape(want.shape), want)

  @parameterized.parameters("pallas", "ragged")
  def test_a_head_of_a_tpu_has_whole_registers(self, kind):
    pages = PagedAttention(kind).empty(CONFIG, LAYERS, COUNT)
    self.assertEqual(pages.shape, (LAYERS * COUNT, 16, 4, 128))
    size = PagedAttention(kind).page_bytes(CONFIG, LAYERS)
    self.assertEqual(size, pages.nbytes / COUNT)

  @absltest.skipUnless(build.available(), "no C++ compiler")
  def test_cpp_has_pages_of_its_own_layout(self):
    build.load()
    attention = PagedAttention("cpp")
    pages = attention.empty(CONFIG, LAYERS, COUNT)
    self.assertEqual(pages.shape, cpu.empty_pages(10, 2, 32, "float32").shape)
    q, k, v, paths = inputs()
    mixed, _ = jax.jit(attention.attend)(q, k, v, pages, paths, LAYER)
    np.testing.assert_allclose(mixed, by_xla(q, k, v, paths)[0], atol=2e-6)

  def test_a_window_is_passed_on(self):
    q, k, v, paths = inputs()
    pages = PagedAttention().empty(CONFIG, LAYERS, COUNT)
    one, other = (
      PagedAttention().attend(
        *(q, k, v, pages, dataclasses.replace(paths, window=window), LAYER)
      )[0]
      for window in (0, 1)
    )
    # With a window of one, a token has its own value alone.
    np.testing.assert_allclose(other, np.repeat(v, 2, axis=1), atol=1e-6)
    self.assertGreater(np.abs(one - other).max(), 0.1)


if __name__ == "__main__":
  absltest.main()
