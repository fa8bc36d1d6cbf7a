"""The arguments of attention over pages: the slots of a step, and the layer.

Letters: T token slots, R rows of tables, P pages of a table, N query heads.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Paths:
  """Where the keys and values of a step's slots are, for all layers.

  Attributes:
    tables: int32 [R, P], the pages of each row's path.
    rows: int32 [T], the row of `tables` of each slot, not decreasing.
    positions: int32 [T], in their paths; -1 is an empty slot.
    window: tokens that a token attends to, itself included; 0 is no limit.
    places: int32 [T], the result of `at`, if the kernel plans it.
    reads: what the kernel reads, if it plans that.
  """

  tables: jax.Array
  rows: jax.Array
  positions: jax.Array
  window: int = dataclasses.field(default=0, metadata=_STATIC)
  places: jax.Array | None = None
  reads: Any = None

  def at(self, page: int) -> jax.Array:
    """Returns where slots are in a layer, in tokens; -1 for an empty one.

    Args:
      page: tokens of a page.
    """
    pages = self.tables[self.rows, self.positions // page]
    at = pages * page + self.positions % page
    return jnp.where(self.positions < 0, -1, at)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
  """The tokens of one step, and where their keys and values are.

  Attributes:
    tokens: int32 [T].
    spans: int32 [T], most tokens of a slot's path; see `rotary.rotary`.
    paths: of the slots.
  """

  tokens: jax.Array
  spans: jax.Array
  paths: Paths


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Layer:
  """A layer, for attention over its pages.

  Attributes:
    index: int32 [], from 0.
    count: pages of a layer.
    softcap: see `ModelConfig.attention_softcap`.
    sinks: [N], scores of no key; None is none.
  """

  index: jax.Array
  count: int = dataclasses.field(metadata=_STATIC)
  softcap: float = dataclasses.field(default=0.0, metadata=_STATIC)
  sinks: jax.Array | None = None

  @property
  def first(self) -> jax.Array:
    """The layer's first page."""
    return self.index * self.count
