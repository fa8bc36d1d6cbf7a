"""The client against a real server that fails in every way."""

import threading
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.storage.journal import Journal
from tests.inference.remote_test import SEEDS, RemoteCase


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

  def test_waits_for_as_long_as_it_is_told(self):
    fault = {"status": 429, "answer": {}, "headers": {"Retry-After": "7"}}
    self.server.tell(faults=[fault])
    waits = []
    with mock.patch.object(
      threading.Event, "wait", lambda self, seconds=None: waits.append(seconds)
    ):
      remote = self.remote()
      body = remote._body("make 4", (), 7, 1)
      remote._completions.ask(body, threading.Event())
    self.assertEqual(waits, [7.0])

  @parameterized.parameters(
    ({"model": "tov"}, "answered 404: The model `tov` does not exist.; check "),
    (
      {"url": "/v2"},
      "answered 404: Not Found; check that config.remote.url ends",
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


if __name__ == "__main__":
  absltest.main()
