"""Attention of candidates to a shared path and to their own tokens.

There are two implementations of one signature: XLA operations with masks, and a
TPU kernel that keeps the scores in VMEM (measured in docs/results/kernel.md).
Letters: B leaves, C candidates, Q tokens of a step, N query heads, K key/value
heads, H head, T path, S own tokens.
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
from rstar_jax.models.sharding import RULES

# (q, path, lengths, own, index, *, window) -> [B, C, Q, N, H].
Attend = Callable[..., jax.Array]

# (q, new, path, lengths, own, index, *, window) -> [B, C, N, H], own; see
# `kernels.cpu.attend`.
Step = Callable[..., tuple[jax.Array, tuple[jax.Array, jax.Array]]]


def step_of(attend: Attend, *, native: bool = False) -> Step:
  """Returns a function that caches a token of each candidate and attends.

  Args:
    attend: from `attend_of`.
    native: whether to use the CPU kernel, for the shapes that it supports.

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
  """Returns an implementation by its name in the config.

  Args:
    kind: "xla" runs anywhere; "pallas" is the TPU kernel.
    mesh: the mesh of the kernel's arguments; None is one device.
    interpret: runs the kernel on any device, slowly.

  Returns:
    A function of (q, path, lengths, own, index, *, window=0); see
    `kernels.branch.attend`.

  Raises:
    ValueError: an unknown kind.
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
  """Computes the same as the kernel `attend`, by XLA operations.

  Args:
    q: [B, C, Q, N, H].
    path: keys and values, [B, K, T, H] each.
    lengths: int32 [B], tokens of each path.
    own: keys and values, [B, C, K, S, H] each.
    index: int32 scalar, the position of the first token in its step.
    window: tokens that a token attends to, itself included; 0 is no limit.

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
  **options,
) -> jax.Array:
  """Runs the kernel `attend` on a mesh, by `jax.shard_map`.

  The compiler cannot partition a kernel. Leaves are sharded over the batch axes
  and key/value heads over theirs. An axis that does not divide is replicated.

  Args:
    mesh: from `sharding.make_mesh`.
    q: [B, C, Q, N, H].
    path: [B, K, T, H]; leaf b's path is in row b.
    lengths: int32 [B].
    own: [B, C, K, S, H].
    index: int32 scalar or [B].
    **options: see `attend`, without `slots`.

  Returns:
    [B, C, Q, N, H].
  """
  leaves, kv_heads = q.shape[0], path[0].shape[1]
  shards = math.prod(mesh.shape[axis] for axis in RULES.batch)
  rows = RULES.batch if leaves % shards == 0 else None
  heads = RULES.kv_heads
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
    # Kernels do not declare the mesh axes over which their results vary.
    check_vma=False,
  )(q, path, lengths, own, jnp.broadcast_to(index, (leaves,)))
