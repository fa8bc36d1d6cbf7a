"""What a chip of a search holds, whatever program runs on it.

A host has a policy and a PPM, a pool of paths for each of both in every lane,
and the candidates that the last calls of every lane made, where they are kept.
"""

import dataclasses

from jax.sharding import Mesh

from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot.described import abstract, bytes_of, kept_of, pool_of
from rstar_jax.tools.aot.shapes import Shapes


@dataclasses.dataclass(frozen=True)
class Held:
  """Bytes on one chip.

  Attributes:
    policy: its weights.
    value: those of the PPM.
    pool: one lane's paths, of the program's own engine.
    value_pool: one lane's paths of the PPM.
    others: all other lanes' paths.
    sampled: candidates that one lane keeps of the policy's.
    scored: likewise, of the PPM's.
    lanes: how many there are.
  """

  policy: float
  value: float
  pool: float
  value_pool: float
  others: float
  sampled: float
  scored: float
  lanes: int

  @property
  def weights(self) -> float:
    return self.policy + self.value

  @property
  def pools(self) -> float:
    return self.pool + self.others

  @property
  def total(self) -> float:
    return self.weights + self.pools + self.kept

  @property
  def kept(self) -> float:
    return self.lanes * (self.sampled + self.scored)

  def beside(self, name: str, shapes: Shapes) -> float:
    """Returns what there is but for a program's own arguments and results.

    Args:
      name: of `programs.SEARCH`.
      shapes: that this was made of.
    """
    # A call samples or scores a part of the lane's leaves.
    sampled = self.sampled * shapes.leaves / shapes.slots
    own = {
      "advance": self.policy + self.pool,
      "fork": self.pool,
      "expand": self.policy + self.pool + sampled,
      "commit": self.pool + sampled,
      "score": self.value
      + self.value_pool
      + self.scored * shapes.scored / shapes.slots,
    }
    return self.total - own[name]


def of_shapes(shapes: Shapes, model: ModelConfig, mesh: Mesh) -> Held:
  """Returns what is held.

  Args:
    shapes: sizes.
    model: of both, with the dtypes that they are searched with.
    mesh: of one host's chips.
  """

  def pool(length: int) -> float:
    return bytes_of(pool_of(model, shapes.held, length, mesh))

  def kept(kept: bool, columns: int, step: int) -> float:
    rows = kept_of(model, (shapes.slots, columns), step, mesh)
    return bytes_of(rows) if kept else 0.0

  value = bool(shapes.value_room)
  value_pool = pool(shapes.value_room) if value else 0.0
  others = sum(map(pool, shapes.others)) + shapes.lanes * value_pool
  return Held(
    policy=bytes_of(abstract(model, "lm", mesh)[1]),
    value=(bytes_of(abstract(model, "tanh", mesh)[1]) if value else 0.0),
    pool=pool(shapes.room),
    value_pool=value_pool,
    others=others,
    sampled=kept(shapes.keep, shapes.candidates, shapes.step - 1),
    scored=kept(
      shapes.keep_scored and value, shapes.columns, shapes.scored_step
    ),
    lanes=shapes.lanes,
  )


def sampling(shapes: Shapes, model: ModelConfig, mesh: Mesh) -> float:
  """Returns the least that a call needs while it samples, on one chip.

  Its paths, and its candidates so far; those that it returns are others.

  Args:
    shapes: sizes.
    model: of the policy.
    mesh: of one host's chips.
  """
  paths, candidates = shapes.rows
  return bytes_of(
    (
      kept_of(model, (paths,), shapes.path, mesh),
      kept_of(model, (paths, candidates), shapes.step - 1, mesh),
    )
  )
