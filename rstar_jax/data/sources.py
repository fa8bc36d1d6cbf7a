"""Opens sources of rows: a file, TFDS, the Hub, a function, or the task."""

import itertools
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from rstar_jax.config import plugins
from rstar_jax.data import compressed, hub, parquet
from rstar_jax.data.files import ProblemError, Row, file_rows, table_row
from rstar_jax.storage import store
from rstar_jax.tasks.task import MATH, Task
from rstar_jax.types import Problem

# The accepted sources, for error messages.
FORMS = (
  "a .jsonl, .json or .csv file, also with .gz or .zst, a .parquet file, "
  f"'tfds:NAME/SPLIT', {hub.FORM!r}, a function {plugins.FORM!r} or, for "
  "problems, 'task:SPLIT' or 'synthetic:SPLIT'"
)


def open_source(
  source: str, data_dir: epath.PathLike | None = None, task: Task = MATH
) -> tuple[str, Iterator[Row]]:
  """Opens a source of rows.

  Args:
    source: one of `FORMS`.
    data_dir: folder of TFDS data sets; None is TFDS's default.
    task: whose problems the source "task:SPLIT" is.

  Returns:
    A short name, the prefix of the ids of its problems, and an iterator over
    its rows.

  Raises:
    ProblemError: if the source is none of `FORMS`, or does not exist.
  """
  kind, _, name = source.partition(":")
  if plugins.names_one(source):
    plugin = plugins.load(source, "source")
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
    return name.partition("/")[0], tfds.rows(name, data_dir)
  if kind == "hf":
    parts = hub.parse(name)
    short = epath.Path(parts.path).name
    return f"{short}/{parts.config}".rstrip("/"), hub.hub_rows(name)
  name, _, ending = compressed.bare(source).rpartition(".")
  if ending.lower() in ("json", "jsonl", "ndjson", "csv"):
    return name, file_rows(epath.Path(store.path(source)))
  if source.lower().endswith(".parquet"):
    return name, parquet.rows(epath.Path(store.path(source)))
  raise ProblemError(f"source {source!r} is none of {FORMS}{_hint(source)}")


def _hint(source: str) -> str:
  """Says what was meant by a source that is none of `FORMS`, "" if unknown."""
  path = pathlib.Path(source)
  if source and path.is_dir():
    return f"; a folder of such files is 'hf:{path.resolve()}/SPLIT'"
  if "://" in source:
    return "; download it, and give the file's path"
  # OWNER/NAME or more of a data set's name; a file has an ending.
  if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*/[\w-]+", source):
    return ""
  more = "/CONFIG/SPLIT" if source.count("/") == 1 else ""
  return f"; did you mean 'hf:{source}{more}'?"


def _own_rows(
  source: str, plugin: plugins.Plugin, args: tuple[Any, ...]
) -> Iterator[Row]:
  """Yields what a function of the user's gives: problems, or rows."""
  found = plugin(*args)
  if isinstance(found, Mapping | str) or not isinstance(found, Iterable):
    raise plugin.wrong(
      "a list of problems or of rows (dicts)", plugins.shown(found)
    )
  for index, value in enumerate(plugin.each(found)):
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
  """Writes the first rows of a source to a JSONL file, as a small sample.

  Args:
    source: see `open_source`.
    count: largest number of rows.
    path: the file to write; its folder is created.

  Returns:
    The number of rows written.

  Raises:
    ProblemError: if the source cannot be opened, or one of these rows is
      malformed.
  """
  lines = []
  for row in itertools.islice(open_source(source)[1], count):
    if row.error:
      raise ProblemError(f"{row.place}: {row.error}")
    lines.append(json.dumps(row.value) + "\n")
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(lines))
  return len(lines)
