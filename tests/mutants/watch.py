"""Runs one test file: notes the lines that each case runs, or orders its cases.

  python -m tests.mutants.watch FILE_test.py JOB.json

The job is {"out": path} to note the lines of the files that have probes, or
{"first": [ids], "seconds": {id: number}} to run these cases first, the quickest
of them first, and to stop at the first failure. `run` does the same within a
fork.
"""

import ast
import builtins
import json
import pathlib
import runpy
import sys
import time
import unittest
from collections.abc import Mapping
from typing import Any

# What runs outside any case: imports, set-ups of classes.
OUTSIDE = ""


class Lines:
  """The lines that run, by case, and the seconds of each case."""

  def __init__(self):
    self.seconds: dict[str, float] = {}
    self._by_case: dict[str, set] = {OUTSIDE: set()}
    self._now = self._by_case[OUTSIDE]

  def start(self) -> None:
    """Listens to what `with_probes` returns, and to each case."""
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
    builtins._probe_of = lambda file: lambda line: lines._now.add((file, line))

  def as_json(self) -> dict[str, Any]:
    cases = {}
    for case, found in self._by_case.items():
      files = cases[case] = {}
      for name, line in sorted(found):
        files.setdefault(name, []).append(line)
    return {"seconds": self.seconds, "lines": cases}


def with_probes(file: str, text: str) -> str:
  """Returns a file that tells `Lines` where each of its statements begins.

  It does what it did, and where nobody listens it tells nobody. A tracer would
  make what jax traces several times slower.
  """
  tree = ast.parse(text)
  for node in list(ast.walk(tree)):
    for field in ("body", "orelse", "finalbody"):
      block = getattr(node, field, None)
      if isinstance(block, list) and block:
        setattr(node, field, [new for each in block for new in _told(each)])
  start = next(
    (i for i, each in enumerate(tree.body) if _is_probe(each)), len(tree.body)
  )
  tree.body[start:start] = ast.parse(
    "_probe = getattr(__import__('builtins'), '_probe_of', "
    f"lambda _: lambda _: None)({file!r})"
  ).body
  return ast.unparse(ast.fix_missing_locations(tree))


def _told(statement: ast.stmt) -> list[ast.stmt]:
  match statement:
    case ast.Expr(value=ast.Constant()):
      return [statement]  # A docstring, which has to stay first.
    case ast.ImportFrom(module="__future__"):
      return [statement]
  return [*ast.parse(f"_probe({statement.lineno})").body, statement]


def _is_probe(node: ast.stmt) -> bool:
  match node:
    case ast.Expr(value=ast.Call(func=ast.Name(id="_probe"))):
      return True
  return False


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
    lines = Lines()
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
      pathlib.Path(job["out"]).write_text(json.dumps(lines.as_json()))


if __name__ == "__main__":
  run(
    pathlib.Path(sys.argv[1]).absolute(),
    json.loads(pathlib.Path(sys.argv[2]).read_text()),
  )
