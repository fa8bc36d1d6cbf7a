"""Lets a test import stand-ins for libraries that are not installed."""

import contextlib
import pathlib
import sys
from collections.abc import Iterator
from unittest import mock

_FOLDER = pathlib.Path(__file__).parent / "stand_in"


@contextlib.contextmanager
def importable() -> Iterator[None]:
  """Has this process and the workers that it starts import stand-ins."""
  with mock.patch.object(sys, "path", [str(_FOLDER), *sys.path]):
    sys.modules.pop("reasoning_gym", None)
    yield
  sys.modules.pop("reasoning_gym", None)
