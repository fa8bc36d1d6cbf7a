"""The HTTP server of our own engine; see `engine_server.py`."""

import http.server
import json
import socket
import sys
from collections.abc import Mapping
from typing import Any

from absl import logging

from rstar_jax import outside
from rstar_jax.report import address
from rstar_jax.serve import access
from rstar_jax.serve.engine_server import EngineService
from rstar_jax.serve.wire import Refused


class _Handler(http.server.BaseHTTPRequestHandler):
  """Handles one connection."""

  # Else the body waits 40 ms for the acknowledgement of the head.
  disable_nagle_algorithm = True
  # Seconds for a client to send a request.
  timeout = 60.0
  service: EngineService
  key: str
  hosts: tuple[str, ...]

  def do_GET(self):
    path = self.path.partition("?")[0]
    try:
      access.check(
        self.headers, "" if path == "/health" else self.key, self.hosts
      )
      if path not in ("/health", "/v1/models"):
        raise Refused("Not Found", 404)
    except Refused as error:
      self._refuse(error)
      return
    if path == "/health":
      self._reply(200, {})
      return
    names = [each for each in self.service.folders.values() if each]
    models = [{"id": each, "object": "model"} for each in names]
    self._reply(200, {"object": "list", "data": models})

  def do_POST(self):
    try:
      answer = self.service.answer(self.path, self._body())
    except Refused as error:
      self._refuse(error)
    except outside.Bad as error:
      self._refuse(Refused(f"the request {error}"))
    except Exception as error:
      logging.exception("a request failed")
      self._refuse(Refused(f"{type(error).__name__}: {error}", 500))
    else:
      self._reply(200, answer)

  def _body(self) -> dict[str, Any]:
    """Reads the request; raises Refused or `outside.Bad`."""
    access.check(self.headers, self.key, self.hosts)
    access.check_form(self.headers)
    size = self.headers.get("Content-Length", "")
    if not size.isdecimal() or int(size) > outside.LONGEST:
      raise Refused(f"Content-Length: {size!r:.40}, want a length", 413)
    body = outside.parse(self.rfile.read(int(size)))
    if not isinstance(body, dict):
      raise Refused("the request is no object")
    return body

  def _refuse(self, error: Refused) -> None:
    self._reply(error.status, error.body, error.headers)

  def _reply(
    self, status: int, answer: Any, headers: Mapping[str, str] | None = None
  ) -> None:
    text = json.dumps(answer).encode()
    self.send_response(status)
    for name, value in (headers or {}).items():
      self.send_header(name, value)
    self.send_header("Content-Type", "application/json")
    self.send_header("Content-Length", str(len(text)))
    self.end_headers()
    self.wfile.write(text)

  def log_message(self, *args):
    del args


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True
  # Connections that wait to be accepted.
  request_queue_size = 1024

  def __init__(self, place: socket.socket, handler: type[_Handler]):
    """Serves at a socket that is bound."""
    super().__init__(place.getsockname(), handler, bind_and_activate=False)
    self.socket.close()  # Its own, which is bound to nothing.
    self.socket = place
    self.server_name, self.server_port = place.getsockname()[:2]
    self.server_activate()

  def handle_error(self, request, client_address):
    """Ignores the error: a client that disconnects is none."""
    if not isinstance(sys.exception(), OSError):
      super().handle_error(request, client_address)


def make(
  service: EngineService, place: socket.socket, key: str = ""
) -> http.server.HTTPServer:
  """Returns a server; `serve_forever` runs it.

  Args:
    service: answers the requests.
    place: a bound socket, which the server closes.
    key: bearer token that clients must send; "" admits all.
  """
  host = place.getsockname()[0]
  # Where only this machine can reach it, no page of another site may.
  local = address.is_local(host) and not key
  hosts = address.names(host) if local else ()
  fields = {"service": service, "key": key, "hosts": hosts}
  return _Server(place, type("Handler", (_Handler,), fields))
