"""The HTTP server: deadlines for slow clients, and a graceful end."""

import time

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from rstar_jax.serve.service import Service

# Seconds for a client to start a request.
HEAD_SECONDS = 30.0
# Most connections at once; a common limit of open files is 1,024.
_CONNECTIONS = 512
# Seconds from the end of all requests to the end of the process.
_LAST_SECONDS = 5


class Server(uvicorn.Server):
  """A server that finishes its requests before it ends.

  After a signal it refuses new requests. It ends when no request is left, or
  after its grace. A second signal, and a deadline behind the grace, are of
  `stopping.listening`.
  """

  def __init__(self, made: Starlette, service: Service, grace: float):
    """Creates a server that does not listen yet.

    Args:
      made: the application.
      service: has the requests to finish.
      grace: seconds for them to finish.
    """
    super().__init__(
      uvicorn.Config(
        made,
        # uvloop would take the descriptor from which `stopping` reads signals.
        loop="asyncio",
        http=_Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=int(HEAD_SECONDS),
        timeout_graceful_shutdown=_LAST_SECONDS,
      )
    )
    self._service, self._grace = service, grace
    self._until: float | None = None

  def stop(self) -> None:
    """Starts the end: new requests are refused."""
    self._service.stopping = True
    self._until = time.monotonic() + self._grace

  def handle_exit(self, sig, frame) -> None:
    del sig, frame
    self.stop()

  async def on_tick(self, counter: int) -> bool:
    if self._until is not None and (
      self._service.idle or time.monotonic() >= self._until
    ):
      self._service.end_all()
      self.should_exit = True
    return await super().on_tick(counter)


class _Connection(H11Protocol):
  """A connection whose client has to start a request in time."""

  def __init__(self, *args, **options):
    super().__init__(*args, **options)
    self._late = None

  def connection_made(self, transport) -> None:
    super().connection_made(transport)
    self.app_state = {**self.app_state, "abort": transport.abort}
    self._watch()

  def data_received(self, data: bytes) -> None:
    super().data_received(data)
    self._watch()

  def connection_lost(self, exc) -> None:
    super().connection_lost(exc)
    if self._late is not None:
      self._late.cancel()

  def _watch(self) -> None:
    """Starts the clock while a request is awaited, else stops it."""
    begun = self.cycle is not None and not self.cycle.response_complete
    if begun and self._late is not None:
      self._late.cancel()
      self._late = None
    elif not begun and self._late is None:
      self._late = self.loop.call_later(HEAD_SECONDS, self._end)

  def _end(self) -> None:
    self._late = None
    if self.cycle is None or self.cycle.response_complete:
      self.transport.abort()
