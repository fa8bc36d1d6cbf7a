"""`rstar_jax serve`: flags, who may ask, and the process's life."""

import concurrent.futures
import contextlib
import http.client
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax import main
from rstar_jax.pipeline import backends, hosts
from rstar_jax.serve import command
from tests.serve import held, served

ROOT = pathlib.Path(__file__).resolve().parents[2]


class FlagsTest(parameterized.TestCase):
  def refusal(self, *arguments: str, **environ: str) -> str:
    """Returns the line of a command that does not begin."""
    said = io.StringIO()
    with (
      mock.patch.dict(os.environ, environ),
      mock.patch.object(sys, "argv", ["rstar_jax serve", *arguments]),
      contextlib.redirect_stderr(said),
    ):
      self.assertEqual(command.main(arguments), 1)
    self.assertEqual(said.getvalue().count("\n"), 1)
    return said.getvalue()

  @parameterized.parameters(
    ([], "whose models? give --workdir"),
    (["here"], "'here' is no flag; the run's folder is given as --workdir=h"),
    (["--host=0.0.0.0"], "RSTAR_JAX_TOKEN to what they have to send, or"),
    (["--token_env=NOT_THERE"], "the environment lacks it"),
    (["--config=configs/tiny.py", "--round=1"], "--round=1 is not in 0..0"),
    (["--workdir=runs/not_there"], "there is no run in runs/not_there"),
  )
  def test_what_is_refused(self, arguments, words):
    self.assertIn(words, self.refusal(*arguments, "--port=0"))
    self.assertFalse(pathlib.Path("runs/not_there").exists())

  def test_a_platform_that_is_not_there(self):
    lacks = mock.patch.object(
      hosts.jax, "devices", side_effect=RuntimeError("no tpu")
    )
    with lacks:
      line = self.refusal("--config=configs/tiny.py", "--port=0")
    self.assertIn("jax cannot use this machine's devices (no tpu)", line)

  def test_a_limit_below_what_every_question_takes(self):
    # 20 samples, since the base model has no reward model.
    arguments = ["--config=configs/tiny.py", "--solutions=19", "--port=0"]
    said = io.StringIO()
    with (
      mock.patch.object(backends, "trained", side_effect=AssertionError),
      mock.patch.object(sys, "argv", ["rstar_jax serve", *arguments]),
      contextlib.redirect_stderr(said),
    ):
      self.assertEqual(command.main(arguments), 1)
    *_, line = said.getvalue().splitlines()
    self.assertIn("majority takes 20; raise --solutions", line)

  def test_help_names_every_flag(self):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
      self.assertEqual(command.main(["--help"]), 0)
    for name in ("workdir", "token_env", "places", "solutions", "grace"):
      self.assertIn(f"  --{name}  ", said.getvalue())

  def test_without_what_the_extra_brings(self):
    arguments = ["rstar_jax", "serve", "--config=configs/tiny.py"]
    said = io.StringIO()
    with (
      mock.patch.dict(sys.modules, {"rstar_jax.serve.server": None}),
      mock.patch.object(sys, "argv", arguments),
      contextlib.redirect_stderr(said),
      self.assertRaises(SystemExit),
    ):
      main.console()
    self.assertIn("pip install 'rstar_jax[serve]'", said.getvalue())

  def test_a_token_is_not_shown(self):
    token = "s3cret\n"
    line = self.refusal("--host=0.0.0.0", RSTAR_JAX_TOKEN=token)
    self.assertIn("not printable", line)
    self.assertNotIn("s3cret", line)

  def test_a_port_that_is_taken(self):
    with socket.create_server(("127.0.0.1", 0)) as other:
      port = other.getsockname()[1]
      line = self.refusal("--config=configs/tiny.py", f"--port={port}")
    self.assertIn(f"port {port}: Address already in use", line)
    self.assertIn("another --port", line)

  def test_an_address_that_cannot_be(self):
    config = "--config=configs/tiny.py"
    # An address of documents, which no machine has.
    line = self.refusal(config, "--host=192.0.2.1", "--open", "--port=0")
    self.assertIn("give another --host", line)
    for port in ("65536", "-1"):
      with self.assertRaises(SystemExit):
        self.refusal(config, f"--port={port}")


class ProcessTest(absltest.TestCase):
  """The command in a process of its own, with a user's policy and no model."""

  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.create_tempdir().full_path)
    self.go, self.said = folder / "go", folder / "stderr"

  def start(self, port: int = 0) -> tuple[subprocess.Popen, int]:
    stderr = self.enterContext(open(self.said, "ab"))
    process = subprocess.Popen(
      [
        *(sys.executable, "-m", "rstar_jax.main", "serve", f"--port={port}"),
        "--config=configs/tiny.py",
        "--config.policy.backend=tests.serve.held:policy",
        # Far past what a busy machine takes.
        "--config.sandbox.wall_seconds=120.0",
        "--config.sandbox.workers=1",
        "--config.grader.seconds=120.0",
        "--grace=600",
      ],
      cwd=ROOT,
      env=os.environ | {held.GO: str(self.go)},
      stdout=subprocess.PIPE,
      stderr=stderr,
      text=True,
    )
    self.addCleanup(process.stdout.close)
    self.addCleanup(process.wait)
    self.addCleanup(process.kill)
    said = re.search(r"at http://127.0.0.1:(\d+)/", process.stdout.readline())
    port = int(said[1])
    served.until(lambda: self.listens(port))
    return process, port

  def listens(self, port: int) -> bool:
    try:
      return b"running 0" in self.get(port, "/metrics")[1]
    except ConnectionRefusedError:
      return False

  def get(self, port: int, path: str, body: object = None):
    """Returns the status and the body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    data = json.dumps(body) if body else None
    kind = {"Content-Type": "application/json"}
    with contextlib.closing(connection):
      connection.request("POST" if body else "GET", path, data, kind)
      response = connection.getresponse()
      return response.status, response.read()

  def ask(self, port: int, question: str = served.QUESTION) -> str:
    """Returns the text of an answer; or its status, where there is none."""
    body = {"messages": [{"role": "user", "content": question}]}
    status, found = self.get(port, "/v1/chat/completions", body)
    if status != 200:
      return str(status)
    return json.loads(found)["choices"][0]["message"]["content"]

  @contextlib.contextmanager
  def asking(self, port: int) -> Iterator[concurrent.futures.Future]:
    """Asks what waits for a file, and yields when it is being answered."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      answer = pool.submit(self.ask, port, "slow")
      served.until(lambda: b"running 1" in self.get(port, "/metrics")[1])
      yield answer

  def test_killed_and_started_again_and_stopped(self):
    first, port = self.start()
    answer = self.ask(port)
    self.assertIn("boxed", answer)
    with self.asking(port) as left:
      first.kill()
      self.assertIsInstance(
        left.exception(), OSError | http.client.HTTPException
      )
    first.wait()
    second, again = self.start(port)
    self.assertEqual(again, port)
    self.assertEqual(self.ask(port), answer)
    # The sandbox's at least.
    children = descendants(second.pid)
    self.assertNotEmpty(children)
    with self.asking(port) as slow:
      second.send_signal(signal.SIGTERM)
      served.until(lambda: self.get(port, "/health")[0] == 503)
      self.assertEqual(self.ask(port), "503")
      self.assertFalse(slow.done())
      self.go.touch()
      self.assertIn("boxed", slow.result())
    # Far past what a busy machine takes.
    self.assertEqual(second.wait(300), 0)
    served.until(lambda: not children & set(parents()))

  def test_a_second_signal_ends_it_at_once(self):
    process, port = self.start()
    with self.asking(port) as slow:
      process.send_signal(signal.SIGTERM)
      served.until(lambda: b"SIGTERM: stopping" in self.said.read_bytes())
      self.assertFalse(slow.done())
      process.send_signal(signal.SIGTERM)
      # Not after the request, which waits for a file.
      self.assertEqual(process.wait(300), 128 + signal.SIGTERM)
      self.assertIsInstance(
        slow.exception(), OSError | http.client.HTTPException
      )


def parents() -> dict[int, int]:
  """Returns the parent of each process that is not a zombie."""
  found = {}
  for each in pathlib.Path("/proc").glob("[0-9]*/stat"):
    with contextlib.suppress(OSError):
      # The name, in parentheses, may have spaces.
      state, parent = each.read_text().rpartition(")")[2].split()[:2]
      if state != "Z":
        found[int(each.parent.name)] = int(parent)
  return found


def descendants(process: int) -> set[int]:
  """Returns the processes that a process and these have started."""
  every, found, new = parents(), set(), {process}
  while new:
    new = {pid for pid, parent in every.items() if parent in new} - found
    found |= new
  return found


if __name__ == "__main__":
  absltest.main()
