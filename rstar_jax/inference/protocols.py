"""The protocols of model servers, in token ids: requests and their answers.

There are two: OpenAI's completions with vLLM's additions, and SGLang's own. No
server's tokenizer is used: ids go in and ids come out. Equal requests are equal
bytes.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any, Literal

from rstar_jax import outside
from rstar_jax.config.schema import EngineConfig, ServersConfig

# The ids of a sample and their log-probabilities, in nats.
Sample = tuple[tuple[int, ...], tuple[float, ...]]

# A `top_p` that leaves only the likeliest token.
_LEAST_P = 1e-6

# What vLLM takes from the model's generation_config.json if it is not said.
_NEUTRAL = {
  **{"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
  **{"frequency_penalty": 0.0, "presence_penalty": 0.0},
}

# Bounds of log-probabilities and raw values, and of token ids.
MOST_REAL, MOST_ID = 1e6, 1 << 31


@dataclasses.dataclass(frozen=True)
class SampleRequest:
  """A request for one sample.

  Attributes:
    ids: the prompt.
    seed: below 2**32.
    max_tokens: at least 1.
    stop_ids: ids that end the sample, and belong to it.
    stop_texts: texts that end the sample.
    likeliest: whether only the likeliest tokens are drawn. Their
      log-probabilities are still those of sampling.
  """

  ids: Sequence[int]
  seed: int
  max_tokens: int
  stop_ids: Sequence[int] = ()
  stop_texts: Sequence[str] = ()
  likeliest: bool = False


@dataclasses.dataclass(frozen=True)
class Reading:
  """Where a server's answer has the raw value of a path.

  Attributes:
    source: "classify", a number for each label, at the path's last token;
      "token_classify", such numbers at each token, or at each that ends a step,
      of which the last ones count; "answers", the log-probabilities of next
      tokens.
    pair: the labels or the token ids of a good and of a bad step; the raw value
      is their difference. None is the only label. A server that returns one
      number for a pair has subtracted already.
  """

  source: Literal["classify", "token_classify", "answers"] = "classify"
  pair: tuple[int, int] | None = None


# A PPM's, and that of any classifier with one label.
ONE_LABEL = Reading()


@dataclasses.dataclass(frozen=True)
class OpenAi:
  """`/v1/completions` and `/pooling`: vLLM, and `rstar_jax.tools.serve_engine`.

  `SgLang` has the same methods.

  Attributes:
    model: the model's name on the server; "" for the only one.
  """

  model: str = ""

  def sampling_url(self, base: str) -> str:
    """Returns the URL that samples are requested from, of a server's base."""
    return f"{base}/completions"

  def scoring_url(self, base: str, reading: Reading = ONE_LABEL) -> str:
    """Returns the URL that raw values are requested from."""
    if reading.source == "answers":
      return self.sampling_url(base)
    return f"{base.removesuffix('/v1')}/pooling"

  def sampling_request(
    self, request: SampleRequest, engine: EngineConfig
  ) -> bytes:
    """Returns the body of a request for a sample, JSON."""
    return self._body(
      prompt=list(request.ids),
      seed=request.seed,
      max_tokens=request.max_tokens,
      stop_token_ids=sorted(request.stop_ids),
      # The server ends a sample only where the request says so.
      ignore_eos=True,
      logprobs=0,
      return_token_ids=True,
      skip_special_tokens=False,
      **({"stop": list(request.stop_texts)} if request.stop_texts else {}),
      **_NEUTRAL
      | _sampling_fields(engine, {"top_k": 1} if request.likeliest else {}),
    )

  def scoring_request(
    self, paths: Sequence[Sequence[int]], reading: Reading = ONE_LABEL
  ) -> bytes:
    """Returns the body of a request for the raw values of paths, JSON."""
    given = [list(path) for path in paths]
    if reading.source == "answers":
      return self._body(
        prompt=given,
        max_tokens=1,
        temperature=0.0,
        logprobs=1,
        logprob_token_ids=list(reading.pair or ()),
        return_tokens_as_token_ids=True,
      )
    return self._body(input=given, task=reading.source, use_activation=False)

  def read_sample(self, answer: Any, most: int) -> Sample:
    """Returns the sample of an answer, of 1 to `most` tokens.

    Raises:
      outside.Bad: the answer is none.
    """
    choices = _rows_of(answer, "choices")
    if len(choices) != 1:
      raise outside.Bad(f"has {len(choices)} choices, want 1")
    ids, logprobs = choices[0].get("token_ids"), choices[0].get("logprobs")
    if ids is None:
      raise outside.Bad(
        "has no token_ids: the server has to know return_token_ids, as vLLM "
        "does"
      )
    if isinstance(logprobs, dict):
      logprobs = logprobs.get("token_logprobs")
    return _checked_sample(ids, logprobs, most)

  def read_values(
    self, answer: Any, count: int, reading: Reading = ONE_LABEL
  ) -> list[float]:
    """Returns the raw values of an answer, one for each of `count` paths.

    Raises:
      outside.Bad: the answer is none.
    """
    answers = reading.source == "answers"
    rows = by_index(_rows_of(answer, "choices" if answers else "data"))
    if answers:
      found = [_logprobs_by_name(row.get("logprobs"), reading) for row in rows]
      return _checked_values(found, count, (0, 1))
    return _checked_values(
      [row.get("data") for row in rows],
      count,
      reading.pair,
      by_token=reading.source == "token_classify",
    )

  def _body(self, **fields: Any) -> bytes:
    named = {"model": self.model} if self.model else {}
    return json.dumps(named | fields, sort_keys=True).encode()


@dataclasses.dataclass(frozen=True)
class SgLang:
  """`/generate` and `/classify`; see `OpenAi` for the methods.

  The end of the text ends a sample, too: `ignore_eos` would make SGLang ignore
  `stop_token_ids` as well.

  Attributes:
    seeds: whether the server takes seeds.
  """

  seeds: bool = True

  def sampling_url(self, base: str) -> str:
    return f"{base.removesuffix('/v1')}/generate"

  def scoring_url(self, base: str, reading: Reading = ONE_LABEL) -> str:
    if reading.source == "answers":
      return self.sampling_url(base)
    return f"{base.removesuffix('/v1')}/classify"

  def sampling_request(
    self, request: SampleRequest, engine: EngineConfig
  ) -> bytes:
    # Not `top_k=1`: SGLang gives greedy tokens log-probabilities at temperature
    # 1, which sampled tokens need not have.
    only = {"top_p": _LEAST_P} if request.likeliest else {}
    fields = {
      "max_new_tokens": request.max_tokens,
      "stop_token_ids": sorted(request.stop_ids),
      "skip_special_tokens": False,
      **_sampling_fields(engine, only),
    }
    if request.stop_texts:
      fields["stop"] = list(request.stop_texts)
    if self.seeds:
      fields["sampling_seed"] = request.seed
    return _json(
      input_ids=list(request.ids), sampling_params=fields, return_logprob=True
    )

  def scoring_request(
    self, paths: Sequence[Sequence[int]], reading: Reading = ONE_LABEL
  ) -> bytes:
    given = [list(path) for path in paths]
    if reading.source == "answers":
      return _json(
        input_ids=given,
        sampling_params={"max_new_tokens": 1, "temperature": 0.0},
        return_logprob=True,
        token_ids_logprob=[list(reading.pair or ())] * len(given),
      )
    return _json(input_ids=given)

  def read_sample(self, answer: Any, most: int) -> Sample:
    meta = answer.get("meta_info") if isinstance(answer, dict) else None
    found = (
      meta.get("output_token_logprobs") if isinstance(meta, dict) else None
    )
    if not isinstance(found, list):
      raise outside.Bad(
        "has no meta_info.output_token_logprobs: is it an SGLang server?"
      )
    # [logprob, id, text] of each token.
    for each in outside.sequence(found, "output_token_logprobs", list):
      if len(each) < 2:
        raise outside.Bad("has a token without an id")
    return _checked_sample([e[1] for e in found], [e[0] for e in found], most)

  def read_values(
    self, answer: Any, count: int, reading: Reading = ONE_LABEL
  ) -> list[float]:
    rows = outside.sequence(answer, "answer", dict)
    if reading.source == "answers":
      found = [_logprobs_by_id(row.get("meta_info"), reading) for row in rows]
      return _checked_values(found, count, (0, 1))
    # SGLang pools the last token of any classifier.
    return _checked_values(
      [row.get("embedding") for row in rows], count, reading.pair
    )


def protocol_of(config: ServersConfig) -> OpenAi | SgLang:
  """Returns the protocol of the servers that a config names."""
  if config.protocol == "openai":
    return OpenAi(config.model)
  return SgLang(seeds=config.protocol == "sglang")


def by_index(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """Returns the rows of an answer by their `index`, one of each from 0.

  Raises:
    outside.Bad: an index is missing, or comes twice.
  """
  found: dict[int, dict[str, Any]] = {}
  for row in rows:
    index = outside.integer(row.get("index"), "index", 0, len(rows) - 1)
    if index in found:
      raise outside.Bad(f"has index {index} twice")
    found[index] = row
  return [found[index] for index in sorted(found)]


def _json(**fields: Any) -> bytes:
  return json.dumps(fields, sort_keys=True).encode()


def _sampling_fields(
  engine: EngineConfig, only: dict[str, Any]
) -> dict[str, Any]:
  """Returns the fields that restrict which tokens are drawn, and how.

  Args:
    engine: the run's sampling.
    only: the fields that leave only the likeliest token; empty for a sample.
  """
  if only:
    # Not temperature 0: the answer has to show whether the server's
    # log-probabilities are those at temperature 1, whatever the temperature.
    return {"temperature": engine.temperature or 1.0, **only}
  found: dict[str, Any] = {"temperature": engine.temperature}
  if engine.temperature:
    found["top_p"] = engine.top_p
    if engine.top_k:
      found["top_k"] = engine.top_k
    if engine.min_p:
      found["min_p"] = engine.min_p
  return found


def _rows_of(answer: Any, name: str) -> list[dict[str, Any]]:
  found = answer.get(name) if isinstance(answer, dict) else None
  if not found:
    raise outside.Bad(f"is without {name}: {json.dumps(answer)[:200]}")
  return outside.sequence(found, name, dict)


def _checked_sample(ids: Any, logprobs: Any, most: int) -> Sample:
  for each in outside.sequence(ids, "token_ids", int):
    outside.integer(each, "id of a token", 0, MOST_ID)
  if logprobs is None:
    raise outside.Bad("has no log-probabilities of its tokens")
  found = [
    outside.real(each, "log-probability", MOST_REAL)
    for each in outside.sequence(logprobs, "log-probabilities", object)
  ]
  if not 0 < len(ids) <= most or len(ids) != len(found):
    raise outside.Bad(
      f"has {len(ids)} tokens and {len(found)} log-probabilities, want 1 to "
      f"{most} of both"
    )
  return tuple(ids), tuple(found)


def _logprobs_by_name(logprobs: Any, reading: Reading) -> list[Any]:
  """Returns the log-probabilities of the answers, which OpenAI's form names."""
  tops = logprobs.get("top_logprobs") if isinstance(logprobs, dict) else None
  first = tops[0] if isinstance(tops, list) and tops else None
  if not isinstance(first, dict):
    raise outside.Bad("has no top_logprobs")
  return _complete(
    {key: first.get(f"token_id:{key}") for key in reading.pair or ()}
  )


def _logprobs_by_id(meta: Any, reading: Reading) -> list[Any]:
  """Returns the log-probabilities of the answers, of SGLang's lists."""
  rows = meta.get("output_token_ids_logprobs") if isinstance(meta, dict) else []
  first = rows[0] if isinstance(rows, list) and rows else None
  known = {}
  for each in outside.sequence(first, "output_token_ids_logprobs", list):
    if len(each) > 1 and isinstance(each[1], int):
      known[each[1]] = each[0]
  return _complete({key: known.get(key) for key in reading.pair or ()})


def _complete(found: dict[int, Any]) -> list[Any]:
  for key, value in found.items():
    if value is None:
      raise outside.Bad(
        f"has no log-probability of token {key}: the server has to know "
        "logprob_token_ids, as vLLM does, or token_ids_logprob, as SGLang"
      )
  return list(found.values())


def _checked_values(
  rows: list[Any],
  count: int,
  pair: tuple[int, int] | None,
  *,
  by_token: bool = False,
) -> list[float]:
  """Returns the raw value of each row.

  Args:
    rows: numbers for each path.
    count: number of paths.
    pair: see `Reading`, here as indices of a row.
    by_token: whether a row has numbers for each token, of which the last count.
  """
  if len(rows) != count:
    raise outside.Bad(f"has {len(rows)} values of {count} paths")
  most = 1 if pair is None else 2
  found = []
  for row in rows:
    numbers = outside.sequence(row, "values", object)
    if by_token and numbers:
      numbers = outside.sequence(numbers[-1], "values", object)
    if not 1 <= len(numbers) <= most:
      raise outside.Bad(
        f"has {len(numbers)} numbers for a path, want {most}: it has to be a "
        "classifier with as many labels, read at the last token"
      )
    values = [outside.real(each, "value", MOST_REAL) for each in numbers]
    if not all(map(math.isfinite, values)):
      raise outside.Bad("has a value that is no number")
    if len(values) == 2:
      good, bad = pair
      values = [values[good] - values[bad]]
    found.append(values[0])
  return found
