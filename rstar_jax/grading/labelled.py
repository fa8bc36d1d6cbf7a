"""Reads labelled pairs of answers and scores verdicts on them."""

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence

from rstar_jax import outside
from rstar_jax.types import Verdict


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two answers and a person's label.

  Attributes:
    gold: the right answer.
    predicted: the answer to judge.
    equal: whether a fair human would accept it; None without a label.
    category: name of the feature that the pair tests.
  """

  gold: str
  predicted: str
  equal: bool | None = None
  category: str = ""

  @property
  def held_out(self) -> bool:
    """Whether the pair is held out from tuning, as half of all are, by hash."""
    text = f"{self.gold}\0{self.predicted}".encode(errors="surrogatepass")
    return hashlib.sha256(text).digest()[0] % 2 == 1


@dataclasses.dataclass(frozen=True)
class Score:
  """Agreement of verdicts with labels; "undecided" counts as "different".

  Attributes:
    true_positives: pairs that are equal and graded equal.
    false_positives: pairs that are different and graded equal.
    false_negatives: pairs that are equal and not graded equal.
    undecided: pairs without a verdict, which the other counts include.
  """

  true_positives: int
  false_positives: int
  false_negatives: int
  undecided: int

  @property
  def precision(self) -> float:
    """Share of accepted answers that are right; 1 if none is accepted."""
    accepted = self.true_positives + self.false_positives
    return self.true_positives / accepted if accepted else 1.0

  @property
  def recall(self) -> float:
    """Share of right answers that are accepted; 1 if none is right."""
    right = self.true_positives + self.false_negatives
    return self.true_positives / right if right else 1.0


def read(path: str | pathlib.Path) -> list[Pair]:
  """Reads pairs, one JSON object a line.

  Args:
    path: a file of objects with the strings "gold" and "predicted" and,
      optionally, "equal", a boolean, and "category", a string. Other keys are
      ignored.

  Returns:
    The pairs, in order; empty lines are skipped.

  Raises:
    ValueError: the file is not UTF-8, or a line is malformed; the message names
      it.
  """
  pairs = []
  try:
    text = pathlib.Path(path).read_text(encoding="utf-8")
  except UnicodeDecodeError as error:
    raise ValueError(f"{path}: {error}") from error
  for number, line in enumerate(text.split("\n"), 1):
    if not line.strip():
      continue
    try:
      pairs.append(_pair(outside.parse(line)))
    except ValueError as error:
      raise ValueError(f"{path}, line {number}: {error}") from error
  return pairs


def _pair(row: object) -> Pair:
  if not isinstance(row, dict):
    raise ValueError(f"expected an object, found {type(row).__name__}")
  for key, kind in (("gold", str), ("predicted", str)):
    if not isinstance(row.get(key), kind):
      raise ValueError(f'"{key}" must be a string, found {row.get(key)!r}')
  if not isinstance(row.get("equal"), bool | None):
    raise ValueError(f'"equal" must be true or false, found {row["equal"]!r}')
  category = str(row.get("category", ""))
  return Pair(row["gold"], row["predicted"], row.get("equal"), category)


def score(pairs: Sequence[Pair], verdicts: Sequence[Verdict]) -> Score:
  """Counts how verdicts agree with labels; ignores pairs without a label."""
  counts: collections.Counter[tuple[bool, bool]] = collections.Counter()
  undecided = 0
  for pair, verdict in zip(pairs, verdicts, strict=True):
    if pair.equal is not None:
      counts[pair.equal, verdict == "equal"] += 1
      undecided += verdict == "undecided"
  return Score(
    true_positives=counts[True, True],
    false_positives=counts[False, True],
    false_negatives=counts[True, False],
    undecided=undecided,
  )
