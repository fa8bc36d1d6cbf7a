"""The identity that binds a workdir, and reading configs of workdirs."""

import copy
import dataclasses
import functools
import json
import typing
from typing import Any

from rstar_jax import outside
from rstar_jax.config import closed
from rstar_jax.config.schema import Config

# What only makes training data and models. An answer depends on all else, and
# on the models.
_OF_TRAINING = frozenset(
  (
    *("train", "decontaminate", "search", "remote", "extract", "rounds"),
    *("train_mesh", "sft", "sft_from", "reinforce"),
    *("ppm", "ppm_head", "reward", "reward_balanced"),
  )
)


def identity(config: Any) -> dict[str, Any]:
  """Returns the fields of a config that decide a run's bytes, JSON-able.

  Two configs with one identity give the same records and results. Fields with
  `binds=False` in `config/schema.py` are left out: workers, servers, logging,
  caches, and settings of studies.
  """
  fields = {}
  for field in dataclasses.fields(config):
    binds, value = (
      field.metadata.get("binds", True),
      getattr(config, field.name),
    )
    if binds is not False:
      fields[field.name] = _plain(value if binds is True else binds(value))
  return fields


def changes(config: Any) -> dict[str, Any]:
  """Returns the fields of an identity whose values are not the defaults.

  So a field that a later version adds changes nothing of an earlier run, for
  which it counts as its default.
  """
  return _changes(config, type(config)())


def _changes(config: Any, usual: Any) -> dict[str, Any]:
  before, fields = identity(usual), {}
  for name, plain in identity(config).items():
    value = getattr(config, name)
    if plain == before[name]:
      continue
    if dataclasses.is_dataclass(value):
      plain = _changes(value, getattr(usual, name))
    elif isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value)):
      plain = [changes(each) for each in value]
    fields[name] = plain
  return fields


def of_answers(config: Config) -> dict[str, Any]:
  """Returns the fields of an identity that answers of given models depend on.

  Evaluations and files of answers are compared by them. Fields of training data
  and of training are left out, so a new field counts unless it is listed here.
  """
  return {
    name: value
    for name, value in identity(config).items()
    if name not in _OF_TRAINING
  }


def _plain(value: Any) -> Any:
  if dataclasses.is_dataclass(value):
    return identity(value)
  return [_plain(each) for each in value] if isinstance(value, tuple) else value


def differences(old: Config, new: Config) -> list[str]:
  """Returns the differences of two configs' identities, a line per field."""
  return _compare(identity(old), identity(new), "config")


def continues(old: Config, new: Config) -> list[str]:
  """Returns the differences that keep a run from going on with a config.

  Args:
    old: the config that a workdir is bound to.
    new: the config to go on with. It may have more rounds at the end.

  Returns:
    A line per differing field, none if the run can go on.
  """
  first = copy.copy(new)
  first.rounds = new.rounds[: len(old.rounds)]
  return differences(old, first)


def _compare(old: Any, new: Any, name: str) -> list[str]:
  if isinstance(old, dict) and isinstance(new, dict):
    return [
      each
      for key in sorted(old.keys() | new.keys())
      for each in _compare(old.get(key), new.get(key), f"{name}.{key}")
    ]
  lists = isinstance(old, list) and isinstance(new, list)
  if lists and len(old) == len(new) and old and isinstance(old[0], dict):
    return [
      each
      for index, pair in enumerate(zip(old, new, strict=True))
      for each in _compare(*pair, f"{name}[{index}]")
    ]
  return [] if old == new else [f"{name} was {old!r} and is {new!r}"]


def to_json(config: Config) -> dict[str, Any]:
  """Returns all fields of a config, JSON-able: lists for tuples."""
  return json.loads(json.dumps(dataclasses.asdict(config)))


def from_json(text: str | bytes, name: str = "config.json") -> Config:
  """Returns the config in a workdir's config.json, of any version.

  Args:
    text: content of the file, by this version or an earlier one. A newer field
      gets its default; renamed fields and values are converted by
      `closed.RENAMED` and `closed.RESAID`.
    name: name of the file, for error messages.

  Raises:
    ValueError: a field is unknown, or a value has another type; one line.
  """
  config = Config()
  try:
    fields = outside.parse(text)
    if not isinstance(fields, dict):
      raise outside.Bad("holds no JSON object")
  except outside.Bad as error:
    raise ValueError(
      f"{name}: {error}; restore it, or remove it and run the same command "
      "again"
    ) from None
  try:
    return _fill(config, fields, config)
  except (AttributeError, LookupError, TypeError, ValueError) as error:
    raise ValueError(
      f"{name}: {error}; a later version of the package may have written it"
    ) from None


def _fill(part: Any, values: dict[str, Any], whole: Config) -> Any:
  """Assigns the fields of a part of a config; returns the part."""
  for name, value in values.items():
    owner, field = part, name
    key = f"{type(part).__name__}.{name}"
    new = closed.RENAMED.get(key, name)
    if not new:
      continue
    if key in closed.RESAID:
      value = closed.RESAID[key].get(value, value)
    *path, field = new.split(".")
    if path:
      owner = functools.reduce(getattr, path, whole)
    now = getattr(owner, field)
    if dataclasses.is_dataclass(now) and isinstance(value, dict):
      _fill(now, value, whole)
      continue
    if isinstance(value, list):
      hint = closed.hints(type(owner))[field]
      value = _tuple(value, typing.get_args(hint), whole)
    setattr(owner, field, value)
  return part


def _tuple(values: list, arguments: tuple, whole: Config) -> tuple:
  if arguments and dataclasses.is_dataclass(arguments[0]):
    return tuple(_fill(arguments[0](), each, whole) for each in values)
  return tuple(values)
