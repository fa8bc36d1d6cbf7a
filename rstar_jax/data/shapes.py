r"""Turns rows of known data sets into problems.

A row's fields determine its shape:

| fields | data sets | the answer |
| --- | --- | --- |
| index, question, answer | the paper's test sets | the text, or any of a list |
| question, answer | ours; GSM8K | the text, or what follows "####" |
| question, final_answer | OlympiadBench | the text, or all texts of a list |
| problem, answer | MATH-500, NuminaMath-1.5, OpenR1-Math | the text |
| likewise | Omni-MATH, Big-Math, DeepScaleR | the text |
| problem, expected_answer | OpenMathInstruct-2, OpenMathReasoning | the text |
| problem, solution | MATH, NuminaMath-CoT | the last \boxed{} of the solution |
| query, response | MetaMathQA, rstar_sft | after "The answer is:", or boxed |
| instruction, output | MathInstruct | likewise |
| prompt, reward_model | verl, DAPO-Math-17k, Skywork-OR1 | its ground_truth |
| messages | chats: one question, one reply | likewise, or all of the reply |
| conversations | ShareGPT's | likewise |

A question is a "question", "problem", "prompt" or the user's message, and an
answer also a "ground_truth", "gold_answer" or "correct_answer"; names ignore
case. An "answer" beside a "question" is taken as it is, unless it is a whole
solution. The other shapes need an answer that can be graded: a row without one
is `Ungraded`, not an error. A row that would be misread is an error, whose
message names the config field that reads it.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from rstar_jax.config.schema import DataConfig
from rstar_jax.data import chats, fields
from rstar_jax.data.rows import ProblemError, Row
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
    read: extracts the answer from that field's text; None if it has none.
    required: names of further fields that a row of this shape has.
    checked: whether an answer that cannot be graded makes a row `Ungraded`.
    strict: whether a row without an answer is an error instead of `Ungraded`.
      The answer is then no list; further right answers are in the field "also".
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
    """Returns whether a row has this shape's fields."""
    return {self.question, self.answer, *self.required} <= row.keys()


def _stated(text: str) -> str | None:
  """Returns the text, or GSM8K's answer: a number like 1,234 after "####"."""
  if "####" not in text:
    return text
  answer = _GROUPED.sub(
    lambda match: match[0].replace(",", ""),
    text.rpartition("####")[2].strip(),
  )
  if not answer:
    raise ProblemError("nothing follows '####' in the answer")
  return answer


def _concluded(text: str) -> str | None:
  r"""Returns the text after "The answer is:", else that of the \boxed{}."""
  _, found, answer = text.rpartition("The answer is:")
  return answer.strip() if found else final_answer(text)


def _replied(text: str) -> str | None:
  r"""Returns the answer of a reply: concluded, boxed, or the reply itself."""
  return _concluded(text) or _stated(text)


# Fields that hold messages in some data sets; see `chats.py`.
_SAID = ("prompt", "user")
# Names of the answer's field in various data sets.
_ANSWERS = (
  *("answer", "final_answer", "expected_answer", "ground_truth"),
  *("gold_answer", "correct_answer"),
)
_OURS = Shape("question", "answer", _stated, checked=False, strict=True)
# The first that fits a row is used.
SHAPES = (
  dataclasses.replace(_OURS, required=frozenset({"index"}), strict=False),
  _OURS,
  Shape("question", "final_answer", _stated, joined=True),
  *(
    Shape(question, answer, _stated)
    for question in ("question", "problem", *_SAID)
    for answer in _ANSWERS
  ),
  Shape("problem", "solution", final_answer),
  Shape("question", "solution", _concluded),
  Shape("query", "response", _concluded),
  Shape("instruction", "output", _concluded),
  Shape("prompt", "solution", _replied),
  Shape("prompt", "completion", _replied),
  Shape("user", "assistant", _replied),
)
# Fields of a row of HumanEval's form: the head of a function, the code of
# `check(function)`, and the function's name.
_TESTED = frozenset({"prompt", "test", "entry_point"})

# Fields beside the question that may hold parts of a problem.
_BESIDE = ("body", "context", "passage", "options", "choices", "input")
# A longer text may be a whole solution, in characters.
_SOLUTION = 200
# A field in a template such as "{body} {question}".
_PART = re.compile(r"\{([^{}]+)\}")
# A number with thousands separators; "(1,200)" is a point.
_GROUPED = re.compile(r"(?<![\d.,(\[{])\d{1,3}(?:,\d{3})+(?!,?\d)")
# A number with its unit after it, as in SVAMP and ASDiv: "9 (apples)".
_WITH_UNIT = re.compile(r"[-+]?[\d.,/:]+\s+\([^\W\d]{2}[^()]*\)")


def problem_of(
  row: Row, source: str, config: DataConfig, needs_answer: bool = True
) -> Problem:
  """Builds a problem from a row.

  Args:
    row: a row of one of `SHAPES`, or with the fields that the config names; or
      a problem, which is checked.
    source: a short name; a row without an id gets the id "source/index".
    config: `question_field`, `answer_field` and `answer_pattern` override the
      row's shape.
    needs_answer: whether a row without an answer raises. If not, the problem
      has none.

  Raises:
    ProblemError: the row is malformed, or would be misread.
    Ungraded: the answer cannot be graded.
  """
  if row.error:
    raise ProblemError(row.error)
  value = row.value
  if isinstance(value, Problem):
    return _checked(value, needs_answer)
  if not isinstance(value, Mapping):
    raise ProblemError(f"is {fields.kind_of(value)}, want an object")
  if value.keys() >= _TESTED and not config.question_field:
    return _tested(row, value, source)
  shape, value = _shape_of(value, config, needs_answer)
  question = _question(value, shape.question)
  if not config.question_field:
    _check_beside(value, shape.question)
  try:
    answers = _read(value, shape, config)
    if needs_answer and not config.answer_pattern:
      answers = [_concise(each, shape.answer) for each in answers]
  except Ungraded:
    if needs_answer:
      raise
    answers = [None]
  except ProblemError:
    if needs_answer or _has(value, shape.answer):
      raise
    answers = [None]
  if value.get("id") is not None:
    name = fields.text_of(value, "id")
  else:
    index = value.get("index")
    name = f"{source}/{index if isinstance(index, str) else row.index}"
  return Problem(
    id=name,
    question=question,
    answer=answers[0],
    source=str(value.get("source") or source),
    level=fields.level_of(value.get("level")),
    alternatives=tuple(answers[1:]),
  )


def _has(row: Mapping, field: str) -> bool:
  """Returns whether a row has a value in a field, perhaps a nested one."""
  try:
    return bool(fields.value_of(row, field))
  except ProblemError:
    return False


def question_of(row: Mapping[str, Any]) -> str | None:
  """Returns a row's question; None if no shape fits, or it lacks a part."""
  try:
    shape, row = _shape_of(row, DataConfig(), needs_answer=True)
    _check_beside(row, shape.question)
    return _question(row, shape.question) if shape.fits(row) else None
  except ProblemError:
    return None


def _concise(answer: str, field: str) -> str:
  """Returns an answer; of a whole solution, as in Orca-Math, its conclusion."""
  why = len(answer) > _SOLUTION and checkable.why_not(answer)
  if why not in ("prose", "several paragraphs"):
    return answer
  if concluded := _concluded(answer):
    return concluded
  raise ProblemError(
    f"{field!r} is a text of {len(answer)} characters, which no answer would "
    r"equal: set answer_pattern='(?s).*?(-?\d[\d,./]*)\D*$' to take its last "
    "number, or answer_pattern='(?s).+' to keep it"
  )


def _read(row: Mapping, shape: Shape, config: DataConfig) -> list[str]:
  """Returns all right answers of a row, the gold one first."""
  if not shape.strict and not row.get(shape.answer):
    raise Ungraded("no final answer")
  texts = _answers(row, shape)
  if config.answer_pattern:
    answers = [_matched(each, shape.answer, config) for each in texts]
  else:
    answers = [shape.read(each) for each in texts]
    for text in answers:
      if _WITH_UNIT.fullmatch(text or ""):
        raise ProblemError(
          f"{shape.answer!r} is {text!r:.80}, which a solution that says "
          f"{text.partition('(')[0].strip()} would not equal: set "
          r"answer_pattern='(.+?) *\(' to leave out the unit, or "
          "answer_pattern='.+' to keep it"
        )
  for answer in answers if shape.checked else ():
    if reason := checkable.why_not(answer or ""):
      raise Ungraded(reason)
  if not config.answer_field:
    _check_rivals(row, shape.answer, answers[0])
  return answers


def _matched(text: str, field: str, config: DataConfig) -> str:
  """Returns the first group of the pattern's match, or all of the match."""
  try:
    match = re.search(config.answer_pattern, text)
  except re.error as error:
    raise ProblemError(
      f"answer_pattern={config.answer_pattern!r} is no regular expression: "
      f"{error}"
    ) from error
  found = ""
  if match:
    groups = [each for each in match.groups() if each is not None]
    found = (groups[0] if groups else match.group()).strip()
  if not found:
    raise ProblemError(
      f"answer_pattern={config.answer_pattern!r} matches nothing of {field!r}: "
      f"{text!r:.80}"
    )
  return found


def _question(row: Mapping, field: str) -> str:
  """Returns the text of a field, or of all fields of a template."""
  parts = _PART.findall(field)
  if not parts:
    return fields.text_of(row, field, numbers=False)
  texts = {}
  for part in parts:
    value = fields.value_of(row, part)
    values = value if isinstance(value, list) else [value]
    # A part that a row lacks, such as a context, is left empty.
    values = [] if value in (None, "") else values
    texts[part] = ", ".join(
      fields.text_of({part: each}, part) for each in values
    )
  question = _PART.sub(lambda each: texts[each[1]], field).strip()
  if not question:
    raise ProblemError(f"all of {', '.join(map(repr, parts))} are empty")
  return question


def _check_beside(row: Mapping, question: str) -> None:
  """Raises for a row with a part of the problem that would be left out."""
  for name, value in row.items():
    if str(name).lower() not in _BESIDE or name == question:
      continue
    if isinstance(value, Mapping):
      # A table gives each row the keys of all rows.
      parts = [f"{name}.{key}" for key, each in value.items() if each]
    else:
      parts = [name] if isinstance(value, str | list) and value else []
    if parts:
      template = " ".join(f"{{{each}}}" for each in (*parts, question))
      raise ProblemError(
        f"has a {name!r} beside the {question!r}, which would be left out: set "
        f"question_field='{template}', or question_field="
        f"{question!r} if the question says all"
      )


def _check_rivals(row: Mapping, field: str, answer: str | None) -> None:
  """Raises for a row in which another field has another answer."""
  for name in row:
    value = row[name]
    if name == field or str(name).lower() not in _ANSWERS:
      continue
    if isinstance(value, str) and value.strip():
      if _stated(str(value)).strip() != answer:
        raise ProblemError(
          f"has an answer in {field!r} and another in {name!r}: set "
          f"answer_field={name!r} or answer_field={field!r}"
        )


def _tested(row: Row, value: Mapping, source: str) -> Problem:
  """Returns the problem of a row in HumanEval's form."""
  name = fields.text_of(value, "entry_point")
  if not name.isidentifier():
    raise ProblemError(f"'entry_point' is {name!r:.80}, want a function's name")
  named = fields.text_of(value, "task_id") if "task_id" in value else ""
  return Problem(
    id=named or f"{source}/{row.index}",
    question=fields.text_of(value, "prompt", numbers=False),
    source=source,
    tests=f"{fields.text_of(value, 'test', numbers=False)}\n\ncheck({name})\n",
  )


def _checked(problem: Problem, needs_answer: bool) -> Problem:
  """Returns a problem that a plugin made, if it is well-formed."""
  for name in ("id", "question"):
    value = getattr(problem, name)
    if not isinstance(value, str) or not value.strip():
      raise ProblemError(
        f"is a Problem whose {name} is {value!r:.80}, want text"
      )
  if not isinstance(problem.source, str):
    raise ProblemError(
      f"is a Problem whose source is {problem.source!r:.80}, want text"
    )
  if not isinstance(problem.level, int | None):
    raise ProblemError(
      f"is a Problem whose level is {problem.level!r:.80}, want an int or None"
    )
  answers = (problem.answer, *problem.alternatives)
  if problem.answer is None and (problem.tests or not needs_answer):
    answers = problem.alternatives
  for value in answers:
    if not isinstance(value, str) or not value.strip():
      raise ProblemError(
        f"is a Problem whose answer is {value!r:.80}, want text; None is for "
        "tasks with a reward, and beside tests"
      )
  return problem


def _answers(row: Mapping, shape: Shape) -> list[str]:
  """Returns the texts of all right answers."""
  value = row.get(shape.answer)
  if shape.joined and isinstance(value, list):
    # The problem asks for all parts of the answer.
    return [", ".join(fields.text_of({"": each}, "") for each in value)]
  if not shape.strict and isinstance(value, list):
    return [
      fields.text_of({shape.answer: each}, shape.answer) for each in value
    ]
  more = row.get("also") or []
  if not isinstance(more, list):
    raise ProblemError(
      f"'also' is {fields.kind_of(more)}, want a list of answers"
    )
  return [
    fields.text_of(row, shape.answer),
    *(fields.text_of({"also": m}, "also") for m in more),
  ]


def _shape_of(
  row: Mapping, config: DataConfig, needs_answer: bool
) -> tuple[Shape, Mapping]:
  """Returns the shape that the config names, else the first that fits.

  The row is returned too, with the texts of its messages as fields.
  """
  if config.question_field or config.answer_field:
    shape = dataclasses.replace(
      _OURS,
      question=config.question_field or _OURS.question,
      answer=config.answer_field or _OURS.answer,
    )
    chat = isinstance(row.get(shape.question), list)
    return shape, chats.flat(row) if chat else row
  shape = _fitting(row)
  if shape is None or shape.question in _SAID:
    row = chats.flat(row)
    shape = _fitting(row)
  if shape is not None:
    return shape, row
  # A question alone; without one, the error names the fields of `_OURS`.
  asked = (
    each
    for each in reversed(SHAPES)
    if each.question in row and (not needs_answer or each.question == "user")
  )
  return next(asked, _OURS), row


def _fitting(row: Mapping) -> Shape | None:
  """Returns the first shape that fits a row, with or without its case."""
  names = {str(name).lower(): name for name in row}
  for shape in SHAPES:
    if shape.fits(row):
      return shape
  for shape in SHAPES:
    if shape.fits(names):
      return dataclasses.replace(
        shape, question=names[shape.question], answer=names[shape.answer]
      )
  return None
