"""Applies all isolation layers to a worker and to each program.

Layers of the kernel, which a program cannot bypass:

- *rlimits*: memory, CPU time, length of files, descriptors, processes;
- *seccomp*: an allowlist of system calls (`seccomp.py`);
- *landlock*: an allowlist of readable paths (`landlock.py`);
- *credentials*: a private user without privileges (`credentials.py`);
- *namespaces*: no network, no other process (`namespaces.py`).

CPython's *audit hook*, which is **not a boundary**: it reports the usual ways
out as "blocked", but code that walks the interpreter's own objects can bypass
it.

A layer that this machine lacks, or that is switched off by name, is left out;
`Confinement.notes` says why. `probe.py` tries what is enforced.

Runs inside the sandbox's processes: standard library only, and little of it.
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

# Audit events refused whatever their arguments.
_REFUSED = frozenset(
  """
  socket.connect socket.bind socket.sendto socket.sendmsg socket.getaddrinfo
  socket.gethostbyname socket.gethostbyaddr socket.getnameinfo
  socket.sethostname subprocess.Popen os.system os.exec os.fork os.forkpty
  os.posix_spawn os.spawn os.startfile pty.spawn os.remove os.rename os.rmdir
  os.mkdir os.link os.symlink os.truncate os.chmod os.chown os.chflags os.utime
  os.setxattr os.removexattr os.lockf os.kill os.killpg signal.pthread_kill
  resource.setrlimit resource.prlimit syslog.openlog syslog.syslog
  webbrowser.open ctypes.dlopen ctypes.dlsym ctypes.dlsym/handle
  ctypes.call_function ctypes.addressof ctypes.string_at ctypes.wstring_at
  ctypes.cdata ctypes.cdata/buffer
  """.split()
)
_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Blocked(PermissionError):
  """A program tries what the sandbox does not allow."""


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
  """Makes this process the parent of its descendants' orphans."""
  return kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)


class Confinement:
  """The layers of one worker and of the programs that it runs.

  The constructor confines the calling worker, which moves to namespaces and to
  another user. In a new process namespace it returns in a fork of the caller;
  see `namespaces.enter`.

  Args:
    parent: pid of the process that started this one; this one ends with it.
    without: names, of LAYERS, of the layers to leave out.

  Attributes:
    notes: for each of LAYERS what it consists of here, or why it is missing.
    facts: whether the kernel agreed to "die_with_parent", "adopt_orphans" and
      "no_new_privs"; "proc", whether /proc shows this process; and
      "same_addresses", whether addresses are the same in each worker.
  """

  def __init__(self, parent: int, without: Collection[str] = ()):
    self._filter: seccomp.Filter | None = None
    self._ruleset: landlock.Ruleset | None = None
    self.notes = dict.fromkeys(without, "switched off")
    self._missing = set(without)
    self.facts = {"no_new_privs": kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)}
    self._paths = landlock.readable()
    for name in LAYERS:
      if name not in self._missing:
        self.notes[name] = ""
    # In this order no layer takes away what a later one needs. The user derives
    # from the pid in the host's process table, which no other worker has.
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
    self.facts["proc"] = namespaces.sees_itself()
    self.facts["same_addresses"] = kernel.has_same_addresses()
    self._hook = make_hook(self._paths)

  @property
  def active(self) -> tuple[str, ...]:
    """Names of the layers in force, in the order of LAYERS."""
    return tuple(name for name in LAYERS if name not in self._missing)

  def leave_out(self, name: str, why: str) -> None:
    """Leaves out "seccomp" or "landlock" for programs from now on."""
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
    if os.geteuid() != 0:  # The user namespace gave them; no longer needed.
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
      # Privileges are dropped in any case.
      keep = 0 if os.geteuid() else credentials.READ_SEARCH
      credentials.drop_capabilities(keep & credentials.capabilities())
      raise

  def _make_filter(self) -> None:
    if not self.facts["no_new_privs"]:
      raise OSError("the kernel does not know no_new_privs")
    self._filter = seccomp.Filter()

  def limit_worker(self, memory_bytes: int, processes: int) -> None:
    """Sets the rlimits of this worker and of all its forks.

    Args:
      memory_bytes: address space of each process.
      processes: limit of processes, applied if the worker has a private user;
        it bounds a program that forks while it is allowed to.
    """
    if "rlimits" not in self._missing:
      limit_worker(memory_bytes)
      if "credentials" not in self._missing:
        _limit(resource.RLIMIT_NPROC, processes)

  def confine_program(self, cpu_seconds: int = 0) -> None:
    """Applies a program's layers to this process, irrevocably.

    Forks of this process inherit them.

    Args:
      cpu_seconds: RLIMIT_CPU; 0 if the worker calls `limit_cpu`.

    Raises:
      OSError: if a layer that is `active` cannot be applied.
    """
    if "rlimits" not in self._missing:
      limit_program(cpu_seconds)
    if self._ruleset and "landlock" not in self._missing:
      self._ruleset.restrict()
    if self._filter and "seccomp" not in self._missing:
      self._filter.install()
    if HOOK not in self._missing:
      sys.addaudithook(self._hook)


def _number_of_user() -> int | OSError:
  try:
    return credentials.private_id(os.getpid())
  except OSError as error:
    return error


def confine_service(packages: Collection[str]) -> dict[str, str]:
  """Applies seccomp and landlock to this process, a worker of its host.

  For a worker that runs only our code but parses untrusted text: open
  descriptors stay open, and it reaches no other file, network or process. Call
  it after all imports.

  Args:
    packages: importable names of packages that stay readable, beside those that
      programs may read.

  Returns:
    For each layer why it is missing, "" if it is in force.
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
  """Sets the rlimits of a worker, which its programs inherit."""
  _limit(resource.RLIMIT_AS, memory_bytes)
  _limit(resource.RLIMIT_FSIZE, 0)
  _limit(resource.RLIMIT_CORE, 0)


def limit_program(cpu_seconds: int = 0) -> None:
  """Sets the rlimits of one program: files, CPU time, and no new processes.

  Args:
    cpu_seconds: RLIMIT_CPU; 0 if the worker calls `limit_cpu`.
  """
  _limit(resource.RLIMIT_NOFILE, 64)
  if cpu_seconds:
    _limit(resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1)
  # RLIMIT_NPROC does not bind root. The hard limit stays, for `let_fork`.
  hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
  resource.setrlimit(resource.RLIMIT_NPROC, (0, hard))


def limit_cpu(pid: int, seconds: int) -> None:
  """Sets the total CPU time of a child of the worker."""
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
  except (OSError, ValueError):  # Other systems refuse some of them.
    if kernel.LINUX:
      raise


def make_hook(paths: Collection[str]) -> Callable[[str, tuple], None]:
  """Returns the audit hook, to be installed by `sys.addaudithook`.

  The worker makes it once, to save time in the programs' short processes.

  Args:
    paths: readable files and folders; folders with all that is below them.
  """
  inside = tuple(
    os.path.join(each, "") for each in paths if os.path.isdir(each)
  )
  exact = frozenset(paths)
  refused, write = _REFUSED, _WRITE
  fspath, absolute = os.fspath, os.path.abspath

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
    elif event in refused:
      raise Blocked(f"{event} is not allowed")
    elif event == "sqlite3.connect" and args[0] != ":memory:":
      raise Blocked("sqlite3.connect is not allowed")

  return hook


def refuse_spawn() -> None:
  """Replaces functions that start processes or threads without audit events."""

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
