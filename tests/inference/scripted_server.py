"""A completions server that plays a toy, with faults on demand.

Run as a program it is the server; `Server` starts it as a process, tells it
what to do, and kills it. It writes the hash of each request that it answers to
a file, so that one that died and was started again goes on counting.
"""

import argparse
import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import urllib.request
from typing import Any

import numpy as np

from rstar_jax import testing
from rstar_jax.steps import grammar, prompts

MODEL = "toy"


class Script:
  """What the server was told, and what it has seen.

  Attributes:
    toy: the scripted policy; choice i is drawn by the request's seed plus i.
    shape: whose answers to imitate, "vllm" or "sglang".
    key: the API key to insist on.
    faults: what befalls the next requests, one each; {} is none.
    fickle: whether equal requests get different answers.
    hold: no answer before so many requests were inside at once.
    answers_left: after so many answers the process dies; None: never.
    peak: most requests that were inside at once.
    bodies: of all requests.
  """

  def __init__(self, log: pathlib.Path):
    self.toy = testing.ToySum()
    self.shape, self.key = "vllm", ""
    self.faults: list[dict] = []
    self.fickle, self.hold, self.answers_left = False, 0, None
    self.inside = self.peak = 0
    self.bodies: list[dict] = []
    self.log = log
    self.changed = threading.Condition()

  def enter(self, body: dict) -> tuple[int, dict]:
    """Lets a request in; returns its number and what befalls it."""
    with self.changed:
      self.bodies.append(body)
      number = len(self.bodies)
      fault = self.faults.pop(0) if self.faults else {}
      self.inside += 1
      self.peak = max(self.peak, self.inside)
      self.changed.notify_all()
      self.changed.wait_for(lambda: self.peak >= self.hold, timeout=10)
    # Long enough to see one too many, and so that answers are out of order.
    time.sleep(0.01 * (1 + number % 3))
    return number, fault

  def leave(self) -> None:
    with self.changed:
      self.inside -= 1

  def count(self, body: dict) -> None:
    """Takes note of an answer that is about to go out."""
    name = hashlib.sha256(json.dumps(body, sort_keys=True).encode())
    with self.changed:
      if self.answers_left == 0:
        os._exit(1)
      if self.answers_left is not None:
        self.answers_left -= 1
      with self.log.open("a") as file:
        file.write(name.hexdigest() + "\n")

  def completion(self, body: dict, number: int) -> dict[str, Any]:
    """Returns the answer: choices of the toy, the last one first."""
    prefix = prefix_of(body["prompt"])
    draws = [[body["seed"] + i for i in range(body["n"])]]
    (row,) = self.toy(["?"], [prefix], np.array(draws))
    choices, total = [], 0
    for index, each in enumerate(row):
      marker = next(m for m in body["stop"] if each.text.endswith(m))
      text = each.text.removesuffix(marker)
      if self.fickle:
        text += f"# {number}\n"
      total += len(each.token_ids)
      choice = {"index": index, "text": text, "finish_reason": "stop"}
      if self.shape == "vllm":
        choice["stop_reason"] = marker
        choice["token_ids"] = each.token_ids
        choice["logprobs"] = {"token_logprobs": [-1.0] * len(each.token_ids)}
      else:
        choice["matched_stop"] = marker
      choices.append(choice)
    return {"choices": choices[::-1], "usage": {"completion_tokens": total}}


def prefix_of(prompt: str) -> tuple[str, ...]:
  """Returns the nodes that follow a bootstrap prompt."""
  question = prompt.rpartition("Question: ")[2].partition("\n")[0]
  begun = prompts.few_shot(question)
  assert prompt.startswith(begun), prompt
  code, closed, shown = prompt.removeprefix(begun).partition(
    grammar.END_OF_CODE
  )
  nodes = grammar.split_block(code + closed)
  return (*nodes[:-1], nodes[-1] + shown) if closed else nodes


class Handler(http.server.BaseHTTPRequestHandler):
  """One request: to be told something, or a completion."""

  # The body does not wait for the head to be acknowledged: 40 ms.
  disable_nagle_algorithm = True
  script: Script

  def do_GET(self):
    seen = {"peak": self.script.peak, "bodies": self.script.bodies}
    self.reply(200, seen | {"answered": self.script.log.read_text().split()})

  def do_POST(self):
    script = self.script
    body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
    if self.path == "/reset":
      script.log.write_text("")
      Handler.script = Script(script.log)
      self.reply(200, {})
    elif self.path == "/control":
      if "toy" in body:
        body["toy"] = testing.ToySum(**body["toy"])
      vars(script).update(body)
      self.reply(200, {})
    elif self.path != "/v1/completions":
      self.reply(404, {"detail": "Not Found"})
    elif script.key and self.headers["Authorization"] != f"Bearer {script.key}":
      said = {"message": f"not {self.headers['Authorization']}"}
      self.reply(401, {"error": said})
    elif body["model"] != MODEL:
      said = f"The model `{body['model']}` does not exist."
      self.reply(404, {"error": {"message": said, "code": 404}})
    else:
      number, fault = script.enter(body)
      time.sleep(fault.get("late", 0))
      # Before the answer goes out: whoever has it may ask again at once.
      script.leave()
      self.complete(body, number, fault)

  def complete(self, body: dict, number: int, fault: dict) -> None:
    script = self.script
    if "status" in fault:
      return self.reply(**fault)
    answer = script.completion(body, number) | fault.get("instead", {})
    if "drip" in fault:
      self.send_response(200)
      self.end_headers()
      for byte in json.dumps(answer).encode():
        self.wfile.write(bytes([byte]))
        time.sleep(fault["drip"])
    elif "raw" in fault:
      self.wfile.write(fault["raw"].encode("latin-1"))
      self.close_connection = True
    elif "cut" in fault:
      self.send_response(200)
      self.end_headers()
      self.wfile.write(json.dumps(answer).encode()[: fault["cut"]])
    else:
      # No thread ends the process between the two: what is counted is sent.
      with script.changed:
        if not fault:
          script.count(body)
        self.reply(200, answer)

  def reply(self, status: int, answer: Any, headers: dict | None = None):
    text = json.dumps(answer).encode()
    self.send_response(status)
    for name, value in (headers or {}).items():
      self.send_header(name, value)
    self.send_header("Content-Length", str(len(text)))
    self.end_headers()
    self.wfile.write(text)

  def log_message(self, *args):
    del args


class Server:
  """A server process on loopback.

  Attributes:
    url: the base of its API.
  """

  def __init__(self, folder: pathlib.Path):
    self._log = folder / "answered.txt"
    self._log.touch()
    self._port = 0
    self.start()

  def start(self) -> None:
    """Starts it, again at the same port if it had one, with nothing told."""
    command = [sys.executable, "-m", "tests.inference.scripted_server"]
    self._process = subprocess.Popen(
      [*command, f"--log={self._log}", f"--port={self._port}"],
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      cwd=pathlib.Path(__file__).resolve().parents[2],
    )
    self._port = int(self._process.stdout.readline())
    self.url = f"http://127.0.0.1:{self._port}/v1"

  def kill(self) -> None:
    self._process.kill()
    self.wait()

  def wait(self) -> None:
    """Waits until it has died."""
    self._process.wait()
    self._process.stdout.close()

  def reset(self) -> None:
    """Makes it as new, and starts it if it has died."""
    if self._process.poll() is not None:
      self.start()
    self._open("/reset", b"{}")

  def tell(self, **told: Any) -> None:
    """Sets attributes of its script."""
    self._open("/control", json.dumps(told).encode())

  def seen(self) -> dict[str, Any]:
    """Returns its peak and bodies, and the hashes of all that it answered."""
    return self._open("/seen", None)

  def _open(self, path: str, data: bytes | None) -> Any:
    url = f"http://127.0.0.1:{self._port}{path}"
    with urllib.request.urlopen(url, data, timeout=60) as response:
      return json.load(response)


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument("--log", type=pathlib.Path)
  parser.add_argument("--port", type=int)
  flags = parser.parse_args()
  Handler.script = Script(flags.log)
  # Connections that wait to be accepted: 5 would refuse some of a burst.
  http.server.ThreadingHTTPServer.request_queue_size = 128
  server = http.server.ThreadingHTTPServer(("127.0.0.1", flags.port), Handler)
  server.daemon_threads = True
  print(server.server_port, flush=True)
  server.serve_forever()


if __name__ == "__main__":
  main()
