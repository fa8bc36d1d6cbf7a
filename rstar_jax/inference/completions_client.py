"""A large model behind completions servers as the search's `Expand`.

The paper makes round 1 with a model of 236B parameters (section 3.4). Here it
is any model behind OpenAI's `POST /completions`. The different answers of vLLM,
SGLang, llama.cpp and transformers are all understood.
"""

import concurrent.futures
import hashlib
import json
import math
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import logging

from rstar_jax import outside
from rstar_jax.config.schema import RemoteConfig, urls_of
from rstar_jax.inference.http_post import BadAnswer, PromptTooLong
from rstar_jax.inference.protocols import MOST_ID, MOST_REAL, by_index
from rstar_jax.inference.server_pool import Servers
from rstar_jax.steps import grammar, prompts
from rstar_jax.storage.journal import Journal
from rstar_jax.types import Candidate, Finish, Prefix

# In the place of an id that the server does not give.
UNKNOWN_ID = -1

# Most characters of a token on average, and most tokens that a server may
# count, as a multiple of what was asked for.
_CHARACTERS, _TIMES = 256, 2
# Tokens of a choice where the request does not say how many.
_MANY = 1 << 16
# Finishes of what a journal has in the place of an answer: {"finish", "why"}.
_LOSSES = ("length", "lost")

_CLOSING = re.compile("|".join(map(re.escape, grammar.FINISHES)))


class Remote:
  """Samples next steps from a server; threads may share it.

  Each answer goes into the journal, under a hash of the request. A request that
  is in the journal is not sent again: a run that was killed pays for nothing
  twice and gets the same trees, though the server is not deterministic. An
  answer is read before it is journalled. A request without an answer that can
  be read is set aside, which is journalled too.

  Attributes:
    generated_tokens: tokens from the server, without those from the journal.
    set_aside: requests without candidates, those from the journal included.
  """

  def __init__(
    self,
    config: RemoteConfig,
    journal: Journal,
    prompt: prompts.Prompt = prompts.few_shot,
  ):
    """Makes the client, without a request.

    Args:
      config: the server, and what it is asked for.
      journal: opened with `readable`.
      prompt: shows the grammar, and asks a question.

    Raises:
      ValueError: the environment lacks the API key.
    """
    self.generated_tokens = self.set_aside = 0
    self._config = config
    self._prompt = prompt
    self._extra = outside.parse(config.extra or "{}")
    self._most_tokens = most_tokens(config)
    self._journal = journal
    self._servers = Servers(
      [f"{url}/completions" for url in urls_of(config.url)],
      config,
      "remote",
      proven=len(journal) > 0,
    )
    self._lock = threading.Lock()
    self._pool = concurrent.futures.ThreadPoolExecutor(config.in_flight)

  def __call__(
    self,
    questions: Sequence[str],
    prefixes: Sequence[Prefix],
    seeds: np.ndarray,
  ) -> list[list[Candidate]]:
    """Samples C next steps after each prefix; see `types.Expand`.

    Args:
      questions: B questions.
      prefixes: B prefixes.
      seeds: uint32 [B, C]. A leaf's candidates are split into requests of
        `samples_per_request`; a request has the seed of its first candidate.

    Returns:
      B lists of C candidates; see `candidates`. If the prefix does not fit into
      the model's context they are empty, with the finish "length"; if a request
      is set aside, with the finish "lost".

    Raises:
      ValueError: the server refuses a request, or gives too few samples, before
        it has given one answer that can be read.
      ConnectionError: the server did not answer for `patience_seconds`, or
        nothing that can be read to many requests in a row. Its earlier answers
        are in the journal.
    """
    size = self._config.samples_per_request
    stop = threading.Event()
    rows = [
      [
        self._pool.submit(
          self._sample, question, prefix, row[start : start + size], stop
        )
        for start in range(0, len(row), size)
      ]
      for question, prefix, row in zip(questions, prefixes, seeds, strict=True)
    ]
    requests = [each for row in rows for each in row]
    try:
      for each in concurrent.futures.as_completed(requests):
        each.result()
    finally:
      # After a failure or Ctrl-C the other requests do not wait any longer.
      stop.set()
      for each in requests:
        each.cancel()
    return [[one for each in row for one in each.result()] for row in rows]

  def _sample(
    self,
    question: str,
    prefix: Prefix,
    seeds: np.ndarray,
    stop: threading.Event,
  ) -> list[Candidate]:
    """Sends one request, or finds its answer in the journal."""
    body = self._body(question, prefix, int(seeds[0]), len(seeds))
    key = hashlib.sha256(body).hexdigest()
    answer = self._journal.get(key)
    if answer is None:
      answer = self._ask(body, question, prefix, len(seeds), stop)
      answer = self._journal.put(key, answer)
    if "choices" not in answer:
      with self._lock:
        self.set_aside += 1
      return [Candidate("", (), 0.0, answer["finish"])] * len(seeds)
    return candidates(answer, prefix, self._most_tokens)

  def _ask(
    self,
    body: bytes,
    question: str,
    prefix: Prefix,
    count: int,
    stop: threading.Event,
  ) -> dict[str, Any]:
    """Returns the server's answer, or why there is none."""

    def read(answer: Any) -> list[Candidate]:
      found = candidates(answer, prefix, self._most_tokens)
      if len(found) != count:
        raise outside.Bad(
          f"gave {len(found)} of {count} samples: set "
          "config.remote.samples_per_request=1 in another --workdir"
        )
      return found

    finish: Finish
    try:
      answer, found = self._servers.ask(body, stop, read, question)
    except PromptTooLong as error:
      finish, why = "length", str(error)
    except BadAnswer as error:
      finish, why = "lost", str(error)
    else:
      with self._lock:
        self.generated_tokens += sum(len(each.token_ids) for each in found)
      return answer
    logging.log_every_n_seconds(logging.WARNING, "a step is lost: %s", 10, why)
    return {"finish": finish, "why": why}

  def _body(self, question: str, prefix: Prefix, seed: int, n: int) -> bytes:
    """Returns a request as JSON: equal requests are equal bytes."""
    config = self._config
    request = {
      "model": config.model,
      "prompt": self._prompt(question) + "".join(prefix),
      "n": n,
      "seed": seed,
      "temperature": config.temperature,
      "top_p": config.top_p,
      "max_tokens": config.max_tokens,
      "stop": list(grammar.FINISHES),
      **self._extra,
    }
    return json.dumps(request, sort_keys=True).encode()


def most_tokens(config: RemoteConfig) -> int:
  """Returns how many tokens a server may count for one choice."""
  extra = outside.parse(config.extra or "{}")
  asked = extra.get("max_tokens", config.max_tokens)
  return _TIMES * asked if type(asked) is int else _MANY


def readable(config: RemoteConfig) -> Callable[[Any], None]:
  """Returns the check of a journal's answers; it raises `outside.Bad`."""

  def check(answer: Any) -> None:
    lost = isinstance(answer, dict) and answer.get("finish") in _LOSSES
    if not lost or "choices" in answer:
      candidates(answer, (), most_tokens(config))

  return check


def candidates(
  answer: Any, prefix: Prefix, most: int = _MANY
) -> list[Candidate]:
  """Reads the steps from a server's answer.

  The step's closing marker is a stop string. Most servers cut it off, and it is
  put back. The marker is known
    - from the text, if the server leaves it there (transformers);
    - from `stop_reason` (vLLM) or `matched_stop` (SGLang); any other value than
      a marker is the end of text;
    - otherwise (llama.cpp) from the grammar: after closed code comes an answer,
      the comment `prompts.LAST_STEP` marks the last step, and everything else
      is a step. Such a server does not tell the end of text from a marker.

  Args:
    answer: the JSON of `/completions`, not streamed.
    prefix: the nodes before the step.
    most: tokens of a choice.

  Returns:
    A candidate for each choice, by index if any has one. Its `token_ids` are
    ids of the *server's* tokenizer if given (vLLM: `return_token_ids`;
    llama.cpp: logprobs). Otherwise they are `UNKNOWN_ID`s, as many as there are
    log-probabilities, or an equal share of `usage.completion_tokens`. Their
    number is thus the number of paid tokens, exact in sum over the choices. Its
    `logprob` is the sum of the given ones (llama.cpp: after its sampling
    filters), nan if there are none, or one is null.

  Raises:
    Bad: it is no such answer, has neither tokens nor usage, or more than `most`
      tokens.
  """
  if not isinstance(answer, dict) or not answer.get("choices"):
    raise outside.Bad(
      f"is without choices: {json.dumps(answer)[:200]}; is it a completions "
      "server?"
    )
  choices = outside.sequence(answer["choices"], "choices", dict)
  if any("index" in each for each in choices):
    choices = by_index(choices)
  usage = answer.get("usage")
  total = usage.get("completion_tokens") if isinstance(usage, dict) else None
  if total is not None:
    name = "usage.completion_tokens"
    outside.integer(total, name, 0, most * len(choices))
  found = []
  for number, choice in enumerate(choices):
    text = outside.string(choice.get("text"), "text", _CHARACTERS * most)
    text, finish = _closed(text, choice, prefix)
    ids, logprob = _tokens(choice, most)
    if ids is None:
      if total is None:
        raise outside.Bad(
          "has no usage.completion_tokens: in another --workdir ask in "
          "config.remote.extra for what tells the number of tokens"
        )
      share = total // len(choices) + (number < total % len(choices))
      ids = (UNKNOWN_ID,) * share
    found.append(Candidate(grammar.without_margin(text), ids, logprob, finish))
  return found


def _closed(
  text: str, choice: dict[str, Any], prefix: Prefix
) -> tuple[str, Finish]:
  """Returns a choice's text with its closing marker, and its finish."""
  reason = choice.get("finish_reason")
  if marker := _CLOSING.search(text):
    return text[: marker.end()], grammar.FINISHES[marker.group()]
  if reason != "stop":
    return text, "length" if reason == "length" else "eos"
  given = [name for name in ("stop_reason", "matched_stop") if name in choice]
  stop = choice[given[0]] if given else _likely_stop(text, prefix)
  if isinstance(stop, str) and stop in grammar.FINISHES:
    return text + stop, grammar.FINISHES[stop]
  return text, "eos"


def _likely_stop(text: str, prefix: Prefix) -> str:
  """Guesses which marker stopped a text, from the grammar."""
  if prefix and grammar.END_OF_CODE in prefix[-1]:
    return grammar.END_OF_ANSWER
  last = prompts.LAST_STEP.lower() in text.lower()
  return grammar.END_OF_CODE if last else grammar.END_OF_STEP


def _tokens(
  choice: dict[str, Any], most: int
) -> tuple[tuple[int, ...] | None, float]:
  """Returns a choice's ids, None if it has none, and its logprob."""
  logprobs = choice.get("logprobs") or {}
  if not isinstance(logprobs, dict):
    raise outside.Bad("has logprobs that are no object")
  # OpenAI: {"token_logprobs": []}; llama.cpp: {"content": [{"id", "logprob"}]}.
  content = outside.sequence(logprobs.get("content") or [], "content", dict)
  values = logprobs.get("token_logprobs") or [e.get("logprob") for e in content]
  ids = choice.get("token_ids") or [e.get("id", UNKNOWN_ID) for e in content]
  values = outside.sequence(values, "token_logprobs", int | float | None)
  for each in outside.sequence(ids, "token_ids", int):
    outside.integer(each, "id of a token", UNKNOWN_ID, MOST_ID)
  if max(len(ids), len(values)) > most:
    raise outside.Bad(f"has more than {most} tokens in one sample")
  logprob = math.nan
  if values and None not in values:
    logprob = math.fsum(
      outside.real(each, "log-probability", MOST_REAL) for each in values
    )
  if ids or values:
    return tuple(ids) or (UNKNOWN_ID,) * len(values), logprob
  return None, logprob
