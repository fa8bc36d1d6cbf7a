"""What two kernels for attention to pages read, and what compiling them costs.

  JAX_PLATFORMS=cpu python -m benchmarks.paged_attention

counts, for one layer and one chip of Qwen2.5-Math-7B with tensor=4, the bytes
of keys and values that a step of 256 candidates reads. Candidates of a leaf lie
side by side; a path ends anywhere in a page; a candidate has 0 to 98 tokens of
its own. With `--topology v5e:2x2` it also compiles a scan over 28 layers of
writes and attention for that host, for which it needs `libtpu` and no TPU.
"""

import argparse
import functools
import json
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from rstar_jax.models import meshes
from rstar_jax.models.kernels import ragged_pages, shared_plan
from rstar_jax.models.paged_attention import PagedAttention
from rstar_jax.models.paths import Layer, Paths

LAYERS, HEADS, KV_HEADS, DIM = 28, 28, 4, 128
ROWS, TOKENS = 256, 3328
KINDS = "pallas", "ragged"


def candidates(path: int, of_leaf: int, page: int) -> Paths:
  """Returns the paths of a step of candidates."""
  rng = np.random.default_rng(0)
  width = TOKENS // page
  tables = np.arange(ROWS * width, dtype=np.int32).reshape(ROWS, width)
  positions = np.zeros(ROWS, np.int32)
  # Leaves begin anywhere in a chunk.
  for first in range(-of_leaf // 3, ROWS, of_leaf):
    leaf = slice(max(first, 0), first + of_leaf)
    length = path + rng.integers(page)
    tables[leaf, : length // page] = tables[leaf.start, : length // page]
    positions[leaf] = length + rng.integers(99, size=len(positions[leaf]))
  return Paths(tables, np.arange(ROWS, dtype=np.int32), positions)


def megabytes(kind: str, paths: Paths, page: int) -> float:
  """Returns what a chip's part of a layer reads."""
  like = jax.ShapeDtypeStruct((1, page, 2 * KV_HEADS // 4, DIM), jnp.bfloat16)
  if kind == "pallas":
    _, reads = jax.jit(functools.partial(shared_plan.plan, like))(paths)
    return shared_plan.bytes_read(reads, like) / 1e6
  _, reads = jax.jit(functools.partial(ragged_pages.plan, like))(paths)
  return ragged_pages.bytes_read(reads, like, TOKENS // page) / 1e6


def compiled(topology: str, kind: str, page: int, slots: int) -> dict:
  """Compiles for a host of 4 chips and returns what it costs."""
  devices = topologies.get_topology_desc(
    platform="tpu", topology_name=topology
  ).devices
  mesh = jax.sharding.Mesh(np.array(devices).reshape(1, 1, 4), meshes.AXES)
  attention = PagedAttention(kind, mesh)
  count = 2**18 // page

  def array(shape, *spec, dtype=jnp.bfloat16):
    place = jax.sharding.NamedSharding(mesh, jax.P(*spec))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

  def run(q, kept, paths):
    paths = attention.plan(kept, paths)

    def add(state, index):
      q, kept = state
      k, v = q[:, :KV_HEADS] * 0.5, q[:, KV_HEADS : 2 * KV_HEADS]
      return attention.attend(q, k, v, kept, paths, Layer(index, count)), None

    return jax.lax.scan(add, (q, kept), jnp.arange(LAYERS))[0]

  integers = functools.partial(array, dtype=jnp.int32)
  start = time.process_time()
  with jax.set_mesh(mesh):
    memory = (
      jax.jit(run, donate_argnums=1)
      .lower(
        array((slots, HEADS, DIM), None, "tensor"),
        array((LAYERS * count, page, 2 * KV_HEADS, DIM), None, None, "tensor"),
        Paths(
          integers((ROWS, TOKENS // page)),
          integers((slots,)),
          integers((slots,)),
        ),
      )
      .compile()
      .memory_analysis()
    )
  return dict(
    topology=topology,
    kind=kind,
    page=page,
    slots=slots,
    cpu_s=round(time.process_time() - start, 1),
    code_mib=round(memory.generated_code_size_in_bytes / 2**20, 1),
    temporary_mib=round(memory.temp_size_in_bytes / 2**20, 1),
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name, least, default, text in (
    ("--page", "+", [16, 32], "tokens per page"),
    ("--path", "*", [200, 1000, 2000], "tokens per path"),
    ("--of_leaf", "+", [1, 4, 8, 32], "candidates per leaf"),
    ("--slots", "+", [ROWS], "token slots per step"),
  ):
    parser.add_argument(name, type=int, nargs=least, default=default, help=text)
  parser.add_argument("--topology", nargs="*", default=[], help="TPU slices")
  args = parser.parse_args()
  for page in args.page:
    for path in args.path:
      for of_leaf in args.of_leaf:
        paths = candidates(path, of_leaf, page)
        moved = {kind: round(megabytes(kind, paths, page), 1) for kind in KINDS}
        line = dict(page=page, path=path, of_leaf=of_leaf, megabytes=moved)
        print(json.dumps(line), flush=True)
  # Not a TPU's own host.
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  for topology in args.topology:
    for page in args.page:
      for slots in args.slots:
        for kind in KINDS:
          print(json.dumps(compiled(topology, kind, page, slots)), flush=True)


if __name__ == "__main__":
  main()
