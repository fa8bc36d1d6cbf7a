"""Counts the bytes that a compiled program moves, from its HLO text.

The compiler's `cost_analysis` counts the body of a loop once, and training is
nested loops: micro-batches, layers, parts of the logits. Here the body counts
as often as it runs. Each instruction outside of a fusion reads its operands
from HBM and writes its results there, except for arrays in the chip's fast
memory, slices of larger arrays, and arrays that are updated in place.
"""

import collections
import dataclasses
import functools
import math
import re

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_BYTES |= {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_LINE = re.compile(r"\s+(ROOT )?%([\w.\-]+) = (.*)$")
_HEAD = re.compile(r"(?:ENTRY )?%([\w.\-]+) \(.*\{$")
# Instructions that move nothing, or bytes that another one counts.
_FREE = set(
  "parameter constant tuple get-tuple-element bitcast iota after-all "
  "partition-id replica-id copy-done slice-done optimization-barrier "
  "collective-permute-done all-gather-done all-reduce-done async-done "
  "send-done recv-done".split()
)
_SLICES = ("dynamic-slice", "slice", "gather")
_SENT = {
  "all-gather": lambda size, group: size * (group - 1) / group,
  "all-reduce": lambda size, group: 2 * size * (group - 1) / group,
  "reduce-scatter": lambda size, group: size * (group - 1),
  "all-to-all": lambda size, group: size * (group - 1) / group,
  "collective-permute": lambda size, group: size,
}


@dataclasses.dataclass(frozen=True)
class Moved:
  """Bytes moved by one chip.

  Attributes:
    hbm: to and from HBM.
    wire: to other chips of the slice.
    between: to other slices, over the data centre's network.
  """

  hbm: float = 0.0
  wire: float = 0.0
  between: float = 0.0

  def __add__(self, other: "Moved") -> "Moved":
    return Moved(
      self.hbm + other.hbm,
      self.wire + other.wire,
      self.between + other.between,
    )

  def __mul__(self, times: float) -> "Moved":
    return Moved(self.hbm * times, self.wire * times, self.between * times)


@dataclasses.dataclass(frozen=True)
class _Instruction:
  """A line of HLO: `name = shape kind(operands), rest`."""

  name: str
  shape: str
  kind: str
  operands: tuple[str, ...]
  rest: str
  root: bool

  def calls(self, word: str) -> str:
    match = re.search(rf"{word}=%([\w.\-]+)", self.rest)
    return match.group(1) if match else ""

  @property
  def channel(self) -> str:
    match = re.search(r"channel_id=(\d+)", self.rest)
    return match.group(1) if match else self.name


def moved(text: str, turns: int) -> Moved:
  """Counts the bytes of one run of a program.

  Args:
    text: HLO text of a compiled program.
    turns: trip count of the loop whose count the program computes.
  """
  program, entry = _parsed(text)
  return _Counter(program, turns).of(entry)


def _parsed(text: str) -> tuple[dict[str, dict[str, _Instruction]], str]:
  """Returns all computations' instructions, and the entry's name."""
  program: dict[str, dict[str, _Instruction]] = {}
  entry, current = "", ""
  for line in text.splitlines():
    if head := _HEAD.match(line):
      current = head.group(1)
      program[current] = {}
      if line.startswith("ENTRY"):
        entry = current
    elif current and (match := _LINE.match(line)):
      root, name, after = match.groups()
      program[current][name] = _instruction(name, after, bool(root))
  return program, entry


def _instruction(name: str, text: str, root: bool) -> _Instruction:
  shape, after = _split(text)
  kind, _, after = after.strip().partition("(")
  inside, rest = _split("(" + after)
  operands = tuple(re.findall(r"%([\w.\-]+)", inside))
  if kind in ("constant", "parameter"):
    rest = inside + rest
  return _Instruction(name, shape, kind, operands, rest, root)


def _split(text: str) -> tuple[str, str]:
  """Splits off the first word, or the first parenthesised part."""
  if not text.startswith("("):
    word, _, rest = text.partition(" ")
    return word, rest
  depth = 0
  for place, letter in enumerate(text):
    depth += (letter == "(") - (letter == ")")
    if not depth:
      return text[: place + 1], text[place + 1 :]
  return text, ""


def _arrays(shape: str, everywhere: bool = False) -> list[float]:
  """Returns the bytes of a shape's arrays; arrays outside HBM count 0."""
  arrays_ = []
  for dtype, sizes, layout in _ARRAY.findall(shape):
    size = _BYTES.get(dtype, 0) * math.prod(
      map(int, filter(None, sizes.split(",")))
    )
    arrays_.append(size if everywhere or "S(" not in layout else 0)
  return arrays_


class _Counter:
  """Counts the bytes of computations, with a cache."""

  def __init__(self, program, turns: int):
    self._program, self._turns = program, turns
    self.of = functools.cache(self._of)

  def _of(self, name: str) -> Moved:
    body, total, seen = self._program[name], Moved(), set()
    for each in body.values():
      if each.kind == "while":
        total += self.of(each.calls("body")) * self._trips(each)
      elif each.kind == "conditional":
        parts = re.search(r"branch_computations=\{([^}]*)\}", each.rest)
        names = re.findall(r"%([\w.\-]+)", parts.group(1) if parts else "")
        names += [
          called
          for word in ("true_computation", "false_computation")
          if (called := each.calls(word))
        ]
        total += max((self.of(one) for one in names), key=lambda m: m.hbm)
      elif each.kind == "call":
        total += self.of(each.calls("to_apply"))
      elif each.kind not in _FREE:
        total += Moved(
          self._hbm(each, body),
          self._wire(each, seen, scattered=False),
          self._between(each),
        )
    return total

  def _trips(self, loop: _Instruction) -> int:
    """Returns a loop's trip count, the constant in its condition."""
    condition = self._program[loop.calls("condition")].values()
    numbers = [
      int(found.group(1))
      for each in condition
      if each.kind == "constant" and each.shape.startswith("s32[]")
      for found in [re.match(r"\((\d+)\)", each.rest)]
      if found
    ]
    return max(numbers, default=self._turns)

  def _wire(self, each: _Instruction, seen: set, scattered: bool) -> float:
    """Returns the bytes that an instruction, or one inside of it, sends.

    Args:
      each: the instruction.
      seen: channels counted already; an asynchronous collective has an
        instruction in each fusion that it overlaps with.
      scattered: whether the result of a sum is scattered immediately.
    """
    kind = each.kind.removesuffix("-start")
    if kind == "fusion":
      called = each.calls("calls")
      return sum(
        self._wire(one, seen, "all-reduce-scatter" in called)
        for one in self._program[called].values()
      )
    if kind not in _SENT or each.channel in seen:
      return 0.0
    seen.add(each.channel)
    sizes = _arrays(each.shape, everywhere=True)
    size = sizes[0] if kind == "collective-permute" else sum(sizes)
    if kind == "all-gather" and each.kind != kind:
      size = sizes[-1]
    sent = _SENT[kind](size, _group(each.rest))
    return sent / 2 if kind == "all-reduce" and scattered else sent

  def _between(self, each: _Instruction) -> float:
    """Returns the bytes that an instruction sends via the host."""
    if each.kind != "send" or "is_host_transfer=true" not in each.rest:
      return 0.0
    # (sent array, context, token).
    return _arrays(each.shape, everywhere=True)[0]

  def _hbm(self, each: _Instruction, body: dict[str, _Instruction]) -> float:
    given = [body[one].shape if one in body else "" for one in each.operands]
    reads = [sum(_arrays(shape)) for shape in given]
    writes = _arrays(each.shape)
    if each.kind in ("copy-start", "slice-start"):
      # (result, source, context), or ((source), result, context).
      place = each.kind == "slice-start"
      size = _arrays(each.shape, everywhere=True)[place]
      return size * (bool(writes[place]) + bool(writes[1 - place]))
    if each.kind in ("send", "recv"):
      return _arrays(each.shape)[0]
    if each.kind.startswith("async") or "AllocateBuffer" in each.rest:
      return 0.0
    if each.kind in _SLICES:
      return 2 * sum(writes) if reads[0] else sum(writes)
    if each.kind == "dynamic-update-slice":
      return 2 * reads[1]
    if each.kind == "fusion":
      inside = self._program[each.calls("calls")]
      self._only_slices(inside, reads)
      self._in_place(inside, reads, writes)
      # Aliased arrays: {output}: (operand, {}).
      passed = each.rest.partition("output_to_operand_aliasing=")[2]
      for out, operand in re.findall(r"\{(\d*)\}: \((\d+), \{\}", passed):
        writes[int(out or 0)] = reads[int(operand)] = 0
    return sum(reads) + sum(writes)

  def _only_slices(self, inside, reads: list[float]) -> None:
    """Reduces operands to their slices, if only slices are read."""
    users = collections.defaultdict(list)
    for each in inside.values():
      for one in each.operands:
        users[one].append(each)
    for each in inside.values():
      if each.kind == "parameter":
        number = _number(each)
        using = users[each.name]
        if using and all(
          one.kind in _SLICES and one.operands[0] == each.name for one in using
        ):
          size = sum(sum(_arrays(one.shape, True)) for one in using)
          reads[number] = min(reads[number], size)

  def _in_place(self, inside, reads: list[float], writes: list[float]) -> None:
    """Reduces results to the written part, if an array is updated."""
    root = next(each for each in inside.values() if each.root)
    roots = [root]
    if root.kind == "tuple":
      roots = [inside[one] for one in root.operands]
    for place, each in enumerate(roots):
      while each.kind in ("bitcast", "copy") and each.operands[0] in inside:
        each = inside[each.operands[0]]
      if each.kind == "dynamic-update-slice":
        target, update = (inside[one] for one in each.operands[:2])
        while target.kind == "bitcast":
          target = inside[target.operands[0]]
        size = sum(_arrays(update.shape, True))
        writes[place] = min(writes[place], size)
        if target.kind == "parameter":
          reads[_number(target)] = 0


def _number(parameter: _Instruction) -> int:
  return int(re.match(r"\((\d+)\)", parameter.rest).group(1))


def _group(rest: str) -> int:
  """Returns the number of chips in a collective's group."""
  if match := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
    return int(match.group(1))
  if match := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
    return match.group(1).count(",") + 1
  match = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest)
  if not match:
    return 2
  sizes = dict(re.findall(r"'(\w+)'=(\d+)", match.group(1)))
  return math.prod(
    int(sizes[a]) for a in re.findall(r"'(\w+)'", match.group(2))
  )
