"""The `--config` flag: a file, overrides of its fields, and clear errors.

  rstar_jax evolve --config=configs/tiny.py --config.search.c=1

`ml_collections` assigns the overrides. This module loads the file, supports
fields of a `Literal` type, and turns exceptions into one line for people.
"""

import dataclasses
import difflib
import inspect
import os
import pathlib
import re
import runpy
import sys
import textwrap
import traceback
import typing
from typing import Any

from absl import flags
from etils import epath
from ml_collections import config_flags

from rstar_jax import outside
from rstar_jax.config import closed, identity, plugins, validation
from rstar_jax.config import schema as config_lib

# The flag belongs to its caller, and so appears in the caller's --help.
flags.disclaim_key_flags()

# Python's words for a type -> plain ones.
_PLAIN = {
  r"invalid literal for int\(\) with base 10: (.*)": r"\1 is no whole number",
  r"could not convert string to float: (.*)": r"\1 is no number",
  r"Found (.*) in argv before a value for --config was specified": (
    r"give --config first, before \1"
  ),
}


def described(name: str, text: str) -> list[str]:
  """Returns the lines of a flag in --help."""
  return textwrap.wrap(
    f"--{name}  {text}",
    80,
    initial_indent="  ",
    subsequent_indent="      ",
    break_long_words=False,
    break_on_hyphens=False,
  )


def load_config(name: str) -> config_lib.Config:
  """Returns the config for a value of `--config`: "FILE" or "FILE:ARGUMENT".

  FILE may be the config.json of a run.

  A file that is not found from the current folder is looked up among those that
  ship with the package, e.g. configs/tiny.py.

  Raises:
    ValueError: the config is invalid; one line, with the place in the file.
    OSError: there is no such file; the message names those that ship.
  """
  config = _read(name)
  validation.validate(config)
  return config


def with_run(argv: list[str], name: str) -> None:
  """Adds the config of a run to a command line without one.

  Args:
    argv: changed in place, since `ml_collections` looks in `sys.argv`.
    name: name of the file in the run's folder.
  """
  if given(argv, "config") is not None:
    return
  workdir = given(argv, "workdir")
  if workdir and (file := epath.Path(workdir) / name).exists():
    argv.insert(1, f"--config={file}")


def at_home(argv: list[str]) -> None:
  """Expands ~ in --name=~/..., since shells expand only a leading ~.

  Args:
    argv: changed in place.
  """
  for index, word in enumerate(argv):
    name, equals, value = word.partition("=")
    if name.startswith("-") and value.startswith("~"):
      argv[index] = f"{name}{equals}{os.path.expanduser(value)}"


def given(argv: list[str], flag: str) -> str | None:
  """Returns the value of a flag on a command line, None without one."""
  for word, after in zip(argv[1:], [*argv[2:], ""], strict=True):
    name, equals, value = word.partition("=")
    if name in (f"--{flag}", f"-{flag}"):
      return value if equals else after
  return None


def _find(file: str) -> pathlib.Path:
  path = pathlib.Path(file)
  if file and path.is_file():
    return path
  shipped = plugins.shipped()
  near = str(path.parent) in (".", plugins.CONFIGS)
  if near and (shipped / path.name).is_file():
    return shipped / path.name
  known = [
    f"{plugins.CONFIGS}/{each.name}"
    for each in sorted(shipped.glob("[!_]*.py"))
  ]
  if file and path.is_dir():
    raise OSError(
      f"{file} is a folder; that of a run is given as --workdir={file}"
    )
  near = difflib.get_close_matches(file, known, n=1)
  hint = f" (did you mean {near[0]}?)" if near else ""
  raise OSError(
    f"there is no file {file or repr(file)}{hint}; with the package come "
    f"{', '.join(known)}"
  )


def _read(name: str) -> config_lib.Config:
  """Runs a file's get_config(), or reads a run's; see `load_config`."""
  if name.endswith(".json"):
    return identity.from_json(epath.Path(name).read_text("utf-8"), name)
  file, colon, argument = name.partition(":")
  arguments = [argument] if colon else []
  path = _find(file)
  try:
    get_config = runpy.run_path(str(path)).get("get_config")
    if not callable(get_config):
      raise ValueError("has no function get_config(), which returns the config")
    _check_arguments(get_config, arguments)
    config = get_config(*arguments)
  except SyntaxError as error:
    raise ValueError(
      f"{file}:{error.lineno}: {type(error).__name__}: {error.msg}"
    ) from error
  except Exception as error:
    raise ValueError(
      f"{_location(file, path, error)}: {_one_line(error)}"
    ) from error
  if not isinstance(config, config_lib.Config):
    raise ValueError(
      f"{file}: get_config() must return a Config, not {config!r:.80}; does it "
      "end with `return config`?"
    )
  return config


def _check_arguments(get_config: Any, arguments: list[str]) -> None:
  try:
    inspect.signature(get_config).bind(*arguments)
  except TypeError:
    raise ValueError(
      f"get_config() takes no argument, so leave out :{arguments[0]}"
      if arguments
      else "get_config() needs an argument: give FILE:ARGUMENT"
    ) from None


def _location(file: str, path: pathlib.Path, error: Exception) -> str:
  """Returns the file, with its last line in an error's traceback."""
  lines = [
    each.lineno
    for each in traceback.extract_tb(error.__traceback__)
    if each.filename == str(path)
  ]
  return f"{file}:{lines[-1]}" if lines else file


def _one_line(error: Exception) -> str:
  """Returns an exception as one line, with its type if that is informative."""
  text = " ".join(str(error).split())
  if isinstance(error, ValueError | AttributeError):
    return text
  return f"{type(error).__name__}: {text}"


class _FileParser(flags.ArgumentParser):
  """Loads the config to which `ml_collections` then assigns overrides."""

  def parse(self, argument: str) -> config_lib.Config:
    try:
      return _read(argument)
    except (OSError, ValueError) as error:
      raise flags.Error(f"--config: {error}") from error


def define_config(flag_values: flags.FlagValues = flags.FLAGS):
  """Defines the flag `--config`, a file that has `get_config()`.

  Args:
    flag_values: the flags to add it to; tests give their own.

  Returns:
    A holder whose `.value` is a `config.Config`.
  """
  for declared in _literals(config_lib.Config):
    config_flags.register_flag_parser_for_type(
      declared, flags.EnumParser(list(typing.get_args(declared)))
    )
  holder = config_flags.DEFINE_config_file(
    "config",
    help_string=(
      "A file with get_config(), such as configs/tiny.py; without it, that of "
      "the run in --workdir. Any field can be overridden: --config.search.c=1, "
      "--config.rounds[0].rollouts=4; "
      "rstar_jax/config/schema.py says what each one means."
    ),
    flag_values=flag_values,
  )
  flag_values["config"].parser = _FileParser()
  return holder


def parse_flags(
  argv: list[str], flag_values: flags.FlagValues = flags.FLAGS
) -> list[str]:
  """Parses flags for `app.run(main, flags_parser=parse_flags)`.

  Args:
    argv: the command line, the program's name first. It must equal `sys.argv`,
      where `ml_collections` looks for overrides.
    flag_values: the flags to parse.

  Returns:
    The rest of argv, without flags.

  Raises:
    SystemExit: for an unknown field, a missing file or an invalid value, after
      one line on stderr.
  """
  at_home(argv)
  try:
    rest = flag_values(argv)
    if flag_values["config"].present:
      validation.validate(flag_values.config)
    return rest
  except (flags.Error, ValueError, AttributeError) as error:
    message = str(error)
  except (LookupError, TypeError) as error:
    message = _wrong_name(argv) or f"--config: {error!r}"
  for python, plain in _PLAIN.items():
    message = re.sub(python, plain, message)
  outside.say(f"rstar_jax: {' '.join(message.split())}", sys.stderr)
  raise SystemExit(1)


def _literals(declared) -> set:
  """Returns all Literal types among the fields of a dataclass, nested."""
  if typing.get_origin(declared) is typing.Literal:
    return {declared}
  inner = typing.get_args(declared)
  if dataclasses.is_dataclass(declared):
    inner = tuple(typing.get_type_hints(declared).values())
  return set().union(*map(_literals, inner))


def _wrong_name(argv: list[str]) -> str | None:
  """Returns a message on the first override of an unknown field, if any.

  That may be one of a tuple's elements, by an index that it does not have.
  """
  for argument in argv:
    name = argument.lstrip("-").partition("=")[0]
    if not name.startswith("config."):
      continue
    declared, path = config_lib.Config, "config"
    for part in name.split(".")[1:]:
      if typing.get_origin(declared) is tuple:
        if not path.endswith("]"):
          return f"--{name}: {path} is a tuple: give an index, as in {path}[0]"
        declared = typing.get_args(declared)[0]
      field, _, index = part.partition("[")
      try:
        closed.check_name(declared, field)
      except AttributeError as error:
        return f"--{name}: {error}"
      declared = closed.hints(declared)[field]
      path = f"{path}.{part}"
      if index and typing.get_origin(declared) is not tuple:
        return f"--{name}: {path.partition('[')[0]} is not a tuple"
      if index and not re.fullmatch(r"-?\d+\]", index):
        return f"--{name}: the index must be a number, as in {field}[0]"
    if "[" in name:
      return f"--{name}: the index is past the end of the tuple"
  return None
