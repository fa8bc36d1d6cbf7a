"""What a completions server sends."""

import contextlib
import http.server
import json
import math
import pathlib
import random
import re
import threading
from unittest import mock

import numpy as np

from rstar_jax.config.schema import RemoteConfig
from rstar_jax.inference import server_pool
from rstar_jax.inference.completions_client import Remote, readable
from rstar_jax.storage.journal import Journal
from rstar_jax.types import Candidate
from tests.fuzz import hostile
from tests.fuzz.hostile import Outcome, check_text

_STEP = "<code>\nx = 1\n<end_of_step>"
GOOD = {
  "choices": [{"index": 0, "text": _STEP, "finish_reason": "stop"}],
  "usage": {"completion_tokens": 3},
}
# Answers as vLLM, SGLang and llama.cpp write them.
ANSWERS = (
  {
    "id": "cmpl-1",
    "choices": [
      {
        "index": 0,
        "text": "<code>\nx = 1\n",
        "logprobs": {"token_logprobs": [-0.5, -1.0], "tokens": ["x", "="]},
        "finish_reason": "stop",
        "stop_reason": "<end_of_step>",
        "token_ids": [7, 8],
      }
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2},
  },
  {
    "choices": [
      {
        "index": 0,
        "text": "<code>\nx = 1\n",
        "finish_reason": "stop",
        "matched_stop": "<end_of_step>",
      }
    ],
    "usage": {"completion_tokens": 7},
  },
  {
    "choices": [
      {
        "index": 0,
        "text": "<code>\nx = 1\n",
        "logprobs": {"content": [{"id": 7, "token": "x", "logprob": -0.5}] * 3},
        "finish_reason": "length",
      }
    ],
    "timings": {"prompt_n": 9},
  },
)
_STATUSES = (200, 200, 200, 206, 400, 408, 413, 422, 425, 429, 500, 503)
_HEADERS = (
  "Content-Length: 999999999999999",
  "Content-Length: -1",
  "Content-Length: 3",
  "Content-Length: x",
  "Transfer-Encoding: chunked",
  "Content-Encoding: gzip",
  "Content-Type: text/html; charset=utf-16",
  "Location: http://127.0.0.1:1/",
  "Set-Cookie: " + "x" * 9000,
  "\x1b[2J: \x1b[2J",
  "no colon",
  " folded",
)


class _Handler(http.server.BaseHTTPRequestHandler):
  """Answers odd seeds with the input, once, and all others well."""

  disable_nagle_algorithm = True
  reply: bytes

  def do_POST(self):
    size = int(self.headers["Content-Length"])
    seed = json.loads(self.rfile.read(size))["seed"]
    if seed % 2 and _Handler.reply is not None:
      data, _Handler.reply = _Handler.reply, None
    else:
      data = _response(json.dumps(GOOD).encode())
    # A client that has seen enough of it closes its side.
    with contextlib.suppress(OSError):
      self.wfile.write(data)
    self.close_connection = True

  def log_message(self, *args):
    del args


def _response(body: bytes) -> bytes:
  return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Servers:
  """A completions server that sends anything, and its client."""

  def __init__(self, folder: pathlib.Path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    self.close = server.shutdown
    self._url = f"http://127.0.0.1:{server.server_port}/v1"
    self._folder = folder
    self._seeds = 0
    # One gives up at once, the other never; each has a journal.
    self._hasty, self._patient = self._remote(0.0), self._remote(600.0)
    _Handler.reply = None
    for remote in (self._hasty, self._patient):
      self._ask(remote)

  def _remote(self, patience: float) -> Remote:
    config = RemoteConfig(
      url=self._url,
      model="m",
      samples_per_request=1,
      in_flight=1,
      timeout_seconds=60.0,
      patience_seconds=patience,
    )
    path = self._folder / f"requests-{patience:g}.jsonl"
    return Remote(config, Journal(path, check=readable(config)))

  def _ask(self, remote: Remote, back: int = 0) -> list[Candidate]:
    """Sends a request that gets the input, and one that does not.

    Args:
      remote: the client.
      back: 2 to send those before again.
    """
    self._seeds += 2 - back
    seeds = np.array([[self._seeds - 1, self._seeds]], np.uint32)
    with mock.patch.object(server_pool, "FIRST_WAIT", 0.0):
      (row,) = remote(["q"], [()], seeds)
    return row

  def body(self, source: random.Random) -> Outcome:
    """A body of a good response, which is not asked for again."""
    answer = source.choice(ANSWERS)
    _Handler.reply = _response(hostile.document(source, answer))
    return self._outcome(self._hasty)

  def response(self, source: random.Random) -> Outcome:
    """All that a server sends, after which it answers well."""
    body = hostile.document(source, source.choice(ANSWERS))
    headers = source.sample(_HEADERS, source.randrange(4))
    if "chunked" in str(headers) and source.random() < 0.7:
      size = source.choice((len(body), 3, len(body) + 9, 2**60, -1))
      body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)
    head = f"HTTP/1.1 {source.choice(_STATUSES)} OK"
    lines = "\r\n".join([head, *headers, "", ""])
    data = lines.encode("latin-1") + body
    if source.random() < 0.3:
      at = source.randrange(min(len(data), 99))
      data = data[:at] + source.randbytes(3) + data[at + source.randrange(9) :]
    _Handler.reply = data
    try:
      return self._outcome(self._patient)
    except ValueError as error:
      # By chance it refused all requests, say with 401, which ends any run.
      assert re.search("answered [34]", str(error)), error
      return "set aside"

  def _outcome(self, remote: Remote) -> Outcome:
    row, good = self._ask(remote)
    assert good.text == _STEP, good
    check_text(row.text)
    assert len(row.token_ids) <= 1024
    assert not math.isinf(row.logprob)
    assert _Handler.reply is None
    if self._seeds & (self._seeds - 1) == 0:
      # The next process finds all that was kept.
      again = self._remote(remote._config.patience_seconds)
      assert not again._journal.passed_over
      # As texts: since Python 3.13 a lost step, whose log-probability is NaN,
      # differs from itself.
      assert repr(self._ask(again, back=2)) == repr([row, good])
    return "set aside" if row.finish == "lost" or row == good else "used"
