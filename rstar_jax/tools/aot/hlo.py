"""Reads the text of a compiled XLA program: what runs, on arrays of what size.

Only what counting needs: the computations, their instructions in order, and of
each its results, operands and attributes.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

_BITS = {
  "pred": 8,
  "bf16": 16,
  "token": 0,
  "opaque": 0,
}


@dataclasses.dataclass(frozen=True)
class Buffer:
  """One array.

  Attributes:
    dtype: as XLA calls it: "bf16", "s32".
    dims: its shape.
    space: which memory it is in: 0 is the chip's HBM (or the only memory that
      there is), 1 is the TPU's VMEM, others hold flags.
  """

  dtype: str
  dims: tuple[int, ...]
  space: int = 0

  @property
  def elements(self) -> int:
    return math.prod(self.dims)

  @property
  def bytes(self) -> float:
    """Bytes of the elements, the padding of tiles left out."""
    bits = _BITS.get(self.dtype)
    if bits is None:
      bits = int(re.search(r"\d+", self.dtype).group())
    return self.elements * bits / 8


# Of an instruction: one array, or a tuple, which may be nested.
Shape = Buffer | tuple


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation.

  Attributes:
    name: without the "%".
    opcode: "fusion", "while", "all-reduce".
    shape: of the result.
    operands: names.
    inside: what stands in the parentheses, e.g. the number of a parameter.
    attributes: the text after them.
    root: whether it is the computation's result.
  """

  name: str
  opcode: str
  shape: Shape
  operands: tuple[str, ...]
  inside: str
  attributes: str
  root: bool

  @property
  def buffers(self) -> tuple[Buffer, ...]:
    """The arrays of the result, in order."""
    return tuple(leaves(self.shape))

  def called(self, attribute: str) -> str | None:
    """Returns the computation that an attribute names, None without it."""
    found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
    return found and found.group(1)


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled program.

  Attributes:
    entry: name of the computation that is run.
    computations: instructions by the computation's name, in order.
    partitions: devices that run it together.
  """

  entry: str
  computations: dict[str, list[Instruction]]
  partitions: int


def leaves(shape: Shape) -> Iterator[Buffer]:
  """Yields the arrays of a shape."""
  if isinstance(shape, Buffer):
    yield shape
  else:
    for each in shape:
      yield from leaves(each)


_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")
_COMMENT = re.compile(r"/\*.*?\*/")


def parse(text: str) -> Program:
  """Reads the text that `compiled.as_text()` gives.

  Raises:
    ValueError: a line is not understood, or no computation is the entry.
  """
  partitions = re.search(r"num_partitions=(\d+)", text.partition("\n")[0])
  computations: dict[str, list[Instruction]] = {}
  entry, body = None, None
  for line in text.splitlines():
    if body is None:
      header = _HEADER.match(line)
      if header:
        body = computations.setdefault(header.group(2), [])
        if header.group(1):
          entry = header.group(2)
    elif line.startswith("}"):
      body = None
    elif line.strip():
      body.append(_instruction(_COMMENT.sub("", line)))
  if entry is None:
    raise ValueError("the text has no ENTRY: give that of a compiled program")
  return Program(
    entry, computations, int(partitions.group(1)) if partitions else 1
  )


def _instruction(line: str) -> Instruction:
  start = _LINE.match(line)
  if not start:
    raise ValueError(f"not an instruction: {line[:120]!r}")
  shape, at = _shape(line, start.end())
  opcode = _OPCODE.match(line, at)
  if not opcode:
    raise ValueError(f"no operation after the shape: {line[:120]!r}")
  end = _closing(line, opcode.end() - 1)
  inside = line[opcode.end() : end]
  return Instruction(
    name=start.group(2),
    opcode=opcode.group(1),
    shape=shape,
    operands=tuple(re.findall(r"%([\w.\-]+)", inside)),
    inside=inside,
    attributes=line[end + 1 :],
    root=bool(start.group(1)),
  )


def _shape(line: str, at: int) -> tuple[Shape, int]:
  """Reads a shape that starts at `at`; returns it and where it ends."""
  if line[at] == "(":
    parts, at = [], at + 1
    while line[at] != ")":
      part, at = _shape(line, at)
      parts.append(part)
      while line[at] in ", ":
        at += 1
    return tuple(parts), at + 1
  array = _ARRAY.match(line, at)
  if not array:
    raise ValueError(f"not a shape: {line[at : at + 60]!r}")
  dims = tuple(int(size) for size in array.group(2).split(",") if size)
  at, space = array.end(), 0
  if line[at : at + 1] == "{":
    end = line.index("}", at)
    found = re.search(r"S\((\d+)\)", line[at:end])
    space = int(found.group(1)) if found else 0
    at = end + 1
  return Buffer(array.group(1), dims, space), at


def _closing(line: str, at: int) -> int:
  """Returns where the parenthesis at `at` is closed."""
  depth, quoted = 0, False
  for index in range(at, len(line)):
    char = line[index]
    if char == '"' and line[index - 1] != "\\":
      quoted = not quoted
    elif not quoted and char in "(){}":
      depth += 1 if char in "({" else -1
      if depth == 0:
        return index
  raise ValueError(f"a parenthesis is not closed: {line[:120]!r}")
