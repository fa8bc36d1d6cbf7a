"""What an answer of `rstar_jax serve` takes, beside a plain completion.

  rstar_jax serve --workdir=runs/tiny --port=8000
  python -m benchmarks.serving --config=configs/tiny.py \
    --url=http://127.0.0.1:8000/v1 > serving.jsonl

Clients ask the config's evaluation problems, by each method and with each
number of clients in turn, so that what else the machine does is in all of them.
"greedy" is the plain completion: one solution, the likeliest. Questions of two
turns differ, so that no prompt is in pages before it is asked.

Prints JSON lines: of each turn the questions, the seconds of all of them, the
median and the 95th percentile of an answer's seconds, and the tokens that the
policy wrote a second; then "beside", of each method and number of clients: its
median and its tokens a second, as multiples of one client's plain completion.
"""

import collections
import concurrent.futures
import dataclasses
import http.client
import itertools
import json
import os
import time
import urllib.parse
from collections.abc import Iterator

import numpy as np
from absl import app, flags

from rstar_jax.config import flag
from rstar_jax.data import problems

_CONFIG = flag.define_config()
_URL = flags.DEFINE_string(
  "url", "http://127.0.0.1:8000/v1", "Base URL of the server."
)
_TOKEN = flags.DEFINE_string(
  "token_env",
  "RSTAR_JAX_TOKEN",
  "Environment variable with the server's token.",
)
_METHODS = flags.DEFINE_list(
  "methods", ["greedy", "majority", "search"], "Methods of requests."
)
_CLIENTS = flags.DEFINE_list(
  "clients", ["1", "50"], "Numbers of concurrent clients."
)
_QUESTIONS = flags.DEFINE_integer(
  "questions", 50, "Most questions per repetition; a client has ten."
)
_TURNS = flags.DEFINE_integer(
  "turns", 2, "Repetitions of each method and number of clients."
)


def ask(question: str, method: str) -> tuple[float, int]:
  """Returns the seconds of an answer, and the tokens that it took."""
  place = urllib.parse.urlsplit(_URL.value)
  body = {
    "messages": [{"role": "user", "content": question}],
    "method": method,
  }
  headers = {
    "Content-Type": "application/json",
    "Authorization": f"Bearer {os.environ.get(_TOKEN.value, '')}",
  }
  began = time.perf_counter()
  connection = http.client.HTTPConnection(place.netloc, timeout=3600)
  try:
    path = f"{place.path}/chat/completions"
    connection.request("POST", path, json.dumps(body), headers)
    answer = json.load(connection.getresponse())
  finally:
    connection.close()
  if "error" in answer:
    raise RuntimeError(answer["error"]["message"])
  seconds = time.perf_counter() - began
  return seconds, answer["usage"]["completion_tokens"]


def questions(count: int) -> Iterator[str]:
  """Returns questions of the config's evaluation, all different.

  Raises:
    UsageError: there are fewer than `count`.
  """
  # More, since some may be asked twice.
  data = dataclasses.replace(_CONFIG.value.eval.data, count=2 * count)
  found = {each.question: None for each in problems.load_problems(data)}
  if len(found) < count:
    raise app.UsageError(
      f"{data.source} has {len(found)} questions, and {count} are needed: give "
      "fewer --questions, --clients or --turns"
    )
  return iter(found)


def turn(asked: list[str], method: str, clients: int) -> dict:
  """Asks questions by so many clients at once."""
  began = time.perf_counter()
  with concurrent.futures.ThreadPoolExecutor(clients) as pool:
    found = list(pool.map(lambda each: ask(each, method), asked))
  took = time.perf_counter() - began
  seconds, tokens = zip(*found, strict=True)
  return {
    "questions": len(asked),
    "seconds": round(took, 2),
    "median": round(float(np.median(seconds)), 3),
    "p95": round(float(np.percentile(seconds, 95)), 3),
    "tokens_per_second": round(sum(tokens) / took, 1),
  }


def main(argv: list[str]) -> None:
  del argv
  counts = {int(n): min(_QUESTIONS.value, 10 * int(n)) for n in _CLIENTS.value}
  left = questions(_TURNS.value * len(_METHODS.value) * sum(counts.values()))
  found: dict[tuple[str, int], list[dict]] = collections.defaultdict(list)
  for _ in range(_TURNS.value):
    for clients, count in counts.items():
      for method in _METHODS.value:
        row = turn(list(itertools.islice(left, count)), method, clients)
        found[method, clients].append(row)
        head = {"turn": method, "clients": clients}
        print(json.dumps(head | row), flush=True)

  def mean(key: tuple[str, int], name: str) -> float:
    return float(np.mean([row[name] for row in found[key]]))

  plain = ("greedy", int(_CLIENTS.value[0]))
  if plain not in found:
    return
  for method, clients in found:
    row = {"beside": method, "clients": clients}
    for name in ("median", "tokens_per_second"):
      of = mean((method, clients), name) / mean(plain, name)
      row[name] = round(of, 2)
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
  app.run(main, flags_parser=flag.parse_flags)
