"""Tries which layer enforces what on this machine.

Everything that a program may not do is attempted in forks: without any layer,
with each layer alone and with all of the kernel's layers, so that the report
does not rely on what a layer is supposed to do. What must work is tried under
all layers.

Runs inside the sandbox's processes: standard library only.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Collection
from typing import Any

from rstar_jax.sandbox import children
from rstar_jax.sandbox.isolation import attempts, confinement, kernel

_ABSENT = ("missing", "switched off")
_NOT_A_BOUNDARY = "audit hook (not a boundary)"
_NOT_LINUX = (
  f"system: this is not Linux but {sys.platform}: programs run in subprocesses "
  "with resource limits, and what else confines them is not a boundary"
)
# The names that `require` accepts: those that lines of "degraded" begin with.
REQUIRABLE = (
  *attempts.ATTEMPTS,
  *attempts.WORKS,
  "parent_death",
  "orphans",
  "system",
  *confinement.LAYERS,
)


def _program(send, targets: attempts.Targets, names) -> None:
  """Makes attempts in a process that is confined as a program is."""
  for name in names:
    try:
      if name in attempts.WORKS:
        attempts.WORKS[name]()
      else:
        attempts.ATTEMPTS[name](targets)
      send([name, "" if name in attempts.WORKS else None])
    except Exception as error:
      send([name, f"{type(error).__name__}: {error}"])


def _worker(
  send, without: Collection[str], targets: attempts.Targets, names
) -> None:
  """Confines itself and forks, as a worker does."""
  layers = confinement.Confinement(os.getppid(), without)
  layers.limit_worker(targets.memory, 64)
  if any(name in attempts.WORKS for name in names):
    self_test(layers)
  send(["", {"notes": layers.notes, "facts": layers.facts}])
  reader, writer = os.pipe()
  targets.sibling = os.fork()
  if targets.sibling == 0:
    try:
      os.close(writer)
      layers.confine_program(60)
      os.read(reader, 1)  # Until the other end is closed.
    finally:
      os._exit(0)
  _run_as_program(layers, targets, lambda: _program(send, targets, names))
  os.close(writer)
  os.kill(targets.sibling, signal.SIGKILL)
  _wait(targets.sibling)


def _run_as_program(
  layers: confinement.Confinement,
  targets: attempts.Targets,
  action: Callable[[], None],
) -> None:
  """Runs an action in a fork of a confined process, as from a snapshot.

  Args:
    layers: the worker's layers.
    targets: gets the pids.
    action: what the fork does.
  """
  ours, theirs = socket.socketpair()
  targets.worker = os.getpid()

  def prefix() -> None:
    ours.close()
    layers.confine_program(60)
    targets.prefix = os.getpid()
    theirs.sendall(b".")
    theirs.recv(1)
    if children.can_fork_sibling() and children.fork_sibling() != 0:
      signal.pause()
    theirs.sendall(str(os.getpid()).encode())
    theirs.recv(1)
    action()

  pid = _spawn(prefix)
  theirs.close()
  limited = "rlimits" in layers.active and children.can_fork_sibling()
  with ours:
    if ours.recv(64) and limited:
      confinement.let_fork(pid, True)
    ours.sendall(b".")
    fork = int(ours.recv(64) or pid)
    if limited:
      for each in (pid, fork):
        confinement.let_fork(each, False)
    ours.sendall(b".")
    _wait(fork)
  if fork != pid:
    os.kill(pid, signal.SIGKILL)
    _wait(pid)


def self_test(layers: confinement.Confinement) -> None:
  """Tries what must work in a confined fork; leaves out a layer that breaks it.

  An unknown C library or machine may need a system call or a folder that is not
  listed. A sandbox with fewer layers, which it reports, is better than one in
  which every program fails.

  Args:
    layers: the worker's layers; a layer that breaks programs is left out.
  """
  names = ("import", "clock", "random")
  if not (failure := _broken(layers, (), names)):
    return
  for off in (("landlock",), ("seccomp",), ("landlock", "seccomp")):
    if not _broken(layers, off, names):
      for name in off:
        layers.leave_out(name, f"left out, since with it {failure}")
      return


def _broken(
  layers: confinement.Confinement, off: tuple[str, ...], names: tuple[str, ...]
) -> str:
  """Returns what fails with the layers `off` left out, "" if nothing does."""
  reader, writer = os.pipe()

  def action() -> None:
    for name in off:
      layers.leave_out(name, "")
    layers.confine_program(60)
    for name in names:
      try:
        attempts.WORKS[name]()
      except Exception as error:
        text = f"{name} fails: {type(error).__name__}: {error}"
        os.write(writer, text.encode())
        return
    os.write(writer, b"+")

  pid = _spawn(action)
  os.close(writer)
  with open(reader, encoding="utf-8") as file:
    text = file.read()
  _wait(pid)
  return "" if text == "+" else text or "the interpreter crashes"


def _spawn(action: Callable[[], None]) -> int:
  parent = os.getpid()
  pid = os.fork()
  if pid == 0:
    try:
      confinement.die_with_parent(parent)
      action()
    finally:
      os._exit(0)
  return pid


def _wait(pid: int) -> None:
  os.waitpid(pid, 0)


def attempt(
  without: Collection[str], targets: attempts.Targets, names: Collection[str]
) -> dict[str, object]:
  """Makes attempts under some layers, in new processes.

  Args:
    without: layers left out.
    targets: what is attacked.
    names: names from ATTEMPTS and WORKS.

  Returns:
    For each of ATTEMPTS the refusal, or None if it succeeded or its process
    ended. For each of WORKS the error, or "" if it works. Under "" the "notes"
    and "facts" of the worker's `Confinement`.
  """
  targets.reset()
  reader, writer = os.pipe()

  def send(message: list) -> None:
    os.write(writer, json.dumps(message).encode() + b"\n")

  def action() -> None:
    os.close(reader)
    _worker(send, without, targets, names)

  pid = _spawn(action)
  os.close(writer)
  with open(reader, encoding="utf-8") as lines:
    answers = dict(json.loads(line) for line in lines)
  _wait(pid)
  missing = {
    name: "it crashed" if name in attempts.WORKS else None for name in names
  }
  return {"": {}, **missing, **answers}


def probe(
  memory_bytes: int, without: Collection[str] = ()
) -> dict[str, object]:
  """Tries which layers enforce what.

  Args:
    memory_bytes: address space of a program.
    without: layers that are switched off.

  Returns:
    For each of ATTEMPTS the layers that refuse it: those that do so alone,
    separated by commas, or those that do so only together, separated by plus
    signs; else "nothing", or the audit hook, which is not a boundary. "time"
    and "parent_death" likewise. Under "layers" what each layer consists of.
    Under "degraded" a list of what no boundary enforces, of missing layers, and
    of what does not work.
  """
  readable = confinement.landlock.readable()
  targets = attempts.Targets(memory_bytes, readable)

  def only(
    names: Collection[str], things=tuple(attempts.ATTEMPTS)
  ) -> dict[str, object]:
    off = [name for name in confinement.LAYERS if name not in names]
    return attempt(off, targets, things)

  try:
    whole = attempt(without, targets, (*attempts.WORKS, *attempts.ATTEMPTS))
    notes = whole[""].get("notes", {})
    layers = {name: notes.get(name) or "there" for name in confinement.LAYERS}
    on = [n for n in confinement.KERNEL if not layers[n].startswith(_ABSENT)]
    bare = only(())
    every = only(on)
    alone = {name: only([name]) for name in on}
    together = [
      name
      for name in attempts.ATTEMPTS
      if every[name]
      and not bare[name]
      and not any(a[name] for a in alone.values())
    ]
    lacking = {
      name: only([other for other in on if other != name], together)
      for name in on
      if together
    }
  finally:
    targets.close()
  return _report(layers, whole, bare, every, alone, lacking)


def _report(
  layers: dict[str, str],
  whole: dict[str, Any],
  bare: dict[str, Any],
  every: dict[str, Any],
  alone: dict[str, dict[str, Any]],
  lacking: dict[str, dict[str, Any]],
) -> dict[str, object]:
  """Returns the report of `probe`.

  Args:
    layers: what each layer consists of.
    whole: what `attempt` has found under all layers that are on.
    bare: without a layer.
    every: under the kernel's layers that are on.
    alone: under each of these alone.
    lacking: under all but each of these, of what no layer refuses alone.
  """
  report: dict[str, object] = {}
  degraded = [] if kernel.LINUX else [_NOT_LINUX]
  for name in attempts.ATTEMPTS:
    if bare[name]:
      report[name] = "the system, without a layer"
    elif every[name]:
      single = [layer for layer, found in alone.items() if found[name]]
      joint = [
        layer
        for layer, found in lacking.items()
        if name in found and not found[name]
      ]
      report[name] = ", ".join(single) or " + ".join(joint) or "several layers"
    else:
      report[name] = _NOT_A_BOUNDARY if whole[name] else "nothing"
      degraded.append(f"{name}: {report[name]}")
  degraded += [
    f"{name}: does not work: {whole[name]}"
    for name in attempts.WORKS
    if whole[name]
  ]
  _add_facts(report, degraded, whole[""].get("facts", {}))
  degraded += [
    f"{name}: {note}"
    for name, note in layers.items()
    if note.startswith(_ABSENT)
  ]
  report["layers"] = layers
  report["degraded"] = degraded
  return report


def check_names(require: Collection[str], without: Collection[str]) -> None:
  """Raises ValueError if a name to require or to leave out is unknown."""
  for option, names, known in (
    ("require", require, REQUIRABLE),
    ("without", without, confinement.LAYERS),
  ):
    for name in names:
      if name not in known:
        raise ValueError(f"{option}: {name!r} is none of {', '.join(known)}")


def lacking(report: dict[str, object], require: Collection[str]) -> list[str]:
  """Returns a line for each requirement that no boundary enforces, and why.

  Args:
    report: the result of `probe`.
    require: names from REQUIRABLE.
  """
  failures = [
    line for line in report["degraded"] if line.partition(":")[0] in require
  ]
  if failures:
    failures += [
      f"{name} is {note}"
      for name, note in report["layers"].items()
      if note.startswith(_ABSENT) and name not in require
    ]
  return failures


def _add_facts(report: dict, degraded: list, facts: dict[str, bool]) -> None:
  """Adds what cannot be attempted, by what the kernel agreed to."""
  report["time"] = "SIGKILL by the host; rlimit CPU behind it"
  with_parent = facts.get("die_with_parent")
  report["parent_death"] = (
    "PR_SET_PDEATHSIG and end of file" if with_parent else "end of file only"
  )
  if not with_parent:
    degraded.append("parent_death: end of file only")
  if not facts.get("adopt_orphans"):
    degraded.append("orphans: nothing collects a program's own children")
  elif not facts.get("proc"):
    degraded.append(
      "orphans: /proc does not show a program's own children, nor its memory: "
      "no interpreter is kept alive"
    )
  for name in ("no_new_privs", "same_addresses"):
    report[name] = facts.get(name, False)
