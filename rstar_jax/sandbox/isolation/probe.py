"""What holds on this machine, found out by trying everything.

Everything that a program may not do is attempted in forks: with no layer at
all, with each layer alone and with all of the kernel's, so that a report does
not rest on what a layer should do. What must work is tried under all layers.

Runs inside the sandbox's processes: standard library only.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Collection

from rstar_jax.sandbox.isolation import attempts, confinement

_ABSENT = ("missing", "switched off")
_NOT_A_BOUNDARY = "audit hook (not a boundary)"
_PLAIN = (
  f"system: this is not Linux but {sys.platform}: programs run in plain limited"
  " subprocesses, and what else keeps them in is no boundary"
)
# What `require=` may name.
REQUIRABLE = (
  *attempts.ATTEMPTS,
  "parent_death",
  "orphans",
  *confinement.KERNEL,
)


def _program(
  send, layers: confinement.Confinement, scene: attempts.Scene, names
) -> None:
  """Attempts things as a program would: in a process confined like one."""
  layers.confine_program(60)
  for name in names:
    try:
      if name in attempts.WORKS:
        attempts.WORKS[name]()
      else:
        attempts.ATTEMPTS[name](scene)
      send([name, "" if name in attempts.WORKS else None])
    except Exception as error:
      send([name, f"{type(error).__name__}: {error}"])


def _worker(
  send, without: Collection[str], scene: attempts.Scene, names
) -> None:
  """Does what a worker does: confines itself, and forks."""
  layers = confinement.Confinement(os.getppid(), without)
  layers.limit_worker(scene.memory, 64)
  if any(name in attempts.WORKS for name in names):
    self_test(layers)
  send(["", {"notes": layers.notes, "facts": layers.facts}])
  reader, writer = os.pipe()
  scene.sibling = os.fork()
  if scene.sibling == 0:
    try:
      os.close(writer)
      layers.confine_program(60)
      os.read(reader, 1)  # Until the other end is closed.
    finally:
      os._exit(0)
  _wait(_spawn(lambda: _program(send, layers, scene, names)))
  os.close(writer)
  os.kill(scene.sibling, signal.SIGKILL)
  _wait(scene.sibling)


def self_test(layers: confinement.Confinement) -> None:
  """Tries what must work in a confined fork; leaves out a layer that breaks it.

  A C library or a machine that nobody thought of may need a system call or a
  folder that is not listed. To run with less, and say so, is better than to
  call every program wrong.

  Args:
    layers: of this worker; changed where a layer has to go.
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
  """Returns what does not work without some layers, "" if all does."""
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
  pid = os.fork()
  if pid == 0:
    try:
      action()
    finally:
      os._exit(0)
  return pid


def _wait(pid: int) -> None:
  os.waitpid(pid, 0)


def attempt(
  without: Collection[str], scene: attempts.Scene, names: Collection[str]
) -> dict[str, object]:
  """Attempts things under some layers, in processes of their own.

  Args:
    without: layers left out.
    scene: what is attacked.
    names: of ATTEMPTS and WORKS.

  Returns:
    For each name how it was refused, or went wrong; None for an attempt that
    went through and "" for what works. Where nothing was heard of it: None, or
    the words that say so. And under "" the "notes" and "facts" of a worker.
  """
  scene.reset()
  reader, writer = os.pipe()

  def send(message: list) -> None:
    os.write(writer, json.dumps(message).encode() + b"\n")

  def action() -> None:
    os.close(reader)
    _worker(send, without, scene, names)

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
  """Finds out what holds under which layers.

  Args:
    memory_bytes: address space of a program.
    without: layers that are switched off.

  Returns:
    For each of ATTEMPTS the layers that hold it, each alone or, between plus
    signs, only together; else "nothing", or the audit hook, which is no
    boundary. For "time" and "parent_death" likewise; under "layers" what each
    consists of; and under "degraded" a list of what no boundary holds, of
    layers that are missing, and of what does not work.
  """
  readable = confinement.landlock.readable()
  scene = attempts.Scene(memory_bytes, readable)

  def only(
    names: Collection[str], things=tuple(attempts.ATTEMPTS)
  ) -> dict[str, object]:
    off = [name for name in confinement.LAYERS if name not in names]
    return attempt(off, scene, things)

  try:
    whole = attempt(without, scene, (*attempts.WORKS, *attempts.ATTEMPTS))
    worker = whole[""] or {"notes": {}, "facts": {}}
    layers = {
      name: worker["notes"].get(name) or "there" for name in confinement.LAYERS
    }
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
    scene.close()

  report: dict[str, object] = {}
  degraded = [] if confinement.kernel.LINUX else [_PLAIN]
  for name in attempts.ATTEMPTS:
    if bare[name]:
      report[name] = "the system, without a layer"
    elif every[name]:
      single = [layer for layer in on if alone[layer][name]]
      joint = [
        layer for layer in on if name in together and not lacking[layer][name]
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
  _add_facts(report, degraded, worker["facts"])
  degraded += [
    f"{name}: {note}"
    for name, note in layers.items()
    if note.startswith(_ABSENT)
  ]
  report["layers"] = layers
  report["degraded"] = degraded
  return report


def check_names(require: Collection[str], without: Collection[str]) -> None:
  """Raises ValueError where something to require or to leave out is unknown."""
  for option, names, known in (
    ("require", require, REQUIRABLE),
    ("without", without, confinement.LAYERS),
  ):
    for name in names:
      if name not in known:
        raise ValueError(f"{option}: {name!r} is none of {', '.join(known)}")


def lacking(report: dict[str, object], require: Collection[str]) -> list[str]:
  """Returns, of what is required, what no boundary holds, and why.

  Args:
    report: of `probe`.
    require: names of REQUIRABLE.
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
  """Says what was not attempted but asked of the kernel."""
  report["time"] = "SIGKILL by the host; rlimit CPU behind it"
  with_parent = facts.get("die_with_parent")
  report["parent_death"] = (
    "PR_SET_PDEATHSIG and end of file" if with_parent else "end of file only"
  )
  if not with_parent:
    degraded.append("parent_death: end of file only")
  if not facts.get("adopt_orphans"):
    degraded.append("orphans: nothing collects a program's own children")
  report["no_new_privs"] = facts.get("no_new_privs", False)
