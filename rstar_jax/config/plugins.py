"""Plugins: functions named in a config as "module:function".

Errors of a plugin are a `PluginError` of one line, which names the field, the
function, and what was expected. A plugin is trusted code and runs in this
process. Like everything that makes records, it should return equal results for
equal arguments.
"""

import contextlib
import difflib
import importlib
import inspect
import os
import pathlib
import re
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rstar_jax.storage import stopping

FORM = "module:function"
_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
CONFIGS = "configs"
_NAME = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")
# Prefixes of values that look like a plugin's name, and are not.
_OTHERS = (
  *("synthetic", "tfds", "hf", "ppm", "task", "reasoning_gym"),
  # Formats of reward models (inference/reward_forms.py).
  *("outcome", "qwen", "trl", "skywork", "math_shepherd", "rlhflow"),
)
_LONGEST = 300


class PluginError(ValueError):
  """A plugin cannot be used; the message is one line."""


def shipped() -> pathlib.Path:
  """Returns the folder of the configs that ship with the package."""
  installed = _PACKAGE / CONFIGS
  return installed if installed.is_dir() else _PACKAGE.parent / CONFIGS


def names_one(text: str) -> bool:
  """Returns whether a field's value names a plugin."""
  return bool(_NAME.fullmatch(text)) and text.partition(":")[0] not in _OTHERS


class Plugin:
  """A user's function, whose exceptions become one line.

  Calls of one object are serialised. Searches load their own, and a server
  searches in several threads.
  """

  def __init__(self, function: Callable, name: str, field: str):
    self._function = function
    self._label = f"{field}={name!r}"
    code = getattr(function, "__code__", None)
    self._file = code.co_filename if code else None
    self._lock = threading.RLock()

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    with self._lock, self._guarded():
      return self._function(*args, **kwargs)

  def each(self, items: Iterable[Any]) -> Iterator[Any]:
    """Iterates over the function's result, which may be a generator."""
    with self._guarded():
      yield from items

  def wrong(self, wanted: str, found: str) -> PluginError:
    """Returns the error for a result of the wrong form.

    Args:
      wanted: description of the expected result.
      found: description of the result; see `shown`.
    """
    return PluginError(f"{self._label} must return {wanted}, not {found}")

  @contextlib.contextmanager
  def _guarded(self) -> Iterator[None]:
    try:
      yield
    except (PluginError, stopping.Stopped):
      raise
    except (Exception, SystemExit) as error:
      raise PluginError(
        f"{self._label} raised {_one_line(error)}{_location(error, self._file)}"
      ) from error


def wrap(function: Callable, field: str) -> Plugin:
  """Returns a function as a plugin, with the same checks."""
  if isinstance(function, Plugin):
    return function
  name = getattr(function, "__qualname__", type(function).__qualname__)
  return Plugin(function, name, field)


def optional(name: str, field: str) -> Plugin | None:
  """Loads the function that a field names, None if it names none."""
  return load(name, field) if name else None


def load(name: str, field: str, takes: Sequence[str] | None = None) -> Plugin:
  """Imports a function; modules of the current folder are found too.

  So are `configs.NAME` of the package, in a wheel or a clone, from any folder.

  Args:
    name: "module:function". The module "__main__" is the running program.
    field: the config field that names it, for messages.
    takes: the arguments of its calls; keywords end in "=". None does not check
      them.

  Raises:
    PluginError: there is no such function, it does not take these arguments, or
      its module cannot be imported.
  """
  label = f"{field}={name!r}"
  if not _NAME.fullmatch(name):
    raise PluginError(f"{label} must have the form {FORM}")
  module_name, _, attribute = name.partition(":")
  module = _import(module_name, label)
  if not hasattr(module, attribute):
    raise PluginError(
      f"{label}: {module_name} has no {attribute!r}"
      f"{_similar(attribute, [n for n in vars(module) if n[0] != '_'])}"
    )
  function = getattr(module, attribute)
  if not callable(function):
    raise PluginError(
      f"{label}: {attribute} is {shown(function)}, and no function"
    )
  if takes is not None:
    _check_signature(function, takes, label)
  return Plugin(function, name, field)


def _import(name: str, label: str) -> Any:
  folder = os.getcwd()
  if folder not in sys.path:
    # As `python file` and `python -m` do.
    sys.path.insert(0, folder)
  importlib.invalidate_caches()
  try:
    return _imported(name)
  except ModuleNotFoundError as error:
    if error.name is None or not f"{name}.".startswith(f"{error.name}."):
      raise PluginError(f"{label}: {name} needs {error.name}") from error
    files = [each.stem for each in pathlib.Path(folder).glob("*.py")]
    raise PluginError(
      f"{label}: there is no module {error.name!r} in {folder} or on Python's "
      f"path{_similar(name, files)}"
    ) from error
  except (Exception, SystemExit) as error:
    raise PluginError(
      f"{label}: importing {name} raised {_one_line(error)}{_location(error)}"
    ) from error


def _imported(name: str) -> Any:
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError:
    package, _, module = name.partition(".")
    if package != CONFIGS or not (shipped() / f"{module}.py").is_file():
      raise
    found = sys.modules.setdefault(package, types.ModuleType(package))
    found.__path__ = [*getattr(found, "__path__", ()), str(shipped())]
    return importlib.import_module(name)


def _check_signature(
  function: Callable, takes: Sequence[str], label: str
) -> None:
  try:
    signature = inspect.signature(function)
  except (TypeError, ValueError):
    return  # Written in C, without a signature.
  keywords = {each[:-1]: None for each in takes if each.endswith("=")}
  try:
    signature.bind(*takes[: len(takes) - len(keywords)], **keywords)
  except TypeError as error:
    wanted = ", ".join(each.rstrip("=") for each in takes)
    raise PluginError(
      f"{label} must take ({wanted}), and takes {signature}"
    ) from error


def _similar(name: str, known: Iterable[str]) -> str:
  near = difflib.get_close_matches(name, known, n=1)
  return f"; did you mean {near[0]}?" if near else ""


def shown(value: Any) -> str:
  """Returns a value as a short text of one line."""
  text = " ".join(repr(value).split())
  return text if len(text) <= 80 else f"{text[:77]}..."


def _one_line(error: BaseException) -> str:
  text = " ".join(str(error).split())[:_LONGEST]
  return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _location(error: BaseException, file: str | None = None) -> str:
  """Returns the last line of a file, or any, in an error's traceback."""
  if isinstance(error, SyntaxError):
    return ""  # The error's text has the place.
  frames = traceback.extract_tb(error.__traceback__)
  own = [frame for frame in frames if frame.filename == file] or [
    frame
    for frame in frames
    if "importlib" not in frame.filename and frame.filename != __file__
  ]
  if not own:
    return ""
  return f" ({pathlib.Path(own[-1].filename).name}:{own[-1].lineno})"
