"""Rows of the command as the tables of docs/results/aot.md.

python -m rstar_jax.tools.aot.tables docs/results/aot.jsonl
"""

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def summary(rows: Sequence[Row]) -> str:
  """Returns a table of compiled programs, a column a slice, as Markdown.

  A cell has the GiB that a chip has to hold, the bound of tokens a second and
  chip, and what limits it. The deepest of several compilations counts.
  """
  slices = list(dict.fromkeys(row["slice"] for row in rows))
  found: dict[tuple[str, ...], dict[str, Row]] = {}
  for row in sorted(rows, key=_depth):
    if "seconds" in row:
      model, _, where, stage, program = _names(row)
      key = model, stage, program, shape(row)
      found.setdefault(key, {})[where] = row
  order = [(_names(row)[0], row["stage"], row["program"]) for row in rows]
  lines = [
    [*key, *(_cell(cells.get(where)) for where in slices)]
    for key, cells in sorted(found.items(), key=lambda e: order.index(e[0][:3]))
  ]
  return _table(["model", "stage", "program", "shape", *slices], lines, left=4)


def _depth(row: Row) -> tuple[bool, list[int]]:
  layers = row["extrapolated_from_layers"]
  return not layers, layers


def _cell(row: Row | None) -> str:
  if row is None:
    return ""
  rate = float(_short(row["tokens_per_second_per_chip"]))
  holds = "" if "fits" not in row else f"{row['hbm_needed_gib']:.1f}"
  over = "" if row.get("fits", True) else " **too much**"
  return f"{holds}{over} / {rate:,.0f} {_limit(row)}"


def _limit(row: Row) -> str:
  bound = max(row["seconds"], key=row["seconds"].get)
  return {"compute": "compute", "hbm": "HBM", "ici": "ICI"}[bound]


def memory(rows: Sequence[Row]) -> str:
  """Returns a table of what a chip has to hold, GiB, as Markdown."""
  head = (
    "model layers slice stage program shape program_needs weights slots kept "
    "together chip fits what_would_do"
  ).split()
  lines = []
  for row in rows:
    if "fits" not in row:
      continue
    held = row.get("held_gib", {})
    alone = row["hbm_needed_gib"] - row["hbm_beside_gib"]
    lines.append(
      [
        *_names(row),
        shape(row),
        f"{alone:.2f}",
        *(
          f"{held[key]:.2f}" if held else ""
          for key in ("weights", "pools", "kept")
        ),
        f"{row['hbm_needed_gib']:.2f}",
        f"{row['hbm_chip_gib']:.2f}",
        "yes" if row["fits"] else f"over by {row['over_gib']:.2f}",
        ", ".join(f"{k}={v}" for k, v in row.get("knobs", {}).items()),
      ]
    )
  return _table(head, lines, left=6)


def shape(row: Row) -> str:
  """Returns the size of a call: rows x tokens, and what they come after."""
  match row["program"]:
    case "expand" | "sizes":
      sizes = f"{row['leaves']} x {row['candidates']} x {row['step']}"
    case "score":
      sizes = f"{row['scored']} x {row['columns']} x {row['scored_step']}"
    case "advance":
      sizes = f"{row['moved']} x {row['tail']}"
    case "commit":
      return f"{row['moved']} x {row['step'] - 1}"
    case "fork":
      return f"{row['moved']} x {row['room']}"
    case _:
      return f"{row['batch_size']} x {row['length']} in {row['accumulate']}"
  return f"{sizes} after {row['path']}"


def _names(row: Row) -> list[str]:
  layers = ", ".join(map(str, row["extrapolated_from_layers"])) or "all"
  model = row["model"].split("/")[-1]
  return [model, layers, row["slice"], row["stage"], row["program"]]


def _short(value: float) -> str:
  """Keeps three significant digits, without an exponent."""
  text = f"{float(f'{value:.3g}'):f}".rstrip("0").rstrip(".")
  return text or "0"


def _table(
  head: Sequence[str], lines: Sequence[Sequence[str]], left: int
) -> str:
  rule = ["---"] * left + ["---:"] * (len(head) - left)
  rows = [[each.replace("_", " ") for each in head], rule, *lines]
  return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def main(paths: Sequence[str]) -> None:
  """Prints the tables of files of rows, as the command printed them."""
  rows = [
    json.loads(line)
    for path in paths
    for line in pathlib.Path(path).read_text().splitlines()
  ]
  for make in (memory, summary):
    print(make(rows), end="\n\n")


if __name__ == "__main__":
  main(sys.argv[1:])
