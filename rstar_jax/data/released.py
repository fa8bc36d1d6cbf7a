"""The data sets that rStar-Math's authors released, as our records.

`rstar_sft`: {"query": question, "response": solution}, all of them right.
`rstar_ppm`: {"prompt", "pos", "neg", "pos_count", "neg_count"}; the prompt
holds the question and, for a pair of steps, the steps that both sides share.
Each is one JSON list (or one object a line).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from absl import logging
from etils import epath

from rstar_jax.data.sources import ProblemError, Row, file_rows
from rstar_jax.text import steps
from rstar_jax.types import PreferencePair, Prefix, Trajectory
from rstar_jax.verify.answers import final_answer

_Record = TypeVar("_Record", Trajectory, PreferencePair)
OnError = Literal["raise", "skip"]

# A node: up to a closing marker, with the output where code ends.
_NODE = re.compile(
  ".*?(?:"
  f"{steps.END_OF_STEP}(?!{steps.END_OF_CODE})"
  f"|{steps.END_OF_CODE}"
  rf"(?:\s*{steps.OUTPUT}.*?{steps.END_OF_OUTPUT})?\s*"
  f"|{steps.END_OF_ANSWER})",
  re.DOTALL,
)


def load_sft(
  path: epath.PathLike, on_error: OnError = "raise"
) -> list[Trajectory]:
  """Reads a file of the form of rstar_sft.

  Args:
    path: the file.
    on_error: whether a row that cannot be read stops, or is left out with a
      warning.

  Returns:
    Trajectories. The release has no Q-values: each node gets 1, what a right
    answer backs up.

  Raises:
    ProblemError: one line with file, line and reason.
  """

  def parse(row: Mapping[str, Any], name: str) -> Trajectory:
    nodes = split_nodes(_text(row, "response"))
    answer = final_answer(nodes[-1])
    if answer is None:
      raise ProblemError("'response' has no boxed answer")
    return Trajectory(
      problem_id=name,
      question=_text(row, "query"),
      steps=nodes,
      q_values=(1.0,) * len(nodes),
      answer=answer,
      correct=True,
    )

  return _load(path, parse, on_error)


def load_pairs(
  path: epath.PathLike, on_error: OnError = "raise"
) -> list[PreferencePair]:
  """Reads a file of the form of rstar_ppm; arguments as of `load_sft`.

  The weight is the released trainer's, 1 / (pos_count x neg_count).
  """

  def parse(row: Mapping[str, Any], name: str) -> PreferencePair:
    prompt = _text(row, "prompt")
    sides = []
    for field in ("pos", "neg"):
      head, code, solution = (prompt + _text(row, field)).partition(steps.CODE)
      if not code:
        raise ProblemError(f"{field!r} has no {steps.CODE}")
      sides.append(split_nodes(code + solution))
    question = head.partition(f"\n{steps.ASSISTANT}")[0]
    return PreferencePair(
      problem_id=name,
      question=question.removeprefix(f"{steps.USER}:\n"),
      chosen=sides[0],
      rejected=sides[1],
      weight=1 / (_count(row, "pos_count") * _count(row, "neg_count")),
      kind="step" if steps.CODE in prompt else "final",
    )

  return _load(path, parse, on_error)


def split_nodes(text: str) -> Prefix:
  """Cuts a solution into node texts, which join to it again.

  Raises:
    ProblemError: if something follows the last closing marker.
  """
  nodes = tuple(_NODE.findall(text))
  rest = text[sum(map(len, nodes)) :]
  if rest.strip() or not nodes:
    raise ProblemError(f"no closing marker after {rest.strip()[:40]!r}")
  return nodes


def _load(
  path: epath.PathLike,
  parse: Callable[[Mapping[str, Any], str], _Record],
  on_error: OnError,
) -> list[_Record]:
  path = epath.Path(path)
  found, skipped = [], []
  for row in file_rows(path):
    try:
      found.append(parse(_object(row), f"{path.stem}/{row.index}"))
    except ProblemError as error:
      if on_error == "raise":
        raise ProblemError(f"{row.place}: {error}") from None
      skipped.append(f"{row.place}: {error}")
  if skipped:
    logging.warning(
      "%s: skipped %d of %d rows; the first: %s",
      path,
      len(skipped),
      len(skipped) + len(found),
      skipped[0],
    )
  if not found:
    raise ProblemError(f"{path} holds nothing that can be read")
  return found


def _object(row: Row) -> Mapping[str, Any]:
  if row.error or not isinstance(row.value, Mapping):
    raise ProblemError(row.error or "is not an object")
  return row.value


def _text(row: Mapping[str, Any], field: str) -> str:
  if not isinstance(row.get(field), str):
    raise ProblemError(f"has no text in {field!r}")
  return row[field]


def _count(row: Mapping[str, Any], field: str) -> int:
  text = _text(row, field)
  if not re.fullmatch("[1-9][0-9]*", text):
    raise ProblemError(f"{field!r} is {text!r}, want a number from 1")
  return int(text)
