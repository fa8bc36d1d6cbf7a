"""OpenAI's formats of responses, without HTTP.

Each choice of an answer has a field `rstar_jax`; see `report`.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rstar_jax.pipeline.solve import NO_ANSWER, Budget, Solution
from rstar_jax.serve.wire import Request, Served
from rstar_jax.steps import grammar


def pieces(solution: Solution) -> Iterator[str]:
  """Yields a solution as Markdown, step by step: code, output, answer."""
  if solution.answer is None:
    yield NO_ANSWER
    return
  code = [each for each in solution.steps if grammar.ANSWER not in each]
  # Made longer than any fence within the program.
  fence = "```"
  while any(fence in each for each in code):
    fence += "`"
  for number, text in enumerate(code):
    opening = f"{fence}python\n" if not number else "\n"
    closing = f"{fence}\n" if number == len(code) - 1 else ""
    yield f"{opening}{grammar.code_of(text).strip()}\n{closing}"
  for output in solution.outputs:
    if output is not None:
      yield f"\nOutput:\n\n{fence}\n{output.strip()}\n{fence}\n"
  for text in solution.steps[len(code) :]:
    yield f"\n{grammar.MARKER.sub('', text).strip()}"


def cut(
  parts: Sequence[str],
  stop: Sequence[str],
  limit: int | None,
  count: Callable[[str, int], int],
) -> tuple[list[str], str]:
  """Cuts an answer at the first stop text or at the token limit.

  Args:
    parts: consecutive parts of the answer.
    stop: the answer ends before the first of these.
    limit: most tokens, None for no limit.
    count: (text, limit) -> number of characters in the text's first `limit`
      tokens.

  Returns:
    The parts, cut, and OpenAI's `finish_reason`.
  """
  whole = "".join(parts)
  places = [at for each in stop if (at := whole.find(each)) >= 0]
  end, reason = min(places, default=len(whole)), "stop"
  if limit is not None and (most := count(whole, limit)) < end:
    end, reason = most, "length"
  kept = []
  for part in parts:
    kept.append(part[:end])
    end -= len(kept[-1])
  return [each for each in kept if each], reason


def report(
  solution: Solution, budget: Budget, tree: Mapping[str, Any] | None
) -> dict[str, Any]:
  """Returns the field `rstar_jax` of a choice.

  Args:
    solution: the choice's solution.
    budget: the request's budget.
    tree: the tree in the page's format, None if it was not requested.
  """
  fields = solution.to_record() | {"budget": dataclasses.asdict(budget)}
  return fields if tree is None else fields | {"tree": tree}


@dataclasses.dataclass(frozen=True)
class Answer:
  """Writes the response to a request in OpenAI's format.

  Attributes:
    request: the client's request.
    id: id of the response, without its prefix.
    created: Unix time, in seconds.
  """

  request: Request
  id: str
  created: int = dataclasses.field(default_factory=lambda: int(time.time()))

  def whole(
    self, choices: Sequence[Mapping[str, Any]], usage: Mapping[str, int]
  ) -> dict[str, Any]:
    """Returns a response that is not streamed; for `choices` see `choice`."""
    return self._head("") | {"choices": list(choices), "usage": dict(usage)}

  def choice(
    self, index: int, text: str, reason: str, more: Mapping[str, Any]
  ) -> dict[str, Any]:
    """Returns a choice of `whole`."""
    content: dict[str, Any] = {"text": text}
    if self.request.chat:
      message = {"role": "assistant", "content": text, "refusal": None}
      content = {"message": message}
    return {
      "index": index,
      **content,
      "logprobs": None,
      "finish_reason": reason,
      "rstar_jax": dict(more),
    }

  def part(
    self,
    index: int,
    text: str = "",
    reason: str | None = None,
    more: Mapping[str, Any] | None = None,
  ) -> str:
    """Returns an event of a stream: text, the end, or growth of the tree."""
    content: dict[str, Any] = {"text": text}
    if self.request.chat:
      content = {"delta": {"content": text} if text else {}}
    choice = {
      "index": index,
      **content,
      "logprobs": None,
      "finish_reason": reason,
    }
    if more is not None:
      choice["rstar_jax"] = dict(more)
    return event(self._head(".chunk") | {"choices": [choice]})

  def opening(self, index: int) -> str:
    """Returns the first event of a choice."""
    if not self.request.chat:
      return self.part(index)
    delta = {"role": "assistant", "content": ""}
    choice = {"index": index, "delta": delta, "finish_reason": None}
    return event(self._head(".chunk") | {"choices": [choice]})

  def spent(self, usage: Mapping[str, int]) -> str:
    """Returns the event of a stream with the numbers of tokens."""
    return event(self._head(".chunk") | {"choices": [], "usage": dict(usage)})

  def _head(self, suffix: str) -> dict[str, Any]:
    chat = self.request.chat
    kind = f"chat.completion{suffix}" if chat else "text_completion"
    return {
      "id": f"{'chatcmpl' if chat else 'cmpl'}-{self.id}",
      "object": kind,
      "created": self.created,
      "model": self.request.model,
    }


def event(value: Any) -> str:
  """Formats a value as an event of a stream."""
  return f"data: {json.dumps(value, allow_nan=False)}\n\n"


def usage(prompt: int, written: int) -> dict[str, int]:
  """Returns OpenAI's usage: tokens of the question, and generated for it."""
  return {
    "prompt_tokens": prompt,
    "completion_tokens": written,
    "total_tokens": prompt + written,
  }


def models(served: Served, created: int) -> dict[str, Any]:
  """Returns the answer of /v1/models."""
  return {
    "object": "list",
    "data": [
      {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "rstar_jax",
        "rstar_jax": {
          "methods": list(served.methods),
          "budget": dataclasses.asdict(served.usual),
          "solutions": served.solutions,
        },
      }
      for name in served.names
    ],
  }
