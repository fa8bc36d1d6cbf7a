"""Answers by this package's engine, in the protocol of a config's `servers`.

It answers the requests of `inference/protocols.py` as an OpenAI-compatible
server does: samples as token ids at /v1/completions, raw values at /pooling;
and it loads other models at /update_weights_from_disk, as SGLang does.
`engine_http.py` is its HTTP server, `inference/engine_client.py` its client,
`tools/serve_engine.py` its command.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from rstar_jax import outside
from rstar_jax.config.schema import Config, EngineConfig
from rstar_jax.hf import folders, reward_heads
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.inference import few_shot, reward
from rstar_jax.inference.busy import Busy
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.generated import Generated, Stop
from rstar_jax.inference.reward import Published
from rstar_jax.inference.scoring import ScoringEngine
from rstar_jax.models.transformer import SCALES
from rstar_jax.pipeline import models
from rstar_jax.serve import wire
from rstar_jax.serve.wire import Refused
from rstar_jax.steps import grammar
from rstar_jax.steps.tokenizer import HfTokenizer

_SEED = 2**32
# Fields of `wire.NOTHING` that would change samples or their form.
_NOT_DONE = (
  *("echo", "suffix", "best_of", "logit_bias"),
  *("frequency_penalty", "presence_penalty"),
)
# Raw values beyond this have tanh 1 in float32.
_MOST_RAW = 10.0
_WARMEST = 1e6


@dataclasses.dataclass(frozen=True)
class _Policy:
  """What samples.

  Attributes:
    engine: of the model.
    tokenizer: the model's, with the step markers.
    plain: the model's own, to which markers may be plain text.
  """

  engine: Engine
  tokenizer: HfTokenizer
  plain: HfTokenizer


@dataclasses.dataclass(frozen=True)
class _Reward:
  """What values paths.

  Attributes:
    engine: of the model.
    scale: divisor of raw values before the tanh.
    known: number of the model's ids.
    longest: most tokens of a path; each may need pages of its own.
    published: None for a PPM; another reward model is never replaced.
  """

  engine: ScoringEngine
  scale: float
  known: int
  longest: int
  published: Published | None


class EngineService:
  """Answers requests with engines; thread-safe."""

  def __init__(self, config: Config, *, policy: str = "", ppm: str = ""):
    """Loads the models.

    Args:
      config: its dtype, sampling and engine sizes are used.
      policy: a Hugging Face folder or name; "" for none.
      ppm: the folder of a PPM, or a published reward model, see
        `reward.load_reward`; "" for none.
    """
    self._dtype = jnp.dtype(config.policy.dtype)
    self._mesh = mesh = models.search_mesh(config)
    shared: dict[str, Any] = {
      "mesh": mesh,
      "lock": threading.Lock(),
      "busy": Busy(),
    }
    self._config: EngineConfig = config.engine
    self._policy: _Policy | None = None
    self._reward: _Reward | None = None
    # Numbers of requests in progress, 0 while models are loaded, and of loads
    # that wait or are in progress, during which no request begins.
    self._open, self._loads = 0, 0
    self._changed = threading.Condition()
    self.folders = {"policy": policy, "ppm": ppm}
    if policy:
      model = folders.load_policy(policy, self._dtype, mesh=mesh)
      self._policy = _Policy(
        Engine(model, config.engine, **shared),
        load_tokenizer(policy),
        load_tokenizer(policy, add_markers=False),
      )
    if ppm:
      published = reward.described(ppm) if reward.is_of_others(ppm) else None
      if published:
        model = published.model(self._dtype, mesh=mesh)
      else:
        model = folders.load_ppm(ppm, self._dtype, mesh=mesh)
      self._reward = _Reward(
        ScoringEngine(model, config.engine, **shared),
        SCALES[model.head],
        model.config.vocab_size,
        max(
          model.config.max_length,
          config.engine.max_prefix_tokens + config.engine.max_new_tokens,
        ),
        published,
      )

  def answer(self, path: str, body: dict[str, Any]) -> Any:
    """Returns the response to a request, JSON-able.

    Raises:
      Refused: the request is not valid, or no model can answer it.
    """
    answers = {"/v1/completions": self._complete, "/pooling": self._pool}
    try:
      if path == "/update_weights_from_disk":
        with self._changed, self._loading():
          return self._load(body)
      if path not in answers:
        raise Refused("Not Found", 404)
      with self._in_progress():
        return answers[path](body)
    except outside.Bad as error:
      raise Refused(f"the request {error}") from None

  @contextlib.contextmanager
  def _loading(self) -> Iterator[None]:
    """Waits, with the lock, until no request is in progress; none begins."""
    self._loads += 1
    try:
      self._changed.wait_for(lambda: not self._open)
      yield
    finally:
      self._loads -= 1
      self._changed.notify_all()

  @contextlib.contextmanager
  def _in_progress(self) -> Iterator[None]:
    """Counts a request, so that no model is replaced before it ends."""
    with self._changed:
      self._changed.wait_for(lambda: not self._loads)
      self._open += 1
    try:
      yield
    finally:
      with self._changed:
        self._open -= 1
        self._changed.notify_all()

  def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
    """Answers /v1/completions."""
    if "logprob_token_ids" in body:
      return self._answer_of_two(body)
    if self._policy is None:
      raise Refused("no policy is served here", 404)
    for name in _NOT_DONE:
      wire.check_nothing(body, name)
    if body.get("stream"):
      raise Refused("stream is not supported here: leave it out")
    engine, tokenizer = self._policy.engine, self._policy.tokenizer
    known = tokenizer.vocab_size
    prompt = body.get("prompt")
    if isinstance(prompt, str):
      prompt = [*tokenizer.bos_ids, *tokenizer.encode(prompt)]
    ids = _ids(prompt, "prompt", known)
    if not ids:
      raise Refused("the prompt has no tokens")
    count = outside.integer(body.get("n", 1), "n", 1, 256)
    seed = outside.integer(body.get("seed", 0), "seed", 0, _SEED - 1)
    limit = outside.integer(
      body.get("max_tokens", 16), "max_tokens", 1, engine.max_new_tokens
    )
    if len(ids) > self._config.max_prefix_tokens:
      raise Refused(
        f"the prompt has {len(ids)} tokens; the context length is "
        f"{self._config.max_prefix_tokens} and a step"
      )
    stops = set(_ids(body.get("stop_token_ids", []), "stop_token_ids", known))
    if not body.get("ignore_eos"):
      stops.add(tokenizer.eos_id)
    texts = outside.sequence(body.get("stop", []), "stop", str)
    for text in texts:
      encoded = tokenizer.encode(text)
      if len(encoded) != 1:
        raise Refused(f"stop={text!r} is not one token here")
      stops.add(encoded[0])
    # A model that is shown examples writes markers as plain text.
    markers = [text for text in texts if text in grammar.FINISHES]
    words = few_shot.stop_words(self._policy.plain, markers)
    stop = Stop(limit, frozenset(stops), tuple(words))
    steps = engine.submit(
      ids,
      [(seed + number) % _SEED for number in range(count)],
      stop,
      temperature=self._temperature(body),
    ).result()
    return {
      "object": "text_completion",
      "model": body.get("model", ""),
      "choices": [
        self._choice(number, each, stop) for number, each in enumerate(steps)
      ],
      "usage": {
        "prompt_tokens": len(ids),
        "completion_tokens": sum(len(each.token_ids) for each in steps),
      },
    }

  def _temperature(self, body: dict[str, Any]) -> float:
    """Returns the sampling temperature of a request.

    Raises:
      Refused: other sampling settings differ from the server's.
    """
    temperature = outside.real(
      body.get("temperature", 1.0), "temperature", _WARMEST
    )
    if temperature < 0:
      raise Refused(f"temperature={temperature} is below 0")
    if body.get("repetition_penalty", 1) != 1:
      raise Refused("repetition_penalty is not supported here: leave it out")
    if temperature == 0 or body.get("top_k") == 1:
      return 0.0
    for name, default in (
      ("top_p", 1.0),
      ("top_k", 0),
      ("min_p", 0.0),
    ):
      value, own = body.get(name, default), getattr(self._config, name)
      if value != own:
        raise Refused(
          f"{name}={value!r} is asked for, and {own} served: start this "
          f"server with --config.engine.{name}={value}"
        )
    return temperature

  def _choice(
    self, number: int, generated: Generated, stop: Stop
  ) -> dict[str, Any]:
    ids = generated.token_ids
    stopped = generated.stopped if generated.stopped in stop.ids else None
    shown = ids if stopped is None else ids[:-1]
    ended = stopped is not None or len(ids) < stop.limit
    return {
      "index": number,
      "text": self._policy.tokenizer.decode(shown),
      "token_ids": list(ids),
      "logprobs": {"token_logprobs": list(generated.logprobs)},
      "finish_reason": "stop" if ended else "length",
      "stop_reason": stopped,
    }

  def _pool(self, body: dict[str, Any]) -> dict[str, Any]:
    """Answers /pooling."""
    # A value of each token is [value]; only the last token has one.
    nested = body.get("task") == "token_classify"
    return {
      "object": "list",
      "data": [
        {
          "index": number,
          "object": "pooling",
          "data": [[each]] if nested else [each],
        }
        for number, each in enumerate(self._raw(body, "input"))
      ],
    }

  def _answer_of_two(self, body: dict[str, Any]) -> dict[str, Any]:
    """Answers with the probabilities of two tokens, for models that say one.

    Other tokens' probabilities are not known here, and are not needed.
    """
    model = self._reward and self._reward.published
    pair = model.answers if model else None
    ids = outside.sequence(body["logprob_token_ids"], "logprob_token_ids", int)
    if pair is None or set(ids) != set(pair):
      raise Refused(
        f"logprob_token_ids={ids}: no model that answers so is served here"
      )
    return {
      "object": "text_completion",
      "choices": [
        {
          "index": number,
          "logprobs": {
            "top_logprobs": [
              {
                f"token_id:{token}": -float(np.logaddexp(0, -odds))
                for token, odds in zip(pair, (each, -each), strict=True)
              }
            ]
          },
        }
        for number, each in enumerate(self._raw(body, "prompt"))
      ],
    }

  def _raw(self, body: dict[str, Any], name: str) -> list[float]:
    """Returns the raw values of a request's paths, float."""
    served = self._reward
    if served is None:
      raise Refused("no PPM is served here", 404)
    paths = [
      _ids(each, name, served.known)
      for each in outside.sequence(body.get(name), name, list)
    ]
    if not all(paths):
      raise Refused(f"a path of {name} has no tokens")
    if (longest := max(map(len, paths), default=0)) > served.longest:
      raise Refused(
        f"a path of {name} has {longest} tokens; the context length is "
        f"{served.longest}"
      )
    try:
      found = served.engine.submit(paths).result()
    except ValueError as error:  # No device has room for such paths.
      raise Refused(str(error)) from error
    values = found.astype(np.float64)
    with np.errstate(divide="ignore"):
      raw = np.clip(np.arctanh(values), -_MOST_RAW, _MOST_RAW) * served.scale
    return raw.tolist()

  def _load(self, body: dict[str, Any]) -> dict[str, Any]:
    """Answers /update_weights_from_disk: loads a policy's or a PPM's folder."""
    folder = outside.string(body.get("model_path"), "model_path", 4096)
    try:
      if reward_heads.HEAD in folders.merged_fields(folder):
        if self._reward is None or self._reward.published:
          raise Refused("no PPM is served here", 404)
        ppm = folders.load_ppm(folder, self._dtype, mesh=self._mesh)
        self._reward.engine.load(ppm)
        self.folders["ppm"] = folder
      elif self._policy is None:
        raise Refused("no policy is served here", 404)
      else:
        policy = folders.load_policy(folder, self._dtype, mesh=self._mesh)
        self._policy.engine.load(policy)
        self.folders["policy"] = folder
    except (OSError, ValueError) as error:
      raise Refused(f"model_path={folder}: {error}") from error
    return {"success": True, "message": "the weights are loaded"}


def _ids(value: Any, what: str, known: int) -> list[int]:
  """Returns the token ids of a request; raises `outside.Bad`."""
  ids = outside.sequence(value, what, int)
  return [outside.integer(each, what, 0, known - 1) for each in ids]
