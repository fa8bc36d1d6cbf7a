"""Main module of a sandbox worker: runs programs in forks and reports.

`process.py` starts it in a fresh interpreter (never a fork of the process that
holds jax), with an empty environment. It imports little, freezes the heap and
then serves requests. A request is a list of programs; they run one after
another, and each report is sent as soon as it is known. The host keeps the time
and orders the worker to kill a late program. It is told "step" when a step
begins, and "fork" when the worker makes a process, which is not the program's
time.

A program runs in one of three ways, which depends only on its text:

- Consecutive programs of pure arithmetic (`pure_arithmetic.py`) share a fork.
- A program whose steps each compile alone runs in a fork of a live interpreter
  that has executed its prefix (`snapshots.py`).
- Any other program is compiled and executed as one in a fork of its own. Its
  longest proper prefix of steps that compiles runs in another fork, whose
  output is removed from the front of the program's output.

Text is compiled in the program's own process, within its limits; only short
arithmetic is compiled in the worker. The process finds nothing of other
programs: its stack is unwound (`children.Born`), and what the worker knows is
dropped.
"""

import functools
import gc
import json
import marshal
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable

from rstar_jax.sandbox import (
  children,
  program,
  pure_arithmetic,
  snapshots,
  wire,
)
from rstar_jax.sandbox.isolation import confinement, probe

# Modules that small programs import. Preloaded, they hardly slow a fork;
# imported by a program, they take milliseconds.
LIGHT = (
  "bisect cmath collections datetime decimal fractions functools heapq "
  "itertools math operator re statistics string"
).split()
# The modules of sympy are those that `solve`, `integrate` and others import
# when they are called: a tenth of a second in each fork.
HEAVY = """
  numpy numpy.random sympy sympy.assumptions.wrapper sympy.codegen.ast
  sympy.combinatorics sympy.concrete.delta sympy.integrals.heurisch
  sympy.integrals.manualintegrate sympy.integrals.risch sympy.physics.units
  sympy.sets.handlers.functions sympy.sets.setexpr sympy.tensor.tensor
""".split()
_CODES = 512  # Steps of pure arithmetic whose code the worker caches.
# CPU time and memory that the programs of a group may use before the next one
# gets its own fork. RLIMIT_CPU is at least a second more than a program's time.
_GROUP_SECONDS, _GROWTH_KILOBYTES = 0.5, 16384


class Zygote:
  """Forks and watches programs.

  Its children begin with a copy of it, which `forget` empties.

  Args:
    connection: socket to the host.
    enter: called in a new child with RLIMIT_CPU in seconds (0 if the worker
      sets it); confines the child and returns its interpreter.
    output_bytes: output limit of a step.
    cpu_seconds: RLIMIT_CPU of a step.
    live: largest number of interpreters kept alive.
    memory_bytes: memory limit of all of them together.
  """

  def __init__(
    self,
    connection: socket.socket,
    enter: Callable[[int], program.Interpreter],
    output_bytes: int,
    cpu_seconds: int,
    live: int = 0,
    memory_bytes: int = 1 << 30,
  ):
    self._connection = connection
    self._enter = enter
    self._cpu_seconds = cpu_seconds
    # JSON encodes one byte of output in at most 6.
    self._watch = children.Watch(connection, 6 * output_bytes + 65536)
    self._snapshots = snapshots.Snapshots(
      self._watch,
      functools.partial(enter, 0),
      self._send,
      limit=live,
      memory_bytes=memory_bytes,
      cpu_seconds=cpu_seconds,
      output_bytes=output_bytes,
    )
    # No frame holds the programs of a request: a child would find them.
    self._programs: list[list[str]] = []
    self._codes: dict[str, bytes] = {}
    self._limits = _rlimits()

  def serve(self) -> None:
    """Answers requests until the host closes the socket.

    Raises:
      children.Born: in each child.
    """
    while self._next():
      first = 0
      while first < len(self._programs):
        self._watch.start(self._serial + first)
        if _rlimits() != self._limits:
          os._exit(1)  # A program set them; the host runs the rest elsewhere.
        if group := self._group(first):
          first += self._run_group(first, group)
        else:
          self._send(self._run(self._programs[first]))
          first += 1
        # The host has its answer by now.
        self._snapshots.settle()
        children.end_orphans(self._snapshots.pids)
      self._programs = []

  def forget(self) -> None:
    """Drops all that this child knows of programs."""
    self.__dict__.clear()

  def _next(self) -> bool:
    """Receives a request; returns False once the host has ended."""
    if (request := self._watch.request()) is None:
      return False
    _, self._serial, self._programs = request
    return True

  def _send(self, *messages: object) -> None:
    self._connection.sendall(b"".join(map(wire.frame, messages)))

  def _run(self, steps: list[str]) -> program.Report:
    report = self._snapshots.run(steps)
    return self._snapshots.run_whole(steps) if report is None else report

  def _group(self, first: int) -> list[list[bytes]]:
    """Returns the codes of the next programs that are all arithmetic."""
    group = []
    for steps in self._programs[first:]:
      codes = [self._compiled(step) for step in steps]
      if None in codes:
        break
      group.append(codes)
    return group

  def _compiled(self, step: str) -> bytes | None:
    code = self._codes.get(step)
    if code is None:
      code = pure_arithmetic.compiled(step, program.STEP)
      if code is not None:  # Other steps may be long: none is kept.
        if len(self._codes) >= _CODES:
          self._codes.clear()
        self._codes[step] = code
    return code

  def _run_group(self, first: int, group: list[list[bytes]]) -> int:
    """Runs programs of pure arithmetic in one fork.

    Args:
      first: number of the first program in the request.
      group: code of the steps of each.

    Returns:
      The number of answers sent: all, or up to the program that ended the
      process.
    """
    enter = functools.partial(self._enter, self._cpu_seconds)
    # Arithmetic cannot look for what it should not find.
    child = self._snapshots.fork(
      functools.partial(_calculate, enter, group), forgets=False
    )
    answered, more, report = 0, True, None
    self._send("step")
    while more:
      report, more = self._report(child)
      if report is None:
        break
      answered += 1
      self._watch.start(self._watch.serial + 1)
      more = more and answered < len(group)
      self._send(report, *["step"] * more)
    status = child.end()
    if report is None:
      report = snapshots.death(status, self._watch.killed)
      if snapshots.was_killed(report):
        report = self._run(self._programs[first + answered])
      self._send(report)
      answered += 1
    return answered

  def _report(
    self, child: children.Child
  ) -> tuple[program.Report | None, bool]:
    """Returns a process's report, and whether it sends another.

    The report is None if it ended or sent no valid one.
    """
    try:
      answer = self._watch.next(child)
      return self._snapshots.checked(answer) if answer else (None, False)
    except (children.Lost, TypeError):
      return None, False


def enter(
  confine: Callable[[int], None], output_bytes: int, cpu_seconds: int
) -> program.Interpreter:
  """Confines a new child and returns its interpreter.

  Args:
    confine: applies a program's isolation layers to the calling process; its
      argument is RLIMIT_CPU in seconds (0 if the worker sets it).
    output_bytes: output limit of a step.
    cpu_seconds: RLIMIT_CPU.
  """
  confine(cpu_seconds)
  signal.signal(signal.SIGINT, signal.default_int_handler)
  capture = program.Capture(output_bytes)
  return program.Interpreter(capture, confinement.Blocked)


def _calculate(
  enter: Callable[[], program.Interpreter],
  group: list[list[bytes]],
  channel: socket.socket,
) -> None:
  """Runs programs of pure arithmetic one after another in this process.

  It ends early if they have used time or memory that a later program may need.
  """
  interpreter, peak = enter(), _peak_kilobytes()
  for codes in group:
    start = time.perf_counter()
    report = program.run_all(map(marshal.loads, codes), interpreter)
    report = report._replace(seconds=time.perf_counter() - start)
    more = (
      report.status in ("ok", "error")
      and _peak_kilobytes() < peak + _GROWTH_KILOBYTES
      and time.process_time() < _GROUP_SECONDS
    )
    channel.sendall(wire.frame([*report, more]))
    if not more:
      return
    interpreter = interpreter.anew()


def _peak_kilobytes() -> int:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _rlimits() -> list[tuple[int, int]]:
  """Returns this process's limits, which all its children inherit."""
  kinds = ("AS", "CPU", "DATA", "NOFILE", "NPROC", "STACK")
  return [
    resource.getrlimit(getattr(resource, f"RLIMIT_{kind}"))
    for kind in kinds
    if hasattr(resource, f"RLIMIT_{kind}")
  ]


def _preload(names: list[str]) -> list[str]:
  """Imports modules and seeds their generators; returns what failed, and why.

  A generator that a program makes without a seed has seed 0, too. A module that
  its package does not have, in this version, is no failure.
  """
  # `random` registers a hook that draws a new seed in each fork; without it
  # every fork inherits the state that is set here.
  register = os.register_at_fork
  os.register_at_fork = lambda **_: None
  import random

  os.register_at_fork = register
  seed = random.Random.seed

  def seeded(self, a=None, version=2):
    seed(self, 0 if a is None else a, version)

  random.Random.seed = seeded
  random.seed = random._inst.seed  # It was bound before.
  failures = []
  for name in names:
    try:
      __import__(name)
    except ImportError as error:
      if "." not in name:
        failures.append(f"{name} ({error})")
  random.seed(0)
  if "numpy.random" in sys.modules:
    sys.modules["numpy.random"].seed(0)
    # Where generators without a seed draw one.
    sys.modules["numpy.random.bit_generator"].randbits = lambda bits: 0
  if "sympy.core.random" in sys.modules:
    sys.modules["sympy.core.random"].seed(0)
    # Drawn at random; it is part of hashes, by which sets are ordered.
    sys.modules["sympy.core.symbol"].Dummy._base_dummy_index = 10**6
  return failures


def main() -> None:
  """Isolates this process, sends the probe's report, and serves requests."""
  options = json.loads(sys.argv[1])
  confinement.die_with_parent(options["parent"])
  connection = socket.socket(fileno=options["fd"])
  memory, without = options["memory_bytes"], options["without"]
  report = probe.probe(memory, without) if options["probe"] else {}
  layers = confinement.Confinement(options["parent"], without)
  failures = _preload(LIGHT + (HEAVY if options["heavy"] else []))
  confinement.refuse_spawn()
  # Live interpreters, one that runs, those that are ending, and a reserve.
  layers.limit_worker(memory, 2 * options["live"] + 64)
  probe.self_test(layers)
  null = os.open(os.devnull, os.O_RDWR)
  os.dup2(null, 2)
  os.close(null)
  # An interrupt meant for a program must not end the worker.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  sys.argv[:] = [""]
  # Programs must not find this package.
  for name in [each for each in sys.modules if each.startswith("rstar_jax")]:
    del sys.modules[name]
  output_bytes = options["output_bytes"]
  zygote = Zygote(
    connection,
    functools.partial(enter, layers.confine_program, output_bytes),
    output_bytes,
    options["cpu_seconds"],
    # Without seccomp a program could signal a snapshot that others come from.
    options["live"] if "seccomp" in layers.active else 0,
    memory,
  )
  gc.collect()
  gc.freeze()
  if failures:
    report["imports"] = failures
  connection.sendall(wire.frame(report))
  try:
    zygote.serve()
    return
  except children.Born as caught:
    child = caught
  # Nothing of the worker is left but this frame.
  if child.forgets:
    zygote.forget()
    del connection, zygote, layers, report, options
  child.live()
