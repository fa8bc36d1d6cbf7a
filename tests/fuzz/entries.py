"""The places where text from outside comes in, each as a function of an input.

An entry gets a random source, makes an input of it, and reads it as a run does.
It returns what became of the input:

  used        it is what it should be, or was put right
  set aside   it was left out, and what is beside it was used
  refused     the run would not begin: one line says why

and raises whatever would end a run that has begun, or if what is beside the
input is lost, or if what came out is not valid.
"""

import contextlib
import functools
import hashlib
import http.server
import io
import json
import math
import pathlib
import random
import re
import shutil
import threading
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, Literal
from unittest import mock

import numpy as np

from rstar_jax import outside
from rstar_jax.config import identity
from rstar_jax.config.schema import Config, DataConfig, RemoteConfig
from rstar_jax.data import files, problems, released
from rstar_jax.grading import labelled
from rstar_jax.inference import servers as servers_lib
from rstar_jax.inference.remote import Remote, readable
from rstar_jax.pipeline import shards, status, units
from rstar_jax.report import trees as report_trees
from rstar_jax.search import driver, expansion
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import Tree
from rstar_jax.steps import grammar
from rstar_jax.storage import records
from rstar_jax.storage.journal import Journal
from rstar_jax.types import Candidate, ExecResult, Problem
from tests.fuzz import hostile
from tests.search.toys import calls_of, config_of

Outcome = Literal["used", "set aside", "refused"]
Entry = Callable[[random.Random], Outcome]

_STEP = "<code>\nx = 1\n<end_of_step>"
_GOOD = {
  "choices": [{"index": 0, "text": _STEP, "finish_reason": "stop"}],
  "usage": {"completion_tokens": 3},
}
# Answers as vLLM, SGLang and llama.cpp write them.
_ANSWERS = (
  {
    "id": "cmpl-1",
    "choices": [
      {
        "index": 0,
        "text": "<code>\nx = 1\n",
        "logprobs": {"token_logprobs": [-0.5, -1.0], "tokens": ["x", "="]},
        "finish_reason": "stop",
        "stop_reason": "<end_of_step>",
        "token_ids": [7, 8],
      }
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2},
  },
  {
    "choices": [
      {
        "index": 0,
        "text": "<code>\nx = 1\n",
        "finish_reason": "stop",
        "matched_stop": "<end_of_step>",
      }
    ],
    "usage": {"completion_tokens": 7},
  },
  {
    "choices": [
      {
        "index": 0,
        "text": "<code>\nx = 1\n",
        "logprobs": {"content": [{"id": 7, "token": "x", "logprob": -0.5}] * 3},
        "finish_reason": "length",
      }
    ],
    "timings": {"prompt_n": 9},
  },
)
_STATUSES = (200, 200, 200, 206, 400, 408, 413, 422, 425, 429, 500, 503)
_HEADERS = (
  "Content-Length: 999999999999999",
  "Content-Length: -1",
  "Content-Length: 3",
  "Content-Length: x",
  "Transfer-Encoding: chunked",
  "Content-Encoding: gzip",
  "Content-Type: text/html; charset=utf-16",
  "Location: http://127.0.0.1:1/",
  "Set-Cookie: " + "x" * 9000,
  "\x1b[2J: \x1b[2J",
  "no colon",
  " folded",
)


class _Handler(http.server.BaseHTTPRequestHandler):
  """Answers odd seeds with the input, once, and all others well."""

  disable_nagle_algorithm = True
  reply: bytes

  def do_POST(self):
    size = int(self.headers["Content-Length"])
    seed = json.loads(self.rfile.read(size))["seed"]
    if seed % 2 and _Handler.reply is not None:
      data, _Handler.reply = _Handler.reply, None
    else:
      data = _response(json.dumps(_GOOD).encode())
    # A client that has seen enough of it closes its side.
    with contextlib.suppress(OSError):
      self.wfile.write(data)
    self.close_connection = True

  def log_message(self, *args):
    del args


def _response(body: bytes) -> bytes:
  return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Servers:
  """A completions server that sends anything, and its client."""

  def __init__(self, folder: pathlib.Path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    self.close = server.shutdown
    self._url = f"http://127.0.0.1:{server.server_port}/v1"
    self._folder = folder
    self._seeds = 0
    # One gives up at once, the other never; each has a journal.
    self._hasty, self._patient = self._remote(0.0), self._remote(600.0)
    _Handler.reply = None
    for remote in (self._hasty, self._patient):
      self._ask(remote)

  def _remote(self, patience: float) -> Remote:
    config = RemoteConfig(
      url=self._url,
      model="m",
      samples_per_request=1,
      in_flight=1,
      timeout_seconds=60.0,
      patience_seconds=patience,
    )
    path = self._folder / f"requests-{patience:g}.jsonl"
    return Remote(config, Journal(path, check=readable(config)))

  def _ask(self, remote: Remote, back: int = 0) -> list[Candidate]:
    """Sends a request that gets the input, and one that does not.

    Args:
      remote: the client.
      back: 2 to send those before again.
    """
    self._seeds += 2 - back
    seeds = np.array([[self._seeds - 1, self._seeds]], np.uint32)
    with mock.patch.object(servers_lib, "FIRST_WAIT", 0.0):
      (row,) = remote(["q"], [()], seeds)
    return row

  def body(self, source: random.Random) -> Outcome:
    """A body of a good response, which is not asked for again."""
    answer = source.choice(_ANSWERS)
    _Handler.reply = _response(hostile.document(source, answer))
    return self._outcome(self._hasty)

  def response(self, source: random.Random) -> Outcome:
    """All that a server sends, after which it answers well."""
    body = hostile.document(source, source.choice(_ANSWERS))
    headers = source.sample(_HEADERS, source.randrange(4))
    if "chunked" in str(headers) and source.random() < 0.7:
      size = source.choice((len(body), 3, len(body) + 9, 2**60, -1))
      body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)
    head = f"HTTP/1.1 {source.choice(_STATUSES)} OK"
    lines = "\r\n".join([head, *headers, "", ""])
    data = lines.encode("latin-1") + body
    if source.random() < 0.3:
      at = source.randrange(min(len(data), 99))
      data = data[:at] + source.randbytes(3) + data[at + source.randrange(9) :]
    _Handler.reply = data
    try:
      return self._outcome(self._patient)
    except ValueError as error:
      # By chance it refused all requests, say with 401, which ends any run.
      assert re.search("answered [34]", str(error)), error
      return "set aside"

  def _outcome(self, remote: Remote) -> Outcome:
    row, good = self._ask(remote)
    assert good.text == _STEP, good
    _check_text(row.text)
    assert len(row.token_ids) <= 1024
    assert not math.isinf(row.logprob)
    assert _Handler.reply is None
    if self._seeds & (self._seeds - 1) == 0:
      # The next process finds all that was kept.
      again = self._remote(remote._config.patience_seconds)
      assert not again._journal.passed_over
      assert self._ask(again, back=2) == [row, good]
    return "set aside" if row.finish == "lost" or row == good else "used"


class Files:
  """Data sets and records, in files."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._run = folder / "run"
    self._run.mkdir()
    text = json.dumps(identity.to_json(Config()))
    (self._run / "config.json").write_text(text)

  def _write(self, name: str, data: bytes) -> pathlib.Path:
    path = self._folder / name
    path.write_bytes(data)
    return path

  def _problems(self, path: pathlib.Path) -> list[Problem]:
    config = DataConfig(source=str(path), on_error="skip")
    found = problems.load_problems(config)
    for each in found:
      for text in (each.id, each.question, each.answer, *each.alternatives):
        _check_text(text)
    assert found[0].question == "Q", found
    return found

  def json_lines(self, source: random.Random) -> Outcome:
    """A line of problems."""
    line = hostile.document(source, source.choice(_ROWS)).replace(b"\n", b" ")
    path = self._write("set.jsonl", b"%b\n%b\n%b\n" % (_ROW, line, _LAST))
    found = self._problems(path)
    assert found[-1].question == "R", found
    return "used" if len(found) == 3 else "set aside"

  def json_list(self, source: random.Random) -> Outcome:
    """An item of a list of problems."""
    item = hostile.document(source, source.choice(_ROWS))
    path = self._write("set.json", b"[%b,\n%b,\n%b]" % (_ROW, item, _LAST))
    try:
      found = self._problems(path)
    except files.ProblemError as error:
      assert "nothing after it can be read" in str(error), error
      return "refused"
    assert found[-1].question == "R", found
    return "used" if len(found) == 3 else "set aside"

  def csv(self, source: random.Random) -> Outcome:
    """A line of a table."""
    cells = ",".join(hostile.text(source) for _ in range(2))
    line = cells.encode("utf-8", "surrogatepass")
    data = b"question,answer\nQ,1\n%b\nR,2\n" % line
    try:
      found = self._problems(self._write("set.csv", data))
    except files.ProblemError as error:
      assert "nothing after it can be read" in str(error), error
      return "refused"
    return "used" if len(found) >= 3 else "set aside"

  def table(self, source: random.Random) -> Outcome:
    """A row of a function of the user's, or of a data set's table."""
    row = {"question": hostile.text(source), "answer": hostile.atom(source)}
    if source.random() < 0.5:
      row |= {"also": [hostile.text(source)], "level": hostile.atom(source)}
    value = files.table_row("table[0]", 0, row)
    with contextlib.suppress(problems.shapes.Ungraded, files.ProblemError):
      found = problems.shapes.problem_of(value, "table", DataConfig())
      for text in (found.question, found.answer, *found.alternatives):
        _check_text(text)
      return "used"
    return "set aside"

  def solutions(self, source: random.Random) -> Outcome:
    """A line of the authors' released solutions."""
    return self._released(source, _SFT, released.read_sft)

  def pairs(self, source: random.Random) -> Outcome:
    """A line of the authors' released pairs."""
    return self._released(source, _PAIR, released.read_pairs)

  def _released(self, source: random.Random, row: dict, read) -> Outcome:
    line = hostile.document(source, row).replace(b"\n", b" ")
    good = json.dumps(row).encode()
    path = self._write("released.jsonl", b"%b\n%b\n%b\n" % (good, line, good))
    skipped = released.Skipped()
    found = list(read(str(path), skipped))
    assert len(found) + skipped.total() in (2, 3)
    assert found[0] == found[-1]
    for each in found:
      _check_text(repr(each))
    return "used" if len(found) == 3 else "set aside"

  def journal(self, source: random.Random) -> Outcome:
    """A line of a journal of answers."""
    entry = {"key": "b", "answer": source.choice(_ANSWERS)}
    line = hostile.document(source, entry).replace(b"\n", b" ")
    good = [
      json.dumps({"key": key, "answer": _GOOD}).encode() for key in ("a", "c")
    ]
    path = self._write("journal", b"%b\n%b\n%b\n" % (good[0], line, good[1]))
    config = RemoteConfig(model="m")
    journal = Journal(path, check=readable(config))
    # The line may by chance have one of the other keys.
    assert journal.get("a") and journal.get("c"), len(journal)
    journal.put("b", _GOOD)
    again = Journal(path, check=readable(config))
    assert again.get("b") == journal.get("b")
    return "set aside" if journal.passed_over else "used"

  def half_a_journal(self, source: random.Random) -> Outcome:
    """The last line of a journal whose process was killed."""
    entry = {"key": "b", "answer": _GOOD}
    line = hostile.document(source, entry).replace(b"\n", b" ")
    good = json.dumps({"key": "a", "answer": _GOOD}).encode()
    path = self._write("journal", b"%b\n%b" % (good, line))
    journal = Journal(path)
    assert list(journal._places) == ["a"]
    journal.put("c", 1)
    again = Journal(path)
    assert (again.get("a"), again.get("c")) == (_GOOD, 1)
    return "set aside"

  def begun_shard(self, source: random.Random) -> Outcome:
    """A line of the journal of a shard that is not written yet."""
    folder = self._folder / "begun"
    shutil.rmtree(folder, ignore_errors=True)
    chosen = [Problem(f"p{i}", "Q") for i in range(3)]
    cut = shards.cut(chosen, 3, folder)
    begun = units._Part(cut[0], "a", ())
    for place in range(2):
      begun.put(place, {"": [{"id": chosen[place].id}]})
    (journal,) = folder.iterdir()
    first, good = journal.read_bytes().splitlines()
    line = hostile.document(source, json.loads(first)).replace(b"\n", b" ")
    journal.write_bytes(b"%b\n%b\n" % (line, good))
    searched = []

    def search(unit):
      searched.append(unit.problem)
      return {"": [{"id": unit.problem.id}]}
      yield

    with (
      contextlib.redirect_stderr(io.StringIO()),
      units.Units(cut, "a", "fuzz") as stage,
    ):
      stage.search(lambda unit: (search(unit), None), 1)
    (shard,) = folder.iterdir()
    rows = records.read_shard(shard)
    assert rows == [{"id": each.id} for each in chosen], rows
    assert searched in (chosen[2:], chosen[::2]), searched
    return "set aside" if stage.passed_over else "used"

  def metrics(self, source: random.Random) -> Outcome:
    """A line of metrics.jsonl: of the status and the report."""
    good = {"step": 1, "time": 5.0, "elapsed": 2.0, "rollout/solved": 0.5}
    line = hostile.document(source, good).replace(b"\n", b" ")
    good = json.dumps(good).encode()
    path = self._run / "metrics.jsonl"
    path.write_bytes(b"%b\n%b\n%b\n" % (good, line, good))
    _check_shown(outside.shown(status.render(status.look(self._run))))
    rows = list(records.each_row(path))
    assert len(rows) in (2, 3) and rows[0] == rows[-1]
    json.dumps(rows).encode()
    return "used" if len(rows) == 3 else "set aside"

  def manifest(self, source: random.Random) -> Outcome:
    """The manifest of a finished stage, which is made again if it is bad."""
    folder = self._folder / "stage"
    if not folder.exists():
      records.write_shard(folder / records.shard_name(0, 1), [{"a": 1}])
      records.write_manifest(folder, {"step": 1})
      self._whole = (folder / records.MANIFEST).read_bytes()
    data = hostile.document(source, json.loads(self._whole), most=1)
    (folder / records.MANIFEST).write_bytes(data)
    found = records.read_manifest(folder)
    if found is not None:
      whole = json.loads(self._whole)
      assert found == {k: v for k, v in whole.items() if k != "sha256"}
    status.look(self._folder)
    return "set aside" if found is None else "used"

  def shard(self, source: random.Random) -> Outcome:
    """A shard of records, which is made again if it is bad."""
    path, rows = (
      self._folder / "shard",
      [{"a": "\ud800"}, {"b": [1, None, 0.5]}],
    )
    records.write_shard(path, rows)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[4:8], "little")
    header, packed = whole[8:start], bytearray(whole[start:])
    match source.choice(("header", "rows", "earlier version")):
      case "header":
        header = hostile.document(source, json.loads(header), most=1)
        size = len(header).to_bytes(4, "little")
        data = b"".join([whole[:4], size, header, packed])
      case "rows":
        packed[source.randrange(len(packed))] ^= source.randrange(256)
        data = whole[:start] + packed[: source.randrange(2 * len(packed))]
      case _:
        lines = [records.line(row) for row in rows]
        sha256 = hashlib.sha256(b"".join(lines)).hexdigest()
        lines.append(records.line({"footer": {"rows": 2, "sha256": sha256}}))
        at = source.randrange(3)
        line = hostile.document(source, json.loads(lines[at]), most=1)
        data = b"".join([*lines[:at], line, b"\n", *lines[at + 1 :]])
    path.write_bytes(data)
    if not records.is_complete(path):
      return "set aside"
    try:
      found = records.read_shard(path)
    except records.CorruptShard as error:
      assert "\n" not in str(error), error
      return "refused"
    assert found == rows
    return "used"

  def config(self, source: random.Random) -> Outcome:
    """The config.json of a run."""
    fields = identity.to_json(Config())
    data = hostile.document(source, fields)
    run = self._folder / "other"
    run.mkdir(exist_ok=True)
    (run / "config.json").write_bytes(data)
    try:
      status.render(status.look(run))
      identity.from_json(data)
    except ValueError as error:
      assert "\n" not in str(error), error
      return "refused"
    return "used"

  def labelled(self, source: random.Random) -> Outcome:
    """A line of labelled pairs of answers."""
    pair = {"gold": "1", "predicted": "2", "equal": False, "category": "x"}
    path = self._write("pairs.jsonl", hostile.document(source, pair))
    try:
      for each in labelled.read(path):
        _check_text(each.gold + each.predicted)
    except ValueError:
      return "refused"
    return "used"


class Texts:
  """What a program printed, and what is printed on a terminal."""

  def __init__(self, tokenizer: Any):
    self._tokenizer = tokenizer

  def program(self, source: random.Random) -> Outcome:
    """What a program printed, in a search, its records and its report."""
    printed, error = hostile.text(source), hostile.text(source)
    result = ExecResult("ok", printed, error)
    text = f"<code>\nx = 1\n{grammar.END_OF_CODE}"
    tree = self._grown(
      Problem("p", "make 2", "2"),
      [Candidate(text, (1, 2), -1.0, "code")],
      result,
    )
    assert len(tree) == 2, tree.dropped
    return "used"

  def policy(self, source: random.Random) -> Outcome:
    """What a policy wrote: a server's, or a user's."""
    finish = source.choice(("step", "code", "answer", "eos", "length", "lost"))
    inner = [hostile.text(source) for _ in range(3)]
    if finish == "step":
      inner = [f"<code>\n{text}\n<end_of_step>" for text in inner]
    written = [Candidate(text, (1,), math.nan, finish) for text in inner]
    question = hostile.text(source)
    problem = Problem(hostile.text(source), question, hostile.text(source))
    tree = self._grown(problem, written, ExecResult("ok", "1"))
    return "used" if len(tree) > 1 else "set aside"

  def _grown(
    self, problem: Problem, written: list[Candidate], result: ExecResult
  ) -> Tree:
    tree = Tree(problem)
    calls = calls_of(
      lambda questions, prefixes, seeds: [written],
      verify=lambda programs: [result] * len(programs),
    )
    driver.run_searches([expansion.grow(tree, 0, config_of())], calls, 1)
    text = tree.to_json()
    again = tree_lib.from_record(outside.parse(text))
    assert again.to_json() == text
    report_trees.encode(report_trees.compact(tree))
    for each in (problem.id, problem.question, *tree.texts):
      _check_text(each)
      self._tokenizer.encode(each)
    return tree

  def tokens(self, source: random.Random) -> Outcome:
    """A text of the user's, as the tokenizer takes it."""
    text = hostile.text(source)
    ids = self._tokenizer.encode(text)
    _check_text(self._tokenizer.decode(ids))
    return "used"

  def terminal(self, source: random.Random) -> Outcome:
    """A line on a terminal, and in a log."""
    text = hostile.text(source)
    _check_shown(outside.shown(text))
    line = outside.line(text)
    _check_shown(line)
    assert "\n" not in line
    return "used"


_ROW = b'{"question": "Q", "answer": 1}'
_LAST = b'{"question": "R", "answer": 2}'
_ROWS = (
  {"id": "x", "question": "S", "answer": "3", "level": 2, "also": ["4"]},
  {"problem": "S", "solution": "so \\boxed{3}", "level": "Level 3"},
  {
    "messages": [
      {"role": "user", "content": "S"},
      {"role": "assistant", "content": "The answer is: 3"},
    ]
  },
)
_SFT = {
  "query": "S",
  "response": (
    "<code>\nx = 3\n<end_of_step>\nprint(x)\n<end_of_code>\n<output>3"
    "<end_of_output>\n<answer>\\boxed{3}<end_of_answer>"
  ),
}
_PAIR = {
  "prompt": "<|user|>:\nS\n<|assistant|>: Let's",
  "pos": "<code>\nx = 3\n<end_of_step>",
  "neg": "<code>\nx = 4\n<end_of_step>",
  "pos_count": 2,
  "neg_count": 3,
}


def _check_text(text: str) -> None:
  """Checks that a text is text, and valid Unicode."""
  assert isinstance(text, str)
  text.encode()


def _check_shown(text: str) -> None:
  """Checks that a terminal obeys nothing in a text."""
  for each in set(text) - set("\n\t"):
    assert unicodedata.category(each) not in ("Cc", "Cs", "Zl", "Zp"), text


@contextlib.contextmanager
def opened(folder: pathlib.Path, tokenizer: Any) -> Iterator[dict[str, Entry]]:
  """Provides the entries by name.

  Args:
    folder: for files, empty.
    tokenizer: the package's.
  """
  servers = Servers(folder)
  of_files, texts = Files(folder), Texts(tokenizer)
  try:
    yield {
      "a server's answer": servers.body,
      "a server's bytes": servers.response,
      "problems, JSON lines": of_files.json_lines,
      "problems, a JSON list": of_files.json_list,
      "problems, CSV": of_files.csv,
      "problems, a table": of_files.table,
      "released solutions": of_files.solutions,
      "released pairs": of_files.pairs,
      "labelled answers": of_files.labelled,
      "a journal's line": of_files.journal,
      "a journal's end": of_files.half_a_journal,
      "a begun shard": of_files.begun_shard,
      "metrics": of_files.metrics,
      "a manifest": of_files.manifest,
      "a shard": of_files.shard,
      "a run's config": of_files.config,
      "a program's output": texts.program,
      "a policy's text": texts.policy,
      "a tokenizer's input": texts.tokens,
      "a terminal": texts.terminal,
    }
  finally:
    servers.close()


def number(name: str, index: int, seed: int = 0) -> random.Random:
  """Returns the source of an input, by its entry and number."""
  return random.Random(f"{seed} {name} {index}")


tokenizer = functools.cache(lambda: _tokenizer())


def _tokenizer() -> Any:
  from rstar_jax.hf import folders
  from rstar_jax.steps.tokenizer import HfTokenizer

  return HfTokenizer(folders.BASE_MODEL)
