"""Problems from wherever they are: generated, JSON, JSONL or TFDS.

Shapes of file that are read as they are: one object a line or one list of
objects; GSM8K's answers, whose last line is `#### 18`; the released benchmark
files of rStar-Math (`index`, `question`, `answer`). Whatever cannot be read
is reported with file, line and reason.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from rstar_jax.config import DataConfig
from rstar_jax.data import synthetic
from rstar_jax.data.sources import (
  Number,
  ProblemError,
  Row,
  file_rows,
  tfds_rows,
)
from rstar_jax.types import Problem

# What a missing level is in a TFDS data set, whose fields cannot be absent.
_NO_LEVEL = -1


def load(
  config: DataConfig, data_dir: epath.PathLike | None = None
) -> list[Problem]:
  """Returns the problems that a config names, in the source's order.

  Args:
    config: source, count and field names; see `DataConfig`.
    data_dir: where TFDS data sets are; None is TFDS's own default.

  Returns:
    Problems with unique ids, at least one.

  Raises:
    ProblemError: one line that says what is wrong with the source or, where
      `config.on_error` is "raise", with one of its lines.
  """
  kind, _, name = config.source.partition(":")
  if kind == "synthetic":
    if name not in synthetic.SPLITS:
      raise ProblemError(
        f"source {config.source!r}: no split {name!r}, only "
        f"{', '.join(synthetic.SPLITS)}"
      )
    if config.count < 1:
      raise ProblemError(
        f"source {config.source!r} has no end: set count to at least 1, not "
        f"{config.count}"
      )
    return synthetic.problems(split=name, count=config.count, seed=config.seed)
  if kind == "tfds":
    rows, source = tfds_rows(name, data_dir), name.partition("/")[0]
  elif config.source.endswith((".json", ".jsonl")):
    path = epath.Path(config.source)
    rows, source = file_rows(path), path.stem
  else:
    raise ProblemError(
      f"source {config.source!r} is none of 'synthetic:SPLIT', a .jsonl or "
      ".json file, 'tfds:NAME/SPLIT'"
    )
  return _collect(rows, source, config)


def shard(problems: Sequence[Problem], index: int, count: int) -> list[Problem]:
  """Returns host `index`'s share: every count-th problem from the index-th.

  Raises:
    ValueError: if index is not in [0, count).
  """
  if not 0 <= index < count:
    raise ValueError(f"host index {index} is not in [0, {count})")
  return list(problems[index::count])


def decontaminate(
  problems: Sequence[Problem], held_out: Sequence[Problem]
) -> list[Problem]:
  """Drops the problems whose question is in a held-out set.

  Two questions are the same if their letters and digits are, whatever their
  case, spacing and punctuation.
  """
  known = {_bare(problem.question) for problem in held_out}
  return [p for p in problems if _bare(p.question) not in known]


def _bare(question: str) -> str:
  return "".join(c for c in question.casefold() if c.isalnum())


def _collect(
  rows: Iterator[Row], source: str, config: DataConfig
) -> list[Problem]:
  problems, places, skipped, total = [], {}, [], 0
  for row in rows:
    if config.count and len(problems) == config.count:
      break
    total += 1
    try:
      problem = _problem(row, source, config)
      if problem.id in places:
        raise ProblemError(
          f"id {problem.id!r} is taken by {places[problem.id]}"
        )
    except ProblemError as error:
      reason = f"{row.place}: {error}"
      if config.on_error == "raise":
        raise ProblemError(
          f"{reason}; mend it or set on_error='skip'"
        ) from None
      skipped.append(reason)
      continue
    places[problem.id] = row.place
    problems.append(problem)
  if skipped:
    logging.warning(
      "%s: skipped %d of %d problems; the first: %s",
      config.source,
      len(skipped),
      total,
      skipped[0],
    )
  if not problems:
    why = f" ({len(skipped)} bad; the first: {skipped[0]})" if skipped else ""
    raise ProblemError(f"{config.source} holds no problems{why}")
  return problems


def _problem(row: Row, source: str, config: DataConfig) -> Problem:
  """Returns the problem of a row, or raises ProblemError with the reason."""
  if row.error:
    raise ProblemError(row.error)
  value = row.value
  if not isinstance(value, Mapping):
    raise ProblemError(f"is {_kind(value)}, want an object")
  question = _text(value, config.question_field, numbers=False)
  answer = _text(value, config.answer_field)
  if "####" in answer:
    # GSM8K: the solution, then the answer with thousands separators.
    answer = answer.rpartition("####")[2].strip().replace(",", "")
    if not answer:
      raise ProblemError("nothing follows '####' in the answer")
  if "id" in value:
    name = _text(value, "id")
  else:
    index = value.get("index")
    name = f"{source}/{index if isinstance(index, str) else row.index}"
  return Problem(
    id=name,
    question=question,
    answer=answer,
    source=str(value.get("source") or source),
    level=_level(value.get("level")),
  )


def _text(row: Mapping, field: str, numbers: bool = True) -> str:
  if field not in row:
    raise ProblemError(
      f"has no field {field!r}, only {', '.join(sorted(map(str, row)))}"
    )
  value = row[field]
  if not isinstance(value, str) or (isinstance(value, Number) and not numbers):
    want = "text or a number" if numbers else "text"
    raise ProblemError(f"{field!r} is {_kind(value)}, want {want}")
  if not value.strip():
    raise ProblemError(f"{field!r} is empty")
  # `str` also turns a Number into plain text.
  return str(value).strip()


def _level(value: Any) -> int | None:
  """Returns the digits of a level such as 3 or "Level 3", None without any."""
  digits = "".join(c for c in str(value) if c.isascii() and c.isdigit())
  if isinstance(value, bool) or not isinstance(value, str) or not digits:
    return None
  return None if value.startswith("-") else int(digits)


def _kind(value: Any) -> str:
  if value is None:
    return "null"
  if isinstance(value, Number):
    return f"the number {value}"
  names = {
    bool: "a truth value",
    str: "text",
    list: "a list",
    dict: "an object",
  }
  return names.get(type(value), f"of type {type(value).__name__}")


@dataclasses.dataclass
class ProblemsConfig(tfds.core.BuilderConfig):
  """A data set of `Problems`: a name and a source for each split."""

  sources: Mapping[str, DataConfig] = dataclasses.field(default_factory=dict)


class Problems(tfds.core.GeneratorBasedBuilder):
  """Turns any source of problems into a TFDS data set (array_record).

  Problems(
    config=ProblemsConfig(name="mine", sources={"train": DataConfig(...)}),
    data_dir=folder,
  ).download_and_prepare()

  makes what the source "tfds:problems/mine/train" reads.
  """

  VERSION = tfds.core.Version("1.0.0")

  # Nothing is downloaded. (Left to itself TFDS 4.9.10 looks for a file of
  # checksums through importlib_resources, which it does not install.)
  url_infos: Mapping = {}

  def __init__(self, **kwargs):
    # The one format that can be read without TensorFlow.
    super().__init__(**({"file_format": "array_record"} | kwargs))

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
      description="Questions with short final answers.",
      # Problems keep the source's order.
      disable_shuffling=True,
      features=tfds.features.FeaturesDict(
        {
          "id": tfds.features.Text(),
          "question": tfds.features.Text(),
          "answer": tfds.features.Text(),
          "source": tfds.features.Text(),
          "level": tfds.features.Scalar(dtype=np.int64),
        }
      ),
    )

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    del dl_manager  # Nothing is downloaded.
    return {
      split: self._generate_examples(config)
      for split, config in self.builder_config.sources.items()
    }

  def _generate_examples(self, config: DataConfig) -> Iterator:
    for problem in load(config):
      row = dataclasses.asdict(problem)
      row["level"] = _NO_LEVEL if problem.level is None else problem.level
      yield problem.id, row
