"""Program of a sandbox worker: forks one process per program, and reports.

Run as a file in a fresh interpreter (never forked from the process that holds
jax), with an empty environment:

  python -P -s -B zygote.py '{"fd": 5, "parent": 4711, ...}'

It imports little, freezes the heap and then serves: a request is a list of
programs; each is run in a fork of its own, one after another, and each result
goes back as soon as it is known. The host owns the clock and kills the whole
process group at a deadline, so that nothing here waits with a timeout.

Where a program has to be compiled as one (see `program.py`), its longest proper
prefix of steps that compiles runs first, in a fork of its own, and what that
prints is taken off the front of the output. Plain programs (see `plain.py`)
that follow one another share a fork.
"""

import gc
import json
import os
import select
import signal
import struct
import sys
import time
import types

if __name__ == "__main__":
  # As a file there is no package around, and `-P` leaves this folder out.
  sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
  import isolation
  import plain
  import program
  import wire

  del sys.path[0]
else:
  from rstar_jax.verify import isolation, plain, program, wire

# What tiny programs import; each costs a fork next to nothing and would cost a
# program milliseconds.
LIGHT = (
  "bisect cmath collections datetime decimal fractions functools heapq "
  "itertools math operator re statistics string"
).split()
HEAVY = ["sympy", "numpy", "numpy.random"]
_ONLY_AST = 0x400  # ast.PyCF_ONLY_AST.
# Programs up to this many characters are compiled in the worker, and at most
# this many steps are remembered there.
_SHORT = 16384
_CODES = 4096


class Zygote:
  """Forks and watches programs.

  Args:
    connection: socket to the host; children close it.
    output_bytes: most bytes that a program's last step may print.
    cpu_seconds: RLIMIT_CPU of a program.
  """

  def __init__(self, connection, output_bytes: int, cpu_seconds: int):
    self._connection = connection
    self._output_bytes = output_bytes
    self._cpu_seconds = cpu_seconds
    self._hook = isolation.make_hook()
    self._confined = False
    self._group = 1
    self._codes: dict[str, tuple[types.CodeType, bool]] = {}

  def serve(self) -> None:
    """Answers requests until the host closes the socket."""
    while (programs := wire.receive(self._connection)) is not None:
      compiled = [self._compile_cached(steps) for steps in programs]
      # Says that what follows is the doing of the first program without an
      # answer, and starts its time.
      self._connection.sendall(wire.frame("begun"))
      first = 0
      while first < len(programs):
        last = first + 1
        while all(is_plain for _, is_plain in compiled[first:last]) and (
          last < len(programs) and compiled[last][1]
        ):
          last += 1
        first += self._run_group(programs[first:last], compiled[first:last])

  def _run_group(self, programs: list, compiled: list) -> int:
    """Runs programs in one fork: one program, or any number of plain ones.

    Returns:
      How many were answered: all, or up to the one that broke the process.
    """
    answered = 0
    self._group = len(programs)

    def action(send) -> None:
      for steps, (codes, _) in zip(programs, compiled, strict=True):
        start = time.perf_counter()
        result = self._run_program(steps, codes)
        send([*result, time.perf_counter() - start])

    def relay(payload: bytes) -> None:
      nonlocal answered
      self._connection.sendall(_result_frame(payload))
      answered += 1

    start = time.perf_counter()
    status = self.fork(action, relay)
    if answered < len(programs):
      result = _death(status)
      result.append(time.perf_counter() - start)
      self._connection.sendall(wire.frame(result))
      answered += 1
    return answered

  def fork(self, action, relay) -> int:
    """Runs `action(send)` in a fork, and `relay(payload)` here per message.

    Returns:
      The wait status of the fork.
    """
    limit = 6 * self._output_bytes + 65536  # JSON takes at most 6 a byte.
    reader, writer = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
      try:
        isolation.die_with_parent(parent)
        os.close(reader)
        action(lambda message: _write_all(writer, wire.frame(message)))
      finally:
        os._exit(0)
    os.close(writer)
    host = self._connection.fileno()
    poller = select.poll()
    poller.register(reader, select.POLLIN)
    # Hang-up only: without PR_SET_PDEATHSIG this is how the end is noticed.
    poller.register(host, getattr(select, "POLLRDHUP", 0))
    data = bytearray()
    while True:
      if any(fd == host for fd, _ in poller.poll()):
        os.kill(pid, signal.SIGKILL)
        os._exit(0)
      piece = os.read(reader, 1 << 16)
      data += piece
      while len(data) >= 4:
        end = 4 + struct.unpack_from(">I", data)[0]
        if end > limit or len(data) < end:
          break
        relay(bytes(data[4:end]))
        del data[:end]
      if not piece or len(data) > limit:
        break
    os.close(reader)
    if piece:
      os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    _end_orphans()
    return status

  def _compile_cached(self, steps: list[str]) -> tuple[list | None, bool]:
    """Compiles an ordinary program here, where recurring steps are remembered.

    Compiling runs nothing; should it crash, the host replaces the worker and
    finds out which program it was.

    Returns:
      (codes, whether it is plain); None for codes where the program is long or
      does not compile step by step: then its own process does it.
    """
    if sum(map(len, steps)) > _SHORT:
      return None, False
    if len(self._codes) > _CODES:
      self._codes.clear()
    try:
      for step in steps:
        if step not in self._codes:
          tree = compile(step, "<step>", "exec", _ONLY_AST, True)
          code = compile(tree, "<step>", "exec", 0, True)
          if code.co_flags & program.FUTURE:
            return None, False
          self._codes[step] = (code, plain.is_plain(tree))
    except Exception:
      return None, False
    known = [self._codes[step] for step in steps]
    return [code for code, _ in known], all(each for _, each in known)

  def _run_program(self, steps: list[str], codes: list | None) -> list:
    """Runs in the fork. Returns [status, stdout, error]."""
    capture = program.Capture(self._output_bytes)
    before, prefix = "", None
    try:
      if codes is None:
        codes, prefix = program.compile_steps(steps)
      if prefix is not None:
        # Forked before this process gives up the right to.
        before = self._output_of(prefix)
      self._confine()
      status, error = program.execute(codes, capture, isolation.Blocked)
    except MemoryError as failure:
      status, error = "memory", program.error_line(failure)
    except BaseException as failure:
      status, error = "error", program.error_line(failure)
    stdout = capture.getvalue().decode(errors="ignore")
    return [status, stdout.removeprefix(before), error]

  def _output_of(self, steps: list[str]) -> str:
    """Returns what steps that compile as one print, run in a fork."""
    outputs = []

    def action(send) -> None:
      self._confine()
      capture = program.Capture(self._output_bytes)
      code = compile("\n".join(steps), "<steps>", "exec", 0, True)
      program.execute([code], capture, isolation.Blocked)
      send(capture.getvalue().decode(errors="ignore"))

    self.fork(action, lambda payload: outputs.append(json.loads(payload)))
    return outputs[0] if outputs else ""

  def _confine(self) -> None:
    if not self._confined:
      self._confined = True
      self._connection.close()
      isolation.limit_program(self._cpu_seconds * self._group)
      sys.addaudithook(self._hook)

  def probe(self, facts: dict[str, bool]) -> dict[str, object]:
    """Attempts everything that is forbidden, and reports what held."""

    def attempt(name: str, hooked: bool, send) -> None:
      isolation.limit_program(self._cpu_seconds)
      if hooked:
        sys.addaudithook(self._hook)
      try:
        isolation.PROBES[name]()
      except (OSError, MemoryError):
        send(True)

    def held(name: str, hooked: bool) -> bool:
      answers = []
      self.fork(lambda send: attempt(name, hooked, send), answers.append)
      return bool(answers)

    return isolation.describe(
      *({n: held(n, hooked) for n in isolation.PROBES} for hooked in (0, 1)),
      facts,
    )


def _write_all(descriptor: int, data: bytes) -> None:
  while data:
    data = data[os.write(descriptor, data) :]


def _result_frame(payload: bytes) -> bytes:
  """Returns what a program's process reported, if it looks like a report."""
  try:
    status, stdout, error, seconds = json.loads(payload)
    return wire.frame([str(status), str(stdout), str(error), float(seconds)])
  except (TypeError, ValueError):
    return wire.frame(["crashed", "", "the program broke its own report", 0.0])


def _death(status: int) -> list:
  """Returns the result of a program whose process ended without a report."""
  if not os.WIFSIGNALED(status):
    return ["crashed", "", f"exited with status {os.WEXITSTATUS(status)}"]
  number = os.WTERMSIG(status)
  if number == signal.SIGXCPU:
    return ["timeout", "", "CPU time limit"]
  return ["crashed", "", f"killed by signal {number}"]


def _end_orphans() -> None:
  """Kills what a program left running, this process being its new parent."""
  try:
    while True:
      if os.waitpid(-1, os.WNOHANG)[0] == 0:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
          for pid in file.read().split():
            os.kill(int(pid), signal.SIGKILL)
        os.waitpid(-1, 0)
  except (ChildProcessError, FileNotFoundError, ProcessLookupError):
    pass


def _preload(names: list[str]) -> None:
  """Imports what is installed, and makes its randomness repeatable."""
  # `random` would draw a new seed in each fork; without that hook every fork
  # inherits the state that is set here.
  register = os.register_at_fork
  os.register_at_fork = lambda **_: None
  import random

  os.register_at_fork = register
  for name in names:
    try:
      __import__(name)
    except ImportError:
      continue
  random.seed(0)
  if "numpy.random" in sys.modules:
    sys.modules["numpy.random"].seed(0)
  if "sympy.core.random" in sys.modules:
    sys.modules["sympy.core.random"].seed(0)


def main() -> None:
  """Boots: isolates itself, reports "ready", then serves."""
  import socket

  options = json.loads(sys.argv[1])
  facts = {
    "die_with_parent": isolation.die_with_parent(options["parent"]),
    "adopt_orphans": isolation.adopt_orphans(),
    "no_new_privs": isolation.drop_privileges_on_exec(),
  }
  connection = socket.socket(fileno=options["fd"])
  _preload(LIGHT + (HEAVY if options["heavy"] else []))
  isolation.refuse_spawn()
  isolation.limit_worker(options["memory_bytes"])
  null = os.open(os.devnull, os.O_RDWR)
  os.dup2(null, 2)
  os.close(null)
  sys.argv[:] = [""]
  for name in ("isolation", "plain", "program", "wire"):
    del sys.modules[name]
  zygote = Zygote(connection, options["output_bytes"], options["cpu_seconds"])
  gc.collect()
  gc.freeze()
  report = zygote.probe(facts) if options["probe"] else {}
  connection.sendall(wire.frame(report))
  zygote.serve()


if __name__ == "__main__":
  main()
