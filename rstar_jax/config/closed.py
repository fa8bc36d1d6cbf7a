"""Dataclasses that have the fields that they declare, and no others.

A misspelt field, or a value of another type, is an error where it is assigned:
in a config file as on the command line. Fields are mutable, since
`--config.search.c=1` assigns.
"""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

# Fields that had another name once, by "Class.field": the new name; or, where
# the field is in another part now, its path from the config ("eval.top_k"); or
# "" where it is gone. Configs of runs begun before are read by it.
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
# Values that are said otherwise now, as JSON has them, by "Class.field".
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
  """Declares a field with what makes a value right, and whether it binds.

  Args:
    default: the value if none is given.
    factory: makes it, where it is mutable.
    above: values are greater than this; of a tuple, each element.
    least: values are not less than this.
    most: values are not greater than this.
    below: values are less than this.
    binds: whether the value decides the bytes of a run, so that a workdir is
      kept to it; False if it only says how the work is done, and may differ
      each time. A function returns what of the value binds.
    takes: the value may name a plugin (`config/plugins.py`), which is called
      with these arguments; keywords end in "=". None: it names none.
    words: what else it may be, or begin with if a word ends in ":"; None is
      any text.
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
    super().__setattr__(name, value)

  def __getattr__(self, name: str) -> Any:
    # Called for what is not there.
    check_name(type(self), name)
    raise AttributeError(name)


@functools.cache
def hints(declared: type) -> dict[str, Any]:
  """Returns the type of each field of a dataclass, none for other types."""
  if not dataclasses.is_dataclass(declared):
    return {}
  return typing.get_type_hints(declared)


def check_name(owner: type, name: str) -> None:
  """Checks that a dataclass has a field.

  Raises:
    AttributeError: it has none of this name; proposes one, in one line.
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
  """Compares a value with a declared type.

  Args:
    name: what to call the value in an error.
    value: anything.
    declared: bool, int, float, str, a Literal, a tuple[T, ...], T | None or a
      dataclass.

  Raises:
    ValueError: the value is of another type; one line.
  """
  origin, arguments = typing.get_origin(declared), typing.get_args(declared)
  if origin in (typing.Union, types.UnionType):
    if value is not None:
      check_type(name, value, arguments[0])
  elif origin is typing.Literal:
    choices = ", ".join(map(repr, arguments))
    if value not in arguments:
      raise ValueError(f"{name}={value!r} must be one of {choices}")
  elif origin is tuple:
    if not isinstance(value, tuple):
      raise ValueError(f"{name}={value!r} must be a tuple")
    for index, each in enumerate(value):
      check_type(f"{name}[{index}]", each, arguments[0])
  else:
    # Python has bool under int, and an int is as good as a float.
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
  """Returns (takes, words) of a field, as `field` has them."""
  return declared.metadata.get("plugin", (None, None))
