"""What the kernel for shared paths saves, by the TPU compiler's own report.

  JAX_PLATFORMS=cpu python -m benchmarks.branch_attention --topology=v5e:2x2

needs no TPU, only `libtpu`. It compiles the attention of a decode loop, with
the writes of new keys and values but no weights, for one chip: of XLA and of
the kernel, in the shapes that one chip has of Qwen2.5-Math-7B with tensor=4.
One JSON line each says, for a layer and a token of every candidate:

  hbm_mb       what the loop's body reads from and writes to the chip's memory;
               for the kernel all that it is given, skipped blocks included
  floor_mb     queries, keys and values once
  xla_cycles   the compiler's estimates for its own operations, in sum; it has
               none for a kernel
  temp_mb      memory besides arguments and results, of the whole program
"""

import argparse
import json
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from rstar_jax.models import branch_attention

_WIDTH = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_NAME = re.compile(r"%[\w.\-]+")
_LINE = re.compile(r"^\s*(?:ROOT )?(%[\w.\-]+) = (.*?) ([\w\-]+)\((.*)$")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
# What moves nothing.
_FREE = ("parameter", "constant", "get-tuple-element", "tuple", "bitcast")


def sizes(text: str) -> list[tuple[int, bool]]:
  """Returns bytes of the arrays of a type, and whether in main memory."""
  found = []
  for kind, shape, layout in _ARRAY.findall(text):
    if kind in _WIDTH:
      count = 1
      for size in filter(None, shape.split(",")):
        count *= int(size)
      found.append((count * _WIDTH[kind], "S(" not in layout))
  return found


def computations(text: str) -> dict[str, list[tuple[str, str, str, str]]]:
  """Returns (name, type, operation, the rest) of each computation's lines."""
  found, lines = {}, []
  for line in text.splitlines():
    if line.endswith("{") and not line.startswith(" "):
      name = _NAME.search(line)
      lines = found.setdefault(name.group() if name else "", [])
    elif match := _LINE.match(line):
      lines.append(match.groups())
  return found


def body_cost(text: str) -> tuple[float, int]:
  """Returns bytes and estimated cycles of the longest loop's body.

  Args:
    text: a compiled module. Copies count where they start; a write into a part
      of an array counts that part.
  """
  parts = computations(text)
  bodies = re.findall(r"body=(%[\w.\-]+)", text)
  lines = parts[max(bodies, key=lambda each: len(parts[each]))]
  types = {name: kind for name, kind, _, _ in lines}
  total = cycles = 0
  for _, kind, operation, rest in lines:
    if operation in _FREE or operation.endswith("-done"):
      continue
    if match := _CYCLES.search(rest):
      cycles += int(match.group(1))
    operands = _NAME.findall(rest.partition(")")[0])
    given = [sizes(types.get(each, "")) for each in operands]
    if operation == "dynamic-update-slice":
      total += sum(size for size, main in given[0] if main) and given[1][0][0]
    elif operation.endswith("-start"):
      # (destination, source, context), or of a slice (source, destination).
      moved = [each for each in sizes(kind) if each[0] > 4][:2]
      size = min(size for size, _ in moved)
      total += size * sum(main for _, main in moved)
    else:
      everything = [*sizes(kind), *(each for one in given for each in one)]
      total += sum(size for size, main in everything if main)
  return total, cycles


def loop(attend: Callable, layers: int) -> Callable:
  """Returns a decode loop of nothing but attention."""

  def run(q, paths, owns, lengths, count):
    def step(state):
      index, q, owns = state
      grown = []
      for path, own in zip(paths, owns, strict=True):
        new = jnp.swapaxes(q[..., : path[0].shape[1], :] * 0.5, 2, 3)
        own = tuple(
          jax.lax.dynamic_update_slice_in_dim(each, new, index, axis=3)
          for each in own
        )
        q = attend(q, path, lengths, own, index)
        grown.append(own)
      return index + 1, q, grown

    state = (jnp.int32(0), q, owns)
    return jax.lax.while_loop(lambda state: state[0] < count, step, state)[1:]

  return run


def report(topology: str, kind: str, args: argparse.Namespace) -> dict:
  """Compiles for one chip of a topology and returns what it costs."""
  devices = topologies.get_topology_desc(
    platform="tpu", topology_name=topology
  ).devices
  mesh = jax.sharding.Mesh(devices[:1], ("chip",))
  sharding = jax.sharding.NamedSharding(mesh, jax.P())

  def array(*shape, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

  leaves, candidates, dim = args.leaves, args.candidates, args.head_dim
  q = array(leaves, candidates, 1, args.heads, dim)
  path = array(leaves, args.kv_heads, args.path, dim)
  own = array(leaves, candidates, args.kv_heads, args.step, dim)
  run = loop(branch_attention.attend_of(kind), args.layers)
  with jax.set_mesh(mesh):
    compiled = (
      jax.jit(run, donate_argnums=2)
      .lower(
        q,
        [(path, path)] * args.layers,
        [(own, own)] * args.layers,
        array(leaves, dtype=jnp.int32),
        array(dtype=jnp.int32),
      )
      .compile()
    )
  moved, cycles = body_cost(compiled.as_text())
  floor = sum(2 * 2 * each.size for each in (q, path, own))
  return dict(
    topology=topology,
    attention=kind,
    hbm_mb=round(moved / args.layers / 1e6, 1),
    floor_mb=round(floor / 1e6, 1),
    xla_cycles=cycles // args.layers,
    temp_mb=round(compiled.memory_analysis().temp_size_in_bytes / 1e6, 1),
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--topology", nargs="+", default=["v5e:2x2"])
  parser.add_argument("--leaves", type=int, default=16)
  parser.add_argument("--candidates", type=int, default=32)
  parser.add_argument("--heads", type=int, default=7)
  parser.add_argument("--kv_heads", type=int, default=1)
  parser.add_argument("--head_dim", type=int, default=128)
  parser.add_argument("--path", type=int, default=1024)
  parser.add_argument("--step", type=int, default=256)
  parser.add_argument(
    "--layers", type=int, default=4, help="so many that caches fill no VMEM"
  )
  args = parser.parse_args()
  for topology in args.topology:
    for kind in ("xla", "pallas"):
      print(json.dumps(report(topology, kind, args)), flush=True)


if __name__ == "__main__":
  main()
