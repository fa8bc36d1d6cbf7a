"""Asks a URL for JSON, and reads the answer or the reason for none.

An answer is bounded in size and time, even if its bytes come one by one, and is
read by the caller before it counts. The standard library does this, with a
connection for each request: a client library would add only its connections,
since half of the requests are none of OpenAI's API, and retries go to another
server (`server_pool.py`).
"""

import http.client
import io
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from rstar_jax import outside
from rstar_jax.config.schema import ClientConfig

_Read = TypeVar("_Read")

# Statuses of a server that takes no more now: too many requests, and those of a
# proxy whose server does not answer.
_BUSY = (429, 502, 503, 504)
# Other statuses to try again: request timeout, too early.
_LATER = (408, 425)
# Statuses that concern one request: bad, too large, not processable.
_OF_REQUEST = (400, 413, 422)
# Statuses of a URL that nothing is got from.
_NOTHING = (404, 405)
_TOO_LONG = re.compile(
  r"context[ _](length|size|window)|max_model_len", re.IGNORECASE
)
# Finish reasons of a server that shuts down before a sample is complete.
_BROKEN_OFF = ("abort", "error")
# Bytes that are read of an error's body, and at once of any body.
_PIECE = 1 << 16


class PromptTooLong(ValueError):
  """The prompt and a step do not fit into the model's context."""


class BadAnswer(ValueError):
  """The server works, but has no answer to this request that can be read."""


class Later(Exception):
  """No answer this time.

  Attributes:
    server: "gone" if the server does not answer, "busy" if it takes no more
      now, "well" if it may answer another request.
    seconds: the wait that `Retry-After` gives, or None.
    answered: whether the server answered, though not well.
  """

  def __init__(
    self,
    message: str,
    server: Literal["gone", "busy", "well"] = "well",
    *,
    seconds: float | None = None,
    answered: bool = False,
  ):
    super().__init__(message)
    self.server, self.seconds, self.answered = server, seconds, answered


class _Response(http.client.HTTPResponse):
  """A bounded response; its time limit is the timeout of the socket."""

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
  """Makes a redirect an error: a request that follows it loses its body."""

  def redirect_request(self, *_: Any) -> None:
    return None


class Url:
  """A URL that JSON is posted to, or got from; threads may share it.

  Attributes:
    url: the URL.
  """

  def __init__(self, url: str, config: ClientConfig, part: str):
    """Reads the API key.

    Args:
      url: what is asked.
      config: the key, and how long to wait.
      part: the part of the config, for messages: "remote" or "servers".

    Raises:
      ValueError: the environment lacks the variable of the key, or the key
        cannot be sent.
    """
    self.url = url
    self._seconds = config.timeout_seconds
    self._part = part
    self._key_env = config.api_key_env
    self._opener = urllib.request.build_opener(
      _HttpHandler, _HttpsHandler, _NoRedirect
    )
    self._key = os.environ.get(self._key_env, "")
    if self._key_env and not self._key:
      raise ValueError(
        f"config.{part}.api_key_env={self._key_env}: the environment has no "
        "such variable, or an empty one; export the key under that name"
      )
    # The standard library's message would show it.
    if not (self._key.isascii() and self._key.isprintable()):
      raise ValueError(
        f"config.{part}.api_key_env={self._key_env}: the key there has a "
        "character that cannot be sent, such as the end of a line: export it "
        "in printable ASCII alone"
      )

  def post(
    self,
    body: bytes,
    read: Callable[[Any], _Read],
    proven: bool = False,
    *,
    empty: bool = False,
  ) -> tuple[Any, _Read]:
    """Posts once, and returns the answer and what `read` made of it.

    Args:
      body: JSON.
      read: reads the caller's result from a JSON document; raises `outside.Bad`
        if the document is no answer to the request.
      proven: whether the server is known to answer such requests.
      empty: whether an empty body is an answer, None.

    Raises:
      Later: no answer this time; or one that cannot be read, if `proven`.
      PromptTooLong: the server says that the prompt is too long.
      BadAnswer: it refuses this one request, if `proven`.
      ValueError: any other refusal, with the server's message; or an answer
        that cannot be read.
    """
    try:
      answer = self._answer(body, empty=empty)
    except urllib.error.HTTPError as error:
      raise self._refusal(error, proven) from None
    if _broken_off(answer):
      raise Later("broke off a sample", answered=True)
    try:
      return answer, read(answer)
    except outside.Bad as error:
      if not proven:
        raise ValueError(f"{self.url} gave an answer that {error}") from None
      raise Later(f"gave an answer that {error}", answered=True) from error

  def get(self) -> Any:
    """Returns the JSON document at the URL, None if there is none.

    Raises:
      Later: no answer this time.
      ValueError: a refusal, with the server's message.
    """
    try:
      return self._answer(None)
    except urllib.error.HTTPError as error:
      if error.code in _NOTHING:
        return None
      raise self._refusal(error, proven=False) from None

  def _answer(self, body: bytes | None, *, empty: bool = False) -> Any:
    """Returns the answer to one request, a GET if there is no body.

    Raises:
      HTTPError: a status other than 200.
      Later: no answer, or none that is JSON.
    """
    request = urllib.request.Request(self.url, body)
    if body is not None:
      request.add_header("Content-Type", "application/json")
    if self._key:
      request.add_unredirected_header("Authorization", f"Bearer {self._key}")
    answered = False
    try:
      with self._opener.open(request, timeout=self._seconds) as response:
        answered = True
        data = _body(response)
        return outside.parse(data) if data or not empty else None
    except urllib.error.HTTPError:
      raise
    except outside.Bad as error:
      raise Later(f"gave an answer that {error}", answered=answered) from error
    # URLError and timeouts are OSErrors.
    except (OSError, http.client.HTTPException) as error:
      reason = getattr(error, "reason", None) or error
      raise Later(
        f"gave no complete answer ({outside.line(repr(reason))})",
        "well" if answered else "gone",
        answered=answered,
      ) from error

  def _refusal(self, error: urllib.error.HTTPError, proven: bool) -> Exception:
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
    if error.code in (*_BUSY, *_LATER) or error.code >= 500:
      return Later(
        said,
        "busy" if error.code in _BUSY else "well",
        seconds=_seconds(error.headers.get("Retry-After", "")),
      )
    if _TOO_LONG.search(text):
      return PromptTooLong(f"{self.url} {said}")
    if error.code in _OF_REQUEST and proven:
      return BadAnswer(f"{self.url} {said}")
    part = self._part
    advice = (
      f"in another --workdir change config.{part} so that the server takes it"
    )
    if error.code in (401, 403):
      advice = f"check the key of config.{part}.api_key_env={self._key_env}"
    elif error.code == 404:
      advice = (
        "check that the server's URL in the config ends as it does there, e.g. "
        f"in /v1, and that config.{part}.model is a model that it has"
      )
    return ValueError(f"{self.url} {said}; {advice}")


def _body(response: Any, most: int | None = None) -> bytes:
  """Returns a body, or about its first `most` bytes.

  It is read in pieces, so that a length that a server claims takes no memory.
  """
  found = bytearray()
  while piece := response.read1(_PIECE):
    found += piece
    if most is not None and len(found) >= most:
      break
  return bytes(found)


def _broken_off(answer: Any) -> bool:
  """Returns whether the server broke off a sample before its end."""
  found = []
  for each in answer if isinstance(answer, list) else [answer]:
    # vLLM has a reason for each choice; SGLang has a type in its meta_info.
    choices, meta = (_get(each, name) for name in ("choices", "meta_info"))
    found.append(_get(_get(meta, "finish_reason"), "type"))
    if isinstance(choices, list):
      found += [_get(one, "finish_reason") for one in choices]
  return any(each in _BROKEN_OFF for each in found)


def _get(found: Any, name: str) -> Any:
  return found.get(name) if isinstance(found, dict) else None


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
