"""A large model behind a completions server as the search's `Expand`.

The paper makes round 1 with a model of 236B parameters (section 3.4). Here it
is any model behind OpenAI's `POST /completions`; vLLM, SGLang, llama.cpp and
transformers answer differently, and all are understood.
"""

import concurrent.futures
import hashlib
import json
import math
import re
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from rstar_jax.config.schema import RemoteConfig
from rstar_jax.inference.completions import Completions, PromptTooLong
from rstar_jax.steps import grammar, prompts
from rstar_jax.storage.journal import Journal
from rstar_jax.types import Candidate, Finish, Prefix

# Stands for an id that the server did not give.
UNKNOWN_ID = -1

_CLOSING = re.compile("|".join(map(re.escape, grammar.FINISHES)))


class Remote:
  """Samples next steps from a server; threads may share it.

  Each answer goes to the journal, under a hash of the request. A request in the
  journal is not sent again: a run that was killed pays for nothing twice and
  gets the same trees, though the server is not deterministic.

  Attributes:
    generated_tokens: tokens from the server, without those from the journal.
  """

  def __init__(self, config: RemoteConfig, journal: Journal):
    """Makes the client, without a request.

    Raises:
      ValueError: the environment lacks the API key.
    """
    self.generated_tokens = 0
    self._config = config
    self._journal = journal
    self._completions = Completions(config)
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
      the model's context they are empty, with the finish "length".

    Raises:
      ValueError: the server refuses a request, or gives too few samples.
      ConnectionError: the server did not answer for `patience_seconds`. Its
        earlier answers are in the journal.
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
      # After a failure or Ctrl-C the other requests stop waiting.
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
    if answer is not None:
      return candidates(answer, prefix)
    try:
      answer = self._completions.ask(body, stop)
    except PromptTooLong as error:
      logging.log_every_n_seconds(
        logging.WARNING, "a step is lost: %s", 10, error
      )
      return [Candidate("", (), 0.0, "length")] * len(seeds)
    if len(answer["choices"]) != len(seeds):
      raise ValueError(
        f"{self._config.url} gave {len(answer['choices'])} of {len(seeds)} "
        "samples: set config.remote.samples_per_request=1 in another --workdir"
      )
    found = candidates(self._journal.put(key, answer), prefix)
    with self._lock:
      self.generated_tokens += sum(len(each.token_ids) for each in found)
    return found

  def _body(self, question: str, prefix: Prefix, seed: int, n: int) -> bytes:
    """Returns a request as JSON: equal requests are equal bytes."""
    config = self._config
    request = {
      "model": config.model,
      "prompt": prompts.bootstrap_prompt(question) + "".join(prefix),
      "n": n,
      "seed": seed,
      "temperature": config.temperature,
      "top_p": config.top_p,
      "max_tokens": config.max_tokens,
      "stop": list(grammar.FINISHES),
      **json.loads(config.extra or "{}"),
    }
    return json.dumps(request, sort_keys=True).encode()


def candidates(answer: dict[str, Any], prefix: Prefix) -> list[Candidate]:
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

  Returns:
    A candidate for each choice, by index. Its `token_ids` are ids of the
    *server's* tokenizer if given (vLLM: `return_token_ids`; llama.cpp:
    logprobs). Otherwise they are `UNKNOWN_ID`s, as many as there are
    log-probabilities, or an equal share of `usage.completion_tokens`. Their
    number is thus the number of paid tokens, exact in sum over the choices. Its
    `logprob` is the sum of the given ones (llama.cpp: after its sampling
    filters), nan if there are none.

  Raises:
    ValueError: the answer has neither tokens nor usage.
  """
  choices = sorted(answer["choices"], key=lambda each: each.get("index", 0))
  total = (answer.get("usage") or {}).get("completion_tokens")
  found = []
  for number, choice in enumerate(choices):
    text, finish = _closed(choice, prefix)
    ids, logprob = _tokens(choice)
    if ids is None:
      if total is None:
        raise ValueError(
          "the server gives no usage.completion_tokens: in another --workdir "
          "ask in config.remote.extra for what tells the number of tokens"
        )
      share = total // len(choices) + (number < total % len(choices))
      ids = (UNKNOWN_ID,) * share
    found.append(Candidate(grammar.without_margin(text), ids, logprob, finish))
  return found


def _closed(choice: dict[str, Any], prefix: Prefix) -> tuple[str, Finish]:
  """Returns a choice's text with its closing marker, and its finish."""
  text, reason = choice["text"], choice.get("finish_reason")
  if marker := _CLOSING.search(text):
    return text[: marker.end()], grammar.FINISHES[marker.group()]
  if reason != "stop":
    return text, "length" if reason == "length" else "eos"
  given = [name for name in ("stop_reason", "matched_stop") if name in choice]
  stop = choice[given[0]] if given else _likely_stop(text, prefix)
  if stop in grammar.FINISHES:
    return text + stop, grammar.FINISHES[stop]
  return text, "eos"


def _likely_stop(text: str, prefix: Prefix) -> str:
  """Guesses which marker stopped a text, from the grammar."""
  if prefix and grammar.END_OF_CODE in prefix[-1]:
    return grammar.END_OF_ANSWER
  last = prompts.LAST_STEP.lower() in text.lower()
  return grammar.END_OF_CODE if last else grammar.END_OF_STEP


def _tokens(choice: dict[str, Any]) -> tuple[tuple[int, ...] | None, float]:
  """Returns a choice's ids, None if it has none, and its logprob."""
  logprobs = choice.get("logprobs") or {}
  # OpenAI: {"token_logprobs": []}; llama.cpp: {"content": [{"id", "logprob"}]}.
  content = logprobs.get("content") or []
  values = logprobs.get("token_logprobs") or [e["logprob"] for e in content]
  ids = choice.get("token_ids") or [e.get("id", UNKNOWN_ID) for e in content]
  logprob = math.fsum(values) if values else math.nan
  if ids or values:
    return tuple(ids) or (UNKNOWN_ID,) * len(values), logprob
  return None, logprob
