"""A client of an OpenAI-compatible completions server.

A request is repeated until it is answered or refused, or patience ends.
"""

import http.client
import json
import os
import re
import threading
import time
import urllib.error
import urllib.request
from typing import Any

from absl import logging

from rstar_jax.config.schema import RemoteConfig

# Waits between attempts, in seconds; each is twice the one before.
FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0

# Statuses to try again: request timeout, too early, too many requests.
_LATER = (408, 425, 429)
_TOO_LONG = re.compile(r"context[ _](length|size|window)", re.IGNORECASE)
# Finish reasons of a server that shuts down before a sample is complete.
_BROKEN_OFF = ("abort", "error")


class PromptTooLong(ValueError):
  """The prompt and a step do not fit into the model's context."""


class _Later(Exception):
  """No answer this time; `seconds` is what `Retry-After` says, or None."""

  def __init__(self, message: str, seconds: float | None = None):
    super().__init__(message)
    self.seconds = seconds


class Completions:
  """A client of a server's `/completions`; threads may share it."""

  def __init__(self, config: RemoteConfig):
    """Reads the API key.

    Raises:
      ValueError: the environment lacks the variable of the key.
    """
    self._config = config
    self._url = config.url.rstrip("/") + "/completions"
    self._key = os.environ.get(config.api_key_env, "")
    if config.api_key_env and not self._key:
      raise ValueError(
        f"config.remote.api_key_env={config.api_key_env}: the environment has "
        "no such variable, or an empty one; export the key under that name"
      )

  def ask(self, body: bytes, stop: threading.Event) -> dict[str, Any]:
    """Returns the server's answer.

    It tries again after a failed connection, a late or incomplete answer, 429
    and 5xx. The wait doubles each time, unless `Retry-After` gives one.

    Args:
      body: the request, JSON.
      stop: when set, ends the waiting early.

    Returns:
      The answer, with at least one choice in "choices".

    Raises:
      PromptTooLong: the server says that the prompt is too long.
      ValueError: any other refusal, with the server's message.
      ConnectionError: no answer for `patience_seconds` since the first failure,
        or `stop` was set.
    """
    patience, wait, until = self._config.patience_seconds, FIRST_WAIT, None
    while True:
      try:
        return self._post(body)
      except _Later as error:
        now = time.monotonic()
        until = now + patience if until is None else until
        if now >= until or stop.is_set():
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

  def _post(self, body: bytes) -> dict[str, Any]:
    request = urllib.request.Request(
      self._url, body, {"Content-Type": "application/json"}
    )
    if self._key:
      # Unredirected: no other server gets the key.
      request.add_unredirected_header("Authorization", f"Bearer {self._key}")
    try:
      with urllib.request.urlopen(
        request, timeout=self._config.timeout_seconds
      ) as response:
        answer = json.load(response)
    except urllib.error.HTTPError as error:
      raise self._refusal(error) from None
    # URLError and timeouts are OSErrors; half an answer is not valid JSON.
    except (OSError, http.client.HTTPException, ValueError) as error:
      reason = getattr(error, "reason", None) or error
      raise _Later(
        f"gave no complete answer ({_line(repr(reason))})"
      ) from error
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not choices:
      raise ValueError(
        f"{self._url} gave an answer without choices: "
        f"{_line(json.dumps(answer))}; is it a completions server?"
      )
    if any(each.get("finish_reason") in _BROKEN_OFF for each in choices):
      raise _Later("broke off a sample")
    return answer

  def _refusal(self, error: urllib.error.HTTPError) -> Exception:
    """Returns the exception for an HTTP status other than 200."""
    try:
      text = error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
      text = ""
    words = _line(_message(text) or error.reason)
    if self._key:
      words = words.replace(self._key, "***")
    said = f"answered {error.code}: {words}"
    if error.code in _LATER or error.code >= 500:
      return _Later(said, _seconds(error.headers.get("Retry-After", "")))
    if _TOO_LONG.search(text):
      return PromptTooLong(f"{self._url} {said}")
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


def _message(text: str) -> str:
  """Finds the message in the body of an error."""
  try:
    found = json.loads(text)
  except ValueError:
    return text
  # {"error": {"message"}} (OpenAI), {"message"} (vLLM), {"detail"} (FastAPI).
  for name in ("error", "message", "detail"):
    if isinstance(found, dict) and found.get(name):
      found = found[name]
  return found if isinstance(found, str) else json.dumps(found)


def _line(text: str) -> str:
  """Returns a text as one line of at most 300 characters."""
  text = " ".join(text.split())
  return text if len(text) <= 300 else text[:300] + "..."


def _seconds(retry_after: str) -> float | None:
  """Reads a `Retry-After` in seconds; None for a date."""
  return float(retry_after) if retry_after.strip().isdecimal() else None
