"""The sizes of a model's programs, and the number of its pages."""

import dataclasses

from rstar_jax.config.schema import EngineConfig
from rstar_jax.models.config import PAGE

# The slots of a call are a multiple of this in each data shard; programs of
# other sizes would not agree to the bit. It is also the number of rows that XLA
# on a CPU computes at once; see `ModelConfig.row_block`.
BLOCK = 32


def pages_for(tokens: int) -> int:
  """Returns the number of pages that a number of tokens needs."""
  return -(-tokens // PAGE)


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The sizes of a model's programs, and the number of its pages.

  Attributes:
    config: what is asked for.
    shards: data shards, which have equally many slots and pages.
    step: most tokens that follow a prefix.
    longest: most tokens of a path.
    least: fewest pages of a shard.
  """

  config: EngineConfig
  shards: int
  step: int
  longest: int
  least: int = 0

  @classmethod
  def of(cls, config: EngineConfig, shards: int, step: int) -> "Sizes":
    """Returns the sizes for paths of the config's longest prefix and a step."""
    return cls(config, shards, step, config.max_prefix_tokens + step)

  @property
  def rows(self) -> int:
    """Returns the token slots of a sampling step."""
    return self._blocks(self.config.rows)

  @property
  def few(self) -> int:
    """Returns those of the program for few candidates: a quarter."""
    return self._blocks(self.rows // 4)

  @property
  def prefill_tokens(self) -> int:
    """Returns the token slots of a call that computes prefixes."""
    return self._blocks(self.config.prefill_tokens)

  @property
  def prefill_paths(self) -> int:
    """Returns the most paths of such a call."""
    return max(self.prefill_tokens // 4, self.shards)

  @property
  def path_pages(self) -> int:
    """Returns the pages of the longest path."""
    return pages_for(self.longest)

  @property
  def step_pages(self) -> int:
    """Returns the most pages that a step writes to."""
    return pages_for(self.step) + 1

  @property
  def fewest(self) -> int:
    """Returns the fewest pages of a data shard, whatever is asked for."""
    return max(self.path_pages + self.step_pages, self.least)

  @property
  def shard_pages(self) -> int:
    """Returns the pages of each data shard."""
    least = self.fewest
    if self.config.pages:
      return max(self.config.pages // self.shards, least)
    # A path for every fourth row, and two steps for every row.
    rows = self.rows // self.shards
    return least + rows // 4 * self.path_pages + 2 * rows * self.step_pages

  def _blocks(self, slots: int) -> int:
    """Returns slots rounded up to whole blocks, equally many in each shard."""
    block = self.shards * BLOCK
    return -(-slots // block) * block
