"""What servers are asked to put a model in its place."""

import http.server
import json
import threading

from absl.testing import absltest

from rstar_jax.config.schema import Config
from rstar_jax.inference import loading


class Handler(http.server.BaseHTTPRequestHandler):
  asked: list
  answers: dict

  def do_POST(self):
    body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
    self.asked.append((self.path, body))
    status, answer = self.answers.get(self.path, (200, {}))
    self.send_response(status)
    self.end_headers()
    self.wfile.write(b"" if answer is None else json.dumps(answer).encode())

  def log_message(self, *args):
    del args


class LoadingTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.asked, self.answers = [], {}
    fields = {"asked": self.asked, "answers": self.answers}
    handler = type("Own", (Handler,), fields)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    self.addCleanup(server.server_close)
    self.addCleanup(server.shutdown)
    self.url = f"http://127.0.0.1:{server.server_port}"

  def load(self, name):
    urls = [f"{self.url}/v1", self.url]
    return loading.LOADS[name](Config(), "policy", "a/folder", urls)

  def test_vllm(self):
    # As vLLM answers: results of its workers, and nothing.
    self.answers["/collective_rpc"] = 200, {"results": [None]}
    self.answers["/reset_prefix_cache"] = 200, None
    self.assertEqual(self.load("vllm"), ["", ""])
    reload = {
      "method": "reload_weights",
      "kwargs": {"weights_path": "a/folder"},
    }
    both = [("/collective_rpc", reload), ("/reset_prefix_cache", {})]
    self.assertCountEqual(self.asked, both * 2)
    self.assertEqual(self.asked[0], both[0])
    self.assertEqual(self.asked[-1], both[1])

  def test_sglang(self):
    self.answers["/update_weights_from_disk"] = 200, {"success": True}
    self.load("sglang")
    path = "/update_weights_from_disk"
    self.assertEqual(self.asked, [(path, {"model_path": "a/folder"})] * 2)

  def test_one_that_is_gone_is_left(self):
    urls = ["http://127.0.0.1:9/v1", f"{self.url}/v1"]
    gone, there = loading.sglang(Config(), "policy", "a/folder", urls)
    self.assertRegex(gone, "^http://127.0.0.1:9/upd.*the model was not put")
    self.assertEqual(there, "")
    self.assertLen(self.asked, 1)
    with self.assertRaisesRegex(ConnectionError, "was not put there"):
      loading.sglang(Config(), "policy", "a/folder", urls[:1])

  def test_it_did_not(self):
    path = "/update_weights_from_disk"
    for answer, error, words in (
      ((200, {"success": False, "message": "no"}), ValueError, "says .*no"),
      ((404, {"detail": "Not Found"}), ValueError, "answered 404"),
      ((400, {"error": {"message": "bad"}}), ValueError, "answered 400: bad"),
      ((500, {}), ConnectionError, "answered 500: .*was not put there"),
    ):
      self.answers[path] = answer
      with self.assertRaisesRegex(error, words) as raised:
        self.load("sglang")
      self.assertNotIn("\n", str(raised.exception))


if __name__ == "__main__":
  absltest.main()
