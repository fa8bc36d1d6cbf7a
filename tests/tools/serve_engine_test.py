"""The command that serves our engine: what it refuses, and what it starts."""

import contextlib
import io
import os
import socket
import types
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.tools import serve_engine


class ServeTest(parameterized.TestCase):
  def run_main(self, *arguments: str, **values):
    """Runs the program with these flags."""
    given = {
      "config": "a config",
      "policy": "",
      "ppm": "",
      "host": "127.0.0.1",
      "port": 0,
      "api_key_env": "",
    }
    flags = types.SimpleNamespace(**given | values)
    with mock.patch.object(serve_engine.flags, "FLAGS", flags):
      serve_engine.main(["", *arguments])

  @parameterized.parameters(
    ({}, "--policy or --ppm"),
    ({"config": None, "ppm": "a"}, "give --config"),
    ({"ppm": "a", "api_key_env": "NO_KEY"}, "NO_KEY: the environment lacks"),
  )
  def test_refuses(self, values, message):
    with self.assertRaisesRegex(ValueError, message):
      self.run_main(**values)

  def test_an_argument_that_is_no_flag(self):
    with self.assertRaisesRegex(ValueError, "'runs' is no flag"):
      self.run_main("runs", ppm="a")

  def test_a_port_that_is_taken_is_said_before_models_are_loaded(self):
    with (
      socket.create_server(("127.0.0.1", 0)) as other,
      mock.patch.object(serve_engine.engine_server, "EngineService") as served,
    ):
      port = other.getsockname()[1]
      with self.assertRaisesRegex(OSError, f"port {port}: .*another --port"):
        self.run_main(policy="p", port=port)
    served.assert_not_called()

  def test_starts_a_server_of_the_models_with_the_key(self):
    # A server that answers is in serve/engine_server_test.
    with (
      mock.patch.object(serve_engine.engine_server, "EngineService") as served,
      mock.patch.object(serve_engine.engine_http, "make") as make,
      mock.patch.dict(os.environ, {"A_KEY": "s3cret"}),
    ):
      server = make.return_value.__enter__.return_value
      server.server_port = 1234
      server.serve_forever.side_effect = KeyboardInterrupt
      self.run_main(policy="p", ppm="v", api_key_env="A_KEY")
    served.assert_called_once_with("a config", policy="p", ppm="v")
    make.assert_called_once_with(served(), mock.ANY, "s3cret")
    server.serve_forever.assert_called_once_with()

  @parameterized.parameters("127.0.0.1", "::1")
  def test_the_port_is_kept_while_models_are_loaded(self, host):
    with socket.create_server(
      (host, 0), family=serve_engine.address.family(host)
    ) as free:
      port = free.getsockname()[1]
    loading = []

    def load(*_, **__):
      family = serve_engine.address.family(host)
      with socket.socket(family) as other, self.assertRaises(OSError):
        other.bind((host, port))
      loading.append(host)

    def serve(server):
      self.assertEqual(server.server_port, port)
      socket.create_connection((host, port), 60).close()

    http, server = serve_engine.engine_http, serve_engine.engine_server
    with (
      mock.patch.object(server, "EngineService", side_effect=load),
      mock.patch.object(http._Server, "serve_forever", serve),
      contextlib.redirect_stdout(io.StringIO()) as said,
    ):
      self.run_main(policy="p", host=host, port=port)
    self.assertEqual(loading, [host])
    self.assertIn(serve_engine.address.url(host, port), said.getvalue())


if __name__ == "__main__":
  absltest.main()
