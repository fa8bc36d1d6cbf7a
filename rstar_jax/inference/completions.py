"""A client of an OpenAI-compatible completions server.

A request is repeated until it is answered or refused, or patience ends. What a
server sends is bounded in size and time, however its bytes drip, and read by
the caller before it counts as an answer.
"""

import http.client
import io
import json
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

from absl import logging

from rstar_jax import outside
from rstar_jax.config.schema import RemoteConfig

_Read = TypeVar("_Read")

# Waits between attempts, in seconds; each is twice the one before.
FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0

# Statuses to try again: request timeout, too early, too many requests.
_LATER = (408, 425, 429)
# Statuses that are about one request: bad, too large, not processable.
_OF_REQUEST = (400, 413, 422)
_TOO_LONG = re.compile(r"context[ _](length|size|window)", re.IGNORECASE)
# Finish reasons of a server that shuts down before a sample is complete.
_BROKEN_OFF = ("abort", "error")
# Bytes of an error's body that are read, and of one look at any body.
_PIECE = 1 << 16


class PromptTooLong(ValueError):
  """The prompt and a step do not fit into the model's context."""


class BadAnswer(ValueError):
  """The server works, but has no answer to this request that can be read."""


class _Later(Exception):
  """No answer this time.

  Attributes:
    seconds: what `Retry-After` says, or None.
    answered: whether the server did answer, but not well.
  """

  def __init__(
    self, message: str, seconds: float | None = None, answered: bool = False
  ):
    super().__init__(message)
    self.seconds, self.answered = seconds, answered


class _Response(http.client.HTTPResponse):
  """A response that is bounded; its time is the timeout of the socket."""

  def __init__(self, sock: Any, *args: Any, **options: Any):
    super().__init__(sock, *args, **options)
    raw = outside.Bounded(
      self.fp.detach(), sock.settimeout, seconds=sock.gettimeout()
    )
    self.fp = io.BufferedReader(raw)


class _Http(http.client.HTTPConnection):
  response_class = _Response


class _Https(http.client.HTTPSConnection):
  response_class = _Response


class _HttpHandler(urllib.request.HTTPHandler):
  def http_open(self, request: urllib.request.Request) -> Any:
    return self.do_open(_Http, request)


class _HttpsHandler(urllib.request.HTTPSHandler):
  def https_open(self, request: urllib.request.Request) -> Any:
    return self.do_open(_Https, request)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
  """Makes an error of a redirect: followed, a request would lose its body."""

  def redirect_request(self, *_: Any) -> None:
    return None


class Completions:
  """A client of a server's `/completions`; threads may share it.

  Attributes:
    proven: whether the server has ever given an answer that could be read.
  """

  def __init__(self, config: RemoteConfig, proven: bool = False):
    """Reads the API key.

    Args:
      config: what server, and how long to wait for it.
      proven: whether an earlier process had an answer of it.

    Raises:
      ValueError: the environment lacks the variable of the key.
    """
    self.proven = proven
    self._config = config
    self._opener = urllib.request.build_opener(
      _HttpHandler, _HttpsHandler, _NoRedirect
    )
    self._url = config.url.rstrip("/") + "/completions"
    self._key = os.environ.get(config.api_key_env, "")
    if config.api_key_env and not self._key:
      raise ValueError(
        f"config.remote.api_key_env={config.api_key_env}: the environment has "
        "no such variable, or an empty one; export the key under that name"
      )

  def ask(
    self, body: bytes, stop: threading.Event, read: Callable[[Any], _Read]
  ) -> tuple[Any, _Read]:
    """Returns the server's answer.

    It tries again after a failed connection, a late, incomplete or bad answer,
    429 and 5xx. The wait doubles each time, unless `Retry-After` gives one.

    Args:
      body: the request, JSON.
      stop: when set, ends the waiting early.
      read: makes of a JSON document what the caller wants; raises `outside.Bad`
        if it is not what was asked for.

    Returns:
      The answer, and what `read` made of it.

    Raises:
      PromptTooLong: the server says that the prompt is too long.
      BadAnswer: the last answer was bad, `patience_seconds` after the first
        failure; or a `proven` server refuses this one request.
      ValueError: any other refusal, with the server's message; or `read`
        refuses an answer of a server that is not `proven`.
      ConnectionError: no answer for `patience_seconds` since the first failure,
        or `stop` was set.
    """
    patience, wait, until = self._config.patience_seconds, FIRST_WAIT, None
    while True:
      try:
        found = self._post(body, read)
        self.proven = True
        return found
      except _Later as error:
        now = time.monotonic()
        until = now + patience if until is None else until
        if now >= until or stop.is_set():
          if error.answered and self.proven and not stop.is_set():
            raise BadAnswer(f"{self._url} {error}") from error
          raise ConnectionError(
            f"{self._url} {error}, and no better for {patience:g} s "
            "(config.remote.patience_seconds): repair the server, then run the "
            "same command again; earlier answers are kept"
          ) from error
        pause = min(error.seconds or wait, until - now)
        logging.log_every_n_seconds(
          logging.WARNING,
          "%s %s; asking again in %.3g s",
          10,
          self._url,
          error,
          pause,
        )
        stop.wait(pause)
        wait = min(2 * wait, LONGEST_WAIT)

  def _post(
    self, body: bytes, read: Callable[[Any], _Read]
  ) -> tuple[Any, _Read]:
    request = urllib.request.Request(
      self._url, body, {"Content-Type": "application/json"}
    )
    if self._key:
      request.add_unredirected_header("Authorization", f"Bearer {self._key}")
    answered = False
    try:
      with self._opener.open(
        request, timeout=self._config.timeout_seconds
      ) as response:
        answered = True
        answer = outside.parse(_body(response))
    except urllib.error.HTTPError as error:
      raise self._refusal(error) from None
    except outside.Bad as error:
      raise _Later(f"gave an answer that {error}", answered=answered) from error
    # URLError and timeouts are OSErrors.
    except (OSError, http.client.HTTPException) as error:
      reason = getattr(error, "reason", None) or error
      raise _Later(
        f"gave no complete answer ({outside.line(repr(reason))})",
        answered=answered,
      ) from error
    if _broken_off(answer):
      raise _Later("broke off a sample", answered=True)
    try:
      return answer, read(answer)
    except outside.Bad as error:
      if not self.proven:
        raise ValueError(f"{self._url} gave an answer that {error}") from None
      raise _Later(f"gave an answer that {error}", answered=True) from error

  def _refusal(self, error: urllib.error.HTTPError) -> Exception:
    """Returns the exception for an HTTP status other than 200."""
    try:
      text = _body(error, _PIECE).decode(errors="replace")
    except (OSError, http.client.HTTPException, ValueError):
      text = ""
    words = _message(text) or error.reason
    if error.headers.get("Location"):
      words += f" to {error.headers['Location']}"
    if self._key:
      words = words.replace(self._key, "***")
    words = outside.line(words)
    said = f"answered {error.code}: {words}"
    if error.code in _LATER or error.code >= 500:
      return _Later(said, _seconds(error.headers.get("Retry-After", "")))
    if _TOO_LONG.search(text):
      return PromptTooLong(f"{self._url} {said}")
    if error.code in _OF_REQUEST and self.proven:
      return BadAnswer(f"{self._url} {said}")
    config = self._config
    advice = (
      "in another --workdir change config.remote so that the server takes it"
    )
    if error.code in (401, 403):
      advice = (
        f"check the key of config.remote.api_key_env={config.api_key_env}"
      )
    elif error.code == 404:
      advice = (
        "check that config.remote.url ends as the server's does, e.g. in /v1; "
        f"another config.remote.model than {config.model} needs another "
        "--workdir"
      )
    return ValueError(f"{self._url} {said}; {advice}")


def _body(response: Any, most: int | None = None) -> bytes:
  """Returns a body, or about its first `most` bytes.

  It is read in pieces: a length that the server states costs no memory.
  """
  found = bytearray()
  while piece := response.read1(_PIECE):
    found += piece
    if most is not None and len(found) >= most:
      break
  return bytes(found)


def _broken_off(answer: Any) -> bool:
  choices = answer.get("choices") if isinstance(answer, dict) else None
  return isinstance(choices, list) and any(
    isinstance(each, dict) and each.get("finish_reason") in _BROKEN_OFF
    for each in choices
  )


def _message(text: str) -> str:
  """Finds the message in the body of an error."""
  try:
    found = outside.parse(text)
  except ValueError:
    return text
  # {"error": {"message"}} (OpenAI), {"message"} (vLLM), {"detail"} (FastAPI).
  for name in ("error", "message", "detail"):
    if isinstance(found, dict) and found.get(name):
      found = found[name]
  return found if isinstance(found, str) else json.dumps(found)


def _seconds(retry_after: str) -> float | None:
  """Reads a `Retry-After` in seconds; None for a date."""
  return float(retry_after) if retry_after.strip().isdecimal() else None
