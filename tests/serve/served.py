"""A server with a scripted policy, in a thread; and what is left of it."""

import http.client
import json
import os
import pathlib
import tempfile
import threading
import time
from unittest import mock

from absl.testing import parameterized

from rstar_jax import testing
from rstar_jax.pipeline import backends, solve
from rstar_jax.serve import app, command, metrics, service, wire
from rstar_jax.serve import server as server_lib
from rstar_jax.storage import manifests
from tests import tiny_run

# Two additions of 1, 2 or 3 give 2 to 6.
QUESTION = "four"


class Policy(testing.ToySum):
  """A scripted policy that can be held.

  It breaks at the question "broken".
  """

  def __init__(self):
    super().__init__()
    self.set("go", threading.Event())
    # Calls that are let through while it is held.
    self.set("free", [])
    self.go.set()

  def set(self, name, value) -> None:
    """Sets an attribute, which the dataclass would not."""
    object.__setattr__(self, name, value)

  def __call__(self, questions, prefixes, seeds):
    if self.free:
      self.free.pop()
    else:
      self.go.wait(60)
    if "broken" in questions:
      raise RuntimeError("a secret of the host")
    return super().__call__(questions, prefixes, seeds)


class ServedCase(parameterized.TestCase):
  """A test with a server, one for all tests of a class.

  Attributes:
    policy: what writes the steps.
    solver: what the server asks.
    service, server, port: of the server.
  """

  limits = service.Limits(places=64, line=64, seconds=600.0)
  options: dict = {}
  port = 0

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    source = tiny_run.write_problems(folder / "test.jsonl", {QUESTION: "4"})
    config = tiny_run.make_config(source, source)
    context = tiny_run.make_context(config, folder / "run")
    for name in ("policy", "ppm"):
      manifests.write(context.folder(1, name), {}, [])
    cls.policy = Policy()
    device = tiny_run.ScriptedBackend.scripted(cls.policy)
    with mock.patch.object(backends, "ModelBackend", device):
      cls.solver = solve.Solver(context, 1)
    cls.served = wire.Served(
      name="toy",
      methods=cls.solver.methods,
      usual=cls.solver.budget(),
      temperature=config.engine.temperature,
      any_temperature=cls.solver.any_temperature,
      top_p=config.engine.top_p,
      seed=config.seed,
      question_characters=500,
      solutions=64,
    )
    cls.start()

  @classmethod
  def start(cls) -> None:
    """Starts a server in a thread; again, at the same port."""
    cls.service = service.Service(cls.solver, cls.limits)
    made = app.App(
      cls.service,
      cls.served,
      metrics.Metrics(cls.service, lambda: 2),
      **cls.options,
    )
    cls.place = cls.enterClassContext(command.listening("127.0.0.1", cls.port))
    cls.port = cls.place.getsockname()[1]
    cls.server = server_lib.Server(made, cls.service, 60.0)
    cls.thread = threading.Thread(target=cls.server.run, args=([cls.place],))
    cls.thread.start()
    # Cleanups run in reverse, so the server ends before its socket is closed.
    cls.addClassCleanup(cls._end, cls.server, cls.thread, cls.service)
    until(lambda: cls.server.started)

  @classmethod
  def _end(cls, server, thread, its_service) -> None:
    """Ends a server, if it has not ended."""
    cls.policy.go.set()
    server.stop()
    thread.join(60)
    its_service.close()

  def setUp(self):
    super().setUp()
    self.addCleanup(until, lambda: self.service.idle)
    self.addCleanup(self.policy.go.set)

  def solved(self, question, method=None, seed=None, number=0, **sizes):
    """Returns what the same question gets without a server."""
    budget = self.solver.budget(method, **sizes)
    seed = self.served.seed if seed is None else seed
    found = []
    self.solver.solve(
      [solve.Asked(question, budget, seed, number)],
      lambda _, solution: found.append(solution),
      1,
    )
    return found[0]

  @property
  def url(self) -> str:
    return f"http://127.0.0.1:{self.port}/v1"

  def connection(self) -> http.client.HTTPConnection:
    found = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
    self.addCleanup(found.close)
    return found

  def ask(self, path: str, body=None, headers=()) -> tuple[int, dict, dict]:
    """Returns the status, the JSON and the headers of an answer."""
    connection = self.connection()
    data = None
    if body is not None:
      data = body if isinstance(body, bytes) else json.dumps(body)
    sent = {"Content-Type": "application/json"} | dict(headers)
    connection.request("GET" if data is None else "POST", path, data, sent)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    kind = response.headers["Content-Type"]
    answer = json.loads(text) if "json" in kind else text.decode()
    return response.status, answer, dict(response.headers)

  def chat(self, question: str = QUESTION, **fields) -> tuple[int, dict]:
    """Asks, and returns the status and the answer."""
    messages = [{"role": "user", "content": question}]
    body = {"messages": messages} | fields
    return self.ask("/v1/chat/completions", body)[:2]


def until(true, seconds: float = 60.0) -> None:
  """Waits until a condition holds."""
  end = time.monotonic() + seconds
  while not true():
    if time.monotonic() > end:
      raise AssertionError("it does not come to hold")
    time.sleep(0.01)


def open_files() -> int:
  """Returns the number of open file descriptors."""
  return len(os.listdir("/proc/self/fd"))
