"""Addresses of servers, and the names by which they may be asked."""

import socket
import urllib.parse

from absl.testing import absltest, parameterized

from rstar_jax.report import address


class AddressTest(parameterized.TestCase):
  @parameterized.parameters("127.0.0.1", "::1")
  def test_a_url_of_both_families(self, host):
    with socket.socket(address.family(host)) as place:
      place.bind((host, 0))
      port = place.getsockname()[1]
    found = urllib.parse.urlsplit(address.url(host, port))
    self.assertEqual((found.hostname, found.port), (host, port))
    self.assertTrue(address.is_named(found.netloc, address.names(host)))

  def test_who_is_this_machine(self):
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
      self.assertTrue(address.is_local(host), host)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"):
      self.assertFalse(address.is_local(host), host)

  def test_names_with_and_without_a_port(self):
    known = address.names("127.0.0.2")
    for name in ("localhost", "127.0.0.1", "127.0.0.2", "[::1]", "LocalHost"):
      for port in ("", ":", ":80"):
        self.assertTrue(address.is_named(name + port, known), name + port)
    for name in ("evil.example", "", "localhost.evil.example", "::1", "::1:80"):
      for port in ("", ":80"):
        self.assertFalse(address.is_named(name + port, known), name + port)


if __name__ == "__main__":
  absltest.main()
