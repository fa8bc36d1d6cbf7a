"""The address of a server of pages, and by which names it may be asked.

Another site can make its own name resolve to this machine (DNS rebinding). Its
pages may not read what is served to this machine alone, so that such a server
answers only requests for its own names.
"""

import ipaddress
import re
import socket
from collections.abc import Collection

_PORT = re.compile(r":\d*$")


def family(host: str) -> socket.AddressFamily:
  """Returns the family of an address to listen on."""
  return socket.AF_INET6 if ":" in host else socket.AF_INET


def url(host: str, port: int) -> str:
  """Returns the URL of a server."""
  return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_local(host: str) -> bool:
  """Returns whether an address is reachable from this machine only."""
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return host == "localhost"


def names(host: str) -> tuple[str, ...]:
  """Returns the names of a server that only this machine can reach."""
  return ("localhost", "127.0.0.1", "[::1]", host)


def is_named(header: str, known: Collection[str]) -> bool:
  """Returns whether a request's Host header has a known name, at any port."""
  return _PORT.sub("", header).lower() in known
