"""Bytes that a compiled program moves to and from HBM.

What stays in a TPU's VMEM is not counted, nor the padding of tiles.
"""

import collections
import re
from collections.abc import Mapping

from rstar_jax.tools.aot.hlo import Buffer, Instruction, Program, leaves

# Which read of an operand no more than they give.
_PARTIAL = ("dynamic-slice", "slice", "gather")
# Which write into their first operand, and which operand they write.
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}


def moved(
  one: Instruction, there: Mapping[str, Instruction], program: Program
) -> float:
  """Returns the bytes of HBM that an instruction reads and writes.

  Args:
    one: an instruction that is not in a fusion.
    there: those of its computation, by name.
    program: has the bodies of fusions.
  """
  if one.opcode.endswith("-start") and isinstance(one.shape, tuple):
    # (source, destination, flags): what is moved is as large as the smaller.
    sizes = [list(leaves(each)) for each in one.shape[:2]]
    size = min(sum(b.bytes for b in part) for part in sizes)
    return size * sum(any(b.space == 0 for b in part) for part in sizes)
  if one.opcode == "fusion":
    body = program.computations[one.called("calls")]
    return _fusion(one, body, there)
  if one.opcode in _UPDATES:
    # In place: the update is read, and written.
    update = there[one.operands[_UPDATES[one.opcode]]].buffers
    return _hbm(update) + update[0].bytes * (one.buffers[0].space == 0)
  written = _hbm(one.buffers)
  if one.opcode in _PARTIAL:
    source = there[one.operands[0]].buffers[0]
    return written + (one.buffers[0].bytes if source.space == 0 else 0)
  return written + sum(_hbm(there[name].buffers) for name in one.operands)


def chain(one: Instruction) -> str | None:
  """Returns the name of a collective that is spread over fusions.

  A TPU runs such a one beside products: it stands in the fusion that starts it,
  in those in which it goes on, and in the last, and is one all the same.
  """
  found = re.search(r'chain_id="(\d+)"', one.attributes)
  return found and found.group(1)


def _hbm(buffers: tuple[Buffer, ...]) -> float:
  return sum(each.bytes for each in buffers if each.space == 0)


def _fusion(
  one: Instruction,
  body: list[Instruction],
  there: Mapping[str, Instruction],
) -> float:
  """Counts what a fusion reads of its operands, and its results.

  An operand that is only sliced inside counts as its slices; one that is
  updated in place counts as the update.
  """
  inside = {each.name: each for each in body}
  users = collections.defaultdict(list)
  for each in body:
    for name in each.operands:
      users[name].append(each)
  read, updated = 0.0, set()
  for each in body:
    if each.opcode == "parameter":
      buffers = there[one.operands[int(each.inside)]].buffers
      if any(b.space == 0 for b in buffers):
        part = _part_read(each, users, inside, updated)
        read += _hbm(buffers) if part is None else part
  roots = [each for each in body if each.root]
  if roots and roots[0].opcode == "tuple":
    roots = [inside[name] for name in roots[0].operands]
  written = 0.0
  for root, buffer in zip(roots, one.buffers, strict=False):
    root = _behind(root, inside)
    passed = root.opcode == "parameter" or _passes(root)
    if buffer.space == 0 and not passed:
      if root.name in updated:
        written += inside[root.operands[_UPDATES[root.opcode]]].buffers[0].bytes
      else:
        written += buffer.bytes
  return read + written


def _passes(one: Instruction) -> bool:
  """Whether an instruction in a fusion belongs to such a collective."""
  return bool(chain(one)) or '"AsyncCollective' in one.attributes


def _behind(one: Instruction, inside: Mapping[str, Instruction]) -> Instruction:
  """Returns what a bitcast (or a copy of one) is of."""
  while one.opcode == "bitcast":
    one = inside[one.operands[0]]
  return one


def _part_read(
  one: Instruction,
  users: Mapping[str, list[Instruction]],
  inside: Mapping[str, Instruction],
  updated: set[str],
) -> float | None:
  """Returns the bytes read of a parameter, None if that is all of it."""
  total = 0.0
  for user in users[one.name]:
    if user.opcode == "bitcast":
      part = _part_read(user, users, inside, updated)
      if part is None:
        return None
      total += part
    elif user.opcode in _PARTIAL and user.operands[0] == one.name:
      total += user.buffers[0].bytes
    elif user.opcode in _UPDATES and user.operands[0] == one.name:
      updated.add(user.name)
    elif not (_passes(user) or user.opcode == "tuple"):
      return None
  return total
