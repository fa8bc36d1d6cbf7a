"""Records what `fleet.py` is fed with, from real runs on this machine.

  python -m benchmarks.fleet_record --solutions=rstar_sft.json \\
    --out=benchmarks/fleet_record.json

Writes one JSON object, in parts that may be recorded anew one by one. All
times are sorted milliseconds of one thing after the other:

  trees: the ticks of each problem's search by the shipped base model, one tree
    at a time; a tick is [rollouts before it, prefix tokens, candidates that are
    distinct and well-formed, programs, answers, then each candidate's tokens]
  solved: whether a right answer is in each
  controller_us: CPU of the search and the tokenizer, for each candidate
  plain, tiny: the sandbox's time of programs, the grader's of pairs, of these
    searches
  device: [rows, milliseconds] of decoding at most 40 tokens in each row, the
    median of the turns
  light, sympy, released: the sandbox's time of the last step of programs as in
    verification.py, of several uses of sympy, and of the given solutions
  released_tokens: of the nodes of each given solution, their characters by
    `--characters_per_token`
  program_us: CPU of this process, for each light program of many at once
  labelled: the grader's time of the labelled pairs of the tests
  machine: cores, and the device's kind

`--solutions` is a file of the form of the released rstar_sft; without it
nothing is "released".
"""

import dataclasses
import json
import os
import pathlib
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app, flags

from configs import tiny
from rstar_jax.config.schema import Config
from rstar_jax.data.synthetic import generator
from rstar_jax.grading.grader import Grader
from rstar_jax.pipeline import backends
from rstar_jax.pipeline import context as session
from rstar_jax.sandbox.pool import Sandbox
from rstar_jax.search import mcts
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import Tree
from rstar_jax.steps import grammar, prompts
from rstar_jax.steps.tokenizer import encode_solution

_PARTS = flags.DEFINE_list(
  "parts", ["trees", "device", "sandbox", "grader"], "What is recorded anew."
)
_OUT = flags.DEFINE_string("out", "benchmarks/fleet_record.json", "File.")
_SOLUTIONS = flags.DEFINE_string("solutions", "", "As rstar_sft; may be none.")
_PROBLEMS = flags.DEFINE_integer("problems", 40, "Trees recorded.", 1)
_ROLLOUTS = flags.DEFINE_integer("rollouts", 16, "Of each tree.", 1)
_CANDIDATES = flags.DEFINE_integer("candidates", 8, "Of each leaf.", 1)
_TURNS = flags.DEFINE_integer("turns", 5, "Of the device's timing.", 1)
_PER_TOKEN = flags.DEFINE_float(
  "characters_per_token", 3.3, "Of the given solutions; an assumption."
)

_PAIRS = pathlib.Path("tests/grading/grading_pairs.jsonl")
_ROWS = (8, 32, 128, 512)
# Of the sandbox, where the host's share of the work is recorded.
_SANDBOX_WORKERS = 32


def light_step(depth: int, candidate: int) -> str:
  """Returns a few lines with a function and the math module."""
  return (
    "import math\n"
    f"def f{depth}(n):\n  return n * n + {candidate}\n"
    f"a{depth} = math.gcd(f{depth}({depth}), {6 * candidate + 6})\n"
    f"print(a{depth})"
  )


def sympy_step(depth: int, candidate: int) -> str:
  """Returns one of several kinds of steps that use sympy."""
  n = candidate + 2
  kinds = (
    f"print(sympy.solve(x**2 - {depth + n} * x - {n}, x))",
    f"print(sympy.factor(x**4 - {n**4}))",
    f"print(sympy.integrate(x**{n} * sympy.exp(-x), (x, 0, sympy.oo)))",
    f"print(sympy.simplify(sympy.sin(x)**2 + sympy.cos(x)**2 + {n}))",
    f"print(sympy.summation(x**2, (x, 1, {n})))",
    f"print(sympy.solve([x + y - {n}, x * y - {depth}], [x, y]))",
    f"print(sympy.Matrix([[{n}, 1], [1, {depth}]]).eigenvals())",
    f"print(sympy.limit(sympy.sin({n} * x) / x, x, 0))",
  )
  kind = kinds[(depth + candidate) % len(kinds)]
  return f"import sympy\nx, y = sympy.symbols('x y')\n{kind}"


class Recorder:
  """Wraps the callables of one search after another, one tree at a time.

  Attributes:
    ticks: of the tree that is searched now.
    controller: CPU seconds between the calls; candidates: sampled meanwhile.
    programs: all that ran.
    pairs: all that were graded.
  """

  def __init__(self, calls: mcts.Calls, tokenizer: Any):
    self.tree: Tree | None = None
    self.ticks: list[list[int]] = []
    self.controller, self.candidates = 0.0, 0
    self.programs: list[list[str]] = []
    self.pairs: list[tuple[str, str]] = []
    self._calls, self._tokenizer = calls, tokenizer
    self._left: float | None = None

  def calls(self) -> mcts.Calls:
    """Returns callables that take notes."""
    return mcts.Calls(
      expand=self._outside(self._expand),
      verify=self._outside(self._verify),
      grade=self._outside(self._grade),
    )

  def search(self, problem, config) -> Tree:
    """Searches one tree, whose ticks are in `ticks` then."""
    self.tree, self.ticks, self._left = Tree(problem), [], None
    mcts.search([problem], config, self.calls(), seed=0, trees=[self.tree])
    return self.tree

  def _outside(self, function: Callable) -> Callable:
    def call(*args):
      if self._left is not None:
        self.controller += time.thread_time() - self._left
      try:
        return function(*args)
      finally:
        self._left = time.thread_time()

    return call

  def _expand(self, questions, prefixes, seeds):
    rows = self._calls.expand(questions, prefixes, seeds)
    start = time.thread_time()
    ids = encode_solution(
      self._tokenizer, prompts.prompt(questions[0]), prefixes[0]
    )
    for each in rows[0]:
      self._tokenizer.decode(each.token_ids)
    self.controller += time.thread_time() - start
    lengths = [len(each.token_ids) for each in rows[0]]
    kept = {
      each.text
      for each in rows[0]
      if not grammar.problem_with(prefixes[0], each.text, each.finish)
    }
    self.candidates += len(lengths)
    self.ticks.append([self.tree.rollouts, len(ids), len(kept), 0, 0, *lengths])
    return rows

  def _verify(self, programs):
    self.ticks[-1][3] = len(programs)
    self.programs += programs
    return self._calls.verify(programs)

  def _grade(self, pairs):
    self.ticks[-1][4] = len(pairs)
    self.pairs += pairs
    return self._calls.grade(pairs)


def is_right(tree: Tree) -> bool:
  """Whether a right answer is in a tree."""
  return bool((tree.correct == tree_lib.RIGHT).any())


def latencies(run: Callable[[list], Any], items: list) -> list[float]:
  """Returns the sorted milliseconds of items, each run by itself."""
  found = []
  for item in items:
    start = time.perf_counter()
    run([item])
    found.append(1000 * (time.perf_counter() - start))
  return [float(f"{each:.3g}") for each in sorted(found)]


def thinned(values: list, count: int = 101) -> list:
  """Returns so many of a list at even distances, first and last included."""
  if len(values) <= count:
    return values
  at = np.linspace(0, len(values) - 1, count).round().astype(int)
  return [values[i] for i in at]


def read_solutions() -> list[list[str]]:
  """Returns the node texts of each given solution."""
  if not _SOLUTIONS.value:
    return []
  rows = json.loads(pathlib.Path(_SOLUTIONS.value).read_text())
  end = f"({grammar.END_OF_STEP}|{grammar.END_OF_CODE}|{grammar.END_OF_ANSWER})"
  found = []
  for row in rows:
    pieces = re.split(end, row["response"])
    found.append(
      [a + b for a, b in zip(pieces[::2], pieces[1::2], strict=False)]
    )
  return found


def programs_of(solution: list[str]) -> list[list[str]]:
  """Returns a program for each node that has code, its prefix before it."""
  code = [
    grammar.code_of(node)
    for node in solution
    if grammar.END_OF_ANSWER not in node
  ]
  return [code[: i + 1] for i in range(len(code))]


def device_times(calls: mcts.Calls) -> list[list[float]]:
  """Times decoding at several numbers of rows, turn by turn."""
  engine = calls.expand.engine
  candidates = _CANDIDATES.value
  rng = np.random.default_rng(0)

  def once(rows: int) -> float:
    leaves = rows // candidates
    prefixes = [rng.integers(10, 200, 100).astype(np.int32)] * leaves
    seeds = rng.integers(0, 1 << 32, (leaves, candidates), np.uint32)
    start = time.perf_counter()
    engine.expand(prefixes, seeds)
    return 1000 * (time.perf_counter() - start)

  for rows in _ROWS:
    once(rows)
  turns = [[once(rows) for rows in _ROWS] for _ in range(_TURNS.value)]
  return [
    [rows, float(f"{statistics.median(column):.4g}")]
    for rows, column in zip(_ROWS, zip(*turns, strict=True), strict=True)
  ]


def record_trees(context: session.Context, config: Config) -> dict:
  """Searches the trees, one at a time."""
  problems = generator.problems(split="train", count=_PROBLEMS.value, seed=0)
  calls = backends.Device(context, 0).steps()
  recorder = Recorder(calls, context.tokenizer)
  search = dataclasses.replace(
    config.search,
    rollouts=_ROLLOUTS.value,
    candidates=_CANDIDATES.value,
    slots=1,
    groups=1,
  )
  trees, solved = [], []
  for problem in problems:
    solved.append(int(is_right(recorder.search(problem, search))))
    trees.append(recorder.ticks)
  plain = thinned(recorder.programs, 300)
  return {
    "trees": trees,
    "solved": solved,
    "controller_us": round(1e6 * recorder.controller / recorder.candidates, 1),
    "plain": thinned(latencies(context.sandbox.run, plain)),
    "tiny": thinned(
      latencies(context.grader.grade, thinned(recorder.pairs, 300))
    ),
  }


def record_sandbox() -> dict[str, Any]:
  """Runs steps of three kinds in a sandbox of one worker."""
  ways = {}
  for step in (light_step, sympy_step):
    ways[step.__name__.removesuffix("_step")] = [
      [*(step(level, 0) for level in range(depth)), step(depth, candidate)]
      for depth in range(6)
      for candidate in range(8)
    ]
  solutions = read_solutions()
  if solutions:
    ways["released"] = [p for each in solutions for p in programs_of(each)]
  found: dict[str, Any] = {}
  with Sandbox(_SANDBOX_WORKERS, cache=1) as box:
    many = [[light_step(0, i), light_step(1, i)] for i in range(256)]
    box.run(many[:_SANDBOX_WORKERS])
    start = time.process_time()
    box.run(many)
    spent = 1e6 * (time.process_time() - start) / len(many)
    found["program_us"] = round(spent, 1)
  with Sandbox(1, cache=1) as box:
    for name, programs in ways.items():
      # Its worker has imported what it needs.
      box.run(programs[:4])
      found[name] = thinned(latencies(box.run, programs))
  return found


def record_grader() -> list[float]:
  """Grades the labelled pairs of the tests."""
  lines = thinned(_PAIRS.read_text().splitlines(), 300)
  rows = [json.loads(line) for line in lines]
  with Grader(1) as grader:
    grader.grade([("1/3", "0.33")])
    return thinned(
      latencies(grader.grade, [(row["gold"], row["predicted"]) for row in rows])
    )


def main(_) -> None:
  config = tiny.get_config()
  config.engine = dataclasses.replace(
    config.engine,
    temperature=1.0,
    leaf_buckets=tuple(rows // _CANDIDATES.value for rows in _ROWS),
  )
  path = pathlib.Path(_OUT.value)
  record = json.loads(path.read_text()) if path.exists() else {}
  parts = _PARTS.value
  if "trees" in parts or "device" in parts:
    with (
      tempfile.TemporaryDirectory() as folder,
      session.open_context(config, pathlib.Path(folder)) as context,
    ):
      if "trees" in parts:
        record |= record_trees(context, config)
        write(path, record)
      if "device" in parts:
        record["device"] = device_times(backends.Device(context, 0).steps())
        record["machine"] = {
          "cores": os.cpu_count(),
          "device": jax.devices()[0].device_kind,
        }
        write(path, record)
  if "sandbox" in parts:
    record |= record_sandbox()
    record["released_tokens"] = [
      [round(len(node) / _PER_TOKEN.value) for node in each]
      for each in read_solutions()
    ]
    write(path, record)
  if "grader" in parts:
    record["labelled"] = record_grader()
    write(path, record)


def write(path: pathlib.Path, record: dict[str, Any]) -> None:
  """Writes the record with a line for each tree and each other field."""
  lines = []
  for name, value in record.items():
    if name == "trees":
      rows = ",\n".join(
        json.dumps(each, separators=(",", ":")) for each in value
      )
      lines.append(f'"{name}": [\n{rows}\n]')
    else:
      lines.append(f'"{name}": {json.dumps(value)}')
  path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
  app.run(main)
