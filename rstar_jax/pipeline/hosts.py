"""The processes (hosts) of a run, and how they wait for one another.

In search each host is a replica: it makes its share of the shards on its own
devices, and where it needs the work of others it waits for a file in the
workdir. Unlike a barrier, a file also shows that the result is complete and
visible to this host. Nothing else couples the hosts, so one may die and restart
alone. Only training runs on all hosts together, joined by `jax.distributed`.
"""

import dataclasses
import os
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from rstar_jax import outside

# Seconds between two polls of the folder.
_POLL_SECONDS = 1.0
_SECONDS_BETWEEN_LINES = 300.0
# Variables that hold the index of this process and the number of processes: of
# Slurm, of Open MPI, and of TPUs on Kubernetes (whose second one lists host
# names, separated by commas).
_PLACES = (
  ("SLURM_PROCID", "SLURM_NTASKS"),
  ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
  ("TPU_WORKER_ID", "TPU_WORKER_HOSTNAMES"),
)
# Where a Cloud TPU VM reads the same from.
_METADATA = (
  "http://metadata.google.internal/computeMetadata/v1/instance/attributes"
)

Item = TypeVar("Item")


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
    """Whether this host does what only one host may do, e.g. manifests."""
    return self.index == 0

  def share(self, shards: Sequence[Item]) -> list[Item]:
    """Returns this host's share of the shards of a stage."""
    return list(shards[self.index :: self.count])

  def agree(self, value: bool) -> bool:
    """Returns the first host's value; all hosts call this at the same point.

    No host goes on before all have come. For training only: hosts that search
    may be hours apart.
    """
    if self.count == 1:
      return value
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


# The only process of its run.
ALONE = Host()


def place(
  count: int | None = None,
  index: int | None = None,
  environment: Mapping[str, str] = os.environ,
) -> Host:
  """Returns this process as a host, without joining the others.

  Args:
    count: number of processes, at least 1.
    index: number of this process, from 0. Both are None where the environment
      gives them, as in `join`.
    environment: variables of the process.

  Raises:
    ValueError: only one of the two is given, the index is not below the count,
      or neither is given and the environment does not have them as numbers.
  """
  if (count is None) != (index is None):
    raise ValueError("--processes and --process go together: give both")
  if count is None or index is None:
    index, count = _placed_by(environment)
  if not 0 <= index < count:
    raise ValueError(
      f"--process={index} is none of --processes={count}: the first is 0"
    )
  return Host(index, count)


def _placed_by(environment: Mapping[str, str]) -> tuple[int, int]:
  """Returns the index and the count that the environment gives.

  Over several TPU slices the processes are numbered slice by slice.
  """
  for number, count_name in _PLACES:
    if number in environment and count_name in environment:
      index = _number(environment, number)
      names = environment[count_name].split(",")
      count = int(names[0]) if names[0].isdigit() else len(names)
      break
  else:
    try:
      index = int(_metadata("agent-worker-number"))
      count = len(_metadata("worker-network-endpoints").split(","))
      lines = re.findall(r"^(\w+): '(.*)'$", _metadata("tpu-env"), re.M)
    except (OSError, ValueError):
      raise ValueError(
        "give --processes=COUNT and --process=INDEX, since the environment "
        "does not say them"
      ) from None
    environment = dict(lines)
  slices = _number(environment, "MEGASCALE_NUM_SLICES", 1)
  slice_ = _number(environment, "MEGASCALE_SLICE_ID")
  return slice_ * count + index, slices * count


def _number(environment: Mapping[str, str], name: str, default: int = 0) -> int:
  text = environment.get(name, str(default))
  try:
    return int(text)
  except ValueError:
    raise ValueError(
      f"{name}={text!r} is no number: give --processes and --process"
    ) from None


def _metadata(name: str) -> str:
  request = urllib.request.Request(
    f"{_METADATA}/{name}", headers={"Metadata-Flavor": "Google"}
  )
  with urllib.request.urlopen(request, timeout=5) as response:
    return response.read(1 << 20).decode()


def join(
  coordinator: str | None = None,
  count: int | None = None,
  index: int | None = None,
) -> Host:
  """Joins the processes of a run; must run before any other use of jax.

  Args:
    coordinator: "HOST:PORT" of the first process. All three are None where the
      environment gives them (Cloud TPU, Slurm, Open MPI).
    count: number of processes, at least 1.
    index: number of this process, from 0.

  Returns:
    This process.

  Raises:
    ValueError: only some of the three are given, or none and the environment
      does not have them.
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


def check_devices() -> None:
  """Checks that jax can use the platform that it is set to.

  Raises:
    ValueError: it cannot; one line.
  """
  try:
    jax.devices()
  except (AssertionError, RuntimeError) as error:
    platforms = os.environ.get("JAX_PLATFORMS", "")
    why = outside.line(str(error)) or "no such platform"
    told = f"JAX_PLATFORMS={platforms}: " if platforms else ""
    raise ValueError(
      f"{told}jax cannot use this machine's devices ({why}): install jax for "
      "them, as docs/gpu.md and docs/tpu.md say, or set JAX_PLATFORMS=cpu"
    ) from None


def leave_if_joined() -> None:
  """Ends a failed process immediately, if it is one of several.

  An ordinary exit waits in jax for the other processes, which may be waiting
  for files of this one. After an immediate exit jax ends them too.
  """
  if jax.distributed.is_initialized():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def wait_until(done: Callable[[], bool], what: str) -> None:
  """Waits for files of other hosts, for as long as it takes.

  If another host dies that is joined with this one by jax, jax ends this
  process too. A host that searches may be started again, and then makes what it
  lacks.

  Args:
    done: returns whether the files are there.
    what: description of the files, for the message.
  """
  spoke = None
  while not done():
    now = time.monotonic()
    if spoke is None or now - spoke > _SECONDS_BETWEEN_LINES:
      outside.say(f"waiting for {what}", sys.stderr)
      spoke = now
    time.sleep(_POLL_SECONDS)
