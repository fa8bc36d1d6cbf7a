"""Attention of candidates to a shared path and to their own tokens.

One signature, two ways to compute it: XLA's, over masks, and a TPU kernel that
keeps scores in the core's own memory. What that pays is in
docs/results/kernel.md. Letters: B leaves, C candidates, Q tokens of a step, N
query heads, K key/value heads, H head, T path, S own tokens.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from rstar_jax.models import cache
from rstar_jax.models.kernels import cpu
from rstar_jax.models.kernels.branch import attend
from rstar_jax.models.sharding import Rules

# (q, path, lengths, own, index, *, window) -> [B, C, Q, N, H].
Attend = Callable[..., jax.Array]

# (q, new, path, lengths, own, index, *, window) -> [B, C, N, H], own; see
# `native.kernels.attend`.
Step = Callable[..., tuple[jax.Array, tuple[jax.Array, jax.Array]]]


def step_of(attend: Attend, *, native: bool = False) -> Step:
  """Returns what a token of each candidate does: it is written, and attends.

  Args:
    attend: from `attend_of`.
    native: whether a kernel for CPUs does it, where there is one for the shape.

  Returns:
    A function of (q, new, path, lengths, own, index, *, window=0).
  """

  def step(q, new, path, lengths, own, index, *, window=0):
    if native and cpu.can_attend(q, path[0].shape[1]):
      return cpu.attend(q, new, path, lengths, own, index, window=window)
    # [B, C, K, H] into [B, C, K, S, H] at S = index.
    own = tuple(
      jax.lax.dynamic_update_slice_in_dim(
        rows, token[:, :, :, None], index, axis=3
      )
      for rows, token in zip(own, new, strict=True)
    )
    mixed = attend(q[:, :, None], path, lengths, own, index, window=window)
    return mixed[:, :, 0], own

  return step


def attend_of(
  kind: Literal["xla", "pallas"],
  mesh: jax.sharding.Mesh | None = None,
  *,
  interpret: bool = False,
) -> Attend:
  """Returns the attention that a config's word names.

  Args:
    kind: "xla" runs anywhere; "pallas" is the kernel, for TPUs.
    mesh: what the kernel's arguments lie on; None is one device.
    interpret: run the kernel on any device, slowly.

  Returns:
    A function of (q, path, lengths, own, index, *, window=0); see
    `branch_kernel.attend`.

  Raises:
    ValueError: there is no such kind.
  """
  if kind == "xla":
    return attend_masked
  if kind != "pallas":
    raise ValueError(f"attention={kind!r} must be 'xla' or 'pallas'")
  if mesh is None:
    return functools.partial(attend, interpret=interpret)
  return functools.partial(attend_on, mesh, interpret=interpret)


def attend_masked(
  q: jax.Array,
  path: tuple[jax.Array, jax.Array],
  lengths: jax.Array,
  own: tuple[jax.Array, jax.Array],
  index: jax.Array,
  *,
  window: int = 0,
) -> jax.Array:
  """Computes what `attend` does without a kernel, from the same arguments.

  Args:
    q: see `attend`, as all that follows.
    path: [B, K, T, H].
    lengths: int32 [B].
    own: [B, C, K, S, H].
    index: int32 scalar.
    window: see `attend`.

  Returns:
    [B, C, Q, N, H].
  """
  steps = index + jnp.arange(q.shape[2])
  columns = jnp.arange(own[0].shape[3])
  own_mask = columns <= steps[:, None]
  if window:
    own_mask &= columns > steps[:, None] - window
  paths = cache.PathCache(*((each,) for each in path), lengths, lengths)
  return cache.attend_branches(
    q, path, paths.mask(steps, window), own, own_mask
  )


def attend_on(
  mesh: jax.sharding.Mesh,
  q: jax.Array,
  path: tuple[jax.Array, jax.Array],
  lengths: jax.Array,
  own: tuple[jax.Array, jax.Array],
  index: jax.Array,
  *,
  rules: Rules | None = None,
  **options,
) -> jax.Array:
  """Attends as `attend` does, each device to its leaves and its heads.

  The compiler cannot cut a kernel by itself. Leaves go over the axes of a
  batch and key/value heads over theirs, where they divide; what does not is
  computed by every device of that axis.

  Args:
    mesh: from `sharding.make_mesh`.
    q: see `attend`, as all that follows.
    path: [B, K, T, H]; leaf b's path is in row b.
    lengths: int32 [B].
    own: [B, C, K, S, H].
    index: int32 scalar or [B].
    rules: None takes the defaults.
    **options: see `attend`; no slots.

  Returns:
    [B, C, Q, N, H].
  """
  rules = rules or Rules()
  leaves, kv_heads = q.shape[0], path[0].shape[1]
  shards = math.prod(mesh.shape[axis] for axis in rules.batch)
  rows = rules.batch if leaves % shards == 0 else None
  heads = rules.kv_heads
  if heads and kv_heads % mesh.shape[heads]:
    heads = None
  spec = jax.P
  return jax.shard_map(
    functools.partial(attend, **options),
    mesh=mesh,
    in_specs=(
      spec(rows, None, None, heads),
      spec(rows, heads),
      spec(rows),
      spec(rows, None, heads),
      spec(rows),
    ),
    out_specs=spec(rows, None, None, heads),
    # A kernel does not say over which axes what it returns varies.
    check_vma=False,
  )(q, path, lengths, own, jnp.broadcast_to(index, (leaves,)))
