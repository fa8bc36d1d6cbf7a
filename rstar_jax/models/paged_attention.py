"""Attention over pages: which implementation, on which devices."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from rstar_jax.models import pages as pages_lib
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.kernels import cpu
from rstar_jax.models.sharding import RULES, row_shards

Kind = Literal["xla", "cpp", "pallas"]


@dataclasses.dataclass(frozen=True)
class PagedAttention:
  """Attention over pages; static in compiled programs.

  On a mesh each data shard has pages of its own and slots that use no others;
  heads are cut as the weights' are. Indices of pages and of rows count within a
  data shard.

  Attributes:
    kind: "xla" runs anywhere, "cpp" on one CPU, "pallas" on TPUs.
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
      return pages_lib.empty(config, layers * count * row_shards(self.mesh))

    if self.mesh is None:
      return make()
    place = jax.sharding.NamedSharding(
      self.mesh, self._pages(config.num_kv_heads)
    )
    return jax.jit(make, out_shardings=place)()

  def attend(
    self,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    pages: jax.Array,
    tables: jax.Array,
    rows: jax.Array,
    positions: jax.Array,
    *,
    layer: int | jax.Array,
    count: int,
    window: int = 0,
  ) -> tuple[jax.Array, jax.Array]:
    """Writes a step's tokens and attends to their paths; see `pages.attend`."""

    def run(q, k, v, pages, tables, rows, positions, layer):
      return self._one()(
        q,
        k,
        v,
        pages,
        tables,
        rows,
        positions,
        layer=layer,
        count=count,
        window=window,
      )

    if self.mesh is None:
      return run(q, k, v, pages, tables, rows, positions, layer)
    heads = self._heads(k.shape[1])
    by_row, by_head = jax.P(RULES.batch), jax.P(RULES.batch, heads)
    cut = self._pages(k.shape[1])
    return jax.shard_map(
      run,
      mesh=self.mesh,
      in_specs=(
        *(by_head,) * 3,
        cut,
        *(by_row,) * 3,
        jax.P(),
      ),
      out_specs=(by_head, cut),
      # Kernels do not declare the mesh axes over which their results vary.
      check_vma=False,
    )(q, k, v, pages, tables, rows, positions, jnp.asarray(layer, jnp.int32))

  def copy(
    self,
    pages: jax.Array,
    sources: jax.Array,
    targets: jax.Array,
    config: ModelConfig,
    layers: int,
  ) -> jax.Array:
    """Copies whole pages in every layer; see `pages.copy`."""

    def run(pages, sources, targets):
      return pages_lib.copy(pages, sources, targets, layers)

    if self.mesh is None:
      return run(pages, sources, targets)
    cut, by_row = self._pages(config.num_kv_heads), jax.P(RULES.batch)
    return jax.shard_map(
      run,
      mesh=self.mesh,
      in_specs=(cut, by_row, by_row),
      out_specs=cut,
      check_vma=False,
    )(pages, sources, targets)

  def _one(self) -> pages_lib.Attend:
    """Returns the function of one device."""
    match self.kind:
      case "xla":
        return pages_lib.attend
      case "cpp":
        return cpu.attend_pages
    raise ValueError(f"no attention of kind {self.kind!r}")

  def _heads(self, kv_heads: int) -> Any:
    heads = RULES.kv_heads
    divides = heads is not None and kv_heads % self.mesh.shape[heads] == 0
    return heads if divides else None

  def _pages(self, kv_heads: int) -> jax.sharding.PartitionSpec:
    return jax.P(RULES.batch, None, self._heads(kv_heads))
