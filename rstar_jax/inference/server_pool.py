"""Several servers that answer alike, as one.

A request is repeated until it is answered or refused, or patience ends: at each
other server at once, then after a wait. Requests of one tree go to one server,
which has their prefix in its cache; if that server has much more to do than the
others, or does not answer, they go to the next. A server that does not answer
rests, longer each time, and is checked again before it gets work: another
server may have taken its place.
"""

import concurrent.futures
import dataclasses
import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from absl import logging

from rstar_jax.config.schema import ClientConfig
from rstar_jax.inference.http_post import BadAnswer, Later, Url

_Read = TypeVar("_Read")
# Checks one server; see `Servers`.
Check = Callable[[Url], None]

# Waits between attempts, in seconds; each is twice the one before.
FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0

# The shortest wait, as a share of the first: for the check of a server to end.
_SHORTEST = 0.05

# Most requests of a server, as a multiple of the mean; above it a tree goes to
# its next server (consistent hashing with bounded loads, arXiv 1608.01350).
_LOAD = 1.25
# Requests in a row without an answer that can be read, after which the fault is
# the servers' and not the requests'.
_IN_A_ROW = 16


@dataclasses.dataclass(eq=False)
class _Server:
  """A server and what is known of it.

  Attributes:
    in_flight: requests that wait for its answers.
    rests_until: no request is sent before, of `time.monotonic`.
    rest: seconds of its last rest.
    checked: whether it has passed the check since it last was gone.
    in_check: whether a thread checks it now.
    wrong: why it gets no more requests; "" if it may get some.
  """

  url: Url
  in_flight: int = 0
  rests_until: float = -math.inf
  rest: float = 0.0
  checked: bool = False
  in_check: bool = False
  wrong: str = ""

  def preference(self, tree: str) -> bytes:
    """Returns the rank of the server for a tree (rendezvous hashing)."""
    return hashlib.sha256(f"{self.url.url} {tree}".encode()).digest()


class Servers:
  """A client of servers; threads may share it.

  Attributes:
    proven: whether any server has ever given an answer that can be read.
  """

  def __init__(
    self,
    urls: Sequence[str],
    config: ClientConfig,
    part: str,
    *,
    proven: bool = False,
    check: Check | None = None,
  ):
    """Makes the client, without a request.

    Args:
      urls: what is posted to, one for each server.
      config: the API key, and how long to wait.
      part: the part of the config, for messages.
      proven: whether an earlier process had an answer from them.
      check: checks a server before it gets work, by requests of its own; raises
        ValueError for a server that is not the right one.

    Raises:
      ValueError: the environment lacks the variable of the key.
    """
    self.proven = proven
    self._part, self._patience = part, config.patience_seconds
    self._check = check
    self._servers = [
      _Server(Url(url, config, part), checked=check is None) for url in urls
    ]
    self._in_a_row = 0
    self._lock = threading.Lock()

  def check(
    self,
    patience: float | None = None,
    without: Sequence[str] = (),
    *,
    all_right: bool = True,
  ) -> None:
    """Checks all servers; those that do not answer are left for later.

    Args:
      patience: seconds until one has to answer; None is `patience_seconds`.
      without: why each server is left out unchecked, until the next call of
        this; "" for one that is not. Empty for all servers.
      all_right: whether a wrong server ends the run. If not, it is left out as
        long as another is none.

    Raises:
      ValueError: one of them is not the right server, or all are not.
      ConnectionError: none answered in that time, or all are left out.
    """
    reasons = without or [""] * len(self._servers)
    for server, why in zip(self._servers, reasons, strict=True):
      server.wrong, server.rests_until = why, -math.inf
      if why:
        logging.warning("%s; going on without it", why)
    servers = [each for each in self._servers if not each.wrong]
    if not servers:
      raise ConnectionError(reasons[0])
    patience = self._patience if patience is None else patience
    until = time.monotonic() + patience
    wait = FIRST_WAIT

    def attempt(server: _Server) -> Later | None:
      try:
        self._check_one(server, first=all_right)
      except Later as error:
        return error
      return None

    with concurrent.futures.ThreadPoolExecutor(len(servers)) as pool:
      while True:
        errors = list(pool.map(attempt, servers))
        if not all(errors):
          break
        if time.monotonic() >= until:
          raise self._end_of_patience(servers[0], errors[0])
        time.sleep(min(wait, until - time.monotonic()))
        wait = min(2 * wait, LONGEST_WAIT)
    for server, error in zip(servers, errors, strict=True):
      if error:
        self._let_rest(server, error)
        logging.warning("%s %s; going on without it", server.url.url, error)

  def ask(
    self,
    body: bytes,
    stop: threading.Event,
    read: Callable[[Any], _Read],
    tree: str = "",
  ) -> tuple[Any, _Read]:
    """Returns the answer of one of the servers.

    The request is repeated after a failed connection, a late, incomplete or bad
    answer, 429 and 5xx: at each other server at once, then after a wait. The
    wait doubles each time, unless `Retry-After` gives one.

    Args:
      body: the request, JSON.
      stop: ends the wait early once it is set.
      read: see `Url.post`.
      tree: requests of one tree go to one server, if it answers.

    Returns:
      The answer, and what `read` made of it.

    Raises:
      PromptTooLong: a server says that the prompt is too long.
      BadAnswer: the last answer was bad, `patience_seconds` after the first
        failure; or a `proven` server refuses this one request.
      ValueError: any other refusal, with the server's message; `read` refuses
        an answer before any was read; or no server is the right one.
      ConnectionError: no answer for `patience_seconds` since the first failure,
        or nothing that can be read to many requests in a row; or `stop` was
        set.
    """
    wait, until = FIRST_WAIT, None
    error, last = None, self._servers[0]
    while True:
      asked = False
      for server, unchecked in self._awake(tree, stop):
        try:
          return self._ask_one(server, unchecked, body, read)
        except Later as failure:
          asked, error, last = True, failure, server
      now = time.monotonic()
      until = now + self._patience if until is None else until
      if now >= until or stop.is_set():
        raise self._end_of_patience(last, error, stop)
      if not asked:
        pause = self._shortest_rest(now)
      else:
        pause = error.seconds or wait
        wait = min(2 * wait, LONGEST_WAIT)
        logging.log_every_n_seconds(
          logging.WARNING,
          "%s %s; asking again in %.3g s",
          10,
          last.url.url,
          error,
          pause,
        )
      stop.wait(min(pause, until - now))

  def _awake(
    self, tree: str, stop: threading.Event
  ) -> Iterator[tuple[_Server, bool]]:
    """Chooses all servers that do not rest, one after another.

    If other threads check them, it waits for one. It ends early once `stop` is
    set, but not before the first server.

    Yields:
      See `_choose`; the caller has to ask the server.
    """
    tried: set[_Server] = set()
    while not (tried and stop.is_set()):
      server, unchecked = self._choose(tree, tried)
      if server is not None:
        tried.add(server)
        yield server, unchecked
      elif tried or stop.is_set() or not self._is_checking():
        return
      else:
        stop.wait(_SHORTEST * FIRST_WAIT)

  def _ask_one(
    self,
    server: _Server,
    unchecked: bool,
    body: bytes,
    read: Callable[[Any], _Read],
  ) -> tuple[Any, _Read]:
    """Asks a server that was chosen for this; if unchecked, checks it before.

    Raises:
      Later: others may be asked.
    """
    try:
      if unchecked:
        self._check_one(server)
      found = server.url.post(body, read, self.proven)
    except Later as error:
      self._let_rest(server, error)
      raise
    except BadAnswer as error:
      raise self._count_lost(str(error)) from error
    finally:
      with self._lock:
        server.in_flight -= 1
        server.in_check &= not unchecked
    with self._lock:
      self.proven, self._in_a_row, server.rest = True, 0, 0.0
    return found

  def _check_one(self, server: _Server, *, first: bool = False) -> None:
    """Checks a server.

    Args:
      server: any of them.
      first: whether a wrong server ends the run; if not, it is left out.

    Raises:
      Later: it does not answer; or it is wrong and left out.
      ValueError: it is wrong, and ends the run.
    """
    if self._check is not None:
      try:
        self._check(server.url)
      except ValueError as error:
        server.wrong = str(error)
        if first or all(each.wrong for each in self._servers):
          raise
        logging.error("%s; going on without it", error)
        raise Later(f"is no server for this: {error}") from error
      self.proven = True
    server.checked, server.wrong = True, ""

  def _choose(
    self, tree: str, tried: set[_Server]
  ) -> tuple[_Server | None, bool]:
    """Chooses a server that does not rest, and counts a request there.

    Returns:
      The server, None if there is none; and whether it has to be checked.
    """
    with self._lock:
      now = time.monotonic()
      awake = [
        each
        for each in self._servers
        if each not in tried
        and each.rests_until <= now
        and not each.in_check
        and not each.wrong
      ]
      if not awake:
        return None, False
      asked = sum(each.in_flight for each in awake)
      most = math.ceil(_LOAD * (asked + 1) / len(awake))
      awake.sort(key=lambda each: each.preference(tree), reverse=True)
      server = next(each for each in awake if each.in_flight < most)
      server.in_flight += 1
      server.in_check = not server.checked
      return server, server.in_check

  def _let_rest(self, server: _Server, error: Later) -> None:
    """Lets a server rest that did not answer."""
    if error.server == "well":
      return
    with self._lock:
      if error.server == "gone":
        server.checked = self._check is None
      now = time.monotonic()
      if server.rests_until > now:
        return  # All its requests fail at once, and count once.
      server.rest = min(max(2 * server.rest, FIRST_WAIT), LONGEST_WAIT)
      rest = server.rest if error.seconds is None else error.seconds
      server.rests_until = now + rest

  def _shortest_rest(self, now: float) -> float:
    """Returns the seconds until the first server may be asked."""
    waits = [each.rests_until - now for each in self._servers if not each.wrong]
    if not waits:
      raise ValueError(self._servers[0].wrong)
    return max(min(waits), _SHORTEST * FIRST_WAIT)

  def _is_checking(self) -> bool:
    """Returns whether another thread checks a server now."""
    with self._lock:
      return any(each.in_check for each in self._servers)

  def _count_lost(self, why: str) -> Exception:
    """Counts a request without an answer; returns the exception to raise."""
    with self._lock:
      self._in_a_row += 1
      if self._in_a_row < _IN_A_ROW:
        return BadAnswer(why)
    return ConnectionError(
      f"{why}; {_IN_A_ROW} requests in a row had no answer that can be "
      "read: repair the server, then run the same command again; earlier "
      "answers are kept"
    )

  def _end_of_patience(
    self,
    server: _Server,
    error: Later | None,
    stop: threading.Event | None = None,
  ) -> Exception:
    """Returns the exception to raise when patience has ended."""
    said = f"{server.url.url} {error or 'did not answer'}"
    going = stop is None or not stop.is_set()
    if error is not None and error.answered and self.proven and going:
      return self._count_lost(said)
    return ConnectionError(
      f"{said}, and no better for {self._patience:g} s "
      f"(config.{self._part}.patience_seconds): repair the server, then run "
      "the same command again; earlier answers are kept"
    )
