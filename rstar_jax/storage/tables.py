"""Tables in Markdown."""

from collections.abc import Sequence


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  """Returns the lines of a Markdown table, with padded columns."""
  widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

  def line(cells: Sequence[str]) -> str:
    padded = (c.ljust(w) for c, w in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"

  return [line(head), line(["-" * w for w in widths]), *map(line, rows)]
