"""Main module of a sandbox worker: runs programs in forks and reports.

`process.py` starts it in a fresh interpreter (never a fork of the process that
holds jax), with an empty environment. It imports little, freezes the heap and
then serves requests. A request is a list of programs; they run one after
another, and each result is sent as soon as it is known. The host keeps the time
and orders to kill a program that is late.

A program runs in one of three ways, which depends on its text only:

- Consecutive programs of pure arithmetic (`pure_arithmetic.py`) share a fork.
- A program whose steps each compile alone runs in a fork of a live interpreter
  that has executed its prefix (`snapshots.py`).
- Any other program is compiled and executed as one in a fork of its own. Its
  longest proper prefix of steps that compiles runs in another fork, whose
  output is removed from the front of the program's output.
"""

import gc
import json
import os
import signal
import socket
import sys
import time
import types
from collections.abc import Callable

from rstar_jax.sandbox import (
  children,
  program,
  pure_arithmetic,
  snapshots,
  wire,
)
from rstar_jax.sandbox.isolation import confinement, probe

# Modules that small programs import. Preloaded, they slow a fork hardly at all;
# imported by a program, they would cost it milliseconds.
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
_ONLY_AST = 0x400  # ast.PyCF_ONLY_AST.
# The worker compiles programs of at most so many characters, and caches the
# code of at most so many steps.
_SHORT = 16384
_CODES = 4096


class Zygote:
  """Forks and watches programs.

  Args:
    connection: socket to the host; children close it.
    output_bytes: output limit of a step.
    cpu_seconds: RLIMIT_CPU of a step.
    confine: applies a program's isolation layers to the calling process; its
      argument is RLIMIT_CPU in seconds (0 if the worker sets it).
    live: largest number of interpreters kept alive.
    memory_bytes: memory limit of all of them together.
  """

  def __init__(
    self,
    connection: socket.socket,
    output_bytes: int,
    cpu_seconds: int,
    confine: Callable[[int], None],
    live: int = 0,
    memory_bytes: int = 1 << 30,
  ):
    self._connection = connection
    self._output_bytes = output_bytes
    self._cpu_seconds = cpu_seconds
    self._confine = confine
    # JSON encodes one byte of output in at most 6.
    self._watch = children.Watch(connection, 6 * output_bytes + 65536)
    self._snapshots = snapshots.Snapshots(
      self._watch,
      self._enter,
      lambda: self._send("step"),
      limit=live,
      memory_bytes=memory_bytes,
      cpu_seconds=cpu_seconds,
    )
    self._codes: dict[str, tuple[types.CodeType, bool]] = {}

  def serve(self) -> None:
    """Answers requests until the host closes the socket."""
    while (request := self._watch.request()) is not None:
      _, serial, programs = request
      compiled = [self._compile_cached(steps) for steps in programs]
      # From here on, the first program without an answer is blamed for the
      # worker's death, and its time runs.
      self._send("begun")
      first = 0
      while first < len(programs):
        self._watch.start(serial + first)
        codes, is_pure_arithmetic = compiled[first]
        if is_pure_arithmetic:
          last = first + 1
          while last < len(programs) and compiled[last][1]:
            last += 1
          first += self._run_group([each[0] for each in compiled[first:last]])
        else:
          run = self._run_whole if codes is None else self._snapshots.run
          self._send(run(programs[first]))
          first += 1
        children.end_orphans(self._snapshots.pids)

  def _send(self, message: object) -> None:
    self._connection.sendall(wire.frame(message))

  def _run_group(self, group: list[list[types.CodeType]]) -> int:
    """Runs programs of pure arithmetic in one fork.

    Returns:
      The number of answers sent: all, or up to the program that ended the
      process.
    """

    def action(channel: socket.socket) -> None:
      interpreter = self._enter(self._cpu_seconds * len(group))
      for codes in group:
        start = time.perf_counter()
        result = program.run_all(codes, interpreter)
        seconds = time.perf_counter() - start
        channel.sendall(wire.frame([*result, seconds]))
        interpreter = self._interpreter()

    child = self._snapshots.fork(action)
    answered = 0
    while answered < len(group):
      result = self._report(child)
      if result is None:
        break
      self._send(result)
      answered += 1
      self._watch.start(self._watch.serial + 1)
    status = child.end()
    if answered < len(group):
      self._send(snapshots.death(status, self._watch.killed))
      answered += 1
    return answered

  def _run_whole(self, steps: list[str]) -> list:
    """Runs a program that does not compile step by step."""

    def action(channel: socket.socket) -> None:
      start = time.perf_counter()
      try:
        codes, prefix = program.compile_steps(steps)
        if prefix is not None:
          channel.sendall(wire.frame(["before", len(prefix)]))
        interpreter = self._enter(self._cpu_seconds)
        result = program.run_all(codes, interpreter)
      except MemoryError as failure:
        result = ["memory", "", program.error_line(failure), 0]
      except BaseException as failure:
        line = program.line_of(failure, program.WHOLE)
        result = ["error", "", program.error_line(failure), line]
      seconds = time.perf_counter() - start
      channel.sendall(wire.frame([*result, seconds]))

    child, before = self._snapshots.fork(action), ""
    try:
      answer = self._watch.next(child)
      if isinstance(answer, list) and answer[:1] == ["before"]:
        before = self._output_of(steps[: int(answer[1])])
        answer = None if self._watch.killed else self._watch.next(child)
      result = answer and snapshots.checked(answer)
    except (children.Lost, TypeError, ValueError, IndexError):
      result = None
    status = child.end()
    if result is None:
      return snapshots.death(status, self._watch.killed)
    above = "\n".join(steps[:-1]).count("\n") + 1 if len(steps) > 1 else 0
    _, stdout, _, line, _ = result
    result[1] = stdout.removeprefix(before)
    result[3] = max(0, line - above)
    return result

  def _output_of(self, steps: list[str]) -> str:
    """Returns the output of steps that compile as one."""

    def action(channel: socket.socket) -> None:
      interpreter = self._enter(self._cpu_seconds)
      code = compile("\n".join(steps), program.WHOLE, "exec", 0, True)
      channel.sendall(wire.frame([*interpreter.run(code), 0.0]))

    child = self._snapshots.fork(action)
    result = self._report(child)
    child.end()
    return "" if result is None else result[1]

  def _report(self, child: children.Child) -> list | None:
    """Returns a process's report, None if it ended or sent no valid one."""
    try:
      answer = self._watch.next(child)
      return None if answer is None else snapshots.checked(answer)
    except (children.Lost, TypeError):
      return None

  def _compile_cached(self, steps: list[str]) -> tuple[list | None, bool]:
    """Compiles a program of usual length in the worker, which caches steps.

    Compiling executes nothing; if the compiler crashes, the host replaces the
    worker and finds the program that caused it.

    Returns:
      (codes, whether it is pure arithmetic); codes is None if the program is
      long or does not compile step by step: its own process compiles it.
    """
    if sum(map(len, steps)) > _SHORT:
      return None, False
    if len(self._codes) > _CODES:
      self._codes.clear()
    try:
      for step in steps:
        if step not in self._codes:
          tree = compile(step, program.STEP, "exec", _ONLY_AST, True)
          code = compile(tree, program.STEP, "exec", 0, True)
          if code.co_flags & program.FUTURE:
            return None, False
          self._codes[step] = (code, pure_arithmetic.is_pure_arithmetic(tree))
    except Exception:
      return None, False
    known = [self._codes[step] for step in steps]
    return [code for code, _ in known], all(each for _, each in known)

  def _interpreter(self) -> program.Interpreter:
    capture = program.Capture(self._output_bytes)
    return program.Interpreter(capture, confinement.Blocked)

  def _enter(self, cpu_seconds: int = 0) -> program.Interpreter:
    """Confines a new child and returns its interpreter."""
    self._confine(cpu_seconds)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return self._interpreter()


def _preload(names: list[str]) -> list[str]:
  """Imports modules and seeds their generators; returns what failed, and why.

  A module that its package does not have, in this version, is no failure.
  """
  # `random` registers a hook that draws a new seed in each fork; without it
  # every fork inherits the state that is set here.
  register = os.register_at_fork
  os.register_at_fork = lambda **_: None
  import random

  os.register_at_fork = register
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
  if "sympy.core.random" in sys.modules:
    sys.modules["sympy.core.random"].seed(0)
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
  zygote = Zygote(
    connection,
    options["output_bytes"],
    options["cpu_seconds"],
    layers.confine_program,
    options["live"],
    memory,
  )
  gc.collect()
  gc.freeze()
  if failures:
    report["imports"] = failures
  connection.sendall(wire.frame(report))
  zygote.serve()
