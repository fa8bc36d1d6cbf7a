"""Reads parquet files, batch by batch.

The library pyarrow comes with `datasets`, the extra `hub`; it is imported at
first use.
"""

from collections.abc import Iterator
from typing import Any

from etils import epath

from rstar_jax import outside
from rstar_jax.data.rows import ProblemError, Row, table_row

# Rows in memory at a time.
_BATCH = 256


def rows(path: epath.Path) -> Iterator[Row]:
  """Returns the rows of a parquet file.

  Raises:
    ProblemError: the library or the file is missing; or, during iteration, the
      file is damaged or no parquet file.
  """
  try:
    import pyarrow
    from pyarrow import parquet
  except ImportError:
    raise ProblemError(
      f"{path} needs the library pyarrow: pip install 'rstar_jax[hub]'"
    ) from None
  if not path.is_file():
    raise ProblemError(f"there is no file {path}")
  return _rows(path, parquet, (pyarrow.ArrowException, OSError))


def _rows(
  path: epath.Path, parquet: Any, broken: tuple[type[Exception], ...]
) -> Iterator[Row]:
  index = 0
  try:
    with path.open("rb") as file, parquet.ParquetFile(file) as opened:
      for batch in opened.iter_batches(batch_size=_BATCH):
        for at in range(batch.num_rows):
          yield _row(f"{path}[{index}]", index, batch.slice(at, 1))
          index += 1
  except broken as error:
    reason = outside.line(str(error), 200).rstrip(".")
    raise ProblemError(
      f"{path} cannot be read ({reason}): copy it again"
    ) from None


def _row(place: str, index: int, alone: Any) -> Row:
  """Returns the row of a table of one row."""
  try:
    (value,) = alone.to_pylist()
  except UnicodeDecodeError as error:
    return Row(place, index, error=f"is not UTF-8 ({error.reason})")
  return table_row(place, index, value)
