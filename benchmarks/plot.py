"""Lines over a logarithmic axis, as SVG."""

import math
from collections.abc import Iterator, Mapping, Sequence

_WIDTH, _HEIGHT = 640, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 120, 20, 50
# Colours that differ for the colour-blind too (Okabe and Ito 2008).
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
Points = Sequence[tuple[float, float]]


def svg(
  lines: Mapping[str, Points], *, x: str, y: str, linear: bool = False
) -> str:
  """Draws lines, each with its name at its end.

  Args:
    lines: points by name, above 0 on both axes; a line of one point is a dot.
    x: what the horizontal axis is.
    y: what the vertical axis is.
    linear: whether the vertical axis is linear, with a line at each 5, and not
      logarithmic.

  Returns:
    The text of an SVG file.
  """
  points = [point for line in lines.values() for point in line]
  spans = [(min(each), max(each)) for each in zip(*points, strict=True)]
  (left, right), (low, high) = spans
  # A span has room, also for points of one value.
  if left == right:
    left, right = left / 2, right * 2
  if linear:
    low = 5 * math.floor(low / 5)
    high = max(5 * math.ceil(high / 5), low + 5)
  elif low == high:
    low, high = low / 2, high * 2
  scale = float if linear else math.log

  def place(point: tuple[float, float]) -> tuple[float, float]:
    across = math.log(point[0] / left) / math.log(right / left)
    up = (scale(point[1]) - scale(low)) / (scale(high) - scale(low))
    return (
      _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
      _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
    )

  parts = [
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} '
    f'{_HEIGHT}" font-family="sans-serif" font-size="12">',
    f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
  ]
  for tick in _ticks(left, right, 2.0):
    across, _ = place((tick, low))
    parts += _tick(across, _HEIGHT - _BOTTOM, across, _TOP)
    parts.append(_text(across, _HEIGHT - _BOTTOM + 16, f"{tick:g}", "middle"))
  steps = range(low, high + 1, 5) if linear else _ticks(low, high, 10.0)
  for tick in steps:
    _, up = place((left, tick))
    parts += _tick(_LEFT, up, _WIDTH - _RIGHT, up)
    parts.append(_text(_LEFT - 6, up + 4, f"{tick:g}", "end"))
  middle = (_LEFT + _WIDTH - _RIGHT) / 2
  parts.append(_text(middle, _HEIGHT - 10, x, "middle"))
  parts.append(_text(10, _TOP - 6, y, "start"))
  ends = [place(line[-1])[1] for line in lines.values()]
  for index, (name, line) in enumerate(lines.items()):
    color = _COLORS[index % len(_COLORS)]
    placed = [place(point) for point in line]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in placed)
    parts.append(
      f'<polyline points="{path}" fill="none" stroke="{color}" '
      'stroke-width="2"/>'
    )
    parts += [
      f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{color}"/>'
      for a, b in placed
    ]
    # A name that another line's name would cover goes below it.
    clash = any(abs(ends[index] - other) < 14 for other in ends[:index])
    across, up = placed[-1]
    parts.append(_text(across + 8, up + 4 + 14 * clash, name, "start", color))
  return "\n".join([*parts, "</svg>", ""])


def _ticks(low: float, high: float, base: float) -> Iterator[float]:
  """Yields the powers of a base within a span."""
  power = math.ceil(round(math.log(low, base), 6))
  while base**power <= high * 1.000001:
    yield base**power
    power += 1


def _tick(x1: float, y1: float, x2: float, y2: float) -> list[str]:
  return [
    f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
    'stroke="#dddddd"/>'
  ]


def _text(
  x: float, y: float, text: str, anchor: str, color: str = "#333333"
) -> str:
  return (
    f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">'
    f"{text}</text>"
  )
