"""Opens sources of rows: a file, a TFDS split, or the Hugging Face Hub."""

import itertools
import json
from collections.abc import Iterator

from etils import epath
from tensorflow_datasets.core import read_only_builder, registered

from rstar_jax.data import hub
from rstar_jax.data.files import ProblemError, Row, file_rows, plain
from rstar_jax.storage import store

# The accepted sources, for error messages.
FORMS = (
  f"a .jsonl or .json file, 'tfds:NAME/SPLIT', {hub.FORM!r} or, for problems, "
  "'synthetic:SPLIT'"
)


def open_source(
  source: str, data_dir: epath.PathLike | None = None
) -> tuple[str, Iterator[Row]]:
  """Opens a source of rows.

  Args:
    source: one of `FORMS`.
    data_dir: folder of TFDS data sets; None is TFDS's default.

  Returns:
    A short name, the prefix of the ids of its problems, and an iterator over
    its rows.

  Raises:
    ProblemError: if the source is none of `FORMS`, or does not exist.
  """
  kind, _, name = source.partition(":")
  if kind == "tfds":
    return name.partition("/")[0], tfds_rows(name, data_dir)
  if kind == "hf":
    parts = hub.parse(name)
    short = epath.Path(parts.path).name
    return f"{short}/{parts.config}".rstrip("/"), hub.hub_rows(name)
  if source.endswith((".json", ".jsonl")):
    path = epath.Path(store.path(source))
    return path.stem, file_rows(path)
  raise ProblemError(f"source {source!r} is none of {FORMS}")


def head(source: str, count: int, path: epath.PathLike) -> int:
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


def tfds_rows(name: str, data_dir: epath.PathLike | None) -> Iterator[Row]:
  """Yields the examples of a prepared TFDS split, without TensorFlow."""
  data_set, _, split = name.rpartition("/")
  if not data_set or not split:
    raise ProblemError(f"source 'tfds:{name}' is not 'tfds:NAME/SPLIT'")
  where = {"data_dir": epath.Path(data_dir)} if data_dir else {}
  try:
    builder = read_only_builder.builder_from_files(data_set, **where)
  except registered.DatasetNotFoundError:
    raise ProblemError(
      f"no prepared TFDS data set {data_set!r} in "
      f"{data_dir or 'the TFDS data folder'}: prepare it, in the array_record "
      "format, with rstar_jax.data.problems.Problems or `tfds build`"
    ) from None
  if split not in builder.info.splits:
    raise ProblemError(
      f"TFDS data set {data_set!r} has no split {split!r}, only "
      f"{', '.join(builder.info.splits)}"
    )
  for index, example in enumerate(builder.as_data_source(split)):
    yield Row(
      f"tfds:{name}[{index}]",
      index,
      {k: plain(v) for k, v in example.items()},
    )
