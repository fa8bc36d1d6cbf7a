"""Serves a live report of a run: rstar_jax watch runs/tiny

The page is that of `page.py`, with data from this process instead of from
elements of the page. It asks for news every other second. Only then, and no
more often than the cost of a look allows, the folder is read: finished folders
are not listed again, and of files only the new part is read. Nothing is ever
written.
"""

import argparse
import dataclasses
import errno
import http.server
import json
import math
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from rstar_jax import outside
from rstar_jax.report import address, inputs, page, progress, status
from rstar_jax.report import overview as overview_lib
from rstar_jax.report import trees as trees_lib
from rstar_jax.report.newest import Newest
from rstar_jax.storage import layout, store
from rstar_jax.storage.snapshot import Snapshot

_HOST, _PORT = "127.0.0.1", 6007
# Seconds between two looks, or this multiple of a look's own time if that is
# longer.
_SECONDS, _SHARE = 2.0, 9.0
# Files at the top of a run's folder.
_OF_A_RUN = {layout.CONFIG, layout.LOG, layout.METRICS, layout.RESULTS}
_TEXT, _JSON = "text/plain; charset=utf-8", "application/json"


@dataclasses.dataclass(frozen=True)
class Shown:
  """The data of the page at one moment.

  Attributes:
    version: changes whenever the other fields do.
    done: whether no stage is left.
    overview: the first page's numbers, as JSON.
    problems: the rows of the list, packed.
    at: time of reading, on this process's clock.
  """

  version: int
  done: bool
  overview: str
  problems: str
  at: float


class Watch:
  """The state of a run's folder; thread-safe."""

  def __init__(self, workdir: store.Path):
    """Reads a folder for the first time.

    Raises:
      ValueError: there is no such folder, it is not a run's, or a file of it
        cannot be shown.
      OSError: it cannot be read.
    """
    _check(workdir)
    self.workdir = workdir
    self._newest = Newest(workdir)
    self._lock = threading.Lock()
    self._files: Snapshot | None = None
    self._life: float | None = None
    self._next = 0.0
    self._error = ""
    self.shown = Shown(0, False, "{}", trees_lib.encode([]), 0.0)
    self._look()

  def now(self) -> dict[str, Any]:
    """Reads the folder again if it is time to; returns the current state.

    Returns:
      "version" and "done" of `shown`; "age", the seconds since the run last
      wrote, None if it never did; "read", the seconds since `shown` was read;
      "error", why the folder cannot be read, or "".
    """
    # While another thread reads the folder, the last state is returned.
    if self._lock.acquire(blocking=False):
      try:
        if time.monotonic() >= self._next:
          self._look()
          self._error = ""
      except (OSError, ValueError) as error:
        self._error = f"{self.workdir}: {error}".strip()
      finally:
        self._lock.release()
    now = time.monotonic()
    return {
      "version": self.shown.version,
      "done": self.shown.done,
      "age": None if self._life is None else now - self._life,
      "read": now - self.shown.at,
      "error": self._error,
    }

  def tree(self, block: int) -> str | None:
    """Returns a packed tree, None if it is no longer kept."""
    return self._newest.tree(block)

  def _look(self) -> None:
    """Reads the news of the folder."""
    began = time.monotonic()
    try:
      before, files = self._files, Snapshot(self.workdir, self._files)
      if before and not set(before.folders()) <= set(files.folders()):
        # A deleted round, or run, has no problems to show.
        self._newest, before = Newest(self.workdir), None
      changed = files.changed(before)
      if before is None or changed or files.lacks(before):
        self._live(files, changed, began, first=before is None)
        self._read(files, changed)
      self._files = files
    finally:
      took = time.monotonic() - began
      self._next = time.monotonic() + max(_SECONDS, _SHARE * took)

  def _live(
    self, files: Snapshot, changed: list[str], now: float, first: bool
  ) -> None:
    """Notes when the run last wrote."""
    if first and changed:
      # At first by the clock of the files' machine; later, by this process's.
      now -= min(files.ages(files.newest(changed)[:1]))
    if changed:
      self._life = now

  def _read(self, files: Snapshot, changed: list[str]) -> None:
    found, problem = progress.Status(str(self.workdir)), ""
    try:
      found = progress.look(self.workdir, files)
    except ValueError as error:
      problem = str(error)
    try:
      read = inputs.now(store.name_of(self.workdir), files)
      overview = overview_lib.overview(read)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
      # One of these is in a form that no version writes.
      names = " or ".join(inputs.shown(changed))
      raise ValueError(
        f"cannot be shown: {names} has another form "
        f"({type(error).__name__}: {error})"
      ) from error
    self._newest.read(files, changed, read["config"])
    overview["live"] = _of_status(found)
    overview["live"]["said"] = problem
    overview["live"]["samples"] = list(self._newest.samples)
    self.shown = Shown(
      self.shown.version + 1,
      bool(found.stages) and all(e.state == "done" for e in found.stages),
      outside.valid(json.dumps(overview, allow_nan=False)),
      trees_lib.encode(self._newest.problems),
      time.monotonic(),
    )


def _check(workdir: store.Path) -> None:
  """Raises for a folder that is neither a run's nor empty.

  Raises:
    ValueError: with a message of one line.
  """
  store.check(workdir)
  names = store.children(workdir)
  begins = not store.is_remote(workdir) and workdir.is_dir() and not names
  if not (begins or _OF_A_RUN & set(names) or layout.rounds(names)):
    raise ValueError(layout.no_run(workdir))


def _of_status(found: progress.Status) -> dict[str, Any]:
  """Returns the page's data on progress."""
  head, rows = status.table(found) if found.stages else ([], [])
  hosts = {host: _work_of_host(line) for host, line in found.last.items()}
  for each in found.at_work:
    known = hosts.setdefault(each.host, {"stage": "", "age": each.age})
    known |= {"shards": each.shards, "age": min(each.age, known["age"])}
  return {
    "begun": bool(found.stages),
    "summary": status.summary(found) if found.stages else "",
    "left": status.time_left(found) if found.stages else "",
    "head": head,
    "rows": rows,
    "studies": status.studies(found),
    "hosts": [{"host": host, **hosts[host]} for host in sorted(hosts)],
  }


def _work_of_host(line: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the page's data on a host's work, from a line of metrics."""
  fields = {"stage": "", "step": line["step"], "age": line["age"]}
  names = {
    "rate": ("generated_tokens_per_second", "tokens_per_second"),
    "full": ("useful_slots",),
    "loss": ("loss",),
    "of": ("updates",),
  }
  for key, value in line.items():
    prefix, _, what = key.rpartition("/")
    if not prefix or not math.isfinite(value):
      continue
    fields["stage"] = prefix.partition("/")[0]
    for name, whats in names.items():
      if what in whats:
        fields[name] = value
  return fields


class _Server(http.server.ThreadingHTTPServer):
  """Serves the page and its data.

  Attributes:
    watch: the state of the folder.
  """

  daemon_threads = True

  def __init__(self, host: str, port: int, watch: Watch):
    self.address_family = address.family(host)
    super().__init__((host, port), _Handler)
    self.watch = watch
    self.page = page.live(store.name_of(watch.workdir)).encode()

  def handle_error(self, request: Any, client_address: Any) -> None:
    """Ignores the error: a browser that disconnects is none."""
    if not isinstance(sys.exception(), OSError):
      super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
  """Answers GET and HEAD only, once per connection."""

  server_version, sys_version = "rstar_jax", ""
  # Seconds after which an idle connection is closed.
  timeout = 60.0
  server: _Server

  def do_GET(self) -> None:  # noqa: N802
    if not self._is_for_us():
      self._answer(403, _TEXT, b"ask by the address that was printed")
      return
    watch, name = self.server.watch, self.path.partition("?")[0].lstrip("/")
    block = name.removeprefix("tree-")
    if not name:
      self._answer(200, "text/html; charset=utf-8", self.server.page)
    elif name == "now":
      self._answer(200, _JSON, json.dumps(watch.now()).encode())
    elif name == "overview":
      self._answer(200, _JSON, watch.shown.overview.encode())
    elif name == "problems":
      self._answer(200, _TEXT, watch.shown.problems.encode())
    elif block.isdecimal() and len(block) < 20:
      packed = watch.tree(int(block))
      if packed is None:
        self._answer(404, _TEXT, b"this tree is not kept here any more")
      else:
        self._answer(200, _TEXT, packed.encode())
    else:
      self._answer(404, _TEXT, b"there is no such page")

  do_HEAD = do_GET  # noqa: N815

  def _is_for_us(self) -> bool:
    """Returns whether the request names this server; see `address`."""
    host = self.server.server_address[0]
    return not address.is_local(host) or address.is_named(
      self.headers.get("Host", ""), address.names(host)
    )

  def _answer(self, code: int, kind: str, body: bytes) -> None:
    self.send_response(code)
    self.send_header("Content-Type", kind)
    self.send_header("Content-Length", str(len(body)))
    self.send_header("Cache-Control", "no-store")
    self.send_header("X-Content-Type-Options", "nosniff")
    self.send_header("Cross-Origin-Resource-Policy", "same-origin")
    self.send_header("X-Frame-Options", "DENY")
    self.end_headers()
    if self.command != "HEAD":
      self.wfile.write(body)

  def log_message(self, *_: Any) -> None:
    """Writes no log, since every page asks every other second."""


def serve(watch: Watch, host: str = _HOST, port: int | None = None) -> _Server:
  """Returns a bound server; `serve_forever` runs it.

  Args:
    watch: the state of the folder.
    host: address to listen on.
    port: 0 takes any free port; None takes the default one, or any free one if
      that is taken.

  Raises:
    OSError: the address cannot be bound.
  """
  try:
    return _Server(host, _PORT if port is None else port, watch)
  except OSError as error:
    if port is None and error.errno == errno.EADDRINUSE:
      return _Server(host, 0, watch)
    raise OSError(
      f"{host}:{port} cannot be had ({error.strerror}): give another --port, "
      "or leave it out, which takes one that is free"
    ) from None


def main(arguments: list[str] | None = None) -> int:
  """Serves until Ctrl-C; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog="rstar_jax watch",
    description="Serves a page that shows a run as it goes. It writes nothing.",
  )
  parser.add_argument(
    "workdir", nargs="?", help="the run's folder, or gs://BUCKET/NAME"
  )
  parser.add_argument("--workdir", dest="named", help="the same, as a flag")
  parser.add_argument(
    "--host",
    default=_HOST,
    help="address to listen on; 0.0.0.0 is all (default: %(default)s)",
  )
  parser.add_argument(
    "--port", type=int, help=f"port (default: {_PORT}, or any free one)"
  )
  options = parser.parse_args(arguments)
  workdir = options.workdir or options.named
  if not workdir:
    parser.error("the run's folder is missing: rstar_jax watch FOLDER")
  try:
    watch = Watch(store.path(workdir))
    server = serve(watch, options.host, options.port)
  except (ValueError, OSError, OverflowError) as error:
    outside.say(f"rstar_jax watch: {error}", sys.stderr)
    return 1
  with server:
    host, port = server.server_address[:2]
    outside.say(
      f"watching {workdir}: {address.url(host, port)} (Ctrl-C ends this "
      "page, not the run)"
    )
    if not address.is_local(host):
      outside.say("whoever reaches this port can read the run", sys.stderr)
    try:
      server.serve_forever()
    except KeyboardInterrupt:
      pass
  return 0
