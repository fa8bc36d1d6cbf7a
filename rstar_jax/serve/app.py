"""The server's HTTP paths: authorisation, requests and responses."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from rstar_jax import outside
from rstar_jax.pipeline.solve import Asked, Solution
from rstar_jax.report import trees
from rstar_jax.serve import access, answers, page, wire
from rstar_jax.serve.metrics import Metrics
from rstar_jax.serve.service import Event, Service, stopping
from rstar_jax.serve.wire import Refused, Served

# Most bytes of a request, and most seconds for a client to send it.
BODY, BODY_SECONDS = 1 << 20, 30.0

_Handler = Callable[[Request], Awaitable[Response]]


class App(Starlette):
  """The application."""

  def __init__(
    self,
    service: Service,
    served: Served,
    metrics: Metrics,
    *,
    token: str = "",
    hosts: tuple[str, ...] = (),
  ):
    """Makes the application.

    Args:
      service: answers requests.
      served: the server's models, defaults and limits.
      metrics: counts requests.
      token: clients must send it as "Authorization: Bearer TOKEN"; "" admits
        all.
      hosts: allowed host names of requests, see `address.names`; () allows all.
    """
    self._service, self._served = service, served
    self._metrics = metrics
    self._token, self._hosts = token, hosts
    self._began = int(time.time())

    def route(path: str, call: _Handler, *methods: str, free=False) -> Route:
      return Route(path, self._guarded(call, free), methods=list(methods))

    super().__init__(
      routes=[
        route("/", self._page, "GET", free=True),
        route("/assets/{name}", self._asset, "GET", free=True),
        route("/health", self._health, "GET", free=True),
        route("/metrics", self._measures, "GET"),
        route("/v1/models", self._models, "GET"),
        route("/v1/chat/completions", self._chat, "POST"),
        route("/v1/completions", self._complete, "POST"),
      ],
      exception_handlers={404: self._missing, 405: self._missing},
    )

  def _guarded(self, call: _Handler, free: bool) -> _Handler:
    """Returns a handler behind all checks, whose errors have OpenAI's form."""

    async def guarded(request: Request) -> Response:
      try:
        token = "" if free else self._token
        access.check(request.headers, token, self._hosts)
        try:
          return await call(request)
        except asyncio.CancelledError:
          # The server ends before the client has sent its request.
          raise stopping() from None
      except Refused as error:
        self._metrics.refused(error.status)
        return refusal(error)
      except ClientDisconnect:
        return Response(status_code=499)  # The client has disconnected.

    return guarded

  async def _missing(self, request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    self._metrics.refused(status)
    words = "Not Found" if status == 404 else "Method Not Allowed"
    path = outside.line(request.url.path, 80)
    return refusal(Refused(f"{words}: {request.method} {path}", status))

  async def _page(self, request: Request) -> Response:
    del request
    return Response(page.html(), media_type="text/html", headers=page.HEADERS)

  async def _asset(self, request: Request) -> Response:
    found = page.asset(request.path_params["name"])
    if found is None:
      raise Refused("Not Found", 404)
    text, kind = found
    return Response(text, media_type=kind, headers=page.HEADERS)

  async def _health(self, request: Request) -> Response:
    del request
    if self._service.stopping:
      return JSONResponse({"status": "stopping"}, 503)
    return JSONResponse({"status": "ok"})

  async def _measures(self, request: Request) -> Response:
    del request
    text, kind = self._metrics.text()
    return Response(text, headers={"Content-Type": kind})

  async def _models(self, request: Request) -> Response:
    del request
    return JSONResponse(answers.models(self._served, self._began))

  async def _chat(self, request: Request) -> Response:
    return await self._answer(request, chat=True)

  async def _complete(self, request: Request) -> Response:
    return await self._answer(request, chat=False)

  async def _answer(self, request: Request, chat: bool) -> Response:
    """Answers a question, at once or as a stream."""
    body = await _body(request)
    asked = wire.read(body, self._served, chat=chat)
    prompt = self._service.solver.prompt_tokens(asked.question)
    most = self._service.solver.longest_prompt
    if prompt > most:
      raise Refused(
        f"the question has {prompt} tokens; {most} are the most",
        param="messages" if chat else "prompt",
        code="context_length_exceeded",
      )
    writer = _Writer(self._service, asked, prompt)
    events = self._counted(writer.events(), asked.budget.method)
    if not asked.stream:
      return JSONResponse(await _unless_gone(request, writer.whole(events)))
    await anext(events)  # Without room this raises, before the status is sent.
    return _Stream(writer.stream(events), self._service.limits.seconds)

  async def _counted(
    self, events: AsyncIterator[Event | None], method: str
  ) -> AsyncIterator[Event | None]:
    """Yields the events of a request, and counts how it ends."""
    with self._metrics.request(method) as outcome:
      async with contextlib.aclosing(events):
        async for event in events:
          if event is not None and event.solution is not None:
            outcome.solved(event.solution)
          yield event


class _Writer:
  """Writes the response to one request."""

  def __init__(self, service: Service, request: wire.Request, prompt: int):
    self._service, self._request, self._prompt = service, request, prompt
    self._answer = answers.Answer(request, secrets.token_hex(12))
    self._tokens = 0

  def events(self) -> AsyncIterator[Event | None]:
    """Returns the news of the request; None where there is none yet."""
    request = self._request
    requests = [
      Asked(
        request.question,
        request.budget,
        request.seed,
        number,
        request.temperature,
      )
      for number in range(request.choices)
    ]
    watch = request.tree and request.stream
    return self._service.answer(requests, watch=watch)

  async def whole(self, events: AsyncIterator[Event | None]) -> dict[str, Any]:
    """Returns the answer at once."""
    choices: dict[int, dict[str, Any]] = {}
    async with contextlib.aclosing(events):
      async for event in events:
        if event is None or event.solution is None:
          continue
        self._tokens += event.solution.tokens
        parts, reason = self._parts(event.solution)
        choices[event.index] = self._answer.choice(
          event.index, "".join(parts), reason, self._more(event.solution)
        )
    ordered = [choices[index] for index in sorted(choices)]
    return self._answer.whole(ordered, self._usage())

  async def stream(
    self, events: AsyncIterator[Event | None]
  ) -> AsyncIterator[str]:
    """Yields the answer as a stream."""
    async with contextlib.aclosing(events):
      for index in range(self._request.choices):
        yield self._answer.opening(index)
      try:
        async for event in events:
          for line in self._lines(event):
            yield line
      except Refused as error:
        yield answers.event(error.body)
        return
    if self._request.usage:
      yield self._answer.spent(self._usage())
    yield "data: [DONE]\n\n"

  def _lines(self, event: Event | None) -> list[str]:
    """Returns the lines of a stream for an event, and counts its tokens."""
    if event is None:
      return [": the search goes on\n\n"]
    part = self._answer.part
    if event.solution is None:
      return [part(event.index, more={"grown": event.grown})]
    self._tokens += event.solution.tokens
    parts, reason = self._parts(event.solution)
    more = self._more(event.solution)
    return [
      *(part(event.index, text) for text in parts),
      part(event.index, reason=reason, more=more),
    ]

  def _parts(self, solution: Solution) -> tuple[list[str], str]:
    """Returns the parts of a solution's text, and why it ends."""
    return answers.cut(
      list(answers.pieces(solution)),
      self._request.stop,
      self._request.limit,
      self._service.solver.cut,
    )

  def _more(self, solution: Solution) -> dict[str, Any]:
    tree = None
    if self._request.tree and solution.tree is not None:
      chosen = [] if solution.node is None else [solution.node]
      tree = trees.compact(solution.tree, chosen)
    return answers.report(solution, self._request.budget, tree)

  def _usage(self) -> dict[str, int]:
    return answers.usage(self._prompt, self._tokens)


class _Stream(StreamingResponse):
  """A stream of events, with a deadline for clients that do not read."""

  def __init__(self, lines: AsyncIterator[str], seconds: float):
    super().__init__(
      lines,
      media_type="text/event-stream",
      headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
    self._lines, self._seconds = lines, seconds

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    try:
      # Later than the request's own deadline, which ends it with an event.
      async with asyncio.timeout(self._seconds + BODY_SECONDS):
        await super().__call__(scope, receive, send)
    except (TimeoutError, asyncio.CancelledError):  # Or the server ends.
      scope["state"]["abort"]()
      await asyncio.sleep(0)  # Lets the lost connection be noticed.
    finally:
      await self._lines.aclose()


async def _body(request: Request) -> bytes:
  """Reads a request."""
  access.check_form(request.headers)
  found = bytearray()
  try:
    async with asyncio.timeout(BODY_SECONDS):
      async for part in request.stream():
        found += part
        if len(found) > BODY:
          raise Refused(
            f"the request is longer than {BODY} bytes",
            413,
            headers={"Connection": "close"},
          )
  except TimeoutError:
    raise Refused(
      f"the request was not sent within {BODY_SECONDS:g} s",
      408,
      headers={"Connection": "close"},
    ) from None
  return bytes(found)


async def _unless_gone(request: Request, answer: Awaitable[Any]) -> Any:
  """Returns an answer; cancels it if the client goes before."""

  async def gone() -> None:
    while (await request.receive())["type"] != "http.disconnect":
      pass

  answering = asyncio.ensure_future(answer)
  leaving = asyncio.ensure_future(gone())
  try:
    await asyncio.wait(
      (answering, leaving), return_when=asyncio.FIRST_COMPLETED
    )
    if not answering.done():
      raise ClientDisconnect
    return answering.result()
  finally:
    leaving.cancel()
    answering.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
      await answering


def refusal(error: Refused) -> Response:
  """Returns an error in OpenAI's form."""
  return JSONResponse(error.body, error.status, error.headers)
