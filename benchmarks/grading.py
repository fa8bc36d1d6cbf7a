"""How well answers are compared, and how fast, beside math-verify.

  python -m benchmarks.grading
  python -m benchmarks.grading --golds=golds/*.json --draws=4
  python -m benchmarks.grading --before=../other_checkout --only_ours

Three sets of pairs: `labelled`, by hand, in two halves, of which one was not
looked at while the grader was tuned; `golds`, made from gold answers so that
the label follows (`tests/grading/metamorphic.py`): from forms of our own, and
from --golds, files of problems; `sympy`, of what sympy prints.

Each grader sees each pair alone, one after another, in one process; those that
may hang run in a process that is killed at a deadline. math-verify's verdict is
that of its better order. "better" counts pairs on which a grader is right and
ours is not; each is listed, except those of the half kept apart. "ms" is wall
time of one pair; the pairs of the category "huge" are made to hang a grader,
and a second p99 leaves them out.

--before names a checkout whose grader runs too, each pair in turn with ours,
both in processes of their own; the last lines compare their times.
"""

import glob
import json
import logging
import multiprocessing
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import time

from absl import app, flags

import rstar_jax as rj
from rstar_jax.data import problems
from rstar_jax.grading import labelled
from tests.grading import gold_forms, metamorphic, sympy_prints

_PAIRS = flags.DEFINE_string(
  "pairs", "tests/grading/grading_pairs.jsonl", "Labelled pairs, as JSONL."
)
_GOLDS = flags.DEFINE_list(
  "golds", [], "Files of problems; * and ? are wildcards."
)
_LIMIT = flags.DEFINE_integer("limit", 500, "Most gold answers per file.", 1)
_DRAWS = flags.DEFINE_integer("draws", 2, "Draws of each form.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the generated pairs.")
_FAILURES = flags.DEFINE_boolean(
  "failures", False, "List wrong verdicts, except in the held-out half."
)
_SECONDS = flags.DEFINE_float(
  "seconds", 10.0, "Deadline of a baseline, in seconds.", 0.1
)
_ONLY = flags.DEFINE_boolean("only_ours", False, "Leave out the baselines.")
_BEFORE = flags.DEFINE_string("before", "", "Checkout to compare times with.")

_ROOT = pathlib.Path(__file__).parents[1]
# What is around the answer in a data set and not part of it.
_AROUND = re.compile(
  r"\$\$?([^$]*)\$\$?|\\\[([^\[\]]*)\\\]|\\boxed\{(.*)\}", re.DOTALL
)
# Serves a checkout's grader: lines of JSON in and out.
_SERVER = """
import json, sys
from rstar_jax.grading.grader import Grader
with Grader(workers=1) as grader:
  for line in sys.stdin:
    print(grader.grade([tuple(json.loads(line))])[0], flush=True)
"""


def plain_string(gold: str, predicted: str) -> bool:
  """The same text."""
  return gold.strip() == predicted.strip()


def plain_number(gold: str, predicted: str) -> bool:
  """The same text, or numbers that `float` reads as nearly the same."""
  try:
    return abs(float(gold) - float(predicted)) < 1e-6
  except ValueError:
    return plain_string(gold, predicted)


def math_verify_either(gold: str, predicted: str) -> bool:
  """math-verify as it comes, with its own limits, in either order."""
  import math_verify

  logging.getLogger("math_verify").setLevel(logging.CRITICAL)
  one, two = (math_verify.parse(f"${text}$") for text in (gold, predicted))
  return math_verify.verify(one, two) or math_verify.verify(two, one)


def _serve(function, connection) -> None:
  while True:
    try:
      connection.send(bool(function(*connection.recv())))
    except EOFError:
      return
    except Exception:
      connection.send(False)


class Killable:
  """A baseline in a process that is killed at a deadline."""

  def __init__(self, function, seconds: float):
    self._function, self._seconds = function, seconds
    self._process = None

  def __call__(self, pair: labelled.Pair) -> str:
    if self._process is None:
      context = multiprocessing.get_context("spawn")
      self._ours, theirs = context.Pipe()
      self._process = context.Process(
        target=_serve, args=(self._function, theirs), daemon=True
      )
      self._process.start()
      theirs.close()
    try:
      self._ours.send((pair.gold, pair.predicted))
      if self._ours.poll(self._seconds):
        return "equal" if self._ours.recv() else "different"
    except (EOFError, OSError):
      pass
    self.close()
    return "undecided"

  def close(self) -> None:
    if self._process is not None:
      self._process.kill()
      self._process.join()
      self._process = None


class Checkout:
  """The grader of a checkout of this project, in a process of its own."""

  def __init__(self, folder: pathlib.Path):
    self._process = subprocess.Popen(
      [sys.executable, "-c", _SERVER],
      env={**os.environ, "PYTHONPATH": str(folder.resolve())},
      cwd=folder,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )

  def __call__(self, pair: labelled.Pair) -> str:
    self._process.stdin.write(json.dumps([pair.gold, pair.predicted]) + "\n")
    self._process.stdin.flush()
    return self._process.stdout.readline().strip()

  def close(self) -> None:
    self._process.stdin.close()
    self._process.wait()


def measure(graders: list, pairs: list[labelled.Pair]) -> list[tuple]:
  """Runs graders in turn on each pair.

  Returns:
    For each grader its verdict on each pair, and how many ms it took.
  """
  for grade in graders:
    # Starts its process, so that no pair pays for that.
    grade(labelled.Pair(r"\sqrt{12}", r"2\sqrt{3}"))
  found = [([], []) for _ in graders]
  for number, pair in enumerate(pairs):
    turns = list(zip(graders, found, strict=True))
    for grade, (verdicts, times) in turns[:: 1 if number % 2 else -1]:
      start = time.perf_counter()
      verdicts.append(grade(pair))
      times.append(1000 * (time.perf_counter() - start))
  return found


def rows(name: str, group: str, pairs, verdicts, times, ours) -> list[str]:
  """Returns lines of a table: one, or one for each half of labelled pairs."""
  groups = [(group, list(range(len(pairs))))]
  if group == "labelled":
    groups = [
      (half, [i for i, pair in enumerate(pairs) if pair.held_out == held_out])
      for half, held_out in (("tuning", False), ("kept apart", True))
    ]
  lines = []
  for title, at in groups:
    score = labelled.score([pairs[i] for i in at], [verdicts[i] for i in at])
    better = sum(_better(pairs[i], verdicts[i], ours[i]) for i in at)
    ms = sorted(times[i] for i in at)
    tame = sorted(times[i] for i in at if pairs[i].category != "huge")
    p99, p99_tame = (each[int(0.99 * (len(each) - 1))] for each in (ms, tame))
    lines.append(
      f"| {name} | {title} | {len(at)} | {score.precision:.3f} | "
      f"{score.recall:.3f} | {score.false_positives} | "
      f"{score.false_negatives} | {score.undecided} | {better} | "
      f"{statistics.median(ms):.2f} | {p99:.0f} | {p99_tame:.0f} |"
    )
  return lines


def _better(pair: labelled.Pair, verdict: str, ours: str) -> bool:
  """Whether a verdict is right where ours is wrong."""
  right = [(each == "equal") == pair.equal for each in (verdict, ours)]
  return right == [True, False]


def gold_answers() -> list[str]:
  """Returns gold answers of our own forms and of the files."""
  golds = []
  for number in range(_DRAWS.value):
    golds += gold_forms.golds(_SEED.value + number)
  for pattern in _GOLDS.value:
    for path in sorted(glob.glob(pattern)):
      found = list(dict.fromkeys(map(_bare, _answers(path))))
      # Integers are most of some sets, and all alike.
      whole = [each for each in found if re.fullmatch(r"-?\d+", each)]
      other = [
        each
        for each in found
        if each not in set(whole) and metamorphic.usable(each)
      ]
      choose = random.Random(f"{_SEED.value} {pathlib.Path(path).name}")
      for several, most in (other, _LIMIT.value), (whole, _LIMIT.value // 20):
        golds += choose.sample(several, min(most, len(several)))
  return list(dict.fromkeys(golds))


def _answers(path: str) -> list[str]:
  config = rj.DataConfig(source=path, on_error="skip")
  return [each.answer for each in problems.load_problems(config)]


def _bare(answer: str) -> str:
  """Removes what is around an answer."""
  for _ in range(3):
    match = _AROUND.fullmatch(answer.strip())
    if match:
      answer = next(each for each in match.groups() if each is not None)
  return answer.strip().rstrip(".").strip()


def _labelled() -> list[labelled.Pair]:
  return labelled.read(_PAIRS.value)


def _of_golds() -> list[labelled.Pair]:
  golds = [
    pair
    for gold in gold_answers()
    for pair in metamorphic.of_gold(gold, _SEED.value)
  ]
  return list({(each.gold, each.predicted): each for each in golds}.values())


def _sympy() -> list[labelled.Pair]:
  return sympy_prints.pairs(_SEED.value, 2 * _DRAWS.value)


SETS = {"labelled": _labelled, "golds": _of_golds, "sympy": _sympy}
_GROUPS = flags.DEFINE_list("sets", list(SETS), "Sets of pairs to grade.")
flags.register_validator(
  "sets",
  lambda names: set(names) <= set(SETS),
  f"give some of {', '.join(SETS)}",
)


def compare_times(names: list[str], found: list[tuple], pairs) -> None:
  """Prints how the times of two graders compare, without the huge ones."""
  at = [i for i, pair in enumerate(pairs) if pair.category != "huge"]
  for title, of in (
    ("median", statistics.median),
    ("sum", sum),
    ("p99", lambda each: sorted(each)[int(0.99 * (len(each) - 1))]),
  ):
    one, two = (of([times[i] for i in at]) for _, times in found)
    print(
      f"{title}: {names[0]} {one:.2f} ms, {names[1]} {two:.2f} ms, "
      f"ratio {one / two:.3f}"
    )


def main(_):
  print(
    "| grader | set | pairs | precision | recall | FP | FN | undecided "
    "| better | p50 ms | p99 ms | p99 without huge |\n" + "|---" * 12 + "|"
  )
  with rj.Grader(workers=1) as grader:
    judges = {
      "ours": lambda pair: grader.grade([(pair.gold, pair.predicted)])[0]
    }
    if not _ONLY.value:
      judges["math_verify"] = Killable(math_verify_either, _SECONDS.value)
      judges |= {
        function.__name__: lambda pair, function=function: (
          "equal" if function(pair.gold, pair.predicted) else "different"
        )
        for function in (plain_number, plain_string)
      }
    made = {name: SETS[name]() for name in _GROUPS.value}
    for group, pairs in made.items():
      ours = []
      for name, grade in judges.items():
        ((verdicts, times),) = measure([grade], pairs)
        ours = ours or verdicts
        print(
          "\n".join(rows(name, group, pairs, verdicts, times, ours)), flush=True
        )
        for pair, verdict, mine in zip(pairs, verdicts, ours, strict=True):
          shown = _better(pair, verdict, mine) or (
            _FAILURES.value
            and verdict is mine
            and (mine == "equal") != pair.equal
          )
          if shown and not (group == "labelled" and pair.held_out):
            print(f"  {name} {verdict}, ours {mine}: {pair}")
    if not _ONLY.value:
      judges["math_verify"].close()
  if _BEFORE.value:
    graders = [Checkout(_ROOT), Checkout(pathlib.Path(_BEFORE.value))]
    for group, pairs in made.items():
      print(f"times, {group}:")
      compare_times(["now", "before"], measure(graders, pairs), pairs)
    for each in graders:
      each.close()


if __name__ == "__main__":
  app.run(main)
