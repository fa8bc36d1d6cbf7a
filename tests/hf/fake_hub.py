"""A Hub on this machine: repositories in memory, behind the real client."""

import base64
import contextlib
import hashlib
import http.server
import json
import os
import re
import threading
import unittest
from typing import Any
from unittest import mock

TOKEN = "hf_of_a_test"


class Hub:
  """The Hub's state, and what it was asked.

  Attributes:
    url: its address.
    repos: by "models/USER/NAME" or "datasets/...": "private", "files" (bytes by
      path), "commits" (messages) and "license".
    sent: the sizes of the files that were stored apart, in order.
  """

  def __init__(self):
    self.repos: dict[str, dict[str, Any]] = {}
    self.sent: list[int] = []
    self._stored: dict[str, bytes] = {}
    handler = type("Handler", (_Handler,), {"hub": self})
    self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    self._server.daemon_threads = True
    threading.Thread(target=self._server.serve_forever, daemon=True).start()
    self.url = f"http://127.0.0.1:{self._server.server_port}"

  def close(self) -> None:
    self._server.shutdown()
    self._server.server_close()

  def add(self, repo: str, **fields: Any) -> None:
    """Makes a repository."""
    made = {"private": False, "files": {}, "commits": [], "license": None}
    self.repos[repo] = made | fields

  def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
    """Returns the status and the JSON for a request."""
    if method == "PUT":
      self._stored[path.rpartition("/")[2]] = body
      self.sent.append(len(body))
      return 200, {}
    if path == "/api/validate-yaml":
      return 200, {"errors": [], "warnings": []}
    if path == "/api/repos/create":
      asked = json.loads(body)
      owner = asked.get("organization") or "me"
      name = f"{asked.get('type', 'model')}s/{owner}/{asked['name']}"
      if name in self.repos:
        return 409, {"error": "exists", "url": f"{self.url}/{name}"}
      private = asked.get("private") or asked.get("visibility") == "private"
      self.add(name, private=private)
      return 200, {"url": f"{self.url}/{name.removeprefix('models/')}"}
    if found := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
      objects = json.loads(body)["objects"]
      return 200, {
        "transfer": "basic",
        "objects": list(map(self._lfs, objects)),
      }
    found = re.fullmatch(r"/api/(\w+/[^/]+/[^/]+)(?:/(\w+)/main)?", path)
    repo = self.repos.get(found[1]) if found else None
    if repo is None:
      return 404, {"error": "Repository not found"}
    if found[2] == "preupload":
      files = json.loads(body)["files"]
      return 200, {"files": [_mode(repo, each) for each in files]}
    if found[2] == "commit":
      self._commit(repo, [json.loads(line) for line in body.splitlines()])
      return 200, {
        "commitUrl": f"{self.url}/{found[1].removeprefix('models/')}/commit/1",
        "commitOid": "1" * 40,
        "hookOutput": "",
      }
    card = {"license": repo["license"]} if repo["license"] else {}
    name = found[1].partition("/")[2]
    return 200, {
      "id": name,
      "sha": "1" * 40,
      "private": repo["private"],
      "cardData": card,
      "siblings": [{"rfilename": file} for file in repo["files"]],
      "tags": [],
      "downloads": 0,
      "likes": 0,
    }

  def _lfs(self, asked: dict[str, Any]) -> dict[str, Any]:
    if asked["oid"] in self._stored:
      return asked
    upload = {"href": f"{self.url}/store/{asked['oid']}"}
    return asked | {"actions": {"upload": upload}}

  def _commit(self, repo: dict[str, Any], lines: list[dict[str, Any]]) -> None:
    for line in lines:
      value = line["value"]
      if line["key"] == "header":
        repo["commits"].append(value["summary"])
      elif line["key"] == "file":
        repo["files"][value["path"]] = base64.b64decode(value["content"])
      else:
        repo["files"][value["path"]] = self._stored[value["oid"]]


def _mode(repo: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
  path = asked["path"]
  apart = path.endswith((".safetensors", ".jsonl"))
  found = {"path": path, "shouldIgnore": False}
  found["uploadMode"] = "lfs" if apart else "regular"
  if path in repo["files"]:
    data = repo["files"][path]
    found["oid"] = hashlib.sha256(data).hexdigest()
    if not apart:
      head = f"blob {len(data)}\0".encode()
      found["oid"] = hashlib.sha1(head + data).hexdigest()
  return found


class _Handler(http.server.BaseHTTPRequestHandler):
  """Answers who is logged in; others are sent away."""

  hub: Hub
  protocol_version = "HTTP/1.1"

  def _do(self) -> None:
    size = int(self.headers.get("Content-Length") or 0)
    body = self.rfile.read(size)
    path = self.path.partition("?")[0]
    status, answer = 401, {"error": "Invalid username or password."}
    known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
    if known or self.command == "PUT":
      status, answer = self.hub.answer(self.command, path, body)
    data = json.dumps(answer).encode()
    with contextlib.suppress(OSError):
      self.send_response(status)
      self.send_header("Content-Type", "application/json")
      self.send_header("Content-Length", str(len(data)))
      self.end_headers()
      self.wfile.write(data)

  do_GET = do_POST = do_PUT = _do

  def log_message(self, *args: Any) -> None:
    del args


def started(case: unittest.TestCase, token: str = TOKEN) -> Hub:
  """Starts a Hub for a test, at which a user is logged in."""
  from huggingface_hub import constants

  hub = Hub()
  case.addCleanup(hub.close)
  case.enterContext(mock.patch.dict(os.environ, {"HF_TOKEN": token}))
  case.enterContext(mock.patch.object(constants, "HF_HUB_DISABLE_XET", True))
  # Another test may have set it for its whole process.
  case.enterContext(mock.patch.object(constants, "HF_HUB_OFFLINE", False))
  return hub
