"""The process of a program: executes its steps, and forks when it is told to.

`snapshots.py` has the worker's side, which trusts nothing that is said here.

Runs inside a worker: standard library only.
"""

import _thread
import fcntl
import os
import select
import signal
import socket
import time
from collections.abc import Callable

from rstar_jax.sandbox import children, program, wire
from rstar_jax.sandbox.isolation import confinement
from rstar_jax.sandbox.program import Report

# Descriptors, from 3 on, among which open files are looked for.
_FILES = 64


def live(
  channel: socket.socket, enter: Callable[[], program.Interpreter]
) -> None:
  """Serves requests in a child: to execute steps, or to fork."""
  interpreter = enter()
  worker = os.getppid()
  null = _null_state()
  while (order := wire.receive(channel)) is not None:
    if order[0] == "fork":
      channel = _fork_here(channel, worker)
    elif order[0] == "whole":
      _run_whole(channel, interpreter, *order[1:])
    else:
      _run(channel, interpreter, null, *order[1:])


def _run(channel, interpreter, null, steps: list[str], after: str) -> None:
  codes = program.compile_alone([*steps, after])
  if codes is None:
    channel.sendall(wire.frame("whole"))
    return
  for code in codes[: len(steps)]:
    start = time.perf_counter()
    report = interpreter.run(code)
    report = report._replace(seconds=time.perf_counter() - start)
    keep = _null_state() == null and _is_forkable()
    channel.sendall(wire.frame([*report, keep]))
    if report.status != "ok":
      return


def _run_whole(channel, interpreter, steps: list[str]) -> None:
  start = time.perf_counter()
  try:
    code, before = program.compile_whole(steps)
    if before:
      channel.sendall(wire.frame(["before", before]))
    report = interpreter.run(code)
  except MemoryError as failure:
    report = Report("memory", error=program.error_line(failure))
  except BaseException as failure:
    line = program.line_of(failure, program.WHOLE)
    report = Report("error", error=program.error_line(failure), line=line)
  report = report._replace(seconds=time.perf_counter() - start)
  channel.sendall(wire.frame([*report, False]))


def _fork_here(channel: socket.socket, worker: int) -> socket.socket:
  """Forks; returns this process's channel, in the child a new one."""
  _, descriptors, *_ = socket.recv_fds(channel, 1, 2)
  if children.fork_sibling() != 0:
    for each in descriptors:
      os.close(each)
    return channel
  confinement.die_with_parent(worker)
  channel.detach()
  channel = children.settle(*descriptors)
  children.greet(channel)
  return channel


def _null_state() -> list:
  """Returns the state of descriptors 0, 1 and 2; [] if one is closed.

  A fork gets the null device in their place. A program may have closed them,
  put a pipe there, or set a flag.
  """
  try:
    return [
      (
        os.fstat(number).st_rdev,
        fcntl.fcntl(number, fcntl.F_GETFL),
        fcntl.fcntl(number, fcntl.F_GETFD),
      )
      for number in range(3)
    ]
  except OSError:
    return []


def _is_forkable() -> bool:
  """Returns whether this process has no state that a fork would lose."""
  timers = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
  if any(map(any, map(signal.getitimer, timers))) or _thread._count():
    return False
  poller = select.poll()
  for descriptor in range(3, _FILES):
    if descriptor != children.CHANNEL:
      poller.register(descriptor, 0)
  # `poll` reports descriptors that are not open.
  return len(poller.poll(0)) == _FILES - 4
