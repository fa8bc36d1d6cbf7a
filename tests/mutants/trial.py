"""Runs the tests of a copy of the tree that holds one changed file.

A copy is tried in a fork of this program, which has loaded the large libraries,
and in process and mount namespaces of its own where the kernel allows it: code
that is wrong may kill every process that it sees, and leave others behind.
"""

import contextlib
import ctypes
import dataclasses
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests import run as runner
from tests.mutants import changes, watch

# A test file has hung after so many times what it takes, and these seconds.
_TIMES, _SECONDS = 4.0, 20.0
# Bytes of data that a process may hold.
_MEMORY = 12 << 30
# Of clone(2), prctl(2) and mount(2).
_NEW_USER, _NEW_PID, _NEW_MOUNT = 0x10000000, 0x20000000, 0x00020000
_DIE_WITH_PARENT, _PRIVATE = 1, 0x44000


@dataclasses.dataclass(frozen=True)
class Step:
  """A test file that may notice a change.

  Attributes:
    path: of the file, below the root.
    job: for `watch.run`.
    deadline: seconds after which it has hung.
  """

  path: str
  job: Mapping[str, Any]
  deadline: float


@dataclasses.dataclass(frozen=True)
class Result:
  """What became of a mutant.

  Attributes:
    outcome: "killed", "late" (a test hung), or "survived".
    by: the test file and case that noticed.
  """

  outcome: str
  by: str = ""


def copy_tree(root: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Copies what git tracks or would track; returns the folder."""
  command = ["git", "ls-files", "-z", "-co", "--exclude-standard"]
  listed = subprocess.run(command, cwd=root, check=True, capture_output=True)
  for name in filter(None, listed.stdout.decode().split("\0")):
    if (root / name).is_file():
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
      shutil.copy2(root / name, folder / name)
  return folder


def plan(
  mutant: changes.Mutant, notes: Mapping[str, Any], everywhere: bool
) -> list[Step]:
  """Returns the test files that run a mutant's lines, the quickest first.

  Args:
    mutant: the change.
    notes: by test file, what `watch.Lines` notes, and the file's "wall" time.
    everywhere: whether to add the files that do not run the lines. Lines that
      none runs are tried by all: another process may run them.
  """
  first, last = mutant.lines
  everywhere = everywhere or not any(
    first <= at <= last
    for note in notes.values()
    for files in note["lines"].values()
    for at in files.get(mutant.file, ())
  )
  ranked = []
  for path, note in notes.items():
    cases = [
      case
      for case, files in note["lines"].items()
      if any(first <= at <= last for at in files.get(mutant.file, ()))
    ]
    if not cases and not everywhere:
      continue
    seconds = note["seconds"]
    within = [each for each in cases if each != watch.OUTSIDE]
    soonest = min(seconds.get(each, 0.0) for each in within or seconds)
    # Before its first case a file imports, and sets up.
    before = max(0.0, note["wall"] - sum(seconds.values()))
    step = Step(
      path,
      {"first": within, "seconds": seconds},
      _TIMES * note["wall"] + _SECONDS,
    )
    ranked.append((not within, not cases, before + soonest, path, step))
  return [each[-1] for each in sorted(ranked, key=lambda each: each[:-1])]


def run_file(
  tree: pathlib.Path, path: str, job: Mapping[str, Any], seconds: float
) -> tuple[int | None, str]:
  """Runs a test file of a copy in a fork.

  Returns:
    Its exit status, None if it did not end in time, and its output.
  """
  with tempfile.TemporaryFile() as log:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
      runner.become(lambda: _run_case(tree, path, job), tree, log)
    end, status = time.monotonic() + seconds, None
    while status is None and time.monotonic() < end:
      # The first process of a namespace gets the orphans.
      found, code = os.waitpid(-1 if os.getpid() == 1 else pid, os.WNOHANG)
      if found == pid:
        status = os.waitstatus_to_exitcode(code)
      elif not found:
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
      os.killpg(pid, signal.SIGKILL)
    if status is None:
      os.waitpid(pid, 0)
    log.seek(0)
    return status, log.read().decode(errors="replace")


def _run_case(tree: pathlib.Path, path: str, job: Mapping[str, Any]) -> None:
  """Goes on as the test file, anew where the file wants that."""
  # What a changed file compiles to must not be found later.
  sys.dont_write_bytecode = True
  os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
  if path.removeprefix("tests/").startswith(runner.ALONE):
    with tempfile.NamedTemporaryFile("w", delete=False) as written:
      json.dump(job, written)
    command = [sys.executable, "-m", watch.__name__, path, written.name]
    os.execv(sys.executable, command)
  watch.run(tree / path, job)


def judge(tree: pathlib.Path, steps: Sequence[Step]) -> Result:
  """Runs test files of a copy until one fails."""
  for step in steps:
    status, output = run_file(tree, step.path, step.job, step.deadline)
    if status != 0:
      failed = [
        line.split()[1]
        for line in output.splitlines()
        if line.startswith(("FAIL: ", "ERROR: "))
      ]
      by = failed[0] if failed else f"status {status}"
      return Result("late" if status is None else "killed", f"{step.path} {by}")
  return Result("survived")


def start(tree: pathlib.Path, steps: Sequence[Step], out: pathlib.Path) -> int:
  """Starts a process that judges a copy; returns its pid.

  Its result is written to `out`, as JSON.
  """
  pid = os.fork()
  if pid:
    return pid
  status = 1
  try:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    libc = ctypes.CDLL(None, use_errno=True)
    alone = _unshare(libc)
    inner = os.fork() if alone else 0
    if inner:
      status = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
    else:
      libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
      if alone:
        libc.mount(b"none", b"/", None, _PRIVATE, None)
        libc.mount(b"proc", b"/proc", b"proc", 0, None)
      resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
      result = judge(tree, steps)
      out.write_text(json.dumps(dataclasses.asdict(result)))
      status = 0
  finally:
    os._exit(status)


def isolates() -> bool:
  """Whether a copy gets namespaces of its own here."""
  pid = os.fork()
  if not pid:
    os._exit(not _unshare(ctypes.CDLL(None)))
  return not os.waitpid(pid, 0)[1]


def _unshare(libc: ctypes.CDLL) -> bool:
  """Gives the next child namespaces of its own; whether the kernel did."""
  if os.geteuid() == 0:
    return not libc.unshare(_NEW_PID | _NEW_MOUNT)
  uid, gid = os.getuid(), os.getgid()
  if libc.unshare(_NEW_USER | _NEW_PID | _NEW_MOUNT):
    return False
  pathlib.Path("/proc/self/setgroups").write_text("deny")
  pathlib.Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
  pathlib.Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
  return True


def run(
  texts: Mapping[str, bytes],
  trees: Sequence[pathlib.Path],
  mutants: Sequence[changes.Mutant],
  steps: Mapping[str, Sequence[Step]],
) -> Iterator[tuple[changes.Mutant, Result]]:
  """Judges mutants, one at a time in each copy; yields them as they end.

  Args:
    texts: of the files, by path.
    trees: copies of the tree.
    mutants: the changes.
    steps: by name of a mutant, the test files to run.
  """
  waiting, running, free = [*mutants][::-1], {}, [*trees]
  try:
    while waiting or running:
      while waiting and free:
        mutant, tree = waiting.pop(), free.pop()
        write(tree / mutant.file, mutant.apply(texts[mutant.file]))
        out = tree / "outcome.tmp"
        out.unlink(missing_ok=True)
        running[start(tree, steps[mutant.name], out)] = mutant, tree, out
      if running:
        pid, _ = os.wait()
        mutant, tree, out = running.pop(pid)
        write(tree / mutant.file, texts[mutant.file])
        free.append(tree)
        if out.exists():
          yield mutant, Result(**json.loads(out.read_text()))
        else:
          yield mutant, Result("killed", "all processes")
  finally:
    for pid in running:
      os.kill(pid, signal.SIGKILL)
      os.waitpid(pid, 0)


def write(path: pathlib.Path, text: bytes) -> None:
  """Writes a file of Python, so that no older one is run in its place."""
  path.write_bytes(text)
  for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
    compiled.unlink()
