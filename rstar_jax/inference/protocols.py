"""What servers are asked in token ids, and what they answer.

Two protocols: OpenAI's completions with what vLLM adds to them, and SGLang's
own. Neither server's tokenizer is used: ids go in, ids come out. Requests are
equal bytes where what is asked is equal.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any, Protocol

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


class Speaks(Protocol):
  """A protocol."""

  def sampling_url(self, base: str) -> str:
    """Returns where samples are asked for, by the base of a server."""
    ...

  def scoring_url(self, base: str) -> str:
    """Returns where values are asked for."""
    ...

  def sampling(self, asked: Asked, engine: EngineConfig) -> bytes:
    """Returns the request of a sample."""
    ...

  def scoring(self, paths: Sequence[Sequence[int]]) -> bytes:
    """Returns the request of raw values, those of a classifier's one label."""
    ...

  def sample(self, answer: Any, most: int) -> Sample:
    """Reads a sample of at most so many tokens; raises `outside.Bad`."""
    ...

  def values(self, answer: Any, count: int) -> list[float]:
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

  def scoring_url(self, base: str) -> str:
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

  def scoring(self, paths: Sequence[Sequence[int]]) -> bytes:
    return self._body(
      input=[list(path) for path in paths],
      task="classify",
      use_activation=False,
    )

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

  def values(self, answer: Any, count: int) -> list[float]:
    rows = sorted(
      _items(answer, "data"),
      key=lambda row: outside.integer(row.get("index"), "index", 0, count),
    )
    return _values([row.get("data") for row in rows], count)

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

  def scoring_url(self, base: str) -> str:
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

  def scoring(self, paths: Sequence[Sequence[int]]) -> bytes:
    return _json(input_ids=[list(path) for path in paths])

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

  def values(self, answer: Any, count: int) -> list[float]:
    rows = outside.sequence(answer, "answer", dict)
    return _values([row.get("embedding") for row in rows], count)


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


def _values(rows: list[Any], count: int) -> list[float]:
  if len(rows) != count:
    raise outside.Bad(f"has {len(rows)} values of {count} paths")
  found = []
  for row in rows:
    numbers = outside.sequence(row, "values", object)
    if len(numbers) != 1:
      raise outside.Bad(
        f"has {len(numbers)} numbers for a path, want 1: it has to be a "
        "classifier with one label, read at the last token"
      )
    value = outside.real(numbers[0], "value", _MOST_REAL)
    if not math.isfinite(value):
      raise outside.Bad("has a value that is no number")
    found.append(value)
  return found
