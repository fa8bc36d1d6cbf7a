r"""Turns rows of known data sets into problems.

The fields of a row tell its shape:

| fields | data sets | the answer |
| --- | --- | --- |
| index, question, answer | the paper's test sets | the text, or any of a list |
| question, answer | ours; GSM8K | the text, or what follows "####" |
| question, final_answer | OlympiadBench | the text, or all texts of a list |
| problem, answer | MATH-500, Omni-MATH, NuminaMath-1.5 | the text |
| problem, solution | MATH, NuminaMath-CoT | the last \boxed{} of the solution |
| query, response | MetaMathQA, rstar_sft | after "The answer is:", or boxed |

An "answer" beside a "question" is taken as it is. The other shapes need an
answer that can be graded: a row without one is `Ungraded`, not an error.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from rstar_jax.config.schema import DataConfig
from rstar_jax.data.files import Number, ProblemError, Row
from rstar_jax.grading import checkable
from rstar_jax.grading.answers import final_answer
from rstar_jax.types import Problem


class Ungraded(Exception):
  """A valid row whose answer cannot be graded; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Shape:
  """The fields of a family of data sets, and how to read their answer.

  Attributes:
    question: name of the question's field.
    answer: name of the field that holds the answer.
    read: extracts the answer from that field's text; None if there is none.
    required: names of further fields that a row of this shape has.
    checked: whether an answer that cannot be graded makes a row `Ungraded`.
    strict: whether a row without an answer is an error instead of `Ungraded`.
      Then the answer is not a list; further right answers are in the field
      "also".
    joined: whether a list holds the parts of one answer. If not, each item is a
      right answer.
  """

  question: str
  answer: str
  read: Callable[[str], str | None]
  required: frozenset[str] = frozenset()
  checked: bool = True
  strict: bool = False
  joined: bool = False

  def fits(self, row: Mapping) -> bool:
    """Says whether a row has this shape's fields."""
    return {self.question, self.answer, *self.required} <= row.keys()


def _stated(text: str) -> str | None:
  """Returns the text, or GSM8K's answer: a number like 1,234 after "####"."""
  if "####" not in text:
    return text
  answer = text.rpartition("####")[2].strip().replace(",", "")
  if not answer:
    raise ProblemError("nothing follows '####' in the answer")
  return answer


def _concluded(text: str) -> str | None:
  r"""Returns what follows MetaMathQA's "The answer is:", else the \boxed{}."""
  _, found, answer = text.rpartition("The answer is:")
  return answer.strip() if found else final_answer(text)


_OURS = Shape("question", "answer", _stated, checked=False, strict=True)
# The first that fits a row is used.
SHAPES = (
  dataclasses.replace(_OURS, required=frozenset({"index"}), strict=False),
  _OURS,
  Shape("question", "final_answer", _stated, joined=True),
  Shape("problem", "answer", _stated),
  Shape("problem", "solution", final_answer),
  Shape("query", "response", _concluded),
)


def problem_of(row: Row, source: str, config: DataConfig) -> Problem:
  """Builds a problem from a row.

  Args:
    row: a row of one of `SHAPES`, or with the fields that the config names.
    source: a short name; a row without an id gets the id "source/index".
    config: `question_field` and `answer_field` override the row's shape.

  Raises:
    ProblemError: if the row is malformed.
    Ungraded: if the answer cannot be graded.
  """
  if row.error:
    raise ProblemError(row.error)
  value = row.value
  if not isinstance(value, Mapping):
    raise ProblemError(f"is {_kind(value)}, want an object")
  shape = _shape_of(value, config)
  question = _text(value, shape.question, numbers=False)
  if not shape.strict and not value[shape.answer]:
    raise Ungraded("no final answer")
  answers = [shape.read(each) for each in _answers(value, shape)]
  for answer in answers if shape.checked else ():
    if reason := checkable.why_not(answer or ""):
      raise Ungraded(reason)
  if "id" in value:
    name = _text(value, "id")
  else:
    index = value.get("index")
    name = f"{source}/{index if isinstance(index, str) else row.index}"
  return Problem(
    id=name,
    question=question,
    answer=answers[0],
    source=str(value.get("source") or source),
    level=_level(value.get("level")),
    alternatives=tuple(answers[1:]),
  )


def question_of(row: Mapping[str, Any]) -> str | None:
  """Returns the question of a row, None if no shape fits."""
  shape = next((shape for shape in SHAPES if shape.fits(row)), None)
  return None if shape is None else str(row[shape.question]).strip()


def _answers(row: Mapping, shape: Shape) -> list[str]:
  """Returns the texts of all right answers."""
  found = row[shape.answer] if shape.answer in row else None
  if shape.joined and isinstance(found, list):
    # The problem asks for all parts.
    return [", ".join(_text({"": each}, "") for each in found)]
  if not shape.strict and isinstance(found, list):
    return [_text({shape.answer: each}, shape.answer) for each in found]
  more = row.get("also") or []
  if not isinstance(more, list):
    raise ProblemError(f"'also' is {_kind(more)}, want a list of answers")
  return [_text(row, shape.answer), *(_text({"also": m}, "also") for m in more)]


def _shape_of(row: Mapping, config: DataConfig) -> Shape:
  """Returns the shape that the config names, else the first that fits."""
  if config.question_field or config.answer_field:
    return dataclasses.replace(
      _OURS,
      question=config.question_field or _OURS.question,
      answer=config.answer_field or _OURS.answer,
    )
  # If none fits, the error names the missing field of our own shape.
  return next((shape for shape in SHAPES if shape.fits(row)), _OURS)


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
  """Returns the number of a level such as 3 or "Level 3", None without one."""
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
