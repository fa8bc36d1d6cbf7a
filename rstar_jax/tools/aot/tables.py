"""Formats the command's rows as the tables of docs/results.

python -m rstar_jax.tools.aot.tables docs/results/aot.jsonl
python -m rstar_jax.tools.aot.tables docs/results/training_aot.jsonl
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from rstar_jax import outside

Row = dict[str, Any]


def searches(rows: Sequence[Row]) -> str:
  """Returns a Markdown table of a chip's memory in a search."""
  head = (
    "model slice mesh rows prefill_tokens pages weights KV temporaries code "
    "together chip fits programs code,_MiB CPU-s"
  ).split()
  lines = [
    [
      *_names(row),
      _mesh(row),
      f"{row['rows']}",
      f"{row['slots']}",
      f"{row['pages'] * row['mesh']['data'] * row['mesh']['fsdp']:,}",
      *(
        f"{row['held_gib'][key]:.2f}"
        for key in ("weights", "pages", "temporaries", "code")
      ),
      f"{row['hbm_needed_gib']:.2f}",
      f"{row['hbm_chip_gib']:.2f}",
      _fits(row),
      f"{row['programs']}",
      f"{row['code_mib']:.1f}",
      f"{row['cpu_seconds']:.0f}",
    ]
    for row in rows
    if row["program"] == "search"
  ]
  return _table(head, lines, left=3)


def steps(rows: Sequence[Row]) -> str:
  """Returns a Markdown table of compiled programs and their steps."""
  head = (
    "model slice program tokens temporaries,_GiB code,_MiB CPU-s GFLOP "
    "HBM,_GB sent,_MB compute,_ms HBM,_ms ICI,_ms tokens/s_a_chip"
  ).split()
  lines = [
    [
      *_names(row),
      row["program"],
      f"{row['tokens']:,}",
      f"{row['temporaries_gib']:.2f}",
      f"{row['code_mib']:.1f}",
      f"{row['cpu_seconds']:.0f}",
      f"{row['flops'] / 1e9:,.0f}",
      f"{row['bytes'] / 1e9:,.2f}",
      f"{row['wire'] / 1e6:,.0f}",
      *(
        f"{1e3 * row['seconds'][key]:,.2f}" for key in ("compute", "hbm", "ici")
      ),
      f"{row['tokens_per_second_per_chip']:,.0f}",
    ]
    for row in rows
    if "temporaries_gib" in row and "share_of_peak" not in row
  ]
  return _table(head, lines, left=3)


def trainings(rows: Sequence[Row]) -> str:
  """Returns a Markdown table of updates: memory, and the limiting resource."""
  head = (
    "model slice program remat micro-batches HBM,_GiB chip,_GiB code,_MiB "
    "CPU-s PFLOP HBM,_TB sent,_TB compute,_s HBM,_s ICI,_s DCN,_s "
    "share_of_peak"
  ).split()
  lines = [
    [
      *_names(row),
      row["program"],
      row["remat"],
      f"{row['accumulate']} x {row['batch_size'] // row['accumulate']} rows",
      f"{row['hbm_needed_gib']:.2f}",
      f"{row['hbm_chip_gib']:.2f}",
      f"{row['code_mib']:.0f}",
      f"{row['cpu_seconds']:.0f}",
      f"{row['flops'] / 1e15:.3f}",
      f"{row['bytes'] / 1e12:.3f}",
      f"{row['wire'] / 1e12:.3f}",
      *(f"{row['seconds'][key]:.2f}" for key in ("compute", "hbm", "ici")),
      f"{row['seconds']['dcn']:.2f}" if "dcn" in row["seconds"] else "",
      f"{row['share_of_peak']:.0%}",
    ]
    for row in rows
    if "share_of_peak" in row
  ]
  return _table(head, lines, left=5)


def _names(row: Row) -> list[str]:
  return [row["model"].split("/")[-1], row["slice"]]


def _mesh(row: Row) -> str:
  return ", ".join(f"{k}={v}" for k, v in row["mesh"].items() if v > 1)


def _fits(row: Row) -> str:
  if row["fits"]:
    return f"yes; up to {row['most_pages']:,} pages a shard"
  knobs = " or ".join(f"{k}={v:,}" for k, v in row["knobs"].items())
  return f"over by {row['over_gib']:.2f}: {knobs}"


def _table(
  head: Sequence[str], lines: Sequence[Sequence[str]], left: int
) -> str:
  rule = ["---"] * left + ["---:"] * (len(head) - left)
  rows = [[each.replace("_", " ") for each in head], rule, *lines]
  return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def main(arguments: Sequence[str]) -> None:
  """Prints the tables of files that hold the command's rows."""
  parser = argparse.ArgumentParser(
    prog="python -m rstar_jax.tools.aot.tables",
    description="Prints rows of python -m rstar_jax.tools.aot as tables.",
  )
  parser.add_argument("files", nargs="+", type=pathlib.Path, metavar="FILE")
  rows = [
    json.loads(line)
    for path in parser.parse_args(arguments).files
    for line in path.read_text("utf-8").splitlines()
  ]
  for make in (searches, steps, trainings):
    table = make(rows)
    if table.count("\n") > 1:
      outside.say(f"{table}\n")


if __name__ == "__main__":
  with outside.program("rstar_jax.tools.aot.tables"):
    main(sys.argv[1:])
