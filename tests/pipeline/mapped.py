"""Functions that `work_test.py` maps; other processes import this file."""

import os


def shifted(by: int, item: int) -> tuple[int, int]:
  """Returns an item plus `by`, and the process that computed it."""
  return item + by, os.getpid()


def fails(item: int) -> int:
  if item == 3:
    raise ValueError("three")
  return item


def dies(item: int) -> int:
  if item == 3:
    os._exit(1)
  return item
