"""Runs one test file: notes the lines that each case runs, or orders its cases.

  python -m tests.mutants.watch FILE_test.py JOB.json

The job is {"folders": [...], "out": path} to note lines of the files in these
folders, or {"first": [ids], "seconds": {id: number}} to run these cases first,
the quickest of them first, and to stop at the first failure. `run` does the
same within a fork.
"""

import json
import pathlib
import runpy
import sys
import threading
import time
import unittest
from collections.abc import Mapping
from typing import Any

# What runs outside any case: imports, set-ups of classes.
OUTSIDE = ""


class Lines:
  """The lines of some files that run, by case, and the seconds of each."""

  def __init__(self, root: str, files: tuple[str, ...]):
    self.seconds: dict[str, float] = {}
    self._prefix = root.rstrip("/") + "/"
    self._files = files
    self._by_case: dict[str, set] = {OUTSIDE: set()}
    self._now = self._by_case[OUTSIDE]

  def start(self) -> None:
    """Listens to all threads, and to each case as it begins and ends."""
    lines, run = self, unittest.TestCase.run

    def noting(case, result=None):
      lines._now = lines._by_case.setdefault(case.id(), set())
      start = time.monotonic()
      try:
        return run(case, result)
      finally:
        lines.seconds[case.id()] = time.monotonic() - start
        lines._now = lines._by_case[OUTSIDE]

    unittest.TestCase.run = noting
    threading.settrace(self._call)
    sys.settrace(self._call)

  def _call(self, frame, event, _):
    name = frame.f_code.co_filename
    if not name.startswith(self._prefix):
      return None
    return self._line if name[len(self._prefix) :] in self._files else None

  def _line(self, frame, event, _):
    if event == "line":
      self._now.add((frame.f_code.co_filename, frame.f_lineno))
    return self._line

  def as_json(self) -> dict[str, Any]:
    cases = {}
    for case, found in self._by_case.items():
      files = cases[case] = {}
      for name, line in sorted(found):
        files.setdefault(name[len(self._prefix) :], []).append(line)
    return {"seconds": self.seconds, "lines": cases}


def ordered(
  suite: unittest.TestSuite, first: set[str], seconds: Mapping[str, float]
) -> unittest.TestSuite:
  """Returns the cases in the order that most likely fails soonest.

  Classes stay together, so that each is set up once.
  """
  classes: dict[type, list] = {}
  for case in _cases(suite):
    key = case.id() not in first, seconds.get(case.id(), 0.0), case.id()
    classes.setdefault(type(case), []).append((key, case))
  groups = sorted(
    (sorted(group, key=lambda each: each[0]) for group in classes.values()),
    key=lambda group: group[0][0],
  )
  return unittest.TestSuite(case for group in groups for _, case in group)


def _cases(suite):
  for each in suite:
    if isinstance(each, unittest.TestSuite):
      yield from _cases(each)
    else:
      yield each


def run(path: pathlib.Path, job: Mapping[str, Any]) -> None:
  """Becomes what `python -m` makes of a test file; ends with SystemExit."""
  root = pathlib.Path.cwd()
  lines = None
  if "out" in job:
    lines = Lines(str(root), tuple(job["files"]))
    lines.start()
  else:
    first, run_tests = set(job["first"]), unittest.TestProgram.runTests

    def run_in_order(program):
      program.test = ordered(program.test, first, job["seconds"])
      program.failfast = True
      run_tests(program)

    unittest.TestProgram.runTests = run_in_order
  sys.argv = [str(path)]
  module = ".".join(path.relative_to(root).with_suffix("").parts)
  try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
  finally:
    if lines:
      sys.settrace(None)
      pathlib.Path(job["out"]).write_text(json.dumps(lines.as_json()))


if __name__ == "__main__":
  run(
    pathlib.Path(sys.argv[1]).absolute(),
    json.loads(pathlib.Path(sys.argv[2]).read_text()),
  )
