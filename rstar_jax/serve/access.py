"""Who may ask a server, and in which form."""

import hmac
from collections.abc import Collection, Mapping

from rstar_jax.report import address
from rstar_jax.serve.wire import Refused


def check(
  headers: Mapping[str, str], token: str, hosts: Collection[str]
) -> None:
  """Raises `Refused` for a request that is not allowed.

  Args:
    headers: the request's, found by names in any case.
    token: clients must send it as "Authorization: Bearer TOKEN"; "" admits all.
    hosts: allowed host names, see `address.names`; () allows all.
  """
  name = headers.get("host", "")
  if hosts and not address.is_named(name, hosts):
    raise Refused(f"this server is not called {name!r:.80}", 421)
  scheme, _, given = headers.get("authorization", "").partition(" ")
  if token and (
    scheme.lower() != "bearer"
    or not hmac.compare_digest(given.strip().encode(), token.encode())
  ):
    raise Refused(
      "the token is missing, or another: send Authorization: Bearer TOKEN",
      401,
      code="invalid_api_key",
      headers={"WWW-Authenticate": "Bearer"},
    )


def check_form(headers: Mapping[str, str]) -> None:
  """Raises `Refused` for a body that is not said to be JSON."""
  kind = headers.get("content-type", "").partition(";")[0].strip()
  if kind.lower() != "application/json":
    # A page of another site cannot send this type without a preflight.
    raise Refused("send Content-Type: application/json", 415)
