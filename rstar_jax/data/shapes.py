r"""The shapes that rows of problems come in: which fields, and which answer.

Shapes are told by the fields of a row:

| fields | data sets | the answer |
| --- | --- | --- |
| index, question, answer | the paper's test sets | the text, or any of a list |
| question, answer | ours; GSM8K | the text, or what follows "####" |
| question, final_answer | OlympiadBench | the text, or all texts of a list |
| problem, answer | MATH-500, Omni-MATH, NuminaMath-1.5 | the text |
| problem, solution | MATH, NuminaMath-CoT | the last \boxed{} of the solution |
| query, response | MetaMathQA, rstar_sft | after "The answer is:", or boxed |

Where the answer is a field of its own, a person has said what is right, and it
is taken as it is. Where it is read off a solution, there may be none, or none
that can be graded: such a row is `Ungraded`, which is no error.
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
  """A good row whose answer cannot be graded; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Shape:
  """What rows of one shape look like.

  Attributes:
    question: name of the field of the question.
    answer: name of the field that the answer is in.
    read: finds the answer in the text of that field; None where there is none.
    also: names of further fields that tell the shape.
    checked: whether the answer must be one that can be graded.
    strict: whether a row without an answer is wrong, and not just of no use.
      The answer is no list then; further right ones are in the field "also".
    joined: whether a list has the parts of one answer. Else each is right.
  """

  question: str
  answer: str
  read: Callable[[str], str | None]
  also: frozenset[str] = frozenset()
  checked: bool = True
  strict: bool = False
  joined: bool = False

  def fits(self, row: Mapping) -> bool:
    """Says whether a row has this shape's fields."""
    return {self.question, self.answer, *self.also} <= row.keys()


def _stated(text: str) -> str | None:
  """Reads an answer, or GSM8K's: the solution, "####", a number as 1,234."""
  if "####" not in text:
    return text
  answer = text.rpartition("####")[2].strip().replace(",", "")
  if not answer:
    raise ProblemError("nothing follows '####' in the answer")
  return answer


def _concluded(text: str) -> str | None:
  """Reads MetaMathQA's last line, or a box."""
  _, found, answer = text.rpartition("The answer is:")
  return answer.strip() if found else final_answer(text)


_OURS = Shape("question", "answer", _stated, checked=False, strict=True)
# The first that fits is taken.
SHAPES = (
  dataclasses.replace(_OURS, also=frozenset({"index"}), strict=False),
  _OURS,
  Shape("question", "final_answer", _stated, joined=True),
  Shape("problem", "answer", _stated),
  Shape("problem", "solution", final_answer),
  Shape("query", "response", _concluded),
)


def problem_of(row: Row, source: str, config: DataConfig) -> Problem:
  """Returns the problem of a row.

  Args:
    row: of any of the shapes, or with the fields that the config names.
    source: a short name; begins the id of a problem without one.
    config: its field names are taken where they are set.

  Raises:
    ProblemError: what is wrong with the row.
    Ungraded: nothing is, but its answer cannot be graded.
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
    also=tuple(answers[1:]),
  )


def question_of(row: Mapping[str, Any]) -> str | None:
  """Returns the question of a row, None where no shape fits."""
  shape = next((shape for shape in SHAPES if shape.fits(row)), None)
  return None if shape is None else str(row[shape.question]).strip()


def _answers(row: Mapping, shape: Shape) -> list[str]:
  """Returns the texts of all answers that count as right."""
  found = row[shape.answer] if shape.answer in row else None
  if shape.joined and isinstance(found, list):
    # A problem asks for all of them.
    return [", ".join(_text({"": each}, "") for each in found)]
  if not shape.strict and isinstance(found, list):
    return [_text({shape.answer: each}, shape.answer) for each in found]
  more = row.get("also") or []
  if not isinstance(more, list):
    raise ProblemError(f"'also' is {_kind(more)}, want a list of answers")
  return [_text(row, shape.answer), *(_text({"also": m}, "also") for m in more)]


def _shape_of(row: Mapping, config: DataConfig) -> Shape:
  """Returns the shape that a config names, or that fits."""
  if config.question_field or config.answer_field:
    return dataclasses.replace(
      _OURS,
      question=config.question_field or _OURS.question,
      answer=config.answer_field or _OURS.answer,
    )
  # What fits none is told which of our fields it lacks.
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
