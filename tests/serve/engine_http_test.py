"""The HTTP of our engine's server: lengths, keys, names, errors."""

import contextlib
import http.client
import io
import json
import urllib.error
import urllib.request
from unittest import mock

from absl.testing import absltest

from rstar_jax.hf import saving
from rstar_jax.serve import engine_http
from tests.serve import engine_server_test
from tests.serve.engine_server_test import models, other_policy, place


class HttpTest(engine_server_test.ServeCase):
  def test_a_client_that_says_too_much_or_nothing(self):
    place = self.url.removeprefix("http://").removesuffix("/v1")
    for length in (str(1 << 40), "-1", "x", None):
      connection = http.client.HTTPConnection(place, timeout=60)
      connection.putrequest("POST", "/v1/completions")
      connection.putheader("Content-Type", "application/json")
      if length is not None:
        connection.putheader("Content-Length", length)
      connection.endheaders()
      self.assertEqual(connection.getresponse().status, 413)
      connection.close()

  def test_an_error_that_is_no_client_s_is_shown(self):
    server = engine_http.make(self.served, place())
    self.addCleanup(server.server_close)
    for error in (ConnectionResetError("ours"), RuntimeError("ours")):
      said = io.StringIO()
      try:
        raise error
      except Exception:
        with contextlib.redirect_stderr(said):
          server.handle_error(None, ("127.0.0.1", 1))
      shown = isinstance(error, RuntimeError)
      self.assertEqual("ours" in said.getvalue(), shown)

  def test_a_key(self):
    url, self.url = self.url, self.listen(key="s3cret")
    self.addCleanup(setattr, self, "url", url)
    self.assertEqual(self.post("/pooling", {"input": [[1]]})[0], 401)
    for wrong in ({}, {"Authorization": "Bearer s3cre"}):
      self.assertEqual(self.get("/models", **wrong)[0], 401)
    self.assertEqual(self.get("/health")[0], 200)
    headers = {"Authorization": "Bearer s3cret"}
    status, _ = self.post("/pooling", {"input": [[1]]}, headers.items())
    self.assertEqual(status, 200)

  def test_a_page_of_another_site(self):
    """Without a key, which no page has, it may neither read nor change."""
    path = "/update_weights_from_disk"
    load = mock.patch.object(self.served, "_load")
    for headers, code in (
      ({"Host": "evil.example"}, 421),
      ({"Content-Type": "text/plain"}, 415),
      ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
      ({"Host": "LocalHost:80", "Content-Type": "Application/JSON; x"}, 200),
    ):
      with load as loaded:
        loaded.return_value = {}
        self.assertEqual(self.post(path, {}, headers.items())[0], code)
        self.assertEqual(loaded.called, code == 200)
    for path in ("/models", "/health"):
      self.assertEqual(self.get(path, Host="evil.example")[0], 421)
    # With a key, other machines may ask by any name.
    url, self.url = self.url, self.listen(key="s3cret")
    self.addCleanup(setattr, self, "url", url)
    named = {"Host": "other", "Authorization": "bearer  s3cret"}
    self.assertEqual(self.get("/models", **named)[0], 200)

  def get(self, path, **headers):
    base = self.url if path == "/models" else self.url.removesuffix("/v1")
    request = urllib.request.Request(base + path, headers=headers)
    try:
      with urllib.request.urlopen(request, timeout=60) as response:
        return response.status, json.load(response)
    except urllib.error.HTTPError as error:
      return error.code, json.load(error)

  def test_what_it_serves(self):
    def names():
      return [each["id"] for each in self.get("/models")[1]["data"]]

    policy, ppms = map(str, models()[:1]), list(map(str, models()[1]))
    (policy,) = policy
    self.assertEqual(names(), [policy, ppms[0]])
    folder = self.create_tempdir().full_path
    saving.save_policy(other_policy(), folder)
    path = "/update_weights_from_disk"
    self.assertEqual(self.post(path, {"model_path": folder})[0], 200)
    self.assertEqual(names(), [folder, ppms[0]])
    self.assertEqual(self.post(path, {"model_path": policy})[0], 200)
    self.assertEqual(names(), [policy, ppms[0]])
    status, answer = self.get("/nothing")
    self.assertEqual((status, answer["error"]["message"]), (404, "Not Found"))


if __name__ == "__main__":
  absltest.main()
