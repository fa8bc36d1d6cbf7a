"""Attention over pages: the choice of an implementation, on all devices."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from rstar_jax.models import pages as pages_lib
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.kernels import (
  build,
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


def kind_for(
  asked: str,
  model: ModelConfig,
  mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh | None,
  backend: str,
) -> Kind:
  """Returns the implementation of attention and products for a model.

  Args:
    asked: `engine.kernels` of a config.
    model: with the dtypes of the engine.
    mesh: of the model's parameters; None is one device.
    backend: kind of the devices, as `jax.default_backend` names it.

  Raises:
    ValueError: the one that is asked for cannot run there.
  """
  on_cpu = backend == "cpu" and mesh is None and cpu.supports(model)
  match asked:
    case "auto" if on_cpu and build.available():
      return "cpp"
    case "auto":
      return "pallas" if backend == "tpu" else "xla"
    case "cpp" if not on_cpu:
      raise ValueError(
        "engine.kernels='cpp' is for one CPU device and heads of a multiple of "
        "32 in float32 or bfloat16, without softcap and sinks; here are "
        f"{backend}, a mesh of {mesh.size if mesh else 1}, heads of "
        f"{model.head_dim} in {model.dtype}, "
        f"softcap={model.attention_softcap}, sinks={model.sinks}: set it to "
        "'auto' in another --workdir"
      )
    case "pallas" | "ragged" if backend != "tpu":
      raise ValueError(
        f"engine.kernels={asked!r} is for TPUs, and here is {backend}: set it "
        "to 'auto' in another --workdir"
      )
    case "ragged" if model.sinks:
      raise ValueError(
        "engine.kernels='ragged' has no sinks, which the model's attention "
        "has: set it to 'auto' in another --workdir"
      )
  return asked


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
    if self.mesh is None:
      return self._zeros(config, layers, count)
    place = self.abstract(config, layers, count).sharding
    run = functools.partial(self._zeros, config, layers, count)
    return jax.jit(run, out_shardings=place)()

  def abstract(
    self, config: ModelConfig, layers: int, count: int
  ) -> jax.ShapeDtypeStruct:
    """Returns what `empty` would: the shape, and the sharding on a mesh."""
    of = jax.eval_shape(lambda: self._zeros(config, layers, count))
    if self.mesh is None:
      return of
    place = jax.sharding.NamedSharding(
      self.mesh, self._pages(config.num_kv_heads)
    )
    return jax.ShapeDtypeStruct(of.shape, of.dtype, sharding=place)

  def page_bytes(self, config: ModelConfig, layers: int) -> int:
    """Returns the bytes of a page in all layers, on one device."""
    of = self.abstract(config, layers, 1)
    shape = of.sharding.shard_shape(of.shape) if self.mesh else of.shape
    return math.prod(shape) * of.dtype.itemsize

  def _zeros(self, config: ModelConfig, layers: int, count: int) -> jax.Array:
    total = layers * count * row_shards(self.mesh)
    if self.kind == "cpp":
      return cpu.empty_pages(
        total, config.num_kv_heads, config.head_dim, config.dtype
      )
    lanes = LANES if self.kind in ("pallas", "ragged") else 1
    return pages_lib.empty(config, total, lanes)

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
