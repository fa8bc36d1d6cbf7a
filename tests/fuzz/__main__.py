"""Fuzzes each place where text from outside comes in.

  python -m tests.fuzz --inputs=20000

It prints, for each entry, how many inputs were tried, what became of them, how
many would have ended a run, and the slowest. An input is known by its entry,
number and seed: `--entry="a manifest" --first=17 --inputs=1` repeats one.
"""

import argparse
import collections
import json
import pathlib
import sys
import tempfile
import time
import traceback

from absl import logging

from tests.fuzz import entries


def main() -> int:
  """Prints a row an entry; returns 1 if an input ends a run, else 0."""
  parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
  parser.add_argument("--inputs", type=int, default=1000, help="of each entry")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--entry", default="", help="a part of an entry's name")
  parser.add_argument("--first", type=int, default=0, help="the first's number")
  options = parser.parse_args()
  logging.set_verbosity(logging.FATAL)
  ended = 0
  with tempfile.TemporaryDirectory() as folder:
    opened = entries.opened(pathlib.Path(folder), entries.tokenizer())
    with opened as found:
      for name, entry in found.items():
        if options.entry in name:
          row = run(name, entry, options)
          ended += row["runs that ended"]
          print(json.dumps({"entry": name, **row}), flush=True)
  print(json.dumps({"runs that ended": ended}))
  return int(ended > 0)


def run(
  name: str, entry: entries.Entry, options: argparse.Namespace
) -> dict[str, int | float]:
  """Returns what became of an entry's inputs."""
  counts: collections.Counter[str] = collections.Counter()
  slowest, at = 0.0, -1
  for index in range(options.first, options.first + options.inputs):
    began = time.process_time()
    try:
      counts[entry(entries.number(name, index, options.seed))] += 1
    except Exception:
      counts["ended"] += 1
      if counts["ended"] <= 3:
        print(f"{name}, input {index}:", file=sys.stderr)
        traceback.print_exc()
    took = time.process_time() - began
    if took > slowest:
      slowest, at = took, index
  return {
    "inputs": options.inputs,
    "used": counts["used"],
    "set aside": counts["set aside"],
    "refused": counts["refused"],
    "runs that ended": counts["ended"],
    "slowest, ms": round(1000 * slowest, 1),
    "its number": at,
  }


if __name__ == "__main__":
  sys.exit(main())
