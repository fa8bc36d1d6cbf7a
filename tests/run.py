"""Runs every test file in a process of its own and counts the test cases.

  python tests/run.py [WORD ...]    only the files whose path holds a WORD
  python tests/run.py --fast        only the files that end within seconds

Each file runs in a fork of this program, which has loaded the large libraries
once. So no test sees another's flags, devices or compiled programs, and one
that crashes or hangs fails alone. The last line says how many test cases
passed, failed and were skipped. The exit status is 0 only if some passed, none
failed and at most --skips were skipped, besides those that need a browser.
"""

import argparse
import atexit
import collections
import contextlib
import dataclasses
import gc
import importlib
import os
import pathlib
import re
import runpy
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from importlib import metadata
from typing import BinaryIO, NoReturn

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Seconds after which a file has hung.
TIMEOUT = 600.0
# Seconds after which a program of a test has hung. The test still has time to
# end by itself, and to show what the program wrote.
PATIENCE = 0.9 * TIMEOUT
# Seconds between two looks at the processes.
PAUSE = 0.02
_JAXLIB = tuple(map(int, metadata.version("jaxlib").split(".")[:2]))
# Environment variables that are set unless the caller has set them.
DEFAULTS = {
  # Where libtpu is installed, jax would look for a TPU, and noisily.
  "JAX_PLATFORMS": "cpu",
  # Tests compile many small programs that run once or twice. These flags make
  # compiling several times cheaper. `XLA_FLAGS= make test` compiles as users
  # do.
  "XLA_FLAGS": "--xla_backend_optimization_level=0"
  " --xla_cpu_parallel_codegen_split_count=1"
  # An unknown flag ends the process, and 0.12 does not know it any more.
  + " --xla_cpu_use_fusion_emitters=false"
  * (_JAXLIB < (0, 11)),
  # Its threads would start before the fork.
  "OPENBLAS_NUM_THREADS": "1",
}
# What takes long to import, starts no thread and is not of this project.
HEAVY = (
  "absl.testing.parameterized",
  "flax.nnx",
  "grain",
  "hypothesis",
  "jax",
  "jax.experimental.pallas.tpu",
  "math_verify",
  "numpy",
  "optax",
  "orbax.checkpoint",
  "sympy",
  "tensorboardX",
  "transformers.models.auto.tokenization_auto",
)
# The files that take longest, longest first, so that none is left alone at the
# end. A name that is missing here costs seconds, never a test.
LONGEST = (
  "pipeline/resume_test.py",
  "pipeline/run_hosts_test.py",
  "hf/folders_golden_test.py",
  "models/kernels/build_test.py",
  "training/sft_families_test.py",
  "sandbox/pool_hostile_test.py",
  "pipeline/reinforce_test.py",
  "colab/self_evolution_test.py",
  "pipeline/hosts_test.py",
  "sandbox/pool_neighbours_test.py",
  "models/kernels/shared_pages_test.py",
  "inference/engine_test.py",
  "inference/engine_bits_test.py",
  "training/loop_mesh_test.py",
  "inference/engine_client_test.py",
  "inference/scoring_test.py",
  "inference/engine_mesh_test.py",
  "docs/examples_test.py",
  "pipeline/resume_bucket_test.py",
  "training/loop_test.py",
  "sandbox/pool_life_test.py",
  "pipeline/backends_search_test.py",
  "models/transformer_test.py",
  "storage/stopping_stages_test.py",
  "report/page_tree_test.py",
  "models/experts_test.py",
  "inference/http_post_test.py",
  "pipeline/run_test.py",
  "report/live_browser_test.py",
  "training/sft_test.py",
  "training/ppm_test.py",
  "colab/train_ppm_test.py",
)
# What --fast leaves out: folders whose tests compile models, start many
# processes or make whole runs.
SLOW = (
  "colab/",
  "docs/",
  "hf/",
  "inference/",
  "launch/",
  "models/",
  "pipeline/",
  "sandbox/",
  "tools/",
  "training/",
)
# These start anew instead of in a fork: a sandbox measures the memory of its
# process, which in a fork would hold the libraries too.
ALONE = ("sandbox/",)

_RAN = re.compile(r"^Ran (\d+) tests? in", re.MULTILINE)
_BAD = re.compile(r"^FAILED \((.*)\)$", re.MULTILINE)
_OK = re.compile(r"^OK \((.*)\)$", re.MULTILINE)
_COUNT = re.compile(r"([a-z ]+)=(\d+)")
# The reason of `tests/report/browser.py`.
NO_BROWSER = "no chromium and chromedriver here"
_SKIPPED = re.compile(r"^\[  SKIPPED \] .*? - (.*)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Running:
  """A file that runs: its path, process, output so far and start."""

  path: pathlib.Path
  pid: int
  log: BinaryIO
  start: float


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What came of one file.

  Attributes:
    passed, failed, skipped: numbers of test cases.
    output: stdout and stderr, interleaved.
    note: why a file failed other than by a test case, "" otherwise.
    seconds: wall time.
    cpu: seconds of processors, with those of the processes that it waited for.
  """

  passed: int
  failed: int
  skipped: int
  output: str
  note: str = ""
  seconds: float = 0.0
  cpu: float = 0.0


def discover(
  root: pathlib.Path, words: list[str], leave_out: tuple[str, ...] = ()
) -> list[pathlib.Path]:
  """Returns the test files to run, the longest first.

  Args:
    root: the folder that holds `tests`.
    words: a file is taken if its path holds one of them; all are if empty.
    leave_out: a file is left out if its path in `tests` starts with one.
  """
  files = sorted((root / "tests").rglob("*_test.py"))
  names = {each: each.relative_to(root / "tests").as_posix() for each in files}
  order = {name: place for place, name in enumerate(LONGEST)}
  return sorted(
    (
      each
      for each, name in names.items()
      if not name.startswith(leave_out)
      and (not words or any(word in f"tests/{name}" for word in words))
    ),
    key=lambda each: order.get(names[each], len(order)),
  )


def count(output: str, status: int | None) -> Outcome:
  """Reads unittest's summary.

  Args:
    output: what the file wrote.
    status: its exit status, None if it was killed for taking too long.

  Returns:
    The numbers of cases. A file that fails without saying how many cases did
    counts as one failed case.
  """
  if status is None:
    return Outcome(0, 1, 0, output, f"no end after {TIMEOUT:.0f} s")
  ran = [int(number) for number in _RAN.findall(output)]
  if not ran:
    note = f"ended with status {status} before its tests"
    return Outcome(0, 1, 0, output, note)
  bad, good = _BAD.findall(output), _OK.findall(output)
  parts = dict(_COUNT.findall((bad or good or [""])[-1]))
  numbers = {name.strip(): int(value) for name, value in parts.items()}
  skipped = numbers.get("skipped", 0)
  failed = sum(
    numbers.get(name, 0)
    for name in ("failures", "errors", "unexpected successes")
  )
  if ran[-1] == 0 and not failed:
    return Outcome(0, 1, 0, output, "holds no test")
  # Each failing subtest and class set-up counts, so they may outnumber cases.
  passed = max(0, ran[-1] - failed - skipped)
  if status and not failed:
    note = f"ended with status {status} after its tests"
    return Outcome(passed, 1, skipped, output, note)
  return Outcome(passed, failed, skipped, output)


def start(path: pathlib.Path, root: pathlib.Path) -> Running:
  """Starts one file in a fork."""
  # A file and not a pipe: a process that a test leaves behind would hold a
  # pipe open, and a test that has ended would look as if it had not.
  log = tempfile.TemporaryFile()
  sys.stdout.flush()
  sys.stderr.flush()
  pid = os.fork()
  if not pid:
    _be_the_file(path, root, log)
  return Running(path, pid, log, time.monotonic())


def _be_the_file(
  path: pathlib.Path, root: pathlib.Path, log: BinaryIO
) -> NoReturn:
  """Makes this process what `python -m` would make of a test file."""
  module = ".".join(path.relative_to(root).with_suffix("").parts)

  def run_module() -> None:
    if path.relative_to(root / "tests").as_posix().startswith(ALONE):
      os.execv(sys.executable, [sys.executable, "-m", module])
    sys.argv = [str(path)]
    runpy.run_module(module, run_name="__main__", alter_sys=True)

  become(run_module, root, log)


def become(
  program: Callable[[], None], root: pathlib.Path, log: BinaryIO
) -> NoReturn:
  """Runs a program in this fork as if Python had started for it.

  Args:
    program: does its work, and may end with SystemExit.
    root: the folder that holds `tests`, where it runs.
    log: gets what it writes.
  """
  status = 1
  try:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    os.chdir(root)
    os.environ.update(DEFAULTS | os.environ)
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, closefd=False)
    sys.path[0] = str(root)
    for name in [*sys.modules]:  # `tests` of another root, in our own test.
      if name.split(".")[0] == "tests":
        del sys.modules[name]
    program()
    status = 0
  except SystemExit as end:
    status = end.code if isinstance(end.code, int) else int(bool(end.code))
  except BaseException:
    traceback.print_exc()
  finally:
    # What the interpreter does at its end; it must not go on as the runner.
    with contextlib.suppress(BaseException):
      threading._shutdown()
      atexit._run_exitfuncs()
      sys.stdout.flush()
      sys.stderr.flush()
    os._exit(status)


def finish(running: Running) -> Outcome | None:
  """Returns what came of a file, None while it runs and has time left."""
  late = time.monotonic() - running.start > TIMEOUT
  if late:
    kill_group(running)
  pid, status, usage = os.wait4(running.pid, 0 if late else os.WNOHANG)
  if not pid:
    return None
  kill_group(running)
  running.log.seek(0)
  output = running.log.read().decode(errors="replace")
  running.log.close()
  code = None if late else os.waitstatus_to_exitcode(status)
  return dataclasses.replace(
    count(output, code),
    seconds=time.monotonic() - running.start,
    cpu=usage.ru_utime + usage.ru_stime,
  )


def kill_group(running: Running) -> None:
  """Ends a file's process and what it left running in its session."""
  with contextlib.suppress(ProcessLookupError):  # Usually nothing is left.
    os.killpg(running.pid, signal.SIGKILL)


def report(name: str, outcome: Outcome) -> None:
  """Prints a line for a file, and all its output if it failed."""
  word = "FAIL" if outcome.failed else "ok"
  cases = outcome.passed + outcome.failed + outcome.skipped
  note = f"  ({outcome.note})" if outcome.note else ""
  print(
    f"{word:4} {outcome.seconds:6.1f} s {outcome.cpu:6.1f} s cpu"
    f" {cases:4d} tests  {name}{note}",
    flush=True,
  )
  if outcome.failed:
    print(outcome.output.rstrip(), flush=True)
    print(f"---- end of {name}", flush=True)


def run(
  root: pathlib.Path,
  words: list[str],
  jobs: int,
  skips: int | None = None,
  leave_out: tuple[str, ...] = (),
) -> int:
  """Runs the files, prints as they end, and returns the exit status.

  Args:
    root, words, leave_out: which files; see `discover`.
    jobs: files at once.
    skips: the largest number of skipped cases that is no failure, those for
      want of a browser not counted; None for any.
  """
  files = discover(root, words, leave_out)
  if len(files) > 2 * jobs:
    preload()
  waiting, running, outcomes = files[::-1], [], []
  try:
    while waiting or running:
      while waiting and len(running) < jobs:
        running.append(start(waiting.pop(), root))
      for each in list(running):
        outcome = finish(each)
        if outcome is not None:
          running.remove(each)
          outcomes.append(outcome)
          report(str(each.path.relative_to(root)), outcome)
      time.sleep(PAUSE)
  except BaseException:  # Interrupted: leave nothing running.
    for each in running:
      kill_group(each)
      os.waitpid(each.pid, 0)
    raise
  return conclude(outcomes, skips, leave_out)


def conclude(
  outcomes: list[Outcome], skips: int | None, leave_out: tuple[str, ...]
) -> int:
  """Prints the numbers of all files and returns the exit status."""
  passed = sum(each.passed for each in outcomes)
  failed = sum(each.failed for each in outcomes)
  skipped = counted = sum(each.skipped for each in outcomes)
  reasons = collections.Counter(
    reason for each in outcomes for reason in _SKIPPED.findall(each.output)
  )
  for reason, number in reasons.most_common():
    print(f"skipped {number}: {reason}")
    counted -= number if NO_BROWSER in reason else 0
  if outcomes:
    print(f"{sum(each.cpu for each in outcomes):.0f} s of processor time")
  excess = skips is not None and counted > skips
  if excess:
    print(f"more than the {skips} skips that --skips allows")
  tail = f", {skipped} skipped" if skipped else ""
  if leave_out:
    tail += f"; left out: {', '.join(leave_out)}"
  print(f"{passed} passed, {failed} failed{tail}", flush=True)
  return int(failed > 0 or passed == 0 or excess)


def preload() -> None:
  """Imports what most files need, once for all forks."""
  for name in HEAVY:
    with contextlib.suppress(ImportError):  # The file that needs it says so.
      importlib.import_module(name)
  # Otherwise the collector of each fork would copy what all share.
  gc.collect()
  gc.freeze()


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "words", nargs="*", help="run only files whose path holds one of these"
  )
  parser.add_argument(
    "--jobs",
    type=int,
    default=(os.cpu_count() or 1) + 2,
    help="files at once (default: two more than cores, as some wait)",
  )
  parser.add_argument(
    "--fast", action="store_true", help="leave out what takes long"
  )
  parser.add_argument(
    "--skips",
    type=int,
    help="fail if more cases are skipped, other than for want of a browser "
    "(default: any)",
  )
  args = parser.parse_args()
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  # jax reads its own when it is imported.
  os.environ.update(DEFAULTS | os.environ)
  sys.path[0] = str(ROOT)
  leave_out = SLOW if args.fast else ()
  return run(ROOT, args.words, max(1, args.jobs), args.skips, leave_out)


if __name__ == "__main__":
  sys.exit(main())
