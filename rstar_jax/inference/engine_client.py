"""Models behind servers in the place of our engines: ids in, ids out.

`ServedEngine` has the `submit` of `engine.Engine`, and `ServedScores` that of
`scoring.ScoringEngine`, so that callers need not tell them apart. Before a
server gets work, its results are compared with the model's.
"""

import abc
import concurrent.futures
import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from absl import logging

from rstar_jax.config.schema import EngineConfig, ServersConfig, urls_of
from rstar_jax.inference import futures, protocols
from rstar_jax.inference.generated import (
  BY_LENGTH,
  LOST,
  Generated,
  Stop,
  check_request,
)
from rstar_jax.inference.http_post import BadAnswer, PromptTooLong, Url
from rstar_jax.inference.server_pool import Servers
from rstar_jax.models.transformer import SCALES, Head

# Samples without tokens, by the reason.
_TOO_LONG, _LOST = (Generated((), (), why) for why in (BY_LENGTH, LOST))
# The difference that counts for a token that is not among the likeliest ones.
_FAR = 10.0


@dataclasses.dataclass(frozen=True)
class Expected:
  """A model's own results for some prompts.

  Attributes:
    folder: the model's, for messages.
    prompts: ids.
    tokens: of a policy, the log-probabilities of the likeliest next tokens of
      each prompt, in nats.
    values: of a PPM, the value of each prompt.
  """

  folder: str
  prompts: Sequence[Sequence[int]]
  tokens: Sequence[Mapping[int, float]] = ()
  values: Sequence[float] = ()


class _Client(abc.ABC):
  """A client of servers, with threads.

  Attributes:
    servers: the client.
  """

  def __init__(
    self,
    urls: Sequence[str],
    config: ServersConfig,
    expected: Expected | None,
  ):
    self._config, self._expected = config, expected
    self._protocol = protocols.protocol_of(config)
    self.servers = Servers(urls, config, "servers", check=self._check)
    self._lock = threading.Lock()
    self._pool = concurrent.futures.ThreadPoolExecutor(config.in_flight)

  @abc.abstractmethod
  def _check(self, url: Url) -> None:
    """Looks at a server: its form of answers, and what it computes."""

  def _send(
    self, call: Callable[[threading.Event], Any]
  ) -> concurrent.futures.Future[Any]:
    """Makes a call in a thread, with an event that cancelling sets."""
    stop = threading.Event()
    sent = futures.then(self._pool.submit(call, stop), lambda found: found)
    # A call that has begun cannot be cancelled, but its waiting ends.
    sent.add_done_callback(lambda done: done.cancelled() and stop.set())
    return sent

  def _compare(self, url: Url, differences: Sequence[float], what: str) -> None:
    """Raises ValueError if the differences from the model are too large."""
    off, most = float(np.mean(differences)), self._config.tolerance
    if not off <= most:
      raise ValueError(
        f"{url.url} answers as another model than {self._expected.folder}: "
        f"{what} are off by {off:.3g}, more than config.servers.tolerance="
        f"{most:g}: put the model there (config.servers.load), or start the "
        "server with it"
      )


class ServedEngine(_Client):
  """Samples next steps; any thread may ask.

  Attributes:
    max_new_tokens: longest step.
    generated_tokens: tokens sampled so far.
    too_long: prefixes so far that were too long to be expanded.
    set_aside: requests without an answer that can be read.
  """

  def __init__(
    self,
    config: ServersConfig,
    engine: EngineConfig,
    expected: Expected | None = None,
  ):
    """Makes the client, without a request.

    Args:
      config: the servers, `config.policy`.
      engine: sampling, and the longest prefix and step.
      expected: the model's own results; None compares nothing.

    Raises:
      ValueError: the environment lacks the API key.
    """
    self._engine = engine
    self.max_new_tokens = engine.max_new_tokens
    self.generated_tokens = self.too_long = self.set_aside = 0
    protocol = protocols.protocol_of(config)
    urls = [protocol.sampling_url(base) for base in urls_of(config.policy)]
    super().__init__(urls, config, expected)

  def submit(
    self,
    prefix: Sequence[int],
    seeds: Sequence[int],
    stop: Stop,
    *,
    temperature: float | None = None,
    tree: str = "",
  ) -> concurrent.futures.Future[list[Generated]]:
    """Asks for C next steps of a prefix, a request each; see `Engine.submit`.

    Whether a step depends only on its prefix, its seed and the weights is up to
    the servers. A step that no server answers is empty, and its `stopped` is
    `LOST`.
    """
    engine = self._engine
    if temperature is not None:
      engine = dataclasses.replace(engine, temperature=temperature)
    check_request(prefix, stop, self.max_new_tokens, engine.temperature)
    if len(prefix) > self._engine.max_prefix_tokens:
      with self._lock:
        self.too_long += 1
      done: concurrent.futures.Future = concurrent.futures.Future()
      done.set_result([_TOO_LONG] * len(seeds))
      return done
    requests = [
      protocols.SampleRequest(
        ids=np.asarray(prefix).tolist(),
        seed=int(seed),
        max_tokens=stop.limit,
        stop_ids=tuple(stop.ids),
        stop_texts=stop.texts,
      )
      for seed in seeds
    ]
    return futures.together(
      [
        self._send(functools.partial(self._step, each, engine, stop, tree))
        for each in requests
      ]
    )

  def _step(
    self,
    request: protocols.SampleRequest,
    engine: EngineConfig,
    stop: Stop,
    tree: str,
    over: threading.Event,
  ) -> Generated:
    body = self._protocol.sampling_request(request, engine)
    read = functools.partial(
      self._protocol.read_sample, most=request.max_tokens
    )
    try:
      _, (ids, logprobs) = self.servers.ask(body, over, read, tree)
    except PromptTooLong:
      with self._lock:
        self.too_long += 1
      return _TOO_LONG
    except BadAnswer as error:
      logging.log_every_n_seconds(
        logging.WARNING, "a step is lost: %s", 10, error
      )
      with self._lock:
        self.set_aside += 1
      return _LOST
    with self._lock:
      self.generated_tokens += len(ids)
    stopped = ids[-1] if ids[-1] in stop.ids else BY_LENGTH
    return Generated(ids, logprobs, stopped)

  def _check(self, url: Url) -> None:
    prompts = self._expected.prompts if self._expected else [[1, 2, 3]]
    found = []
    for prompt in prompts:
      request = protocols.SampleRequest(
        prompt, seed=0, max_tokens=1, likeliest=True
      )
      read = functools.partial(self._protocol.read_sample, most=1)
      found.append(
        url.post(self._protocol.sampling_request(request, self._engine), read)[
          1
        ]
      )
    if self._expected:
      differences = [
        min(abs(known.get(token, -np.inf) - logprob), _FAR)
        for known, ((token,), (logprob,)) in zip(
          self._expected.tokens, found, strict=True
        )
      ]
      self._compare(url, differences, "log-probabilities")


class ServedScores(_Client):
  """Values paths at their last tokens; any thread may ask.

  Attributes:
    scored: paths valued so far.
  """

  def __init__(
    self,
    config: ServersConfig,
    head: Head,
    expected: Expected | None = None,
    *,
    role: Literal["ppm", "reward"] = "ppm",
    reading: protocols.Reading = protocols.ONE_LABEL,
  ):
    """Makes the client, without a request.

    Args:
      config: the servers, `config.ppm` or `config.reward`.
      head: turns the raw values of servers into values; see `Transformer`.
      expected: the model's own results; None, or none of values, compares
        nothing.
      role: which of the config's servers.
      reading: where an answer has a raw value.

    Raises:
      ValueError: the environment lacks the API key.
    """
    self.scored = 0
    self._scale, self._reading = SCALES[head], reading
    protocol = protocols.protocol_of(config)
    bases = urls_of(getattr(config, role))
    urls = [protocol.scoring_url(base, reading) for base in bases]
    super().__init__(urls, config, expected)

  def submit(
    self, paths: Sequence[Sequence[int]], *, tree: str = ""
  ) -> concurrent.futures.Future[np.ndarray]:
    """Asks for the values of paths, in one request.

    Args:
      paths: n sequences of at least one id.
      tree: the tree that they belong to.

    Returns:
      float32 [n] in [-1, 1].

    Raises:
      ValueError: a path is empty. The future raises it if a path is too long
        for the server, or the server has no answer that can be read.
    """
    if not all(map(len, paths)):
      raise ValueError("a path has no tokens: nothing to score")
    paths = [np.asarray(path).tolist() for path in paths]
    return self._send(functools.partial(self._score, paths, tree))

  def _score(
    self, paths: list[list[int]], tree: str, over: threading.Event
  ) -> np.ndarray:
    if not paths:
      return np.zeros(0, np.float32)
    body = self._protocol.scoring_request(paths, self._reading)
    try:
      _, values = self.servers.ask(
        body, over, functools.partial(self._values, count=len(paths)), tree
      )
    except PromptTooLong as error:
      raise ValueError(
        f"{error}: the server of values has to take longer paths, as all of "
        "engine.max_prefix_tokens and the longer of engine.max_step_tokens and "
        "engine.max_block_tokens"
      ) from error
    with self._lock:
      self.scored += len(paths)
    return values

  def _values(self, answer: Any, count: int) -> np.ndarray:
    raw = self._protocol.read_values(answer, count, self._reading)
    return np.tanh(np.array(raw, np.float64) / self._scale).astype(np.float32)

  def _check(self, url: Url) -> None:
    prompts = self._expected.prompts if self._expected else [[1, 2, 3]]
    _, values = url.post(
      self._protocol.scoring_request(prompts, self._reading),
      functools.partial(self._values, count=len(prompts)),
    )
    if self._expected and len(self._expected.values):
      differences = np.abs(values - np.array(self._expected.values))
      self._compare(url, differences, "values")
