"""The `--config` flag: a file, overrides of its fields, and clear errors.

  python -m rstar_jax.main --config=configs/tiny.py --config.search.c=1

`ml_collections` does the work. This adds fields of a `Literal` type, which it
cannot override by itself, and turns its exceptions into one line for a person.
"""

import dataclasses
import difflib
import pathlib
import runpy
import sys
import typing

from absl import flags
from ml_collections import config_flags

from rstar_jax.config import schema as config_lib
from rstar_jax.config import validation

# The flag is its caller's, and so is in the caller's --help.
flags.disclaim_key_flags()


def load_config(name: str) -> config_lib.Config:
  """Returns the config of a file as of `--config`, "FILE" or "FILE:ARGUMENT".

  Raises:
    ValueError: the config cannot run, in one line.
    OSError: there is no such file.
  """
  file, _, argument = name.partition(":")
  get_config = runpy.run_path(file)["get_config"]
  config = get_config(argument) if argument else get_config()
  validation.validate(config)
  return config


def define_config(flag_values: flags.FlagValues = flags.FLAGS):
  """Defines the flag `--config`, a file that has `get_config()`.

  Args:
    flag_values: where to define it; tests give their own.

  Returns:
    A holder whose `.value` is a `config.Config`.
  """
  for declared in _literals(config_lib.Config):
    config_flags.register_flag_parser_for_type(
      declared, flags.EnumParser(list(typing.get_args(declared)))
    )
  return config_flags.DEFINE_config_file(
    "config",
    help_string=(
      "A file with get_config(), such as configs/tiny.py. Any field of it can "
      "be overridden: --config.search.c=1, --config.rounds[0].rollouts=4; "
      "rstar_jax/config/schema.py says what each one means."
    ),
    flag_values=flag_values,
  )


def parse_flags(
  argv: list[str], flag_values: flags.FlagValues = flags.FLAGS
) -> list[str]:
  """Parses flags for `app.run(main, flags_parser=parse_flags)`.

  Args:
    argv: the command line, the program's name first. `ml_collections` looks
      for overrides in `sys.argv`, so it must be the same.
    flag_values: where the flags are defined.

  Returns:
    What is left of argv after the flags.

  Raises:
    SystemExit: after one line on stderr, for an unknown field, a missing file
      or a value that cannot be right.
  """
  message = _missing_file(argv)
  try:
    if message is None:
      rest = flag_values(argv)
      if flag_values["config"].present:
        validation.validate(flag_values.config)
      return rest
  except (flags.Error, ValueError) as error:
    lines = str(error).strip().splitlines()
    # `ml_collections` puts the traceback of an error in the file in its text.
    in_file = any(line.startswith("Traceback") for line in lines)
    message = f"--config: {lines[-1]}" if in_file else " ".join(lines)
  except LookupError as error:
    message = _wrong_name(argv) or f"--config: {error!r}"
  except (OSError, ImportError, AttributeError, SyntaxError) as error:
    message = f"--config: {error!r}"
  print(f"{argv[0]}: {message}", file=sys.stderr)
  raise SystemExit(1)


def _literals(declared) -> set:
  """Returns every Literal type among the fields of a dataclass, nested."""
  if typing.get_origin(declared) is typing.Literal:
    return {declared}
  inner = typing.get_args(declared)
  if dataclasses.is_dataclass(declared):
    inner = tuple(typing.get_type_hints(declared).values())
  return set().union(*map(_literals, inner))


def _missing_file(argv: list[str]) -> str | None:
  """Says that the config file does not exist, if that is so."""
  for argument, following in zip(argv, [*argv[1:], ""], strict=True):
    name, equals, value = argument.partition("=")
    if name.lstrip("-") == "config" and name.startswith("-"):
      file = (value if equals else following).partition(":")[0]
      if not pathlib.Path(file).is_file():
        return f"--config: there is no file {file}"
  return None


def _wrong_name(argv: list[str]) -> str | None:
  """Says which override names a field that does not exist, if one does."""
  for argument in argv:
    name = argument.lstrip("-").partition("=")[0]
    if not name.startswith("config."):
      continue
    declared, path = config_lib.Config, "config"
    for part in name.split(".")[1:]:
      if typing.get_origin(declared) is tuple:
        declared = typing.get_args(declared)[0]
      hints = (
        typing.get_type_hints(declared)
        if dataclasses.is_dataclass(declared)
        else {}
      )
      field, _, index = part.partition("[")
      if field not in hints:
        near = difflib.get_close_matches(field, hints)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"--{name}: {path} has no field {field!r}{hint}"
      declared, path = hints[field], f"{path}.{part}"
      if index and typing.get_origin(declared) is not tuple:
        return f"--{name}: {path.partition('[')[0]} is not a tuple"
    if "[" in name:
      return f"--{name}: the index is past the end of the tuple"
  return None
