"""Reads the data sets that the authors of rStar-Math released.

`rstar_sft`: {"query": question, "response": solution}, all of them right.
`rstar_ppm`: {"prompt", "pos", "neg", "pos_count", "neg_count"}; the prompt has
the question and, for a pair of steps, the steps that both sides share. A failed
side may violate the step grammar; it is still text for the PPM. Both are read
row by row, from a file or from the Hub.
"""

import collections
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from absl import logging

from rstar_jax.data import fields
from rstar_jax.data.rows import ProblemError, Row
from rstar_jax.data.sources import open_source
from rstar_jax.grading.answers import final_answer
from rstar_jax.steps import grammar
from rstar_jax.types import PreferencePair, Prefix, Trajectory

_Record = TypeVar("_Record", Trajectory, PreferencePair)
# Reason -> number of rows left out for it.
Skipped = collections.Counter[str]

# The end of some of the released questions, which is removed.
_ASIDE = "\n Let's write a program."
# A node: text up to a closing marker, with the output after the code. The
# second is for a text without the end of an output, for which the first would
# search from every opening marker.
_NODE, _NODE_ALONE = (
  re.compile(
    ".*?(?:"
    f"{grammar.END_OF_STEP}(?!{grammar.END_OF_CODE})"
    rf"|{grammar.END_OF_CODE}{output}\s*"
    f"|{grammar.END_OF_ANSWER})",
    re.DOTALL,
  )
  for output in (rf"(?:\s*{grammar.OUTPUT}.*?{grammar.END_OF_OUTPUT})?", "")
)


def read_sft(source: str, skipped: Skipped) -> Iterator[Trajectory]:
  """Yields the solutions of a source in the format of rstar_sft.

  Args:
    source: see `sources.open_source`.
    skipped: updated with the number of malformed rows by reason.

  Yields:
    Trajectories. The release has no Q-values, so each node gets 1, the reward
    of a right answer. Solutions of one question share a problem id.

  Raises:
    ProblemError: there is no such source, or all rows are malformed.
  """

  def parse(row: Mapping[str, Any]) -> Trajectory:
    nodes = split_nodes(_text(row, "response"))
    answer = final_answer(nodes[-1])
    if answer is None:
      raise ProblemError("'response' has no boxed answer")
    question = _text(row, "query")
    return Trajectory(
      problem_id=_id(question),
      question=question,
      steps=nodes,
      q_values=(1.0,) * len(nodes),
      answer=answer,
      correct=True,
    )

  return _read(source, parse, skipped)


def read_pairs(source: str, skipped: Skipped) -> Iterator[PreferencePair]:
  """Yields the pairs of a source in the format of rstar_ppm; see `read_sft`.

  Weights are the released trainer's, 1 / (pos_count x neg_count).
  """

  def parse(row: Mapping[str, Any]) -> PreferencePair:
    prompt = _text(row, "prompt")
    sides = []
    for field in ("pos", "neg"):
      head, code, solution = (prompt + _text(row, field)).partition(
        grammar.CODE
      )
      if not code:
        raise ProblemError(f"{field!r} has no {grammar.CODE}")
      sides.append(split_nodes(code + solution))
    question = head.partition(f"\n{grammar.ASSISTANT}")[0]
    question = question.removeprefix(f"{grammar.USER}:\n").removesuffix(_ASIDE)
    return PreferencePair(
      problem_id=_id(question),
      question=question,
      chosen=sides[0],
      rejected=sides[1],
      weight=1 / (_count(row, "pos_count") * _count(row, "neg_count")),
      kind="step" if grammar.CODE in prompt else "final",
    )

  return _read(source, parse, skipped)


def split_nodes(text: str) -> Prefix:
  """Splits a solution into node texts, which concatenate to it.

  Raises:
    ProblemError: there is no closing marker, or text after the last one.
  """
  nodes, at = [], 0
  last = text.rfind(grammar.END_OF_OUTPUT)
  # `findall` would search from every character of a text without a marker.
  while match := (_NODE if at <= last else _NODE_ALONE).match(text, at):
    nodes.append(match.group())
    at = match.end()
  if text[at:].strip() or not nodes:
    raise ProblemError("text without a closing marker")
  return tuple(nodes)


def _read(
  source: str,
  parse: Callable[[Mapping[str, Any]], _Record],
  skipped: Skipped,
) -> Iterator[_Record]:
  _, rows = open_source(source)
  return _parsed(source, rows, parse, skipped)


def _parsed(
  source: str,
  rows: Iterator[Row],
  parse: Callable[[Mapping[str, Any]], _Record],
  skipped: Skipped,
) -> Iterator[_Record]:
  read, first = 0, ""
  for row in rows:
    try:
      record = parse(_object(row))
    except ProblemError as error:
      skipped[str(error)] += 1
      first = first or f"{row.place}: {error}"
      continue
    read += 1
    yield record
  left_out = skipped.total()
  if not read:
    why = f" ({left_out} bad; the first: {first})" if first else ""
    raise ProblemError(f"{source} has no readable rows{why}")
  if first:
    logging.warning(
      "%s: skipped %d of %d rows; the first: %s",
      source,
      left_out,
      left_out + read,
      first,
    )


def _id(question: str) -> str:
  """Returns an id that all rows of a question share, of every source.

  So it is held out of the training of both models, or of neither.
  """
  return hashlib.sha256(question.encode()).hexdigest()[:16]


def _object(row: Row) -> Mapping[str, Any]:
  if row.error or not isinstance(row.value, Mapping):
    raise ProblemError(row.error or "is not an object")
  return row.value


def _text(row: Mapping[str, Any], field: str) -> str:
  if not isinstance(row.get(field), str):
    raise ProblemError(f"has no text in {field!r}")
  if len(row[field]) > fields.LONGEST:
    raise ProblemError(f"{field!r} has {len(row[field])} characters")
  return row[field]


def _count(row: Mapping[str, Any], field: str) -> int:
  text = _text(row, field)
  if not re.fullmatch("[1-9][0-9]{0,8}", text):
    raise ProblemError(f"{field!r} is not a positive integer")
  return int(text)
