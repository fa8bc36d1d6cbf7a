"""Dataclasses that accept only the fields that they declare.

A misspelt field, or a value of another type, raises where it is assigned, in a
config file or on the command line. Fields are mutable, since
`--config.search.c=1` assigns.
"""

import dataclasses
import difflib
import functools
import typing
from collections.abc import Callable, Sequence
from typing import Any

# Fields that earlier versions had, as "Class.field" -> the new name; or, if the
# field has moved, its path from the config ("eval.top_k"); or "" if it was
# removed. Configs of older runs are read by it.
RENAMED: dict[str, str] = {
  "EngineConfig.ahead": "warm_up",
  "EngineConfig.commit": "",
  "EngineConfig.cache_candidates": "",
  "EngineConfig.prefix_buckets": "",
  "EngineConfig.tail_buckets": "",
  "EngineConfig.score_buckets": "",
  "EngineConfig.step_buckets": "",
  "EngineConfig.leaf_buckets": "",
  "EngineConfig.least_rows": "",
  "EngineConfig.attention": "",
  "EngineConfig.native": "",
  "EngineConfig.most_tokens": "",
  "EngineConfig.score_rows": "",
  "SearchConfig.slots": "in_flight",
  "SearchConfig.groups": "",
  "Config.answer_reward": "task",
}
# Renamed values, as in JSON, by "Class.field".
RESAID: dict[str, dict[Any, Any]] = {
  "TrainConfig.remat": {False: "none", True: "layer"},
  "Config.answer_reward": {"": "math"},
}


def field(
  default: Any = dataclasses.MISSING,
  *,
  factory: Any = dataclasses.MISSING,
  above: float | None = None,
  least: float | None = None,
  most: float | None = None,
  below: float | None = None,
  binds: bool | Callable[[Any], Any] = True,
  takes: Sequence[str] | None = None,
  words: Sequence[str] | None = None,
) -> Any:
  """Declares a field with its valid values, and whether it binds a run.

  Args:
    default: the value if none is given.
    factory: returns a mutable default.
    above: exclusive lower bound, for each element of a tuple.
    least: inclusive lower bound.
    most: inclusive upper bound.
    below: exclusive upper bound.
    binds: whether the value decides the bytes of a run, so that a workdir is
      bound to it; False if it only affects how the work is done, and may change
      at any time. A function returns the part of the value that binds.
    takes: arguments of a plugin (`config/plugins.py`) that the value may name;
      keywords end in "=". None: it names no plugin.
    words: other valid values, or prefixes if a word ends in ":"; None is any
      text.
  """
  return dataclasses.field(
    default=default,
    default_factory=factory,
    metadata={
      "range": (above, least, most, below),
      "binds": binds,
      "plugin": (takes, words),
    },
  )


class Closed:
  """Base of the config's dataclasses."""

  def __new__(cls, **fields: Any):
    for name in fields:
      check_name(cls, name)
    return super().__new__(cls)

  def __setattr__(self, name: str, value: Any) -> None:
    check_name(type(self), name)
    hint = hints(type(self))[name]
    check_type(f"{type(self).__name__}.{name}", value, hint)
    if isinstance(value, int) and hint is float:
      try:
        value = float(value)  # 2 and 2.0 are one config, with one digest.
      except OverflowError:
        raise ValueError(
          f"{type(self).__name__}.{name} is too large for a float"
        ) from None
    super().__setattr__(name, value)

  def __getattr__(self, name: str) -> Any:
    # Called for missing attributes only.
    check_name(type(self), name)
    raise AttributeError(name)


@functools.cache
def hints(declared: type) -> dict[str, Any]:
  """Returns field -> type for a dataclass, {} for other types."""
  if not dataclasses.is_dataclass(declared):
    return {}
  return typing.get_type_hints(declared)


def check_name(owner: type, name: str) -> None:
  """Checks that a dataclass has a field.

  Raises:
    AttributeError: it has not; the message of one line proposes a similar one.
  """
  known = hints(owner)
  if name in known:
    return
  new = RENAMED.get(f"{owner.__name__}.{name}")
  near = difflib.get_close_matches(name, known)
  hint = ""
  if new is not None:
    hint = f"; it is now called {new}" if new else "; it is gone"
  elif near:
    hint = f"; did you mean {near[0]}?"
  raise AttributeError(f"{owner.__name__} has no field {name!r}{hint}")


def check_type(name: str, value: Any, declared: Any) -> None:
  """Checks a value against a declared type.

  Args:
    name: name of the value, for error messages.
    value: any object.
    declared: bool, int, float, str, a Literal, a tuple[T, ...] or a dataclass.

  Raises:
    ValueError: the value has another type; one line.
  """
  origin, arguments = typing.get_origin(declared), typing.get_args(declared)
  if origin is typing.Literal:
    choices = ", ".join(map(repr, arguments))
    if value not in arguments:
      raise ValueError(f"{name}={value!r} must be one of {choices}")
  elif origin is tuple:
    if not isinstance(value, tuple):
      raise ValueError(f"{name}={value!r} must be a tuple")
    for index, each in enumerate(value):
      check_type(f"{name}[{index}]", each, arguments[0])
  else:
    # A bool is an int in Python, and an int is accepted as a float.
    accepted = (int, float) if declared is float else declared
    fits = isinstance(value, accepted)
    if isinstance(value, bool):
      fits = declared is bool
    if not fits:
      raise ValueError(f"{name}={value!r} must be of type {declared.__name__}")


def range_of(declared: dataclasses.Field) -> tuple[float | None, ...]:
  """Returns (above, least, most, below) of a field; None is no bound."""
  return declared.metadata.get("range", (None, None, None, None))


def plugin_of(
  declared: dataclasses.Field,
) -> tuple[Sequence[str] | None, Sequence[str] | None]:
  """Returns (takes, words) of a field; see `field`."""
  return declared.metadata.get("plugin", (None, None))
