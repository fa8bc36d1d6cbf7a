"""Requests to servers in token ids, and their answers.

Two protocols: OpenAI's completions with what vLLM adds to them, and SGLang's
own. Neither server's tokenizer is used: ids go in, ids come out. Requests are
equal bytes where what is asked is equal.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from rstar_jax import outside
from rstar_jax.config.schema import EngineConfig, ServersConfig

# The ids of a sample and their log-probabilities, in nats.
Sample = tuple[tuple[int, ...], tuple[float, ...]]

# So little of the probability that only the likeliest token is left.
_LEAST_P = 1e-6

# A log-probability, a raw value and an id of a token are smaller.
_MOST_REAL, _MOST_ID = 1e6, 1 << 31


@dataclasses.dataclass(frozen=True)
class Asked:
  """A sample that is asked for.

  Attributes:
    ids: the prompt.
    seed: of the sample.
    most: tokens.
    stop_ids: ids that end it, and belong to it.
    stop_texts: texts that end it.
    likeliest: whether its tokens are the likeliest ones; its log-probabilities
      are still those of a sample.
  """

  ids: Sequence[int]
  seed: int
  most: int
  stop_ids: Sequence[int] = ()
  stop_texts: Sequence[str] = ()
  likeliest: bool = False


@dataclasses.dataclass(frozen=True)
class Reading:
  """Where a server's answer has the raw value of a path.

  Attributes:
    of: "classify", a number for each label, at the path's last token;
      "token_classify", such numbers at each token, or each that ends a step, of
      which the last count; "answers", the log-probabilities of next tokens.
    pair: the labels or the tokens of a good and of a bad step, whose difference
      it is. None: the only label. A server that gives one number for a pair has
      made the difference itself.
  """

  of: Literal["classify", "token_classify", "answers"] = "classify"
  pair: tuple[int, int] | None = None


# Of a PPM, and of any classifier with one label.
ONE_LABEL = Reading()


class Speaks(Protocol):
  """A protocol."""

  def sampling_url(self, base: str) -> str:
    """Returns where samples are asked for, by the base of a server."""
    ...

  def scoring_url(self, base: str, reading: Reading = ONE_LABEL) -> str:
    """Returns where values are asked for."""
    ...

  def sampling(self, asked: Asked, engine: EngineConfig) -> bytes:
    """Returns the request of a sample."""
    ...

  def scoring(
    self, paths: Sequence[Sequence[int]], reading: Reading = ONE_LABEL
  ) -> bytes:
    """Returns the request of raw values."""
    ...

  def sample(self, answer: Any, most: int) -> Sample:
    """Reads a sample of at most so many tokens; raises `outside.Bad`."""
    ...

  def values(
    self, answer: Any, count: int, reading: Reading = ONE_LABEL
  ) -> list[float]:
    """Reads raw values; raises `outside.Bad`."""
    ...


def of(config: ServersConfig) -> Speaks:
  """Returns the protocol of servers."""
  if config.protocol == "openai":
    return OpenAi(config.model)
  return SgLang(seeds=config.protocol == "sglang")


@dataclasses.dataclass(frozen=True)
class OpenAi:
  """`/v1/completions` and `/pooling`: vLLM, and `rstar_jax.tools.serve`.

  Attributes:
    model: its name there; "" for the only one.
  """

  model: str = ""

  def sampling_url(self, base: str) -> str:
    return f"{base}/completions"

  def scoring_url(self, base: str, reading: Reading = ONE_LABEL) -> str:
    if reading.of == "answers":
      return self.sampling_url(base)
    return f"{base.removesuffix('/v1')}/pooling"

  def sampling(self, asked: Asked, engine: EngineConfig) -> bytes:
    return self._body(
      prompt=list(asked.ids),
      seed=asked.seed,
      max_tokens=asked.most,
      stop_token_ids=sorted(asked.stop_ids),
      # Only what ends a sample here ends it there.
      ignore_eos=True,
      logprobs=0,
      return_token_ids=True,
      skip_special_tokens=False,
      **({"stop": list(asked.stop_texts)} if asked.stop_texts else {}),
      **_sampling(engine, {"top_k": 1} if asked.likeliest else {}),
    )

  def scoring(
    self, paths: Sequence[Sequence[int]], reading: Reading = ONE_LABEL
  ) -> bytes:
    given = [list(path) for path in paths]
    if reading.of == "answers":
      return self._body(
        prompt=given,
        max_tokens=1,
        temperature=0.0,
        logprobs=1,
        logprob_token_ids=list(reading.pair or ()),
        return_tokens_as_token_ids=True,
      )
    return self._body(input=given, task=reading.of, use_activation=False)

  def sample(self, answer: Any, most: int) -> Sample:
    choices = _items(answer, "choices")
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
    return _sample(ids, logprobs, most)

  def values(
    self, answer: Any, count: int, reading: Reading = ONE_LABEL
  ) -> list[float]:
    answers = reading.of == "answers"
    rows = sorted(
      _items(answer, "choices" if answers else "data"),
      key=lambda row: outside.integer(row.get("index"), "index", 0, count),
    )
    if answers:
      found = [_named(row.get("logprobs"), reading) for row in rows]
      return _values(found, count, dataclasses.replace(reading, pair=(0, 1)))
    return _values([row.get("data") for row in rows], count, reading)

  def _body(self, **fields: Any) -> bytes:
    named = {"model": self.model} if self.model else {}
    return json.dumps(named | fields, sort_keys=True).encode()


@dataclasses.dataclass(frozen=True)
class SgLang:
  """`/generate` and `/classify`.

  The end of the text ends a sample, too: `ignore_eos` would have it pass by
  `stop_token_ids` as well.

  Attributes:
    seeds: whether the server takes them.
  """

  seeds: bool = True

  def sampling_url(self, base: str) -> str:
    return f"{base.removesuffix('/v1')}/generate"

  def scoring_url(self, base: str, reading: Reading = ONE_LABEL) -> str:
    if reading.of == "answers":
      return self.sampling_url(base)
    return f"{base.removesuffix('/v1')}/classify"

  def sampling(self, asked: Asked, engine: EngineConfig) -> bytes:
    # Not `top_k=1`: what is greedy has log-probabilities at temperature 1, and
    # what is sampled need not have them.
    only = {"top_p": _LEAST_P} if asked.likeliest else {}
    fields = {
      "max_new_tokens": asked.most,
      "stop_token_ids": sorted(asked.stop_ids),
      "skip_special_tokens": False,
      **_sampling(engine, only),
    }
    if asked.stop_texts:
      fields["stop"] = list(asked.stop_texts)
    if self.seeds:
      fields["sampling_seed"] = asked.seed
    return _json(
      input_ids=list(asked.ids), sampling_params=fields, return_logprob=True
    )

  def scoring(
    self, paths: Sequence[Sequence[int]], reading: Reading = ONE_LABEL
  ) -> bytes:
    given = [list(path) for path in paths]
    if reading.of == "answers":
      return _json(
        input_ids=given,
        sampling_params={"max_new_tokens": 1, "temperature": 0.0},
        return_logprob=True,
        token_ids_logprob=[list(reading.pair or ())] * len(given),
      )
    return _json(input_ids=given)

  def sample(self, answer: Any, most: int) -> Sample:
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
    return _sample([e[1] for e in found], [e[0] for e in found], most)

  def values(
    self, answer: Any, count: int, reading: Reading = ONE_LABEL
  ) -> list[float]:
    rows = outside.sequence(answer, "answer", dict)
    if reading.of == "answers":
      found = [_listed(row.get("meta_info"), reading) for row in rows]
      return _values(found, count, dataclasses.replace(reading, pair=(0, 1)))
    # It pools the last token of any classifier.
    reading = dataclasses.replace(reading, of="classify")
    return _values([row.get("embedding") for row in rows], count, reading)


def _json(**fields: Any) -> bytes:
  return json.dumps(fields, sort_keys=True).encode()


def _sampling(engine: EngineConfig, only: dict[str, Any]) -> dict[str, Any]:
  """Returns how tokens are drawn, but for what is not restricted.

  Args:
    engine: the run's.
    only: what leaves the likeliest token alone; empty for a sample.
  """
  if only:
    # Not at temperature 0: an answer tells whether log-probabilities are those
    # at temperature 1, whatever the temperature.
    return {"temperature": engine.temperature or 1.0, **only}
  found: dict[str, Any] = {"temperature": engine.temperature}
  if engine.temperature:
    found["top_p"] = engine.top_p
    if engine.top_k:
      found["top_k"] = engine.top_k
    if engine.min_p:
      found["min_p"] = engine.min_p
  return found


def _items(answer: Any, name: str) -> list[dict[str, Any]]:
  found = answer.get(name) if isinstance(answer, dict) else None
  if not found:
    raise outside.Bad(f"is without {name}: {json.dumps(answer)[:200]}")
  return outside.sequence(found, name, dict)


def _sample(ids: Any, logprobs: Any, most: int) -> Sample:
  for each in outside.sequence(ids, "token_ids", int):
    outside.integer(each, "id of a token", 0, _MOST_ID)
  if logprobs is None:
    raise outside.Bad("has no log-probabilities of its tokens")
  found = [
    outside.real(each, "log-probability", _MOST_REAL)
    for each in outside.sequence(logprobs, "log-probabilities", object)
  ]
  if not 0 < len(ids) <= most or len(ids) != len(found):
    raise outside.Bad(
      f"has {len(ids)} tokens and {len(found)} log-probabilities, want 1 to "
      f"{most} of both"
    )
  return tuple(ids), tuple(found)


def _named(logprobs: Any, reading: Reading) -> list[Any]:
  """Returns the log-probabilities of the answers, of a dict by their names."""
  tops = logprobs.get("top_logprobs") if isinstance(logprobs, dict) else None
  first = tops[0] if isinstance(tops, list) and tops else None
  if not isinstance(first, dict):
    raise outside.Bad("has no top_logprobs")
  return _both(
    {key: first.get(f"token_id:{key}") for key in reading.pair or ()}
  )


def _listed(meta: Any, reading: Reading) -> list[Any]:
  """Returns the log-probabilities of the answers, of [logprob, id, text]s."""
  rows = meta.get("output_token_ids_logprobs") if isinstance(meta, dict) else []
  first = rows[0] if isinstance(rows, list) and rows else None
  known = {}
  for each in outside.sequence(first, "output_token_ids_logprobs", list):
    if len(each) > 1 and isinstance(each[1], int):
      known[each[1]] = each[0]
  return _both({key: known.get(key) for key in reading.pair or ()})


def _both(found: dict[int, Any]) -> list[Any]:
  for key, value in found.items():
    if value is None:
      raise outside.Bad(
        f"has no log-probability of token {key}: the server has to know "
        "logprob_token_ids, as vLLM does, or token_ids_logprob, as SGLang"
      )
  return list(found.values())


def _values(rows: list[Any], count: int, reading: Reading) -> list[float]:
  if len(rows) != count:
    raise outside.Bad(f"has {len(rows)} values of {count} paths")
  most = 1 if reading.pair is None else 2
  found = []
  for row in rows:
    numbers = outside.sequence(row, "values", object)
    if reading.of == "token_classify" and numbers:
      numbers = outside.sequence(numbers[-1], "values", object)
    if not 1 <= len(numbers) <= most:
      raise outside.Bad(
        f"has {len(numbers)} numbers for a path, want {most}: it has to be a "
        "classifier with as many labels, read at the last token"
      )
    values = [outside.real(each, "value", _MOST_REAL) for each in numbers]
    if not all(map(math.isfinite, values)):
      raise outside.Bad("has a value that is no number")
    if len(values) == 2 and reading.pair is not None:
      good, bad = reading.pair
      values = [values[good] - values[bad]]
    found.append(values[0])
  return found
