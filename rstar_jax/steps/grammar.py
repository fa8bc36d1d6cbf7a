r"""The step grammar, which splits a code-augmented solution into tree nodes.

A solution (paper section 3.2, and microsoft/rStar, branch rStar-math):

  <code>
  # Tom has 14 apples
  Tom = 14
  <end_of_step>

  # Now print the final answer
  print(Tom)
  <end_of_code>
  <output>14<end_of_output>
  <answer>The answer is \boxed{14}.<end_of_answer>

A node is the text up to and including a closing marker. The policy writes the
code and the answer; the interpreter writes the `<output>` span, which is part
of the text of the node that closes the code.
"""

import re
from collections.abc import Iterator

from rstar_jax.types import Finish, Prefix

CODE = "<code>"
END_OF_STEP = "<end_of_step>"
END_OF_CODE = "<end_of_code>"
OUTPUT = "<output>"
END_OF_OUTPUT = "<end_of_output>"
ANSWER = "<answer>"
END_OF_ANSWER = "<end_of_answer>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
MARKERS = (
  CODE,
  END_OF_STEP,
  END_OF_CODE,
  OUTPUT,
  END_OF_OUTPUT,
  ANSWER,
  END_OF_ANSWER,
  USER,
  ASSISTANT,
)

# Markers at which generation stops -> the finish reason.
FINISHES: dict[str, Finish] = {
  END_OF_STEP: "step",
  END_OF_CODE: "code",
  END_OF_ANSWER: "answer",
}

# What `problem_with` says of an answer without a box.
NO_BOX = "no boxed answer"

# Most characters of a step's output that the model sees; the middle of a longer
# output is removed (as in the released code).
SHOWN_OUTPUT = 1024

MARKER = re.compile("|".join(re.escape(marker) for marker in MARKERS))


def problem_with(prefix: Prefix, text: str, finish: Finish) -> str | None:
  """Returns why a candidate cannot be the next node, None if it can.

  Args:
    prefix: texts of the earlier nodes.
    text: the policy's text with its closing marker.
    finish: the marker that closed it.
  """
  if finish not in FINISHES.values():
    return f"no closing marker ({finish})"
  closed = bool(prefix) and END_OF_CODE in prefix[-1]
  if (finish == "answer") != closed:
    return "an answer must follow code" if not closed else "code after code"
  if finish == "answer":
    opening, inner = ANSWER, END_OF_ANSWER
  else:
    opening = "" if prefix else CODE
    inner = END_OF_STEP if finish == "step" else END_OF_CODE
  expected = [opening, inner] if opening else [inner]
  if MARKER.findall(text) != expected:
    return "markers out of order"
  if not text.strip().startswith(opening):
    return f"does not start with {opening}"
  if not text.endswith(inner):
    return f"text after {inner}"
  if finish == "answer":
    return None if "\\boxed{" in text else NO_BOX
  return None if code_of(text).strip() else "no code"


def split_block(text: str) -> Prefix:
  """Splits a whole code block into node texts, which concatenate to it.

  A policy that stops only at the end of the code writes all steps in one.
  """
  pieces = text.split(END_OF_STEP)
  nodes = [piece + END_OF_STEP for piece in pieces[:-1]]
  return (*nodes, pieces[-1]) if pieces[-1] else tuple(nodes)


def problem_with_block(text: str, finish: Finish) -> str | None:
  """Returns why a text is not a whole code block, None if it is.

  Args:
    text: the policy's text after the question.
    finish: the marker that closed it.

  Returns:
    The reason of the first step that `problem_with` refuses, or None.
  """
  if finish != "code":
    return f"no closing marker of the code ({finish})"
  nodes = split_block(text) or ("",)
  for index, node in enumerate(nodes):
    step: Finish = "code" if index == len(nodes) - 1 else "step"
    if reason := problem_with(nodes[:index], node, step):
      return f"step {index + 1}: {reason}"
  return None


def problem_with_solution(nodes: Prefix) -> str | None:
  """Returns why node texts are not a whole solution, None if they are.

  Args:
    nodes: node texts, with the interpreter's output after the code.
  """
  finish: Finish = "step"
  for index, text in enumerate(nodes):
    spans = output_spans(text)
    written = text[: spans[0][0]] if spans else text
    marked = (f for marker, f in FINISHES.items() if written.endswith(marker))
    finish = next(marked, "length")
    reason = problem_with(nodes[:index], written, finish)
    if not reason and bool(spans) != (finish == "code"):
      reason = "code without its output" if not spans else "output too early"
    if reason:
      return f"step {index + 1}: {reason}"
  return None if finish == "answer" else f"does not end with {END_OF_ANSWER}"


def code_of(text: str) -> str:
  """Returns the Python code of a node's text, without markers and output."""
  pieces, at = [], 0
  for start, end in _closed_outputs(text):
    pieces.append(text[at:start])
    at = end
  return MARKER.sub("", "".join([*pieces, text[at:]]))


def without_margin(text: str) -> str:
  """Removes white space before an opening marker.

  A model that was not trained on the grammar may write it between the prompt
  and the solution; it is not part of the step.
  """
  bare = text.lstrip()
  return bare if bare.startswith((CODE, ANSWER)) else text


def program(prefix: Prefix) -> list[str]:
  """Returns the code of each node of a prefix, oldest first."""
  return [code_of(text) for text in prefix if ANSWER not in text]


def with_output(text: str, stdout: str) -> str:
  """Appends the interpreter's output to a node that closes the code."""
  shown = stdout.strip("\n")
  if len(shown) > SHOWN_OUTPUT:
    half = SHOWN_OUTPUT // 2
    shown = shown[:half] + "..." + shown[-half:]
  # A marker that a program prints must not act as a marker.
  shown = MARKER.sub(lambda match: match.group().replace("<", "< "), shown)
  return f"{text}\n{OUTPUT}{shown}{END_OF_OUTPUT}\n"


def _closed_outputs(text: str) -> Iterator[tuple[int, int]]:
  """Yields [start, end) from each opening marker of an output to its end.

  A regular expression would search for an end from every opening marker.
  """
  at = 0
  while (start := text.find(OUTPUT, at)) >= 0:
    end = text.find(END_OF_OUTPUT, start)
    if end < 0:
      return
    at = end + len(END_OF_OUTPUT)
    yield start, at


def output_of(text: str) -> str | None:
  """Returns the output of a node's program, None if none has run."""
  spans = list(_closed_outputs(text))
  if not spans:
    return None
  start, end = spans[-1]
  return text[start + len(OUTPUT) : end - len(END_OF_OUTPUT)]


def output_spans(text: str) -> list[tuple[int, int]]:
  """Returns [start, end) of each output span, written by the interpreter."""
  spans = []
  for start, end in _closed_outputs(text):
    # `with_output` also wrote the line breaks around the span.
    start -= text[start - 1 : start] == "\n"
    end += text[end : end + 1] == "\n"
    spans.append((start, end))
  return spans
