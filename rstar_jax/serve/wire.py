"""OpenAI's formats of requests and errors, without HTTP; see `answers.py`.

Each field of a request is used, ignored, or refused; unknown fields are
refused, as by OpenAI's API. This server's own fields stand beside OpenAI's
(`extra_body` in its clients):

  method      one of `solve.METHODS`; default by the model's name or temperature
  samples     for "majority" and "best_of_n"
  rollouts, candidates   for "search"
  tree        whether the answer has the searched tree, and a stream its growth
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rstar_jax import outside
from rstar_jax.pipeline.solve import (
  METHODS,
  Budget,
  Method,
)

# Seeds of OpenAI's API are 64 bits.
_SEED = 2**63
# The highest temperature of OpenAI's API.
_WARMEST = 2
_OURS = ("method", "samples", "rollouts", "candidates", "tree")
_MEANT = (
  *("model", "n", "seed", "temperature", "top_p", "stop", "max_tokens"),
  *("max_completion_tokens", "stream", "stream_options"),
)
# Fields of OpenAI's API that change no answer.
_IGNORED = (
  *("user", "metadata", "store", "service_tier", "safety_identifier"),
  *("prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls"),
)
# Fields of OpenAI's API that are accepted with these values alone.
NOTHING: dict[str, tuple[Any, ...]] = {
  "frequency_penalty": (0,),
  "presence_penalty": (0,),
  "logit_bias": ({},),
  "logprobs": (False, 0),
  "top_logprobs": (0,),
  "tools": ([],),
  "tool_choice": ("none", "auto"),
  "response_format": ({"type": "text"},),
  "modalities": (["text"],),
  "echo": (False,),
  "suffix": ("",),
  "best_of": (1,),
}


class Refused(Exception):
  """A request is refused.

  Attributes:
    status: the HTTP status.
    body: the error in OpenAI's format.
    headers: further headers of the response.
  """

  def __init__(
    self,
    message: str,
    status: int = 400,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
  ):
    super().__init__(message)
    self.status = status
    kind = "invalid_request_error" if status < 500 else "server_error"
    self.body = {
      "error": {
        "message": outside.line(message),
        "type": kind,
        "param": param,
        "code": code,
      }
    }
    self.headers = dict(headers or {})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Served:
  """A server's models, defaults and limits.

  Attributes:
    name: name of the model. NAME:METHOD is the same model with another default.
    methods: available methods, the default one first.
    usual: the default budget.
    temperature: the default sampling temperature.
    any_temperature: whether a request may have another temperature.
    top_p: of all samples.
    seed: the default seed.
    question_characters: most characters of a question.
    solutions: most solutions of a request: choices x samples, or choices x
      rollouts x candidates.
  """

  name: str
  methods: Sequence[Method]
  usual: Budget
  temperature: float
  any_temperature: bool
  top_p: float
  seed: int
  question_characters: int
  solutions: int

  @property
  def names(self) -> list[str]:
    """The names of all models."""
    return [self.name, *(f"{self.name}:{each}" for each in self.methods)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """A client's request.

  Attributes:
    model: name that the client gave.
    choices: number of solutions.
    temperature: sampling temperature; None is the server's own.
    stop: texts at which the answer is cut.
    limit: most tokens of the answer, None for no limit.
    usage: whether a stream ends with the numbers of tokens.
    tree: whether the answer has the tree.
    chat: whether the request is a chat.
  """

  model: str
  question: str
  budget: Budget
  seed: int
  choices: int
  temperature: float | None
  stop: tuple[str, ...]
  limit: int | None
  stream: bool
  usage: bool
  tree: bool
  chat: bool


def read(body: bytes, served: Served, *, chat: bool) -> Request:
  """Parses and checks a request.

  Args:
    body: JSON.
    served: the server's models, defaults and limits.
    chat: whether the request has messages instead of a prompt.

  Raises:
    Refused: a field is wrong; the message names it, in one line.
  """
  try:
    fields = outside.parse(body)
    if not isinstance(fields, dict):
      raise Refused("the request is no JSON object")
    return _read(fields, served, chat)
  except outside.Bad as error:
    raise Refused(f"the request {error}") from None


def _read(fields: dict[str, Any], served: Served, chat: bool) -> Request:
  field = "messages" if chat else "prompt"
  # A field that is null counts as absent.
  given = {name: value for name, value in fields.items() if value is not None}
  for name in given:
    if name in (*_OURS, *_MEANT, *_IGNORED, field):
      continue
    if name not in NOTHING:
      raise Refused(
        f"Unrecognized request argument supplied: {name}", param=name
      )
    check_nothing(given, name)
  question = _chat(given) if chat else _prompt(given.get("prompt"))
  if not question.strip():
    raise Refused("the question is empty", param=field)
  if len(question) > served.question_characters:
    raise Refused(
      f"the question has {len(question)} characters; "
      f"{served.question_characters} are the most",
      param=field,
      code="context_length_exceeded",
    )
  model = outside.string(given.get("model", served.name), "model", 200)
  if model not in served.names:
    raise Refused(
      f"The model {model!r} does not exist; there are "
      f"{', '.join(served.names)}",
      404,
      param="model",
      code="model_not_found",
    )
  choices = outside.integer(given.get("n", 1), "n", 1, 128)
  temperature = _temperature(given, served)
  budget = _budget(given, model, choices, served)
  limits = [
    outside.integer(given[name], name, 1, 1 << 31)
    for name in ("max_tokens", "max_completion_tokens")
    if name in given
  ]
  options = given.get("stream_options", {})
  if not isinstance(options, dict):
    raise Refused("stream_options is no object", param="stream_options")
  return Request(
    model=model,
    question=question,
    budget=budget,
    seed=outside.integer(
      given.get("seed", served.seed), "seed", -_SEED, _SEED - 1
    ),
    choices=choices,
    temperature=temperature,
    stop=_stops(given.get("stop", [])),
    limit=min(limits, default=None),
    stream=_truth(given, "stream"),
    usage=_truth(options, "include_usage"),
    tree=_truth(given, "tree"),
    chat=chat,
  )


def check_nothing(fields: Mapping[str, Any], name: str) -> None:
  """Raises `Refused` if a field of `NOTHING` asks for something."""
  value = fields.get(name)
  if value is not None and value not in NOTHING[name]:
    raise Refused(f"{name} is not supported here: leave it out", param=name)


def _chat(fields: Mapping[str, Any]) -> str:
  """Returns the text of the last message, which must be the user's."""
  messages = outside.sequence(fields.get("messages"), "messages", dict)
  if not messages or messages[-1].get("role") != "user":
    raise Refused("the last message is not the user's", param="messages")
  content = messages[-1].get("content")
  if isinstance(content, list):
    parts = outside.sequence(content, "content", dict)
    if any(each.get("type") != "text" for each in parts):
      raise Refused("content has a part that is no text", param="messages")
    content = "\n".join(
      outside.string(each.get("text"), "text", outside.LONGEST)
      for each in parts
    )
  return outside.string(content, "content", outside.LONGEST)


def _prompt(prompt: Any) -> str:
  if isinstance(prompt, list) and len(prompt) == 1:
    prompt = prompt[0]
  if not isinstance(prompt, str):
    raise Refused("prompt is not one text", param="prompt")
  return prompt


def _temperature(fields: Mapping[str, Any], served: Served) -> float | None:
  """Returns the temperature of a request, None for the server's own."""
  value = fields.get("temperature")
  if value is None:
    return None
  if type(value) not in (int, float) or not 0 <= value <= _WARMEST:
    raise Refused(
      f"temperature={value!r} is not a number from 0 to {_WARMEST}",
      param="temperature",
    )
  return None if value == served.temperature else float(value)


def _budget(
  fields: Mapping[str, Any], model: str, choices: int, served: Served
) -> Budget:
  usual = served.usual
  method = fields.get("method")
  if method is None and ":" in model.removeprefix(served.name):
    method = model.removeprefix(served.name)[1:]
  if method is None and fields.get("temperature") == 0:
    method = "greedy"
  if method is None:
    method = usual.method
  if method not in served.methods:
    known = "is none of" if method not in METHODS else "cannot be asked of"
    raise Refused(
      f"method={method!r} {known} {', '.join(served.methods)}", param="method"
    )
  if method != "greedy":
    fixed = {"top_p": served.top_p}
    if not served.any_temperature:
      fixed["temperature"] = served.temperature
    for name, here in fixed.items():
      if fields.get(name, here) != here:
        raise Refused(
          f"{name}={fields[name]!r} is asked for, and {here} served: leave it "
          "out, or give temperature=0 for the likeliest solution",
          param=name,
        )
  sizes = {
    name: outside.integer(
      fields.get(name, getattr(usual, name)), name, 1, 1 << 20
    )
    for name in ("samples", "rollouts", "candidates")
  }
  budget = Budget(method=method, **sizes)
  count = choices * budget.solutions
  if count > served.solutions:
    means = "rollouts x candidates" if method == "search" else "samples"
    raise Refused(
      f"n x {means} is {count}; {served.solutions} is the most",
      param="rollouts" if method == "search" else "samples",
    )
  return budget


def _stops(value: Any) -> tuple[str, ...]:
  texts = [value] if isinstance(value, str) else value
  texts = outside.sequence(texts, "stop", str)
  if len(texts) > 4 or not all(texts):
    raise Refused("stop is not 1 to 4 texts", param="stop")
  return tuple(texts)


def _truth(fields: Mapping[str, Any], name: str) -> bool:
  value = fields.get(name, False)
  if not isinstance(value, bool):
    raise Refused(f"{name} is neither true nor false", param=name)
  return value
