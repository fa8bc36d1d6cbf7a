"""What is posted to a real server that fails in every way."""

import http.server
import json
import threading
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.config.schema import RemoteConfig
from rstar_jax.inference import completions_client, http_post
from rstar_jax.inference.completions_client import Remote
from rstar_jax.search import mcts
from rstar_jax.storage.journal import Journal
from rstar_jax.types import Candidate
from tests.inference.completions_client_test import (
  PREFIXES,
  QUESTIONS,
  SEEDS,
  RemoteCase,
)
from tests.search.toys import PROBLEMS, calls_of, config_of, texts_of


class FaultsTest(RemoteCase):
  @parameterized.parameters(
    {"status": 429, "answer": {}, "headers": {"Retry-After": "0"}},
    {"status": 500, "answer": {"error": "out of memory"}},
    {"status": 503, "answer": "not JSON"},
    {"cut": 40},
    {"cut": 0},
    {"instead": {"choices": [{"text": "x", "finish_reason": "abort"}]}},
  )
  def test_is_asked_again(self, **fault):
    self.server.tell(faults=[fault] * 3 + [{}, fault])
    self.assertEqual(self.ask(), self.expected())
    seen = self.server.seen()
    self.assertLen(seen["bodies"], SEEDS.size + 4)
    self.assertLen(set(seen["answered"]), SEEDS.size)

  def test_is_asked_again_when_late(self):
    self.server.tell(faults=[{"late": 30}] * 2)
    self.assertEqual(
      self.ask(self.remote(timeout_seconds=1.0)), self.expected()
    )
    self.assertGreaterEqual(len(self.server.seen()["bodies"]), SEEDS.size + 2)

  def test_is_asked_again_when_it_drips(self):
    # Each byte comes in time, all of them never would.
    self.server.tell(faults=[{"drip": 0.05}] * 2)
    remote = self.remote(timeout_seconds=1.0, in_flight=2)
    self.assertEqual(self.ask(remote), self.expected())
    self.assertLen(self.server.seen()["bodies"], SEEDS.size + 2)

  @parameterized.parameters(
    "HTTP/1.1 200 OK\r\nContent-Length: 999999999999999\r\n\r\n{",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffff\r\n{",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{",
    "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x00",
    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>",
    "HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    "HTTP/1.1 200 OK\r\n" + "a: b\r\n" * 1000,
    "HTTP/1.1 200 OK\r\n\r\n" + "[" * 10**6,
    "HTTP/1.1 200 OK\r\n\r\n" + " " * (1 << 24) + "{}",
    "SSH-2.0-OpenSSH_9.9\r\n",
    "\0",
  )
  def test_is_asked_again_after_what_is_no_answer(self, raw):
    self.server.tell(faults=[{"raw": raw}])
    self.assertEqual(self.ask(), self.expected())
    self.assertLen(self.server.seen()["bodies"], SEEDS.size + 1)

  def test_a_redirect_is_not_followed(self):
    headers = {"Location": f"{self.server.url}/completions?again"}
    fault = {"status": 302, "answer": {}, "headers": headers}
    self.server.tell(faults=[fault])
    with self.assertRaisesRegex(ValueError, "answered 302: .* to http.*again"):
      self.ask(self.remote(in_flight=1))

  @parameterized.parameters(
    ({"model": "tov"}, "answered 404: The model `tov` does not exist.; check "),
    (
      {"url": "/v2"},
      "answered 404: Not Found; check that the server's URL in the config ends",
    ),
  )
  def test_a_refusal_is_final(self, wrong, message):
    if "url" in wrong:
      wrong = {"url": self.server.url.replace("/v1", wrong["url"])}
    with self.assertRaisesRegex(ValueError, message) as raised:
      self.ask(self.remote(**wrong))
    self.assertNotIn("\n", str(raised.exception))
    self.assertEmpty(self.server.seen()["bodies"])

  def test_other_refusals(self):
    self.server.tell(faults=[{"status": 422, "answer": {"detail": "no min_p"}}])
    with self.assertRaisesRegex(
      ValueError, "422: no min_p; in another --workdir ch"
    ):
      self.ask(self.remote(in_flight=1))
    # The second may have been on its way.
    self.assertLess(len(self.server.seen()["bodies"]), 3)

  def test_a_prompt_that_is_too_long_is_no_end(self):
    said = "This model's maximum context length is 9 tokens."
    fault = {"status": 400, "answer": {"error": {"message": said}}}
    self.server.tell(faults=[fault])
    rows = self.ask(self.remote(in_flight=1))
    lost = rows[0][0]
    self.assertEqual((lost.text, lost.finish), ("", "length"))
    rows[0][0] = self.expected()[0][0]
    self.assertEqual(rows, self.expected())

  def test_fewer_samples_than_asked(self):
    fault = {"instead": {"choices": [{"text": "x", "finish_reason": "stop"}]}}
    self.server.tell(faults=[fault])
    with self.assertRaisesRegex(ValueError, "gave 1 of 4 samples: set config"):
      self.ask(self.remote(samples_per_request=4, in_flight=1))
    self.assertEmpty(Journal(self.folder / "requests.jsonl"))

  def test_no_choices(self):
    self.server.tell(faults=[{"instead": {"choices": []}}])
    with self.assertRaisesRegex(ValueError, "without choices: .*completions"):
      self.ask(self.remote(in_flight=1))

  def test_no_key(self):
    with self.assertRaisesRegex(
      ValueError, "api_key_env=NO_SUCH_NAME: the env"
    ):
      self.remote(api_key_env="NO_SUCH_NAME")


# What a working server may say to one request, and why it is no answer.
BAD = (
  ({"choices": [{"text": None}]}, "has null as text"),
  ({"choices": [{"text": ["x"]}]}, "has a list as text"),
  ({"choices": [{"text": "x" * 300000}]}, "has a text of 300000 characters"),
  ({"choices": {"text": "x"}}, "has an object as choices"),
  ({"choices": ["x"]}, 'has "x" in choices'),
  ({"choices": []}, "is without choices"),
  ({"choices": [{"text": "x"}], "usage": {}}, "has no usage.completion"),
  ({"choices": [{"text": "x"}], "usage": 7}, "has no usage.completion"),
  *(
    (
      {"choices": [{"text": "x"}], "usage": {"completion_tokens": count}},
      "as usage.completion_tokens, want 0 to 1024",
    )
    for count in (2.5, 3.0, "3", True, -1, 10**9, 1025, [3])
  ),
  ({"choices": [{"text": "x", "token_ids": [0.5]}]}, "has 0.5 in token_ids"),
  ({"choices": [{"text": "x", "token_ids": "ab"}]}, 'has "ab" as token_ids'),
  ({"choices": [{"text": "x", "token_ids": [-2]}]}, "has -2 as id of a token"),
  (
    {"choices": [{"text": "x", "token_ids": [1] * 1025}]},
    "has more than 1024 tokens in one sample",
  ),
  ({"choices": [{"text": "x", "logprobs": [1]}]}, "logprobs that are no"),
  (
    {"choices": [{"text": "x", "logprobs": {"token_logprobs": ["a"]}}]},
    'has "a" in token_logprobs',
  ),
  (
    {"choices": [{"text": "x", "logprobs": {"token_logprobs": [1e308] * 2}}]},
    r"has 1e\+308 as log-probability",
  ),
  ({"choices": [{"text": "x", "index": "0"}]}, 'has "0" as index, want 0 to 0'),
  ({"choices": [{"text": "x", "index": 1}]}, "has 1 as index"),
)


class BadAnswersTest(RemoteCase):
  """A working server without an answer to some requests stops no run."""

  def prove(self, **options):
    """Has one good answer, so that what fails is not the server."""
    remote = self.remote(patience_seconds=0.0, in_flight=1, **options)
    remote(QUESTIONS[:1], PREFIXES[:1], SEEDS[:1, :1] + 50)
    return remote

  @parameterized.parameters(*BAD)
  def test_is_set_aside(self, instead, reason):
    remote = self.prove()
    self.server.tell(faults=[{"instead": {"usage": None} | instead}])
    rows = self.ask(remote)
    lines = (self.folder / "requests.jsonl").read_text().splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    (why,) = [each["why"] for each in answers if "why" in each]
    self.assertRegex(why, f"^{self.server.url}.* gave an answer .*{reason}")
    self.assertEqual(rows[0][0], Candidate("", (), 0.0, "lost"))
    rows[0][0] = self.expected()[0][0]
    self.assertEqual(rows, self.expected())
    self.assertEqual(remote.set_aside, 1)
    # The next process gets the same, and asks for nothing.
    again = self.remote()
    rows = self.ask(again)
    self.assertEqual(rows[0][0], Candidate("", (), 0.0, "lost"))
    self.assertEqual(again.set_aside, 1)
    self.assertLen(self.server.seen()["bodies"], SEEDS.size + 1)

  @parameterized.parameters(*BAD)
  def test_is_asked_again_first(self, instead, reason):
    del reason
    self.prove()
    self.server.tell(faults=[{"instead": {"usage": None} | instead}] * 3)
    remote = self.remote()
    self.assertEqual(self.ask(remote), self.expected())
    self.assertEqual(remote.set_aside, 0)

  @parameterized.parameters(*BAD)
  def test_is_no_server_for_this_before_its_first_answer(self, instead, reason):
    self.server.tell(faults=[{"instead": {"usage": None} | instead}])
    with self.assertRaisesRegex(ValueError, reason) as raised:
      self.ask(self.remote(in_flight=1))
    self.assertNotIn("\n", str(raised.exception))
    self.assertEmpty(Journal(self.folder / "requests.jsonl"))

  @parameterized.parameters(400, 413, 422)
  def test_a_refusal_of_one_request(self, status):
    remote = self.prove()
    self.server.tell(faults=[{"status": status, "answer": {"detail": "no"}}])
    self.assertEqual(self.ask(remote)[0][0].finish, "lost")

  @parameterized.parameters(401, 404)
  def test_a_refusal_of_all_requests(self, status):
    remote = self.prove()
    self.server.tell(faults=[{"status": status, "answer": {"detail": "no"}}])
    with self.assertRaisesRegex(ValueError, f"answered {status}"):
      self.ask(remote)

  def test_a_server_that_does_not_answer_is_not_the_request_s_fault(self):
    remote = self.prove()
    self.server.tell(faults=[{"status": 500, "answer": {"detail": "no"}}])
    with self.assertRaisesRegex(ConnectionError, "answered 500: no, and no"):
      self.ask(remote)

  def test_a_search_among_bad_answers_and_the_same_one_resumed(self):
    faults = [{"instead": {"usage": None} | instead} for instead, _ in BAD]
    faults = [each for fault in faults for each in ({}, {}, fault)]
    self.server.tell(faults=faults * 9)
    config = config_of()
    remote = self.prove(samples_per_request=3)
    trees = mcts.search(PROBLEMS, config, calls_of(remote), seed=3)
    lost = sum(tree.dropped["lost"] for tree in trees)
    self.assertEqual(lost, 3 * remote.set_aside)
    self.assertBetween(remote.set_aside, 10, 100)
    self.assertGreater(sum(len(tree) for tree in trees), 50)
    asked = len(self.server.seen()["bodies"])
    self.server.tell(faults=[], fickle=True)
    again = self.remote(samples_per_request=3)
    self.assertEqual(
      texts_of(mcts.search(PROBLEMS, config, calls_of(again), seed=3)),
      texts_of(trees),
    )
    self.assertLen(self.server.seen()["bodies"], asked)
    self.assertEqual(again.set_aside, remote.set_aside)

  def test_nothing_but_bad_answers(self):
    remote = self.prove()
    bad = {"instead": {"choices": [{"text": None}]}}
    self.server.tell(faults=[bad] * 15 + [{}] + [bad] * 16)
    with self.assertRaisesRegex(ConnectionError, "16 requests in a row"):
      for shift in range(0, 90, 10):
        remote(QUESTIONS, PREFIXES, SEEDS + shift)
    # The last of them will be asked again, the others have their verdict.
    text = (self.folder / "requests.jsonl").read_text()
    self.assertEqual(text.count('"lost"'), 15 + 15)
    # One more may have been on its way.
    self.assertLess(len(self.server.seen()["bodies"]), 1 + 15 + 1 + 16 + 2)

  def test_an_answer_with_the_mark_of_what_was_lost(self):
    instead = {"finish": "lost", "why": "?"}
    self.server.tell(faults=[{"instead": instead}])
    self.assertEqual(self.ask(), self.expected())
    self.assertEqual(self.ask(), self.expected())

  def test_what_an_older_version_let_into_the_journal(self):
    self.ask()
    path = self.folder / "requests.jsonl"
    lines = path.read_text().splitlines()
    entry = json.loads(lines[4])
    entry["answer"]["choices"][0]["text"] = None
    lines[4] = json.dumps(entry)
    path.write_text("".join(f"{line}\n" for line in lines))
    for asked in (1, 0):
      before = len(self.server.seen()["bodies"])
      config = RemoteConfig(
        url=self.server.url, model="toy", samples_per_request=1
      )
      journal = Journal(path, check=completions_client.readable(config))
      self.assertEqual(self.ask(Remote(config, journal)), self.expected())
      self.assertEqual(journal.passed_over, 1)
      self.assertLen(self.server.seen()["bodies"], before + asked)


class KeyTest(RemoteCase):
  def test_key(self):
    self.server.tell(key="s3cret")
    with self.assertRaisesRegex(ValueError, "answered 401: not None; check"):
      self.ask()
    self.enter_context(mock.patch.dict("os.environ", {"TOY_KEY": "wrong"}))
    with self.assertRaisesRegex(
      ValueError, r"not Bearer \*\*\*; check the key"
    ):
      self.ask(self.remote(api_key_env="TOY_KEY"))
    with mock.patch.dict("os.environ", {"TOY_KEY": "s3cret"}):
      remote = self.remote(api_key_env="TOY_KEY")
    self.assertEqual(self.ask(remote), self.expected())

  @parameterized.parameters("s3cret\n", "s3cret\r", "s3\0cret", "s3crét")
  def test_a_key_that_cannot_be_sent_is_not_shown(self, key):
    # A variable of this process cannot have a zero.
    self.enter_context(
      mock.patch.object(http_post.os, "environ", {"TOY_KEY": key})
    )
    with self.assertRaisesRegex(
      ValueError, "api_key_env=TOY_KEY: the key .* printable"
    ) as raised:
      self.remote(api_key_env="TOY_KEY")
    self.assertNotIn("s3", str(raised.exception))


class GetTest(parameterized.TestCase):
  """What is got, by `GET`, and bounded like all answers."""

  def setUp(self):
    super().setUp()
    self.config = RemoteConfig(timeout_seconds=20.0, api_key_env="TOY_KEY")
    self.enter_context(mock.patch.dict("os.environ", {"TOY_KEY": "s3cret"}))

  def get(self, status=200, text=b"{}", **headers):
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
      def do_GET(self):
        seen.append(dict(self.headers))
        self.send_response(status)
        for name, value in headers.items():
          self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

      def log_message(self, *args):
        del args

    with http.server.HTTPServer(("localhost", 0), Handler) as server:
      thread = threading.Thread(target=server.handle_request)
      thread.start()
      url = f"http://localhost:{server.server_port}/models"
      try:
        return http_post.Url(url, self.config, "remote").get(), seen
      finally:
        thread.join()

  def test_a_document(self):
    document, (headers,) = self.get(text=b'{"data": [3]}')
    self.assertEqual(document, {"data": [3]})
    self.assertEqual(headers["Authorization"], "Bearer s3cret")
    self.assertNotIn("Content-Type", headers)

  @parameterized.parameters(404, 405)
  def test_none(self, status):
    self.assertIsNone(self.get(status)[0])

  @parameterized.parameters(
    (401, "answered 401: .*check the key"), (302, "answered 302")
  )
  def test_a_refusal(self, status, words):
    with self.assertRaisesRegex(ValueError, words):
      self.get(status, Location="http://localhost:9")

  @parameterized.parameters(503, 500)
  def test_not_now(self, status):
    with self.assertRaisesRegex(http_post.Later, f"answered {status}"):
      self.get(status)

  @parameterized.parameters(b"<html>", b"", b" " * (1 << 24) + b"{}")
  def test_no_json(self, text):
    with self.assertRaisesRegex(http_post.Later, "gave an answer that"):
      self.get(text=text)


if __name__ == "__main__":
  absltest.main()
