"""Durations and tables as text."""

from collections.abc import Sequence


def duration(seconds: float) -> str:
  """Returns a duration in its two largest units, such as "3 h 12 min"."""
  seconds = round(seconds)
  if seconds < 60:
    return f"{seconds} s"
  if seconds < 3600:
    return f"{seconds // 60} min {seconds % 60} s"
  if seconds < 86400:
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
  return f"{seconds // 86400} d {seconds % 86400 // 3600} h"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  """Returns the lines of a Markdown table, with padded columns."""
  widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

  def line(cells: Sequence[str]) -> str:
    padded = (c.ljust(w) for c, w in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"

  return [line(head), line(["-" * w for w in widths]), *map(line, rows)]
