"""Runs files of steps in the sandbox, and grades files of answers.

  python -m rstar_jax.tools.verify steps.py solution.txt
  python -m rstar_jax.tools.verify pairs.jsonl
  python -m rstar_jax.tools.verify --require=net,read steps.py

A file `*.jsonl` or `*.ndjson` holds pairs of answers, one JSON object a line:
"gold", "predicted" and optionally "equal", a person's label. Each is printed
with its verdict, and at the end the agreement of verdicts and labels. Any other
file is one program: a solution in the step grammar, or Python whose steps are
separated by lines that begin with "# %%". The sandbox's active layers are
printed first, then each step with its verdict.
"""

import argparse
import json
import math
import pathlib
import re
import sys
from collections.abc import Sequence

from rstar_jax import outside
from rstar_jax.data import sources
from rstar_jax.grading import labelled
from rstar_jax.grading.grader import Grader
from rstar_jax.grading.labelled import Pair
from rstar_jax.sandbox.pool import Limits, Sandbox
from rstar_jax.steps import grammar

_CELL = re.compile(r"^# %%.*\n?", re.MULTILINE)


def split_program(text: str) -> list[str]:
  """Returns the steps of a program, oldest first; empty ones are left out."""
  if grammar.CODE in text:
    block = text.partition(grammar.ANSWER)[0]
    pieces = grammar.program(grammar.split_block(block))
  else:
    pieces = _CELL.split(text)
  return [piece for piece in pieces if piece.strip()]


def read_program(path: pathlib.Path) -> list[str]:
  """Returns the steps of a file's program.

  Raises:
    OSError, ValueError: the file cannot be read, or has no steps; the message
      names it.
  """
  try:
    program = split_program(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error
  if not program:
    raise ValueError(
      f"{path} has no steps: give a solution, or Python whose steps begin with "
      "lines of # %%"
    )
  return program


def run(path: pathlib.Path, program: Sequence[str], sandbox: Sandbox) -> None:
  """Prints the result of each step of a file, up to the first failure."""
  results = sandbox.run([program[: i + 1] for i in range(len(program))])
  for number, result in enumerate(results, 1):
    outside.say(f"{path}, step {number}: {result.status}")
    for line in result.stdout.splitlines():
      outside.say(f"  | {line}")
    if result.error:
      where = f"line {result.line}: " if result.line else ""
      outside.say(f"  {where}{result.error}")
    if result.status != "ok":
      break


def grade(pairs: Sequence[Pair], grader: Grader) -> None:
  """Prints the verdict on each pair of a file, and the labels' agreement."""
  verdicts = grader.grade([(pair.gold, pair.predicted) for pair in pairs])
  for pair, verdict in zip(pairs, verdicts, strict=True):
    row = {"verdict": verdict, "gold": pair.gold, "predicted": pair.predicted}
    if pair.equal is not None:
      row["agrees"] = pair.equal == (verdict == "equal")
    outside.say(json.dumps(row, ensure_ascii=False))
  report = {"pairs": len(pairs)}
  report |= {
    verdict: verdicts.count(verdict)
    for verdict in ("equal", "different", "undecided")
  }
  if any(pair.equal is not None for pair in pairs):
    score = labelled.score(pairs, verdicts)
    report |= {
      "precision": round(score.precision, 4),
      "recall": round(score.recall, 4),
      "false_positives": score.false_positives,
      "false_negatives": score.false_negatives,
    }
  outside.say(json.dumps(report))


def main(arguments: Sequence[str]) -> None:
  """Runs or grades the files of the arguments.

  Args:
    arguments: the command line without the program's name.

  Raises:
    SystemExit: an argument is wrong, a file cannot be read, or the sandbox
      lacks a required layer here.
  """
  parser = argparse.ArgumentParser(
    prog="python -m rstar_jax.tools.verify",
    description="Runs files of steps in the sandbox; grades *.jsonl of pairs.",
  )
  parser.add_argument("files", nargs="+", type=pathlib.Path, metavar="FILE")
  parser.add_argument(
    "--require", default="", help="required layers of the sandbox: net,read,..."
  )
  parser.add_argument(
    "--seconds", type=float, default=4.0, help="time limit of a step or a pair"
  )
  parser.add_argument(
    "--percent-is-ratio", action="store_true", help="25%% also equals 1/4"
  )
  parser.add_argument(
    "--workers", type=int, default=2, help="number of processes"
  )
  options = parser.parse_args(arguments)
  if not 0 < options.seconds < math.inf:
    parser.error("--seconds must be a number above 0")
  try:
    programs, graded = [], []
    for path in options.files:
      if path.suffix[1:].lower() in sources.LINES:
        graded.append(labelled.read(path))
      else:
        programs.append((path, read_program(path)))
    if programs:
      limits = Limits(wall_seconds=options.seconds)
      require = [name for name in options.require.split(",") if name]
      with Sandbox(options.workers, limits, require=require) as sandbox:
        outside.say(json.dumps({"isolation": sandbox.isolation}, indent=2))
        for path, program in programs:
          run(path, program, sandbox)
    with Grader(
      options.workers,
      options.seconds,
      percent_is_ratio=options.percent_is_ratio,
    ) as grader:
      for pairs in graded:
        grade(pairs, grader)
  except (OSError, ValueError, RuntimeError) as error:
    raise SystemExit(f"rstar_jax.tools.verify: {error}") from error


if __name__ == "__main__":
  with outside.program("rstar_jax.tools.verify"):
    main(sys.argv[1:])
