"""Writes the report of a workdir: python -m rstar_jax.report runs/tiny

It reads the run's records alone, without config, model or accelerator.
"""

import argparse
import math
import sys

from rstar_jax import outside
from rstar_jax.report import forest, page
from rstar_jax.storage import layout, store


def main(arguments: list[str] | None = None) -> int:
  """Writes report.html and prints its path; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog="python -m rstar_jax.report",
    description="Writes WORKDIR/report.html from the records of a run.",
  )
  parser.add_argument("workdir", help="the run's folder, finished or not")
  parser.add_argument(
    "--megabytes",
    type=float,
    default=forest.Budget.tree_bytes / 1e6,
    help="most megabytes of search trees on the page (default: %(default)s)",
  )
  options = parser.parse_args(arguments)
  if not 0 <= options.megabytes < math.inf:
    parser.error("--megabytes must be a number from 0 on")
  budget = forest.Budget(tree_bytes=int(options.megabytes * 1e6))
  try:
    names = store.children(store.path(options.workdir))
    if names and layout.CONFIG not in names and not layout.rounds(names):
      raise ValueError(
        f"{options.workdir} holds no run: give the --workdir of one"
      )
    outside.say(f"report: {page.write(options.workdir, budget)}")
  except (ValueError, OSError, KeyError, TypeError) as error:
    outside.say(f"rstar_jax.report: {error}", sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  with outside.program("rstar_jax.report"):
    sys.exit(main())
