"""Reads the rows of prepared TFDS data sets, without TensorFlow.

Needs the extra "tfds": only a source "tfds:NAME/SPLIT" loads this module.
"""

from collections.abc import Iterator

from tensorflow_datasets.core import read_only_builder, registered

from rstar_jax.data.rows import ProblemError, Row, table_row


def rows(name: str) -> Iterator[Row]:
  """Yields the examples of a split, NAME/SPLIT, in TFDS's data folder."""
  data_set, _, split = name.rpartition("/")
  if not data_set or not split:
    raise ProblemError(f"source 'tfds:{name}' is not 'tfds:NAME/SPLIT'")
  try:
    builder = read_only_builder.builder_from_files(data_set)
  except registered.DatasetNotFoundError:
    raise ProblemError(
      f"no prepared TFDS data set {data_set!r} in TFDS's data folder: prepare "
      "it with `tfds build --file_format=array_record`, and set TFDS_DATA_DIR "
      "if it is elsewhere"
    ) from None
  if split not in builder.info.splits:
    raise ProblemError(
      f"TFDS data set {data_set!r} has no split {split!r}, only "
      f"{', '.join(builder.info.splits)}"
    )
  for index, example in enumerate(builder.as_data_source(split)):
    yield table_row(f"tfds:{name}[{index}]", index, example)
