"""Attention over pages: the choice of an implementation, on all devices."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from rstar_jax.models import pages as pages_lib
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.kernels import (
  cpu,
  ragged_pages,
  shared_pages,
  shared_plan,
)
from rstar_jax.models.paths import Layer, Paths
from rstar_jax.models.sharding import RULES, row_shards

Kind = Literal["xla", "cpp", "pallas", "ragged"]
# Numbers of a register of a TPU. A head of keys or values is padded to a
# multiple; else XLA would copy all pages to such a form for the kernels.
LANES = 128


@dataclasses.dataclass(frozen=True)
class PagedAttention:
  """Attention over pages; static in compiled programs.

  On a mesh each data shard has its own pages and slots that use only these;
  heads are cut as the heads of weights are. Indices of pages and of rows count
  within a data shard.

  Attributes:
    kind: "xla" runs anywhere, "cpp" on one CPU, "pallas" on TPUs; "ragged" is
      jax's kernel for TPUs, which shares no page between rows.
    mesh: None is one device.
  """

  kind: Kind = "xla"
  mesh: jax.sharding.Mesh | None = None

  def empty(self, config: ModelConfig, layers: int, count: int) -> jax.Array:
    """Returns pages of all layers, `count` of a layer in each data shard."""

    def make():
      if self.kind == "cpp":
        return cpu.empty_pages(
          layers * count, config.num_kv_heads, config.head_dim, config.dtype
        )
      lanes = LANES if self.kind in ("pallas", "ragged") else 1
      total = layers * count * row_shards(self.mesh)
      return pages_lib.empty(config, total, lanes)

    if self.mesh is None:
      return make()
    place = jax.sharding.NamedSharding(
      self.mesh, self._pages(config.num_kv_heads)
    )
    return jax.jit(make, out_shardings=place)()

  def plan(self, pages: jax.Array, paths: Paths) -> Paths:
    """Plans `attend`, once for all layers with the window of the paths.

    Args:
      pages: for their shape.
      paths: of the slots. Reads that they have are kept: of the same rows at
        positions that are not lower, and without a window.
    """
    if self.kind not in ("pallas", "ragged"):
      return paths
    of_kind = {
      "pallas": shared_plan.plan,
      "ragged": ragged_pages.plan,
    }[self.kind]
    by_row = jax.P(RULES.batch)
    cut = self._pages(pages.shape[2] // 2)
    run = self._cut(of_kind, (cut, by_row), by_row)
    places, reads = run(pages, paths)
    return dataclasses.replace(paths, places=places, reads=reads)

  def reads(self, pages: jax.Array, paths: Paths) -> Any:
    """Returns reads that the plans of several steps share, None without any.

    Args:
      pages: for their shape.
      paths: with positions [K, T] of K steps, for layers without a window.
    """
    if self.kind != "pallas":
      return None
    last = jnp.max(paths.positions, axis=0)
    return self.plan(pages, dataclasses.replace(paths, positions=last)).reads

  def attend(
    self,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    pages: jax.Array,
    paths: Paths,
    layer: Layer,
  ) -> tuple[jax.Array, jax.Array]:
    """Writes a step's tokens and attends to their paths; see `pages.attend`.

    The paths are those that `plan` returns.
    """
    run = {
      "xla": pages_lib.attend,
      "cpp": cpu.attend_pages,
      "pallas": shared_pages.attend,
      "ragged": ragged_pages.attend,
    }[self.kind]
    heads, cut = self._heads(k.shape[1]), self._pages(k.shape[1])
    by_row, by_head = jax.P(RULES.batch), jax.P(RULES.batch, heads)
    whole = dataclasses.replace(layer, index=jax.P(), sinks=jax.P(heads))
    specs = by_head, by_head, by_head, cut, by_row, whole
    run = self._cut(run, specs, (by_head, cut))
    return run(q, k, v, pages, paths, layer)

  def copy(
    self,
    pages: jax.Array,
    sources: jax.Array,
    targets: jax.Array,
    config: ModelConfig,
    layers: int,
  ) -> jax.Array:
    """Copies whole pages in every layer; see `pages.copy`."""

    one = cpu.copy_pages if self.kind == "cpp" else pages_lib.copy

    def run(pages, sources, targets):
      return one(pages, sources, targets, layers)

    cut, by_row = self._pages(config.num_kv_heads), jax.P(RULES.batch)
    return self._cut(run, (cut, by_row, by_row), cut)(pages, sources, targets)

  def cuts(self, config: ModelConfig) -> int:
    """Returns the number of devices that share the heads of a page."""
    heads = self._heads(config.num_kv_heads)
    return 1 if heads is None else self.mesh.shape[heads]

  def _cut(self, run: Callable, ins: Any, outs: Any) -> Callable:
    """Returns a function that each device runs on its own part."""
    if self.mesh is None:
      return run
    # Kernels do not declare the mesh axes over which their results vary.
    return jax.shard_map(
      run, mesh=self.mesh, in_specs=ins, out_specs=outs, check_vma=False
    )

  def _heads(self, kv_heads: int) -> Any:
    heads = RULES.kv_heads
    if self.mesh is None or heads is None or kv_heads % self.mesh.shape[heads]:
      return None
    return heads

  def _pages(self, kv_heads: int) -> jax.sharding.PartitionSpec:
    return jax.P(RULES.batch, None, self._heads(kv_heads))
