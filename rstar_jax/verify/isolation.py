"""The layers that a program's process puts on itself, each tried at start-up.

Two layers so far. *Rlimits* are the kernel's: a program cannot get around them.
The *audit hook* is CPython's and is **not a boundary**: it turns the usual ways
out (network, files, processes, ctypes) into a clear "blocked", but code that
walks the interpreter's own objects can get past it. What only the hook holds is
listed as degraded in `Sandbox.isolation`.

Runs inside the sandbox's processes, so that it imports the standard library
only, and little of it.
"""

import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

try:
  _prctl = ctypes.CDLL(None, use_errno=True).prctl
except (OSError, AttributeError):  # Not Linux.
  _prctl = None

# Audit events that are refused whatever their arguments.
_REFUSED = frozenset(
  """
  socket.connect socket.bind socket.sendto socket.sendmsg socket.getaddrinfo
  socket.gethostbyname socket.gethostbyaddr socket.getnameinfo
  socket.sethostname subprocess.Popen os.system os.exec os.fork os.forkpty
  os.posix_spawn os.spawn os.startfile pty.spawn os.remove os.rename os.rmdir
  os.mkdir os.link os.symlink os.truncate os.chmod os.chown os.chflags os.utime
  os.setxattr os.removexattr os.lockf os.killpg signal.pthread_kill
  resource.setrlimit resource.prlimit syslog.openlog syslog.syslog
  webbrowser.open ctypes.dlopen ctypes.dlsym ctypes.dlsym/handle
  ctypes.call_function ctypes.addressof ctypes.string_at ctypes.wstring_at
  ctypes.cdata ctypes.cdata/buffer
  """.split()
)
_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Blocked(PermissionError):
  """Raised in a program that tries what the sandbox does not allow."""


def _call_prctl(option: int, value: int) -> bool:
  return _prctl is not None and _prctl(option, value, 0, 0, 0) == 0


def die_with_parent(parent: int) -> bool:
  """Asks the kernel to kill this process when its parent ends.

  Args:
    parent: pid of the parent that started this process.

  Returns:
    Whether the kernel agreed (Linux only).
  """
  held = _call_prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
  if os.getppid() != parent:  # It ended before the call.
    os._exit(1)
  return held


def adopt_orphans() -> bool:
  """Makes this process the parent of what its children leave behind."""
  return _call_prctl(_PR_SET_CHILD_SUBREAPER, 1)


def drop_privileges_on_exec() -> bool:
  """Forbids that an exec gains privileges (set-user-id programs)."""
  return _call_prctl(_PR_SET_NO_NEW_PRIVS, 1)


def limit_worker(memory_bytes: int) -> None:
  """Sets the rlimits that a worker and every program it forks live under."""
  _limit(resource.RLIMIT_AS, memory_bytes)
  _limit(resource.RLIMIT_FSIZE, 0)
  _limit(resource.RLIMIT_CORE, 0)


def limit_program(cpu_seconds: int = 0) -> None:
  """Sets the rlimits of one program: files, CPU time, and no new processes.

  Args:
    cpu_seconds: 0 where the worker calls `limit_cpu`.
  """
  _limit(resource.RLIMIT_NOFILE, 64)
  if cpu_seconds:
    _limit(resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1)
  # It does not bind root. The hard limit stays, for `let_fork`.
  hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
  resource.setrlimit(resource.RLIMIT_NPROC, (0, hard))


def limit_cpu(pid: int, seconds: int) -> None:
  """Sets how much CPU time a child of the worker may use in all."""
  if hasattr(resource, "prlimit"):
    hard = resource.prlimit(pid, resource.RLIMIT_CPU)[1]
    resource.prlimit(pid, resource.RLIMIT_CPU, (seconds, hard))


def let_fork(pid: int, yes: bool) -> None:
  """Sets whether a child of the worker may start processes."""
  hard = resource.prlimit(pid, resource.RLIMIT_NPROC)[1]
  resource.prlimit(pid, resource.RLIMIT_NPROC, (hard if yes else 0, hard))


def _limit(kind: int, soft: int, hard: int | None = None) -> None:
  hard = soft if hard is None else hard
  ceiling = resource.getrlimit(kind)[1]
  if ceiling != resource.RLIM_INFINITY:
    soft, hard = min(soft, ceiling), min(hard, ceiling)
  resource.setrlimit(kind, (soft, hard))


def make_hook() -> Callable[[str, tuple], None]:
  """Returns the audit hook, to be installed by `sys.addaudithook`.

  Made once in the worker: a program's process is short, so that whatever it
  need not do itself counts.
  """
  readable = tuple(
    {
      os.path.join(os.path.abspath(path), "")
      for path in (*sys.path, sys.prefix, sys.base_prefix)
      if path and path.startswith("/") and path != "/"
    }
  )
  special = (os.devnull, "/dev/urandom", "/dev/random")
  getpid, refused, write = os.getpid, _REFUSED, _WRITE
  fspath, absolute = os.fspath, os.path.abspath

  def hook(event: str, args: tuple) -> None:
    if event == "open":
      path, _, flags = args
      if path is None or isinstance(path, int):
        return
      path = fspath(path)
      if isinstance(path, bytes):
        path = path.decode(errors="surrogateescape")
      if path in special:
        return
      if (flags or 0) & write:
        raise Blocked(f"writing is not allowed: {path}")
      if not absolute(path).startswith(readable):
        raise Blocked(f"reading is not allowed: {path}")
    elif event in refused or (event == "os.kill" and args[0] != getpid()):
      raise Blocked(f"{event} is not allowed")
    elif event == "sqlite3.connect" and args[0] != ":memory:":
      raise Blocked("sqlite3.connect is not allowed")

  return hook


def refuse_spawn() -> None:
  """Replaces the one way to start a process that raises no audit event."""
  try:
    import _posixsubprocess
  except ImportError:
    return

  def fork_exec(*_, **__):
    raise Blocked("starting a process is not allowed")

  _posixsubprocess.fork_exec = fork_exec


def _try_net() -> None:
  # Connecting a datagram socket sends nothing and needs no listener.
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    probe.connect(("127.0.0.1", 9))


def _try_read() -> None:
  # Both are world-readable on the systems that have them.
  for path in ("/proc/self/status", "/etc/passwd"):
    if os.path.exists(path):
      with open(path) as file:
        file.read(1)
      return


def _try_write() -> None:
  folders = ("/tmp", "/var/tmp", "/dev/shm")
  folder = next((f for f in folders if os.access(f, os.W_OK)), "/tmp")
  path = os.path.join(folder, f"rstar_jax_probe_{os.getpid()}")
  try:
    with open(path, "w") as file:
      file.write("probe")
  finally:
    if os.path.exists(path):
      os.unlink(path)


def _try_exec() -> None:
  os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", ""])


def _try_fork() -> None:
  pid = os.fork()
  if pid == 0:
    os._exit(0)
  os.waitpid(pid, 0)


def _try_kill() -> None:
  os.kill(os.getppid(), 0)


def _try_ctypes() -> None:
  ctypes.CDLL(None).getpid()


def _try_memory() -> None:
  bytearray(resource.getrlimit(resource.RLIMIT_AS)[0])


# What a program may not do, and an attempt at it that ends in an exception
# where a layer holds.
PROBES: dict[str, Callable[[], None]] = {
  "net": _try_net,
  "read": _try_read,
  "write": _try_write,
  "exec": _try_exec,
  "fork": _try_fork,
  "kill": _try_kill,
  "ctypes": _try_ctypes,
  "memory": _try_memory,
}
_HOOK = "audit hook (not a boundary)"
_KERNEL = {
  "write": "rlimit FSIZE (a file can be created but stays empty)",
  "fork": "rlimit NPROC",
  "memory": "rlimit AS",
}


def describe(
  kernel: dict[str, bool], hook: dict[str, bool], facts: dict[str, bool]
) -> dict[str, object]:
  """Says in words which layer holds what.

  Args:
    kernel: for each of PROBES, whether the attempt failed with rlimits only.
    hook: the same with the audit hook on top.
    facts: what the kernel agreed to: "die_with_parent", "adopt_orphans",
      "no_new_privs".

  Returns:
    For each of PROBES the layers that hold it, or "nothing"; "time" and
    "parent_death"; and "degraded", a list of what no boundary holds.
  """
  report: dict[str, object] = {}
  degraded = []
  for name in PROBES:
    layers = []
    if kernel[name]:
      layers.append(_KERNEL.get(name, "kernel"))
    elif hook[name]:
      layers.append(_HOOK)
    report[name] = "; ".join(layers) or "nothing"
    if not kernel[name]:
      degraded.append(f"{name}: {report[name]}")
  report["time"] = "SIGKILL by the host; rlimit CPU behind it"
  report["parent_death"] = (
    "PR_SET_PDEATHSIG and end of file"
    if facts["die_with_parent"]
    else "end of file only"
  )
  if not facts["die_with_parent"]:
    degraded.append("parent_death: end of file only")
  if not facts["adopt_orphans"]:
    degraded.append("orphans: nothing collects a program's own children")
  report["no_new_privs"] = facts["no_new_privs"]
  report["degraded"] = degraded
  return report
