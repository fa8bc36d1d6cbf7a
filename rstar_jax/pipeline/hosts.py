"""The processes of a run: which one this is, and how they wait for each other.

Each runs the same program. In search a host is a replica: it makes its own
shards, on its own devices, and is in step with no other. What it needs of the
others is a file in the workdir, which it waits for; a file also says more than
a barrier would, since it can be seen on this host and is whole. Only training
is done by all together.
"""

import dataclasses
import os
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

# Between two looks at the folder.
_POLL_SECONDS = 1.0
_SECONDS_BETWEEN_LINES = 300.0


@dataclasses.dataclass(frozen=True)
class Host:
  """One process of a run.

  Attributes:
    index: from 0.
    count: how many there are.
  """

  index: int = 0
  count: int = 1

  @property
  def leads(self) -> bool:
    """Whether this one does what is done once, such as writing manifests."""
    return self.index == 0

  def owns(self, number: int) -> bool:
    """Says whether a shard is for this host to make; follows from its number.

    Args:
      number: of the shard in its stage, from 0.
    """
    return number % self.count == self.index

  def agree(self, value: bool) -> bool:
    """Returns what the first host gives; all call this at the same point.

    To be used before training only: hosts that search are hours apart.
    """
    if self.count == 1:
      return value
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def join(
  coordinator: str | None = None,
  count: int | None = None,
  index: int | None = None,
) -> Host:
  """Joins the processes of a run; to be called before jax does anything.

  Args:
    coordinator: HOST:PORT of the first process. None, as the others are then,
      where the environment says all three: Cloud TPU, Slurm, Open MPI.
    count: how many processes there are.
    index: of this one, from 0.

  Returns:
    This process.

  Raises:
    ValueError: only some of the three are given, or the environment does not
      say them.
  """
  given = [each is not None for each in (coordinator, count, index)]
  if any(given) and not all(given):
    raise ValueError(
      "--coordinator, --processes and --process go together: give all three, "
      "or none where the environment says them"
    )
  # SIGTERM is ours: in search it ends a process, and `training/loop.py` asks
  # all processes whether one has been sent it. Jax's service would swallow it.
  jax.config.update("jax_enable_preemption_service", False)
  try:
    jax.distributed.initialize(coordinator, count, index)
  except ValueError as error:
    raise ValueError(
      f"--distributed: {error} Give --coordinator=HOST:PORT, --processes=COUNT "
      "and --process=INDEX, since the environment does not say them"
    ) from None
  host = Host(jax.process_index(), jax.process_count())
  logging.info("this is process %d of %d", host.index, host.count)
  return host


def leave_if_joined(code: int = 1) -> None:
  """Ends a process that failed, at once, if it is one of several.

  At an ordinary end jax waits for the others, and they may be waiting for what
  this one has not written. Without it jax ends them.
  """
  if jax.distributed.is_initialized():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def wait_until(done: Callable[[], bool], what: str) -> None:
  """Waits for what other hosts write.

  If one of them dies, jax ends this process too.

  Args:
    done: whether it is there.
    what: that is, for people.
  """
  spoke = None
  while not done():
    now = time.monotonic()
    if spoke is None or now - spoke > _SECONDS_BETWEEN_LINES:
      print(f"waiting for {what}", file=sys.stderr, flush=True)
      spoke = now
    time.sleep(_POLL_SECONDS)
