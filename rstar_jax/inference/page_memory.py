"""The pages of a model: on the devices, and the record of them on the host."""

import functools
from collections.abc import Callable

import jax

from rstar_jax.inference.prefix_cache import PrefixCache
from rstar_jax.inference.runs import Shard
from rstar_jax.inference.sizes import Sizes
from rstar_jax.models import rotary
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.paged_attention import PagedAttention


class PageMemory:
  """Allocates the pages of a model, when they are first needed.

  Attributes:
    sizes: the number of pages.
    arrays: keys and values of all layers; None while there are none. The caller
      replaces them by those that a program returns.
    shards: the record of each data shard; [] while there are none.
  """

  def __init__(
    self,
    sizes: Sizes,
    config: ModelConfig,
    layers: int,
    attention: PagedAttention,
    make_shard: Callable[[int, Callable[[int], int]], Shard] = Shard,
  ):
    """Allocates nothing yet.

    Args:
      sizes: the number of pages.
      config: of the model, of any number of layers.
      layers: number of layers.
      attention: over the pages.
      make_shard: makes a record of its arguments; see `Shard`.
    """
    self.sizes = sizes
    self.arrays: jax.Array | None = None
    self.shards: list[Shard] = []
    self._config, self._layers = config, layers
    self._attention, self._make_shard = attention, make_shard
    # Pages dropped by earlier caches.
    self._dropped = 0

  @property
  def dropped(self) -> int:
    """Returns the pages dropped so far for lack of free ones."""
    return self._dropped + sum(each.cache.dropped for each in self.shards)

  @property
  def used(self) -> int:
    """Returns the pages that have tokens now."""
    return sum(each.cache.used for each in self.shards)

  def allocate(self) -> None:
    """Makes the pages and their record, unless they are there.

    Raises:
      ValueError: a device has no room; the message names a number of pages for
        which it has, if there is one.
    """
    count = self.sizes.shard_pages
    if not self.shards:
      kind_of = functools.partial(rotary.position_kind, self._config)
      self.shards = [
        self._make_shard(count, kind_of) for _ in range(self.sizes.shards)
      ]
    if self.arrays is not None:
      return
    try:
      self.arrays = self._attention.empty(self._config, self._layers, count)
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error):
        raise
      size = self._attention.page_bytes(self._config, self._layers)
      stats = jax.local_devices()[0].memory_stats() or {}
      free = stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
      fit = max(free, 0) // size
      if fit >= self.sizes.fewest:
        advice = f"set engine.pages to at most {fit * self.sizes.shards}"
      else:
        # They are what one path needs.
        advice = (
          "in another --workdir, take shorter paths (engine.max_prefix_tokens, "
          "max_step_tokens, max_block_tokens), or a mesh of more devices"
        )
      raise ValueError(
        f"{count} pages of keys and values take {count * size / 2**30:.2f} GiB "
        f"of a device, of which {free / 2**30:.2f} GiB are free: {advice}"
      ) from error

  def resize(self, sizes: Sizes) -> None:
    """Makes empty pages of another number; no run may have any.

    Raises:
      ValueError: a device has no room; there are empty pages of the old number.
    """
    before = self.sizes
    self._drop(sizes)
    try:
      self.allocate()
    except Exception:
      self._drop(before)
      self.allocate()
      raise

  def _drop(self, sizes: Sizes) -> None:
    """Drops the pages, and sets the sizes of those that replace them."""
    self._dropped = self.dropped
    self.sizes, self.arrays = sizes, None
    for shard in self.shards:
      shard.cache = PrefixCache(sizes.shard_pages)

  def free(self) -> None:
    """Drops the pages and their record."""
    self._dropped = self.dropped
    self.shards, self.arrays = [], None
