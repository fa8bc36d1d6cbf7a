"""The layers around a worker and around each program, put together.

The kernel's, which a program cannot get around:

- *rlimits*: memory, CPU time, length of files, descriptors, processes;
- *seccomp*: a list of system calls (`seccomp.py`);
- *landlock*: a list of what may be read (`landlock.py`);
- *credentials*: a user of its own, no privilege (`credentials.py`);
- *namespaces*: no network, no other process (`namespaces.py`).

And CPython's *audit hook*, which is **not a boundary**: it turns the usual ways
out into a clear "blocked", but code that walks the interpreter's own objects
can get past it.

A layer that this machine does not have, or that is switched off by name, is
left out; `Confinement.notes` says why. What then holds is found by attempt, see
`probe.py`.

Runs inside the sandbox's processes, so that it imports the standard library
only, and little of it.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable, Collection

from rstar_jax.sandbox.isolation import (
  credentials,
  kernel,
  landlock,
  namespaces,
  seccomp,
)

KERNEL = ("rlimits", "seccomp", "landlock", "credentials", "namespaces")
HOOK = "hook"
LAYERS = (*KERNEL, HOOK)

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


def die_with_parent(parent: int) -> bool:
  """Asks the kernel to kill this process when its parent ends.

  Args:
    parent: pid of the parent that started this process.

  Returns:
    Whether the kernel agreed (Linux only).
  """
  held = kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
  if os.getppid() != parent:  # It ended before the call.
    os._exit(1)
  return held


def adopt_orphans() -> bool:
  """Makes this process the parent of what its children leave behind."""
  return kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)


class Confinement:
  """The layers of one worker: put on it now, on its programs when they start.

  Making one changes this process: it moves to namespaces and to another user.
  In a new process namespace it is another process that goes on, see
  `namespaces.enter`.

  Args:
    parent: pid of the process that started this one; it dies with it.
    without: names, of LAYERS, of the layers to leave out.

  Attributes:
    notes: for each of LAYERS what it consists of here, or why it is missing.
    facts: what the kernel agreed to: "die_with_parent", "adopt_orphans",
      "no_new_privs".

  Raises:
    ValueError: `without` names no layer.
  """

  def __init__(self, parent: int, without: Collection[str] = ()):
    if unknown := sorted(set(without) - set(LAYERS)):
      raise ValueError(f"no layer is called {unknown[0]!r}; there are {LAYERS}")
    self._filters: tuple[seccomp.Filter, ...] = ()
    self._ruleset: landlock.Ruleset | None = None
    self.notes = dict.fromkeys(without, "switched off")
    self._missing = set(without)
    self.facts = {"no_new_privs": kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)}
    self._paths = landlock.readable()
    for name in LAYERS:
      if name not in self._missing:
        self.notes[name] = ""
    # In an order in which none takes from a later one what it needs. The pid
    # is still of the host's process table, where it is no other worker's.
    user = _number_of_user()
    self._outer: int | None = None
    self._add("namespaces", self._enter_namespaces)
    self._add("landlock", self._make_ruleset)
    self._add("credentials", lambda: self._become_private(user))
    self._add("seccomp", self._make_filter)
    self.facts["die_with_parent"] = (
      die_with_parent(parent)
      if self._outer is None
      else namespaces.follow(self._outer)
    )
    self.facts["adopt_orphans"] = adopt_orphans()
    self._hook = make_hook(self._paths)

  @property
  def active(self) -> tuple[str, ...]:
    """Names of the layers that are there, in the order of LAYERS."""
    return tuple(name for name in LAYERS if name not in self._missing)

  def leave_out(self, name: str, why: str) -> None:
    """Leaves a layer off programs from now on: "seccomp" or "landlock"."""
    self._missing.add(name)
    self.notes[name] = f"missing: {why}"

  def _add(self, name: str, make: Callable[[], object]) -> None:
    if name in self._missing:
      return
    try:
      make()
    except OSError as error:
      self._missing.add(name)
      self.notes[name] = f"missing: {error.strerror or error}"

  def _enter_namespaces(self) -> None:
    failures, self._outer = namespaces.enter(self._paths)
    made = [name for name, failure in failures.items() if not failure]
    if not made:
      raise OSError("; ".join(dict.fromkeys(failures.values())))
    if os.geteuid() != 0:  # What a user namespace gave was for the making.
      credentials.drop_capabilities()
    lacking = [f"no {name}: {why}" for name, why in failures.items() if why]
    self.notes["namespaces"] = "; ".join([" ".join(made), *lacking])

  def _make_ruleset(self) -> None:
    self._ruleset = landlock.Ruleset(self._paths, kernel.RULESET)
    self.notes["landlock"] = f"version {self._ruleset.version}"

  def _become_private(self, user: int | OSError) -> None:
    try:
      if isinstance(user, OSError):
        raise user
      word = credentials.become_private(
        user, self._paths, bounded=self._ruleset is not None
      )
      self.notes["credentials"] = ", ".join(
        filter(None, ["private user", word])
      )
    except OSError:
      # What it has of privileges goes in any case.
      keep = 0 if os.geteuid() else credentials.READ_SEARCH
      credentials.drop_capabilities(keep & credentials.capabilities())
      raise

  def _make_filter(self) -> None:
    if not self.facts["no_new_privs"]:
      raise OSError("the kernel does not know no_new_privs")
    self._filters = (seccomp.Filter(), seccomp.Filter(signals=True))

  def limit_worker(self, memory_bytes: int, processes: int) -> None:
    """Sets the rlimits of this worker and of all that it forks.

    Args:
      memory_bytes: address space of each process.
      processes: most that there may be, where the worker has a user of its own:
        a program that is told to fork may not do so without end.
    """
    if "rlimits" not in self._missing:
      limit_worker(memory_bytes)
      if "credentials" not in self._missing:
        _limit(resource.RLIMIT_NPROC, processes)

  def confine_program(self, cpu_seconds: int = 0) -> None:
    """Puts the layers of a program on this process, for good.

    What it forks later has them too, and need not call this.

    Args:
      cpu_seconds: RLIMIT_CPU; 0 where the worker calls `limit_cpu`.

    Raises:
      OSError: a layer that is `active` cannot be put on.
    """
    if "rlimits" not in self._missing:
      limit_program(cpu_seconds)
    scoped = False
    if self._ruleset and "landlock" not in self._missing:
      self._ruleset.restrict()
      scoped = self._ruleset.scopes_signals
    if self._filters and "seccomp" not in self._missing:
      self._filters[scoped].install()
    if HOOK not in self._missing:
      sys.addaudithook(self._hook)


def _number_of_user() -> int | OSError:
  try:
    return credentials.private_id(os.getpid())
  except OSError as error:
    return error


def confine_service(packages: Collection[str]) -> dict[str, str]:
  """Puts seccomp and landlock on this process, which serves its host.

  For a worker that runs nobody's code but reads what anybody wrote: what it has
  open stays open, and it reaches no file, network or process beyond that. To be
  called when it has imported what it needs.

  Args:
    packages: importable names of what it may still read, besides what programs
      may.

  Returns:
    For each layer why it is missing, "" where it is there.
  """
  notes = {}
  kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
  paths = landlock.readable((*landlock.PACKAGES, *packages))
  keep = 0 if os.geteuid() else credentials.READ_SEARCH
  for name, action in (
    ("landlock", lambda: landlock.Ruleset(paths).restrict()),
    (
      "credentials",
      lambda: credentials.drop_capabilities(keep & credentials.capabilities()),
    ),
    ("seccomp", lambda: seccomp.Filter().install()),
  ):
    try:
      action()
      notes[name] = ""
    except OSError as error:
      notes[name] = error.strerror or str(error)
  return notes


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
    soft = min(soft, ceiling)
    hard = ceiling if hard == resource.RLIM_INFINITY else min(hard, ceiling)
  try:
    resource.setrlimit(kind, (soft, hard))
  except (OSError, ValueError):  # Some are not Linux's alone but are refused.
    if kernel.LINUX:
      raise


def make_hook(paths: Collection[str]) -> Callable[[str, tuple], None]:
  """Returns the audit hook, to be installed by `sys.addaudithook`.

  Made once in the worker: a program's process is short, so that whatever it
  need not do itself counts.

  Args:
    paths: files, and folders with all below them, that may be read.
  """
  inside = tuple(
    os.path.join(each, "") for each in paths if os.path.isdir(each)
  )
  exact = frozenset(paths)
  refused, write = _REFUSED, _WRITE
  fspath, absolute, getpid = os.fspath, os.path.abspath, os.getpid

  def hook(event: str, args: tuple) -> None:
    if event == "open":
      path, _, flags = args
      if path is None or isinstance(path, int):
        return
      path = fspath(path)
      if isinstance(path, bytes):
        path = path.decode(errors="surrogateescape")
      if (flags or 0) & write:
        raise Blocked(f"writing is not allowed: {path}")
      path = absolute(path)
      if not path.startswith(inside) and path not in exact:
        raise Blocked(f"reading is not allowed: {path}")
    elif event in refused or (event == "os.kill" and args[0] != getpid()):
      raise Blocked(f"{event} is not allowed")
    elif event == "sqlite3.connect" and args[0] != ":memory:":
      raise Blocked("sqlite3.connect is not allowed")

  return hook


def refuse_spawn() -> None:
  """Replaces what starts a process or a thread and raises no audit event."""

  def refuse(*_, **__):
    raise Blocked("starting a process or a thread is not allowed")

  for module, name in (
    ("_posixsubprocess", "fork_exec"),
    ("_thread", "start_new_thread"),
    ("_thread", "start_joinable_thread"),
    ("threading", "_start_new_thread"),
    ("threading", "_start_joinable_thread"),
  ):
    try:
      found = __import__(module)
    except ImportError:
      continue
    if hasattr(found, name):
      setattr(found, name, refuse)
