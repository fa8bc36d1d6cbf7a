"""Runs every test file as a process of its own and counts the test cases.

  python tests/run.py [WORD ...]    only the files whose path holds a WORD

A process a file: no test sees another's flags, devices or compiled programs,
and one that crashes or hangs fails alone. The last line says how many test
cases passed, failed and were skipped; the exit status is 0 only if some ran and
none failed.
"""

import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Seconds after which a file has hung.
TIMEOUT = 600.0
# What the environment does not say is so.
DEFAULTS = {
  # Where libtpu is installed, jax would look for a TPU, and noisily.
  "JAX_PLATFORMS": "cpu",
  # Tests make many small programs that run once or twice: to optimise them took
  # a third of the slowest files' time. `XLA_FLAGS= make test` does it.
  "XLA_FLAGS": "--xla_backend_optimization_level=0",
}

# What to end if this program is.
_running: set[subprocess.Popen] = set()

_RAN = re.compile(r"^Ran (\d+) tests? in", re.MULTILINE)
_BAD = re.compile(r"^FAILED \((.*)\)$", re.MULTILINE)
_OK = re.compile(r"^OK \((.*)\)$", re.MULTILINE)
_COUNT = re.compile(r"([a-z ]+)=(\d+)")


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What came of one file.

  Attributes:
    passed, failed, skipped: numbers of test cases.
    seconds: wall time.
    output: stdout and stderr, interleaved.
    note: why a file failed other than by a test case, "" otherwise.
  """

  passed: int
  failed: int
  skipped: int
  seconds: float
  output: str
  note: str = ""


def discover(root: pathlib.Path, words: list[str]) -> list[pathlib.Path]:
  """Returns the test files under `root`/tests that hold one of `words`."""
  files = sorted((root / "tests").rglob("*_test.py"))
  names = [str(each.relative_to(root)) for each in files]
  return [
    each
    for each, name in zip(files, names, strict=True)
    if not words or any(word in name for word in words)
  ]


def count(output: str, status: int | None) -> tuple[int, int, int, str]:
  """Reads unittest's summary.

  Args:
    output: what the file wrote.
    status: its exit status, None if it was killed for taking too long.

  Returns:
    Cases passed, failed and skipped, and a note. A file that fails without
    saying how many cases did counts as one failed case.
  """
  if status is None:
    return 0, 1, 0, f"no end after {TIMEOUT:.0f} s"
  ran = [int(number) for number in _RAN.findall(output)]
  if not ran:
    return 0, 1, 0, f"ended with status {status} before its tests"
  bad, good = _BAD.findall(output), _OK.findall(output)
  parts = dict(_COUNT.findall((bad or good or [""])[-1]))
  numbers = {name.strip(): int(value) for name, value in parts.items()}
  skipped = numbers.get("skipped", 0)
  failed = sum(
    numbers.get(name, 0)
    for name in ("failures", "errors", "unexpected successes")
  )
  if ran[-1] == 0 and not failed:
    return 0, 1, 0, "holds no test"
  # Each failing subtest and class set-up counts, so they may outnumber cases.
  passed = max(0, ran[-1] - failed - skipped)
  if status and not failed:
    return passed, 1, skipped, f"ended with status {status} after its tests"
  return passed, failed, skipped, ""


def run_file(path: pathlib.Path, root: pathlib.Path) -> Outcome:
  """Runs one file and all that it starts, to the end or the timeout."""
  module = ".".join(path.relative_to(root).with_suffix("").parts)
  start = time.monotonic()
  # A file and not a pipe: a process that a test leaves behind would hold a
  # pipe open, and a test that has ended would look as if it had not.
  with tempfile.TemporaryFile() as log:
    process = subprocess.Popen(
      [sys.executable, "-m", module],
      cwd=root,
      env=DEFAULTS | os.environ,
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )
    _running.add(process)
    try:
      status = process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
      status = None
    kill_group(process)
    _running.discard(process)
    log.seek(0)
    output = log.read().decode(errors="replace")
  seconds = time.monotonic() - start
  passed, failed, skipped, note = count(output, status)
  return Outcome(passed, failed, skipped, seconds, output, note)


def kill_group(process: subprocess.Popen) -> None:
  """Ends a process and what it left running in its session."""
  try:
    os.killpg(process.pid, signal.SIGKILL)
  except ProcessLookupError:
    pass  # The usual case: nothing was left.
  process.wait()


def report(name: str, outcome: Outcome) -> None:
  """Prints a line for a file, and all its output if it failed."""
  word = "FAIL" if outcome.failed else "ok"
  cases = outcome.passed + outcome.failed + outcome.skipped
  note = f"  ({outcome.note})" if outcome.note else ""
  line = f"{word:4} {outcome.seconds:6.1f} s {cases:4d} tests  {name}{note}"
  print(line, flush=True)
  if outcome.failed:
    print(outcome.output.rstrip(), flush=True)
    print(f"---- end of {name}", flush=True)


def run(root: pathlib.Path, words: list[str], jobs: int) -> int:
  """Runs the files, prints as they end, and returns the exit status."""
  files = discover(root, words)
  passed = failed = skipped = 0
  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    waiting = {pool.submit(run_file, path, root): path for path in files}
    try:
      for future in concurrent.futures.as_completed(waiting):
        outcome = future.result()
        report(str(waiting[future].relative_to(root)), outcome)
        passed += outcome.passed
        failed += outcome.failed
        skipped += outcome.skipped
    except BaseException:  # Interrupted: leave nothing running.
      pool.shutdown(wait=False, cancel_futures=True)
      for process in list(_running):
        kill_group(process)
      raise
  tail = f", {skipped} skipped" if skipped else ""
  print(f"{passed} passed, {failed} failed{tail}", flush=True)
  return int(failed > 0 or passed == 0)


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "words", nargs="*", help="run only files whose path holds one of these"
  )
  parser.add_argument(
    "--jobs",
    type=int,
    default=os.cpu_count() or 1,
    help="files at once (default: the number of cores)",
  )
  args = parser.parse_args()
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  return run(ROOT, args.words, max(1, args.jobs))


if __name__ == "__main__":
  sys.exit(main())
