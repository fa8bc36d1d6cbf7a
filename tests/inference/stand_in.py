"""Servers with models over real sockets, that fail on demand.

What answers is `rstar_jax.tools.serve_engine`, whose samples are our engine's
to the bit; as SGLang it is translated from the form that SGLang documents.
"""

import json
import socket
import threading
import time
from typing import Any

from rstar_jax.serve import engine_http, engine_server, wire


class StandIn:
  """A server; `close` kills it, with the requests that it has.

  Attributes:
    url: its base.
    served: its models.
    asked: the path and the body of each request.
    faults: what befalls the next requests, one each; {} is none.
    answers_left: after so many answers it dies; None: never.
    scales: whether log-probabilities are not those at temperature 1, but where
      all is greedy, as SGLang has it.
  """

  def __init__(
    self, served: engine_server.EngineService, protocol: str = "openai"
  ):
    self.served = served
    self.asked: list[tuple[str, dict]] = []
    self.faults: list[dict[str, Any]] = []
    self.answers_left: int | None = None
    self.scales = False
    self._protocol = protocol
    self._port = 0
    self._sockets: set[socket.socket] = set()
    self._lock = threading.Lock()
    self.start()

  def start(self) -> None:
    """Listens, again at the same port if it had one."""
    place = socket.create_server(("127.0.0.1", self._port))
    self._server = engine_http.make(self, place)
    self._port = self._server.server_port
    self.url = f"http://127.0.0.1:{self._port}/v1"
    handler = self._server.RequestHandlerClass
    outer = self

    class Handler(handler):
      def setup(self):
        super().setup()
        outer._sockets.add(self.request)

      def finish(self):
        outer._sockets.discard(self.request)
        super().finish()

      def _reply(self, status, answer, headers=None):
        raw = answer.pop("raw", None) if isinstance(answer, dict) else None
        if raw is None:
          return super()._reply(status, answer, headers)
        self.wfile.write(raw)
        self.close_connection = True

    self._server.RequestHandlerClass = Handler
    threading.Thread(target=self._server.serve_forever, daemon=True).start()

  def close(self) -> None:
    self._server.shutdown()
    self._server.server_close()
    for each in list(self._sockets):
      try:
        each.shutdown(socket.SHUT_RDWR)
      except OSError:
        pass

  # What the handler asks of `engine_server.EngineService`.

  @property
  def folders(self):
    return self.served.folders

  def answer(self, path: str, body: dict[str, Any]) -> Any:
    with self._lock:
      self.asked.append((path, json.loads(json.dumps(body))))
      fault = self.faults.pop(0) if self.faults else {}
      dies = self.answers_left == 0
      if self.answers_left:
        self.answers_left -= 1
    if dies:
      threading.Thread(target=self.close).start()
      time.sleep(60)
    time.sleep(fault.get("late", 0))
    if "status" in fault:
      raise wire.Refused(fault.get("said", "a fault"), fault["status"])
    if "raw" in fault:
      return {"raw": fault["raw"]}
    if self._protocol == "openai":
      found = self.served.answer(path, body)
    else:
      found = self._as_sglang(path, body)
    if "change" in fault:
      found = fault["change"](found)
    return found

  def _as_sglang(self, path: str, body: dict[str, Any]) -> Any:
    if path == "/classify":
      asked = {"input": body["input_ids"]}
      found = self.served.answer("/pooling", asked)["data"]
      return [{"embedding": each["data"], "meta_info": {}} for each in found]
    if path != "/generate":
      return self.served.answer(path, body)
    fields = dict(body["sampling_params"])
    assert fields.pop("skip_special_tokens") is False
    greedy = fields.get("top_k") == 1 or not fields["temperature"]
    if fields.get("top_p", 1) <= 1e-6:
      # Of the likeliest token alone, though sampled.
      del fields["top_p"]
      fields["top_k"] = 1
    asked = {
      "prompt": body["input_ids"],
      "max_tokens": fields.pop("max_new_tokens"),
      "seed": fields.pop("sampling_seed", 0),
      **fields,
    }
    (choice,) = self.served.answer("/v1/completions", asked)["choices"]
    logprobs = choice["logprobs"]["token_logprobs"]
    if self.scales and not greedy:
      logprobs = [value / 2 for value in logprobs]
    stopped = choice["stop_reason"] is not None
    return {
      "text": choice["text"],
      "output_ids": choice["token_ids"],
      "meta_info": {
        "finish_reason": {"type": "stop" if stopped else "length"},
        "output_token_logprobs": [
          [value, token, None]
          for value, token in zip(logprobs, choice["token_ids"], strict=True)
        ],
      },
    }
