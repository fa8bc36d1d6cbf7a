"""The processes (hosts) of a run, and how they wait for each other.

All hosts run the same program. In search each host is a replica: it makes its
own shards on its own devices, and waits for a file in the workdir where it
needs the work of others. Unlike a barrier, a file also shows that the result is
complete and visible to this host. Only training runs on all hosts together.
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

from rstar_jax import outside

# Seconds between two looks at the folder.
_POLL_SECONDS = 1.0
_SECONDS_BETWEEN_LINES = 300.0


@dataclasses.dataclass(frozen=True)
class Host:
  """One process of a run.

  Attributes:
    index: number of the process, from 0.
    count: number of processes, at least 1.
  """

  index: int = 0
  count: int = 1

  @property
  def leads(self) -> bool:
    """Whether this host does the work of a single host, e.g. manifests."""
    return self.index == 0

  def owns(self, number: int) -> bool:
    """Says whether this host makes a shard.

    Args:
      number: number of the shard in its stage, from 0.
    """
    return number % self.count == self.index

  def agree(self, value: bool) -> bool:
    """Returns the first host's value; all hosts call this at the same point.

    Only for training: hosts that search may be hours apart.
    """
    if self.count == 1:
      return value
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def join(
  coordinator: str | None = None,
  count: int | None = None,
  index: int | None = None,
) -> Host:
  """Joins the processes of a run; must run before any other use of jax.

  Args:
    coordinator: HOST:PORT of the first process. All three are None where the
      environment gives them (Cloud TPU, Slurm, Open MPI).
    count: number of processes, at least 1.
    index: number of this process, from 0.

  Returns:
    This process.

  Raises:
    ValueError: only some of the three are given, or none and the environment
      does not give them either.
  """
  given = [each is not None for each in (coordinator, count, index)]
  if any(given) and not all(given):
    raise ValueError(
      "--coordinator, --processes and --process go together: give all three, "
      "or none where the environment says them"
    )
  # The package handles SIGTERM: it ends a process in search, and
  # `training/loop.py` shares it with all hosts. Jax's service would consume it.
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
  """Ends a failed process at once, if it is one of several.

  An ordinary exit waits in jax for the other processes, which may wait for
  files of this one. After an immediate exit jax ends them too.
  """
  if jax.distributed.is_initialized():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def wait_until(done: Callable[[], bool], what: str) -> None:
  """Waits for files of other hosts.

  If another host dies, jax ends this process too.

  Args:
    done: says whether the files are there.
    what: description of the files, for the log.
  """
  spoke = None
  while not done():
    now = time.monotonic()
    if spoke is None or now - spoke > _SECONDS_BETWEEN_LINES:
      outside.say(f"waiting for {what}", sys.stderr)
      spoke = now
    time.sleep(_POLL_SECONDS)
