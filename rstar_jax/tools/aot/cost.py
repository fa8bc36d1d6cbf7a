"""Counts what a compiled program does: FLOPs, bytes, collectives, with loops.

XLA's own `cost_analysis` counts the body of a loop once. Here a body counts as
often as it runs: as often as the compiler knows, or as the caller says where
the data ends a loop.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

from rstar_jax.tools.aot.hlo import Buffer, Instruction, Program, leaves

# Results that are names for what is there already.
_FREE = frozenset(
  "parameter constant tuple get-tuple-element bitcast after-all partition-id "
  "replica-id opt-barrier domain add-dependency "
  "copy-done slice-done async-done async-update recv-done send-done "
  "all-reduce-done all-gather-done collective-permute-done".split()
)
_COLLECTIVES = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "ragged-all-to-all",
  "collective-broadcast",
  "collective-permute",
)
# Which read of an operand no more than they give.
_PARTIAL = ("dynamic-slice", "slice", "gather")
# Which write into their first operand, and which operand they write.
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}


@dataclasses.dataclass
class Traffic:
  """Collectives of one kind.

  Attributes:
    count: how often one runs.
    bytes: of their results, on one device.
    wire: bytes that one device sends, by rings: 2 (n - 1) / n of what n devices
      reduce, (n - 1) / n of what they gather, scatter or exchange.
  """

  count: float = 0.0
  bytes: float = 0.0
  wire: float = 0.0

  def add(self, other: "Traffic", times: float = 1.0) -> None:
    self.count += times * other.count
    self.bytes += times * other.bytes
    self.wire += times * other.wire


@dataclasses.dataclass
class Cost:
  """What one run does on one device.

  Attributes:
    flops: of matrix products, 2 for each multiplication and addition.
    bytes: read from and written to HBM (on a TPU; elsewhere to memory), tiles'
      padding left out. What stays in VMEM is not counted.
    collectives: by kind.
    loops: (name, runs of its body, whether the compiler knows them).
  """

  flops: float = 0.0
  bytes: float = 0.0
  collectives: dict[str, Traffic] = dataclasses.field(
    default_factory=lambda: collections.defaultdict(Traffic)
  )
  loops: list[tuple[str, int, bool]] = dataclasses.field(default_factory=list)

  def add(self, other: "Cost", times: float = 1.0) -> None:
    self.flops += times * other.flops
    self.bytes += times * other.bytes
    for kind, traffic in other.collectives.items():
      self.collectives[kind].add(traffic, times)
    self.loops += other.loops

  @property
  def wire(self) -> float:
    """Bytes that one device sends to others."""
    return sum(each.wire for each in self.collectives.values())


def count(program: Program, runs: Sequence[int] = ()) -> Cost:
  """Counts one run of a program.

  Args:
    program: from `hlo.parse`.
    runs: of the bodies of those loops that the data ends, in order.

  Returns:
    The cost on one device, where each takes the same part.

  Raises:
    ValueError: a loop's runs are not known, or are given and not needed, or a
      collective's group is not understood.
  """
  counter = _Counter(program, runs)
  cost = counter.computation(program.entry)
  unknown = sum(not known for _, _, known in cost.loops)
  if unknown != len(runs):
    raise ValueError(f"runs={runs}, but the data ends {unknown} loops")
  return cost


class _Counter:
  """Counts computations, each once."""

  def __init__(self, program: Program, runs: Sequence[int]):
    self._program = program
    self._runs = list(runs)
    self._known: dict[str, Cost] = {}
    # Of the computation at hand: collectives that are spread over fusions.
    self._chains: set[str] = set()

  def computation(self, name: str) -> Cost:
    """Returns the cost of a computation whose instructions use memory."""
    if name not in self._known:
      cost, outer, self._chains = Cost(), self._chains, set()
      body = self._program.computations[name]
      there = {each.name: each for each in body}
      for each in body:
        if each.opcode not in _FREE:
          self._instruction(cost, each, there)
      self._known[name], self._chains = cost, outer
    return self._known[name]

  def _instruction(
    self, cost: Cost, one: Instruction, there: Mapping[str, Instruction]
  ) -> None:
    if one.opcode == "while":
      self._loop(cost, one, there)
    elif one.opcode == "conditional":
      branches = [self.computation(name) for name in _branches(one)]
      # Which one runs is the data's choice: the dearest.
      cost.add(max(branches, key=lambda each: (each.bytes, each.flops)))
    elif one.opcode in ("call", "async-start"):
      cost.add(self.computation(one.called("calls") or one.called("to_apply")))
    else:
      self._arithmetic(cost, one, there)
      cost.bytes += _bytes_moved(one, there, self._program)

  def _loop(
    self, cost: Cost, one: Instruction, there: Mapping[str, Instruction]
  ) -> None:
    runs = self._trips(one, there)
    known = runs is not None
    if not known:
      if not self._runs:
        raise ValueError(
          f"loop {one.name} ends when the data says: say how often its body "
          "runs"
        )
      runs = self._runs.pop(0)
    cost.loops.append((one.name, runs, known))
    cost.add(self.computation(one.called("body")), runs)
    cost.add(self.computation(one.called("condition")), runs + 1)

  def _trips(
    self, one: Instruction, there: Mapping[str, Instruction]
  ) -> int | None:
    """Returns the runs of a loop that counts, as `scan` makes them."""
    said = re.search(r'known_trip_count"?:\{"n":"(\d+)"', one.attributes)
    if said:
      return int(said.group(1))
    # Not said: a counter from 0 that is less than a constant.
    body = self._program.computations[one.called("condition")]
    inside = {each.name: each for each in body}
    test = next(each for each in body if each.root)
    if test.opcode != "compare" or "direction=LT" not in test.attributes:
      return None
    counter, end = (inside[name] for name in test.operands)
    if counter.opcode != "get-tuple-element" or end.opcode != "constant":
      return None
    index = int(re.search(r"index=(\d+)", counter.attributes).group(1))
    begin = there[there[one.operands[0]].operands[index]]
    while begin.opcode in ("copy", "bitcast"):
      begin = there[begin.operands[0]]
    if begin.opcode != "constant" or begin.inside != "0":
      return None
    return int(end.inside)

  def _arithmetic(
    self, cost: Cost, one: Instruction, there: Mapping[str, Instruction]
  ) -> None:
    """Adds FLOPs and collectives, those inside a fusion too."""
    if one.opcode == "fusion":
      inner = self._program.computations[one.called("calls")]
      names = {each.name: each for each in inner}
      scatters = "all-reduce-scatter" in one.called("calls")
      for each in inner:
        if scatters and each.opcode == "all-reduce":
          self._collective(cost, each, names, "reduce-scatter")
        else:
          self._arithmetic(cost, each, names)
    elif one.opcode == "dot":
      cost.flops += _dot(one, there)
    elif one.opcode == "convolution":
      cost.flops += _convolution(one, there)
    elif one.opcode == "custom-call":
      # What the author of a Pallas kernel says that it does.
      said = re.search(
        r'cost_estimate"?:\{[^}]*"flops":"?(\d+)', one.attributes
      )
      cost.flops += int(said.group(1)) if said else 0
    else:
      kind = one.opcode.removesuffix("-start")
      if kind in _COLLECTIVES:
        self._collective(cost, one, there, kind)

  def _collective(
    self,
    cost: Cost,
    one: Instruction,
    there: Mapping[str, Instruction],
    kind: str,
  ) -> None:
    given = sum(b.bytes for name in one.operands for b in there[name].buffers)
    devices = self._group(one)
    chain = _chain(one)
    if chain in self._chains:
      return
    if chain:
      self._chains.add(chain)
      # Fusions count none of its arrays.
      cost.bytes += given + sum(each.bytes for each in one.buffers)
    if kind == "all-gather":
      whole = given * devices
      result = whole
    else:
      whole = given
      result = given / devices if kind == "reduce-scatter" else given
    if kind == "collective-permute":
      share = 1.0
    else:
      share = (devices - 1) / devices * (2 if kind == "all-reduce" else 1)
    cost.collectives[kind].add(Traffic(1, result, share * whole))

  def _group(self, one: Instruction) -> int:
    """Returns how many devices take part in a collective."""
    text = one.attributes
    if "source_target_pairs=" in text:
      return 2
    found = re.search(r"replica_groups=(\S*?)(?:, |$)", text)
    groups = found.group(1) if found else ""
    listed = re.match(r"\{\{([\d,]*)\}", groups)
    if listed:
      return listed.group(1).count(",") + 1
    tiled = re.match(r"\[\d+,(\d+)\]<=", groups)
    if tiled:
      return int(tiled.group(1))
    named = re.search(
      r"replica_groups=mesh\[(.*?)\](?:, device_ids=\(.*?\))? \{(.*?)\}", text
    )
    if named:
      sizes = dict(re.findall(r"'(\w+)'=(\d+)", named.group(1)))
      axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", named.group(2))
      return math.prod(int(part or sizes[axis]) for axis, part in axes)
    if groups in ("{}", ""):
      return self._program.partitions
    raise ValueError(f"{one.name}: not a group of devices: {groups!r}")


def _branches(one: Instruction) -> list[str]:
  listed = re.search(r"branch_computations=\{(.*?)\}", one.attributes)
  if listed:
    return re.findall(r"%?([\w.\-]+)", listed.group(1))
  return [
    one.called("true_computation"),
    one.called("false_computation"),
  ]


def _dot(one: Instruction, there: Mapping[str, Instruction]) -> float:
  """Counts the FLOPs of a dot."""
  left = there[one.operands[0]].buffers[0].dims
  axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes)
  summed = [int(axis) for axis in axes.group(1).split(",") if axis]
  return 2.0 * one.buffers[0].elements * math.prod(left[i] for i in summed)


def _convolution(one: Instruction, there: Mapping[str, Instruction]) -> float:
  """Counts the FLOPs of a convolution, which is what a TPU makes of a dot.

  A batch axis of the dot is then a spatial one with dilation or padding, of
  whose positions only some meet: those are counted.
  """
  labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.attributes).groups()
  left = there[one.operands[0]].buffers[0].dims
  right = there[one.operands[1]].buffers[0].dims
  out = one.buffers[0].dims
  window = re.search(r"window=\{(.*?)\}", one.attributes)
  window = dict(
    part.split("=") for part in (window.group(1) if window else "").split()
  )
  spatial = [label for label in labels[1] if label.isdigit()]
  pairs = 1
  for label in spatial:
    axis = int(label)

    def field(name, default, axis=axis):
      return window[name].split("x")[axis] if name in window else default

    low, _, high = field("pad", "0_0").partition("_")
    pairs *= _meetings(
      size=left[labels[0].index(label)],
      kernel=right[labels[1].index(label)],
      out=out[labels[2].index(label)],
      low=int(low),
      stride=int(field("stride", "1")),
      left_dilation=int(field("lhs_dilate", "1")),
      right_dilation=int(field("rhs_dilate", "1")),
    )
  groups = re.search(r"batch_group_count=(\d+)", one.attributes)
  batch = left[labels[0].index("b")] // (int(groups.group(1)) if groups else 1)
  features = out[labels[2].index("f")]
  return 2.0 * batch * features * right[labels[1].index("i")] * pairs


def _meetings(
  *,
  size: int,
  kernel: int,
  out: int,
  low: int,
  stride: int,
  left_dilation: int,
  right_dilation: int,
) -> int:
  """Counts pairs of an output and a kernel position that meet an input."""
  total = 0
  for position in range(out):
    for at in range(kernel):
      place = position * stride + at * right_dilation - low
      if place % left_dilation == 0 and 0 <= place // left_dilation < size:
        total += 1
  return total


def _bytes_moved(
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


def _chain(one: Instruction) -> str | None:
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
  return bool(_chain(one)) or '"AsyncCollective' in one.attributes


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
