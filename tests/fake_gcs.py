"""A server that stands in for Google Cloud Storage, in memory.

It knows the calls that gcsfs, google-cloud-storage and tensorstore make for
what we do, and Google's promises: an object appears whole or not at all, what
was written is seen by the next call, and nothing is renamed.
"""

import base64
import collections
import contextlib
import dataclasses
import hashlib
import http.server
import itertools
import json
import os
import random
import re
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

# Least objects of a listing's page, so that tests see several pages.
_PAGE = 7
# Unique, as Google's are, among all servers of a process.
_GENERATIONS = itertools.count(1)
_OBJECT = re.compile(
  r"(?:/upload|/download)?/storage/v1/b/(?P<bucket>[^/]+)"
  r"(?P<o>/o(?:/(?P<name>[^/]+))?)?(?P<rest>/.*)?"
)


class Refused(Exception):
  """Raised by a hook: the call gets this status."""

  def __init__(self, status: int):
    super().__init__(status)
    self.status = status


@dataclasses.dataclass
class Store:
  """What a server holds.

  Attributes:
    objects: (bucket, name) -> (bytes, generation).
    buckets: their names.
    hook: called before each operation ("read", "list", "write" or "delete"),
      and after what has changed something ("write done", "delete done"); it may
      raise `Refused`.
    calls: (operation, name) of all operations so far.
  """

  buckets: set[str]
  objects: dict[tuple[str, str], tuple[bytes, int]] = dataclasses.field(
    default_factory=dict
  )
  hook: Callable[[str, str], None] = lambda *_: None
  calls: list[tuple[str, str]] = dataclasses.field(default_factory=list)
  lock: Any = dataclasses.field(default_factory=threading.RLock)
  uploads: dict[str, Any] = dataclasses.field(default_factory=dict)

  def begin(self, operation: str, name: str) -> None:
    with self.lock:
      self.calls.append((operation, name))
    self.hook(operation, name)

  def put(self, bucket: str, name: str, data: bytes) -> dict[str, Any]:
    with self.lock:
      self.objects[bucket, name] = bytes(data), next(_GENERATIONS)
      return self.about(bucket, name)

  def about(self, bucket: str, name: str) -> dict[str, Any]:
    data, generation = self.objects[bucket, name]
    return {
      "kind": "storage#object",
      "bucket": bucket,
      "name": name,
      "size": str(len(data)),
      "generation": str(generation),
      "metageneration": "1",
      "etag": str(generation),
      "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
      "contentType": "application/octet-stream",
      "timeCreated": "2026-01-01T00:00:00.000Z",
      "updated": "2026-01-01T00:00:00.000Z",
    }

  def names(self, prefix: str = "") -> list[str]:
    """Returns the sorted names of all objects, as BUCKET/NAME."""
    with self.lock:
      found = (f"{bucket}/{name}" for bucket, name in self.objects)
      return sorted(each for each in found if each.startswith(prefix))


class Crash:
  """A hook: at some point the client is cut off, as if it had died.

  Points are before and after each change, so that one that dies does not know
  whether its last change was made.

  Attributes:
    over: whether that point was reached.
  """

  def __init__(self, point: int):
    """Cuts off at that point, from 1."""
    self._left, self._lock = point, threading.Lock()

  @property
  def over(self) -> bool:
    return self._left <= 0

  def __call__(self, operation: str, name: str) -> None:
    del name
    with self._lock:
      if not self.over and operation.startswith(("write", "delete")):
        self._left -= 1
    if self.over:
      raise Refused(400)


class Unsteady:
  """A hook: calls are slow, a few of them are refused, and a few are late.

  What has changed something may be refused too: it is done, and the client does
  not know.

  Attributes:
    refused: numbers of calls by status, of those that were late by 0.
  """

  def __init__(self, drawn: random.Random, slow: float = 0.02):
    """Makes each call take so many seconds more."""
    self._drawn, self._slow, self._lock = drawn, slow, threading.Lock()
    self.refused: collections.Counter[int] = collections.Counter()

  def __call__(self, operation: str, name: str) -> None:
    with self._lock:
      luck = self._drawn.random()
      status = 503 if luck < 0.02 else 429 if luck < 0.04 else 0
      late = luck < 0.06
      self.refused[status] += late
    if status:
      raise Refused(status)
    time.sleep(50 * self._slow if late else self._slow)


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"
  # Head and body are sent one after the other; else the second waits for the
  # first to be acknowledged, which takes 40 ms.
  disable_nagle_algorithm = True
  store: Store

  def log_message(self, *_: Any) -> None:
    pass

  def _answer(self) -> None:
    url = urllib.parse.urlsplit(self.path)
    query = dict(urllib.parse.parse_qsl(url.query))
    body = self._body()
    match = _OBJECT.fullmatch(url.path)
    try:
      if match is None:
        raise Refused(501)
      bucket, name = (
        urllib.parse.unquote(match[each] or "") for each in ("bucket", "name")
      )
      if bucket not in self.store.buckets:
        raise Refused(404)
      if url.path.startswith("/upload"):
        self._upload(bucket, query, body)
      elif match["rest"]:
        self._rewrite(bucket, name, match["rest"])
      elif self.command == "DELETE":
        self._delete(bucket, name, query)
      elif not match["o"]:
        self._json({"kind": "storage#bucket", "id": bucket, "name": bucket})
      elif not name:
        self._list(bucket, query)
      elif query.get("alt") == "media":
        self._media(bucket, name, query)
      else:
        self.store.begin("read", name)
        self._check(bucket, name, query)
        self._json(self.store.about(bucket, name))
    except Refused as error:
      if error.status == 304:
        self._send(304, b"")
      else:
        said = {"error": {"code": error.status, "message": ""}}
        self._json(said, error.status)

  do_GET = do_POST = do_PUT = do_DELETE = _answer

  def _body(self) -> bytes:
    if self.headers.get("Transfer-Encoding") == "chunked":
      parts = []
      while size := int(self.rfile.readline().split(b";")[0], 16):
        parts.append(self.rfile.read(size))
        self.rfile.readline()
      self.rfile.readline()
      return b"".join(parts)
    return self.rfile.read(int(self.headers.get("Content-Length") or 0))

  def _send(self, status: int, data: bytes, **headers: str) -> None:
    self.send_response(status)
    for key, value in headers.items():
      self.send_header(key.replace("_", "-"), value)
    self.send_header("Content-Length", str(len(data)))
    self.end_headers()
    self.wfile.write(data)

  def _json(self, value: Any, status: int = 200) -> None:
    data = json.dumps(value).encode()
    self._send(status, data, Content_Type="application/json; charset=UTF-8")

  def _check(self, bucket: str, name: str, query: dict[str, str]) -> None:
    """Refuses what is not there, or not of the generation asked for."""
    _, generation = self.store.objects.get((bucket, name), (b"", 0))
    if int(query.get("ifGenerationMatch", generation)) != generation:
      raise Refused(412)
    if query.get("ifGenerationNotMatch") == str(generation):
      raise Refused(304 if self.command == "GET" else 412)
    if not generation or int(query.get("generation", generation)) != generation:
      raise Refused(404)

  def _media(self, bucket: str, name: str, query: dict[str, str]) -> None:
    self.store.begin("read", name)
    with self.store.lock:
      self._check(bucket, name, query)
      data, generation = self.store.objects[bucket, name]
    headers = {"x_goog_generation": str(generation), "ETag": str(generation)}
    asked = re.fullmatch(
      r"bytes=(\d*)-(\d*)", self.headers.get("Range", "").strip()
    )
    if not asked:
      self._send(200, data, **headers)
      return
    first, last = asked[1], asked[2]
    start = int(first) if first else max(len(data) - int(last), 0)
    end = min(int(last) + 1, len(data)) if first and last else len(data)
    if start >= len(data):
      raise Refused(416)
    where = f"bytes {start}-{end - 1}/{len(data)}"
    self._send(206, data[start:end], Content_Range=where, **headers)

  def _list(self, bucket: str, query: dict[str, str]) -> None:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    self.store.begin("list", prefix)
    with self.store.lock:
      found: dict[str, Any] = {}
      for owner, name in sorted(self.store.objects):
        rest = name.removeprefix(prefix)
        if owner != bucket or not name.startswith(prefix):
          continue
        if not query.get("startOffset", "") <= name:
          continue
        if "endOffset" in query and name >= query["endOffset"]:
          continue
        if delimiter and delimiter in rest:
          found[prefix + rest.partition(delimiter)[0] + delimiter] = None
        else:
          found[name] = self.store.about(bucket, name)
    start = int(query.get("pageToken", 0))
    size = min(int(query.get("maxResults", _PAGE)), _PAGE)
    page = list(found.items())[start : start + size]
    answer: dict[str, Any] = {"kind": "storage#objects"}
    answer["items"] = [about for _, about in page if about is not None]
    answer["prefixes"] = [name for name, about in page if about is None]
    if start + size < len(found):
      answer["nextPageToken"] = str(start + size)
    self._json({key: value for key, value in answer.items() if value})

  def _upload(self, bucket: str, query: dict[str, str], body: bytes) -> None:
    if "upload_id" in query:
      self._part(query["upload_id"], body)
      return
    kind = query["uploadType"]
    if kind == "multipart":
      boundary = re.search('boundary="?([^";]+)', self.headers["Content-Type"])
      assert boundary
      _, about, content, _ = body.split(b"--" + boundary[1].encode())
      name = json.loads(re.split(rb"\r?\n\r?\n", about, maxsplit=1)[1])["name"]
      # Lines end as the first one does: what is uploaded may end with "\r".
      end = b"\r\n" if content.startswith(b"\r\n") else b"\n"
      body = content.split(2 * end, maxsplit=1)[1].removesuffix(end)
    else:
      name = query.get("name") or json.loads(body)["name"]
    if kind == "resumable":
      with self.store.lock:
        key = str(len(self.store.uploads))
        self.store.uploads[key] = (bucket, name, bytearray())
      place = f"http://{self.headers['Host']}/upload/storage/v1/b/{bucket}/o"
      self._send(200, b"", Location=f"{place}?upload_id={key}")
      return
    self._write(bucket, name, body, query)

  def _part(self, key: str, body: bytes) -> None:
    if self.command == "DELETE":
      self._send(499, b"")
      return
    bucket, name, data = self.store.uploads[key]
    data += body
    total = self.headers["Content-Range"].rpartition("/")[2]
    if total == "*" or len(data) < int(total):
      self._send(308, b"", Range=f"bytes=0-{len(data) - 1}")
    else:
      self._write(bucket, name, bytes(data), {})

  def _write(
    self, bucket: str, name: str, data: bytes, query: dict[str, str]
  ) -> None:
    self.store.begin("write", name)
    with self.store.lock:
      _, generation = self.store.objects.get((bucket, name), (b"", 0))
      if int(query.get("ifGenerationMatch", generation)) != generation:
        raise Refused(412)
      about = self.store.put(bucket, name, data)
    self.store.hook("write done", name)
    self._json(about)

  def _delete(self, bucket: str, name: str, query: dict[str, str]) -> None:
    self.store.begin("delete", name)
    with self.store.lock:
      self._check(bucket, name, query)
      del self.store.objects[bucket, name]
    self.store.hook("delete done", name)
    self._send(204, b"")

  def _rewrite(self, bucket: str, name: str, rest: str) -> None:
    to = re.fullmatch(r"/(?:rewriteTo|copyTo)/b/([^/]+)/o/([^/]+)", rest)
    if not to:
      raise Refused(501)
    self._check(bucket, name, {})
    target, other = map(urllib.parse.unquote, to.groups())
    self.store.begin("write", other)
    with self.store.lock:
      about = self.store.put(target, other, self.store.objects[bucket, name][0])
    self._json({"done": True, "resource": about})


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True

  def handle_error(self, *_: Any) -> None:
    # A client that has its answer from elsewhere, or was killed, hangs up.
    if not isinstance(sys.exception(), ConnectionError):
      super().handle_error(*_)


@contextlib.contextmanager
def serve(bucket: str) -> Iterator[tuple[Store, dict[str, str]]]:
  """Serves a store with one empty bucket.

  Yields:
    The store, and the environment in which the libraries use it.
  """
  store = Store({bucket})
  handler = type("Handler", (_Handler,), {"store": store})
  server = _Server(("127.0.0.1", 0), handler)
  # It looks every 20 ms whether it is to end; by default twice a second.
  thread = threading.Thread(
    target=server.serve_forever, args=(0.02,), daemon=True
  )
  thread.start()
  url = f"http://127.0.0.1:{server.server_address[1]}"
  environment = {
    "STORAGE_EMULATOR_HOST": url,
    "TENSORSTORE_GCS_HTTP_URL": url,
    # No machine of Google's is asked who we are.
    "NO_GCE_CHECK": "true",
    "GCE_METADATA_HOST": "127.0.0.1:1",
    "GCE_METADATA_ROOT": "127.0.0.1:1",
    "GOOGLE_CLOUD_PROJECT": "nobody",
  }
  try:
    with mock.patch.dict(os.environ, environment):
      yield store, environment
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
