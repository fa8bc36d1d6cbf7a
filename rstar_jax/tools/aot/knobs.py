"""What would make a program fit that does not.

Memory is taken to be a part that stays and a part that grows in proportion, so
an answer is an estimate until the program is compiled with it.
"""

import math


def fewer(count: int, fixed: float, growing: float, has: float) -> int:
  """Returns the largest count that fits, at most `count`, 0 if none does.

  Args:
    count: of what the growing part is in proportion to.
    fixed: bytes that stay whatever the count.
    growing: bytes of the rest, at `count`.
    has: bytes that there are.
  """
  if growing <= 0:
    return count if fixed <= has else 0
  return max(0, min(count, math.floor(count * (has - fixed) / growing)))


def search(
  *,
  slots: int,
  most_tokens: int,
  room: int,
  weights: float,
  pools: float,
  calls: float,
  needs: float,
  has: float,
) -> dict[str, float]:
  """Returns settings of a search, each of which alone would make it fit.

  Args:
    slots: of a lane.
    most_tokens: of candidates in a call, or kept by a lane.
    room: tokens of a slot.
    weights: bytes on a chip of both models.
    pools: bytes on a chip of all lanes' slots.
    calls: bytes on a chip of what is in proportion to the candidates of a call:
      those that are kept, and what the program needs while it runs.
    needs: bytes on a chip, in all.
    has: bytes of a chip.

  Returns:
    "slots", "most_tokens" and "room", those that can help; where none does
    alone, "slots_and_most_tokens", the share of both that would; and where the
    weights alone are too much, "tensor", into how many more parts they would
    have to be cut.
  """
  if weights >= has:
    return {"tensor": math.ceil(weights / has)}
  found: dict[str, float] = {
    "slots": fewer(slots, needs - pools, pools, has),
    "most_tokens": fewer(most_tokens, needs - calls, calls, has),
    "room": fewer(room, needs - pools, pools, has),
  }
  found = {name: value for name, value in found.items() if value}
  if found:
    return found
  growing = pools + calls
  share = (has - (needs - growing)) / growing
  if share <= 0:
    return {"tensor": math.ceil(needs / has)}
  return {"slots_and_most_tokens": float(f"{share:.2g}")}


def training(
  *,
  batch_size: int,
  accumulate: int,
  parts: int,
  state: float,
  gradients: float,
  needs: float,
  has: float,
) -> dict[str, int]:
  """Returns the setting of a training that would make it fit.

  Args:
    batch_size: rows of an update.
    accumulate: parts that they are cut into now.
    parts: devices that hold different rows; each takes at least one at once.
    state: bytes on a chip of parameters, optimiser state and batch.
    gradients: bytes on a chip of the gradients' sum.
    needs: bytes on a chip, in all.
    has: bytes of a chip.

  Returns:
    "accumulate", if that can help; else "times_chips", how many times as many
    chips the state would have to be spread over.
  """
  fixed = state + gradients
  growing = needs - fixed
  for count in range(accumulate + 1, batch_size // parts + 1):
    divides = batch_size % (count * parts) == 0
    if divides and fixed + growing * accumulate / count <= has:
      return {"accumulate": count}
  least = fixed + growing * accumulate * parts / batch_size
  return {"times_chips": math.ceil(least / has)}
