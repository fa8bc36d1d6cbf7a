"""Opens sources of rows: a file, TFDS, the Hub, a function, or the task."""

import itertools
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from rstar_jax.config import plugins
from rstar_jax.data import compressed, hub, parquet
from rstar_jax.data.files import file_rows
from rstar_jax.data.rows import ProblemError, Row, as_json, table_row
from rstar_jax.storage import store
from rstar_jax.tasks.task import MATH, Task
from rstar_jax.types import Problem

# Endings of files of rows, in any case: of JSON lines, and of all that may also
# be compressed.
LINES = ("jsonl", "ndjson")
_FILES = (*LINES, "json", "csv")

# The accepted sources, for error messages.
FORMS = (
  "a .jsonl, .json or .csv file, also with .gz or .zst, a .parquet file, "
  f"'tfds:NAME/SPLIT', {hub.FORM!r}, a function {plugins.FORM!r}, for problems "
  "'task:SPLIT' or, where their number is given, 'synthetic:SPLIT'"
)


def open_source(source: str, task: Task = MATH) -> tuple[str, Iterator[Row]]:
  """Opens a source of rows.

  Args:
    source: one of `FORMS`.
    task: gives the problems of a source "task:SPLIT".

  Returns:
    A short name, which is the prefix of problems' ids, and an iterator over the
    rows.

  Raises:
    ProblemError: the source is none of `FORMS`, or does not exist.
  """
  kind, _, name = source.partition(":")
  if plugins.names_one(source):
    plugin = plugins.load(source, "source", ())
    return kind, _own_rows(source, plugin, ())
  if kind == "task":
    if task.problems is None:
      raise ProblemError(
        f"source {source!r}: the task has no problems of its own, so name "
        "another source"
      )
    plugin = plugins.wrap(task.problems, "task.problems")
    return name, _own_rows(source, plugin, (name,))
  if kind == "tfds":
    try:
      from rstar_jax.data import tfds
    except ImportError:
      raise ProblemError(
        f"source 'tfds:{name}' needs the library tensorflow_datasets: pip "
        "install 'rstar_jax[tfds]'"
      ) from None
    return name.partition("/")[0], tfds.rows(name)
  if kind == "hf":
    parts = hub.parse(name)
    short = epath.Path(parts.path).name
    return f"{short}/{parts.config}".rstrip("/"), hub.hub_rows(name)
  name = compressed.bare(source).rpartition(".")[0]
  if is_file(source):
    read = parquet.rows if _is_parquet(source) else file_rows
    return name, read(epath.Path(store.path(source)))
  raise ProblemError(f"source {source!r} is none of {FORMS}{_hint(source)}")


def is_file(source: str) -> bool:
  """Returns whether a source has the ending of a file of rows."""
  ending = compressed.bare(source).rpartition(".")[2].lower()
  return ending in _FILES or _is_parquet(source)


def _is_parquet(source: str) -> bool:
  return source.lower().endswith(".parquet")


def _hint(source: str) -> str:
  """Returns a hint for a source that is none of `FORMS`, "" for none."""
  path = pathlib.Path(source)
  if source and path.is_dir():
    return f"; a folder of such files is 'hf:{path.resolve()}/SPLIT'"
  if "://" in source:
    return "; download it, and give the file's path"
  # OWNER/NAME, perhaps with more parts; a file's name has a suffix.
  if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*/[\w-]+", source):
    return ""
  more = "/CONFIG/SPLIT" if source.count("/") == 1 else ""
  return f"; did you mean 'hf:{source}{more}'?"


def _own_rows(
  source: str, plugin: plugins.Plugin, args: tuple[Any, ...]
) -> Iterator[Row]:
  """Yields a plugin's problems or rows."""
  items = plugin(*args)
  if isinstance(items, Mapping | str) or not isinstance(items, Iterable):
    raise plugin.wrong(
      "a list of problems or of rows (dicts)", plugins.shown(items)
    )
  for index, value in enumerate(plugin.each(items)):
    place = f"{source}[{index}]"
    if isinstance(value, Mapping):
      yield table_row(place, index, value)
    elif isinstance(value, Problem):
      yield Row(place, index, value)
    else:
      raise plugin.wrong(
        "problems or rows (dicts)", f"{plugins.shown(value)} as item {index}"
      )


def copy_rows(source: str, count: int, path: epath.PathLike) -> int:
  """Writes the first rows of a source to a JSONL file.

  Args:
    source: see `open_source`.
    count: most rows.
    path: the file to write; its folder is created.

  Returns:
    The number of rows written.

  Raises:
    ProblemError: the source cannot be opened, or one of these rows is
      malformed.
  """
  lines = []
  for row in itertools.islice(open_source(source)[1], count):
    if row.error:
      raise ProblemError(f"{row.place}: {row.error}")
    value = row.value
    if isinstance(value, Problem):
      value = value.to_record()
    lines.append(as_json(value) + "\n")
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(lines), encoding="utf-8")
  return len(lines)
