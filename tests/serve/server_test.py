"""Connections whose clients hang, what is left of them, and the end."""

import concurrent.futures
import json
import signal
import socket
import threading
from unittest import mock

from absl.testing import absltest

from rstar_jax.serve import app, server, service
from tests.serve import served
from tests.serve.served import until

USER = [{"role": "user", "content": served.QUESTION}]


class LazyCase(served.ServedCase):
  """A test with clients that say nothing, or read nothing."""

  def lazy(self, body: bytes = b"", length: int = 0) -> socket.socket:
    """Returns a connection that has sent no more than this."""
    found = socket.socket()
    self.addCleanup(found.close)
    found.settimeout(60)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    found.connect(("127.0.0.1", self.port))
    if body:
      found.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (length or len(body), body)
      )
    return found

  def unread(self) -> socket.socket:
    """Returns a connection with an answer of more than sockets hold."""
    options = tuple(f"x += {i}  # {'a' * 1_000_000}" for i in (1, 2, 3))
    self.addCleanup(self.policy.set, "options", self.policy.options)
    self.policy.set("options", options)
    body = {"messages": USER, "stream": True, "tree": True}
    found = self.lazy(json.dumps(body).encode())
    until(lambda: self.service.running)
    return found


class ClientsTest(served.ServedCase):
  limits = service.Limits(places=3, line=2, seconds=600.0)

  def test_a_client_that_hangs_holds_no_other(self):
    # It begins a request, and says no more; another does not read.
    for data in (b"POST /v1/chat", b"", b"\0\xff" * 99):
      lazy = socket.create_connection(("127.0.0.1", self.port), timeout=60)
      self.addCleanup(lazy.close)
      lazy.sendall(data)
    lazy = socket.create_connection(("127.0.0.1", self.port), timeout=60)
    self.addCleanup(lazy.close)
    body = json.dumps(
      {"messages": USER, "stream": True, "tree": True, "n": 8}
    ).encode()
    head = (
      "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
      "Content-Type: application/json\r\n"
      f"Content-Length: {len(body)}\r\n\r\n"
    )
    lazy.sendall(head.encode() + body)
    for _ in range(3):
      self.assertEqual(self.chat()[0], 200)

  def test_nothing_is_left(self):
    self.chat()
    until(lambda: self.service.idle)
    # Those of the pool stay, as many as there are places.
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
      list(pool.map(lambda _: self.chat(), range(3)))
    until(lambda: not self.server.server_state.connections)
    threads, files = threading.active_count(), served.open_files()
    for _ in range(20):
      self.chat()
    until(lambda: not self.server.server_state.connections)
    # asyncio forgets a connection before it closes its socket.
    until(lambda: threading.active_count() <= threads)
    until(lambda: served.open_files() <= files)


class LazyTest(LazyCase):
  """Clients that say nothing, or read nothing, for too long."""

  limits = service.Limits(places=3, line=2, seconds=1.0)

  @classmethod
  def setUpClass(cls):
    for module, name in ((app, "BODY_SECONDS"), (server, "HEAD_SECONDS")):
      cls.enterClassContext(mock.patch.object(module, name, 0.5))
    super().setUpClass()

  def test_a_request_that_does_not_begin(self):
    silent, halting = self.lazy(), self.lazy()
    halting.sendall(b"POST /v1")
    for each in (silent, halting):
      self.assertEqual(each.recv(1000), b"")
    self.assertEmpty(self.server.server_state.connections)

  def test_a_request_that_does_not_end(self):
    halting = self.lazy(b"{", 99)
    self.assertIn(b" 408 ", halting.recv(1000))

  def test_an_answer_that_is_not_read(self):
    lazy = self.unread()
    until(lambda: not self.server.server_state.connections)
    until(lambda: self.service.idle)
    found = b""
    while part := lazy.recv(1 << 20):
      found += part
    self.assertIn(b'"grown"', found)
    self.assertNotIn(b"[DONE]", found)


class StopTest(LazyCase):
  def test_requests_end_and_new_ones_are_refused(self):
    self.policy.go.clear()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      answer = pool.submit(self.chat)
      until(lambda: self.service.running == 1)
      self.server.stop()
      status, _, headers = self.ask("/v1/chat/completions", {"messages": USER})
      self.assertEqual(status, 503)
      self.assertGreater(int(headers["retry-after"]), 0)
      self.assertEqual(self.ask("/health")[0], 503)
      self.assertTrue(self.thread.is_alive())
      self.policy.go.set()
      self.assertEqual(answer.result()[0], 200)
    self.thread.join(60)
    self.assertFalse(self.thread.is_alive())
    # At the same port again.
    type(self).start()
    self.assertEqual(self.chat()[0], 200)

  def test_the_grace_ends_what_does_not(self):
    self.server._grace = 0.0
    self.policy.go.clear()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      answer = pool.submit(self.chat)
      until(lambda: self.service.running == 1)
      self.server.handle_exit(signal.SIGTERM, None)
      status, found = answer.result()
      self.assertEqual(status, 503)
      self.assertIn("stopping", found["error"]["message"])
      self.policy.go.set()
    self.thread.join(60)
    type(self).start()

  def test_clients_that_hang_at_the_end(self):
    self.server.config.timeout_graceful_shutdown = 0.5
    halting = self.lazy(b"{", 99)
    self.unread()
    until(lambda: not self.service.running)
    with self.assertLogs("uvicorn.error", "ERROR") as logged:
      self.server.stop()
      self.assertIn(b" 503 ", halting.recv(1000))
      self.thread.join(60)
    self.assertNotIn("Traceback", "".join(logged.output))
    type(self).start()


if __name__ == "__main__":
  absltest.main()
