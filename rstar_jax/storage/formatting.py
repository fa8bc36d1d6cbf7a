"""Durations as text."""


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
