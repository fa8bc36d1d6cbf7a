"""HBM of a chip: what a search keeps there, and settings that would fit.

A host has a policy and a PPM, a pool of paths for each of both in every lane,
and the candidates of the last calls of every lane, where those are cached.
"""

import dataclasses
import math

from jax.sharding import Mesh

from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot.arrays import (
  abstract,
  bytes_of,
  candidates_of,
  pool_of,
)
from rstar_jax.tools.aot.shapes import Shapes


@dataclasses.dataclass(frozen=True)
class Resident:
  """Bytes that stay on one chip, whatever program runs.

  Attributes:
    policy: weights.
    value: weights of the PPM.
    pool: paths of one lane, of the program's own engine.
    value_pool: paths of the PPM in one lane.
    others: paths of all other lanes.
    sampled: cached candidates of the policy in one lane.
    scored: cached candidates of the PPM in one lane.
    lanes: how many lanes have cached candidates.
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
  def kept(self) -> float:
    return self.lanes * (self.sampled + self.scored)

  @property
  def total(self) -> float:
    return self.weights + self.pools + self.kept

  def beside(self, name: str, shapes: Shapes) -> float:
    """Returns the bytes that are no argument or result of a search program."""
    # A call samples or scores a part of the lane's leaves.
    sampled = self.sampled * shapes.leaves / shapes.slots
    scored = self.scored * shapes.scored / shapes.slots
    own = {
      "advance": self.policy + self.pool,
      "fork": self.pool,
      "expand": self.policy + self.pool + sampled,
      "commit": self.pool + sampled,
      "score": self.value + self.value_pool + scored,
    }
    return self.total - own[name]


def resident(shapes: Shapes, model: ModelConfig, mesh: Mesh) -> Resident:
  """Returns what stays on a chip of one host.

  Args:
    shapes: sizes of the search's programs.
    model: of the policy and the PPM, with the dtypes of the search.
    mesh: of the host's chips.
  """

  def pool(length: int) -> float:
    return bytes_of(pool_of(model, shapes.slots, length, mesh))

  def cached(columns: int, step: int) -> float:
    return bytes_of(candidates_of(model, (shapes.slots, columns), step, mesh))

  value = bool(shapes.value_room)
  value_pool = pool(shapes.value_room) if value else 0.0
  scored = shapes.keep_scored and value
  return Resident(
    policy=bytes_of(abstract(model, "lm", mesh)[1]),
    value=bytes_of(abstract(model, "tanh", mesh)[1]) if value else 0.0,
    pool=pool(shapes.room),
    value_pool=value_pool,
    others=sum(map(pool, shapes.others)) + shapes.lanes * value_pool,
    sampled=cached(shapes.candidates, shapes.step - 1) if shapes.keep else 0.0,
    scored=cached(shapes.columns, shapes.scored_step) if scored else 0.0,
    lanes=shapes.lanes,
  )


def sampling(shapes: Shapes, model: ModelConfig, mesh: Mesh) -> float:
  """Returns a lower bound of a sampling call's own bytes, on one chip.

  Its paths and its candidates so far; the candidates that it returns are
  resident.
  """
  step = shapes.step - 1
  rows = shapes.leaves, shapes.candidates
  paths = candidates_of(model, (shapes.leaves,), shapes.path, mesh)
  return bytes_of((paths, candidates_of(model, rows, step, mesh)))


def largest(count: int, fixed: float, growing: float, has: float) -> int:
  """Returns the largest count that fits, at most `count`, 0 if none does.

  Args:
    count: the present setting.
    fixed: bytes that do not depend on it.
    growing: bytes in proportion to it, at `count`.
    has: bytes of a chip.
  """
  if growing <= 0:
    return count if fixed <= has else 0
  return max(0, min(count, math.floor(count * (has - fixed) / growing)))


def suggest_search(
  found: Resident,
  shapes: Shapes,
  most_tokens: int,
  needs: float,
  has: float,
) -> dict[str, float]:
  """Returns estimates of settings, each of which alone would fit.

  Args:
    found: what is resident.
    shapes: sizes of the search's programs.
    most_tokens: `config.engine.most_tokens`.
    needs: bytes on a chip, in all.
    has: bytes of a chip.

  Returns:
    "slots", "most_tokens" and "room", those that help; where none does alone,
    "slots_and_most_tokens", the factor on both; and where the weights alone are
    too much, "tensor", the factor on the mesh's tensor axis.
  """
  if found.weights >= has:
    return {"tensor": math.ceil(found.weights / has)}
  pools = found.pools
  # In proportion to a call's candidates: cached, and of the program itself.
  calls = needs - found.weights - pools
  result: dict[str, float] = {
    "slots": largest(shapes.slots, needs - pools, pools, has),
    "most_tokens": largest(most_tokens, needs - calls, calls, has),
    "room": largest(shapes.room, needs - pools, pools, has),
  }
  result = {name: value for name, value in result.items() if value}
  share = (has - found.weights) / (pools + calls)
  return result or {"slots_and_most_tokens": float(f"{share:.2g}")}


def suggest_training(
  *,
  batch_size: int,
  accumulate: int,
  parts: int,
  fixed: float,
  needs: float,
  has: float,
) -> dict[str, int]:
  """Returns an estimate of the setting that makes a training fit.

  Args:
    batch_size: rows of an update.
    accumulate: the present number of micro-batches.
    parts: devices that hold different rows; each takes at least one at once.
    fixed: bytes on a chip of the state, the batch and the gradients' sum.
    needs: bytes on a chip, in all.
    has: bytes of a chip.

  Returns:
    "accumulate", if that can help; else "times_chips", the factor on the chips
    that share the state.
  """
  growing = (needs - fixed) * accumulate
  for count in range(accumulate + 1, batch_size // parts + 1):
    divides = batch_size % (count * parts) == 0
    if divides and fixed + growing / count <= has:
      return {"accumulate": count}
  least = fixed + growing * parts / batch_size
  return {"times_chips": math.ceil(least / has)}
