"""Several servers as one: scripted ones by a clock, real ones on loopback."""

import collections
import pathlib
import tempfile
import threading
from unittest import mock

from absl.testing import absltest

from rstar_jax.config.schema import ClientConfig
from rstar_jax.inference import server_pool
from rstar_jax.inference.http_post import BadAnswer, Later
from rstar_jax.search import mcts
from tests.inference import scripted_server
from tests.inference.completions_client_test import RemoteCase
from tests.search.toys import PROBLEMS, calls_of, config_of, texts_of

GONE = Later("gone", "gone")
BUSY = Later("busy", "busy", seconds=7.0)
ODD = Later("odd", answered=True)


class FakeUrl:
  """Answers as scripted, an exception or a text each; then with its name."""

  def __init__(self, url, config, part):
    self.url, self.script, self.asked = url, [], 0

  def post(self, body, read, proven=False):
    self.asked += 1
    answer = self.script.pop(0) if self.script else self.url
    if isinstance(answer, Exception):
      raise answer
    return answer, read(answer)


class ClockTest(absltest.TestCase):
  """What is asked when, with a clock that moves by what is waited for."""

  def setUp(self):
    super().setUp()
    self.now, self.waits = 1000.0, []
    self.enter_context(mock.patch.object(server_pool, "Url", FakeUrl))
    clock = mock.patch.object(server_pool.time, "monotonic", lambda: self.now)
    self.enter_context(clock)
    sleep = mock.patch.object(server_pool.time, "sleep", self.wait)
    self.enter_context(sleep)
    self.event = mock.Mock(wait=self.wait, is_set=lambda: False)

  def wait(self, seconds):
    self.waits.append(round(seconds, 6))
    self.now += seconds

  def make(self, *names, patience=100.0, **options):
    config = ClientConfig(patience_seconds=patience)
    client = server_pool.Servers(names, config, "servers", **options)
    self.urls = {each.url.url: each.url for each in client._servers}
    return client

  def ask(self, client, tree=""):
    return client.ask(b"{}", self.event, str, tree)[0]

  def test_a_tree_stays_with_a_server_and_trees_spread(self):
    client = self.make("a", "b", "c")
    trees = [f"tree {n}" for n in range(300)]
    first = {tree: self.ask(client, tree) for tree in trees}
    self.assertEqual({tree: self.ask(client, tree) for tree in trees}, first)
    counts = collections.Counter(first.values())
    self.assertBetween(min(counts.values()), 70, 100)
    # Without one of them its trees move, and no other.
    without = self.make("a", "c")
    for tree, server in first.items():
      if server != "b":
        self.assertEqual(self.ask(without, tree), server)

  def test_a_server_with_much_more_to_do_is_passed_over(self):
    client = self.make("a", "b")
    taken = [client._choose("one tree", set())[0].url.url for _ in range(20)]
    counts = collections.Counter(taken)
    # At most 1.25 times the mean, rounded up.
    self.assertEqual(sorted(counts.values()), [7, 13])
    self.assertLen(set(taken[:1]), 1)

  def test_the_next_one_at_once_and_rests(self):
    client = self.make("a", "b")
    tree = next(t for t in map(str, range(99)) if self.ask(client, t) == "a")
    self.urls["a"].script = [GONE] * 4
    self.assertEqual(self.ask(client, tree), "b")
    self.assertEqual(self.waits, [])
    asked = self.urls["a"].asked
    self.assertEqual(self.ask(client, tree), "b")
    self.assertEqual(self.urls["a"].asked, asked)
    # It rests for 1, 2, 4 and 8 s, and has its trees again after that.
    for seconds in (1, 2, 4, 8):
      self.now += seconds - 0.1
      self.assertEqual(self.ask(client, tree), "b")
      self.now += 0.2
      found = self.ask(client, tree)
    self.assertEqual(found, "a")
    self.assertEqual(self.urls["a"].asked, asked + 4)
    # What has an answer, or none, is not in flight.
    self.assertEqual([each.in_flight for each in client._servers], [0, 0])

  def test_all_that_it_was_at_fails_and_counts_once(self):
    client = self.make("a", "b")
    (server, _), _ = (client._choose("t", set()) for _ in range(2))
    for _ in range(64):
      client._let_rest(server, GONE)
    self.assertEqual(server.rests_until, self.now + 1)

  def test_waits_for_as_long_as_it_is_told(self):
    client = self.make("a")
    self.urls["a"].script = [BUSY]
    self.assertEqual(self.ask(client), "a")
    self.assertEqual(self.waits, [7.0])

  def test_waits_that_double(self):
    client = self.make("a")
    self.urls["a"].script = [ODD, GONE, ODD, GONE]
    self.assertEqual(self.ask(client), "a")
    self.assertEqual(self.waits, [1, 2, 4, 8])

  def test_one_request_s_bad_answers_do_not_rest_a_server(self):
    client = self.make("a")
    self.ask(client)
    self.urls["a"].script = [ODD]
    with self.assertRaises(BadAnswer):
      client._patience = 0.0
      self.ask(client)
    self.assertEqual(self.ask(client), "a")
    self.assertEqual(self.waits, [])

  def test_patience_is_for_all_servers(self):
    client = self.make("a", "b", patience=10.0)
    for each in self.urls.values():
      each.script = [GONE] * 99
    with self.assertRaisesRegex(
      ConnectionError, "no better for 10 s .*servers"
    ):
      self.ask(client)
    self.assertEqual(sum(self.waits), 10)
    for each in self.urls.values():
      self.assertGreater(each.asked, 3)

  def test_no_patience_still_asks_each_once(self):
    client = self.make("a", "b", "c", patience=0.0)
    for each in ("a", "b"):
      self.urls[each].script = [GONE] * 9
    self.assertEqual({self.ask(client, str(n)) for n in range(9)}, {"c"})

  def test_a_server_is_looked_at_before_it_gets_work(self):
    seen = []

    def check(url):
      seen.append(url.url)
      url.post(b"", str)

    client = self.make("a", "b", check=check)
    self.urls["b"].script = [GONE]
    client.check()
    self.assertCountEqual(seen, ["a", "b"])
    self.assertEqual({self.ask(client, str(n)) for n in range(9)}, {"a"})
    self.now += 1
    self.assertEqual({self.ask(client, str(n)) for n in range(9)}, {"a", "b"})
    self.assertCountEqual(seen, ["a", "b", "b"])
    # Gone, and looked at again; not so after a bad answer.
    self.urls["a"].script = [ODD, GONE]
    for _ in range(3):
      for n in range(9):
        self.ask(client, str(n))
      self.now += 100
    self.assertCountEqual(seen, ["a", "b", "b", "a"])

  def test_another_model_at_the_start_ends_the_run(self):
    def check(url):
      if url.url == "b":
        raise ValueError("b has another model")

    with self.assertRaisesRegex(ValueError, "b has another"):
      self.make("a", "b", check=check).check()

  def test_another_model_later_gets_no_work(self):
    right = {"a", "b"}

    def check(url):
      if url.url not in right:
        raise ValueError(f"{url.url} has another model")

    client = self.make("a", "b", check=check)
    client.check()
    self.ask(client)
    for name, others in (("a", {"b"}), ("b", set())):
      right.discard(name)
      self.urls[name].script = [GONE]
      if others:
        for _ in range(3):
          found = {self.ask(client, str(n)) for n in range(9)}
          self.now += 100
        self.assertEqual(found, others)
      else:
        with self.assertRaisesRegex(ValueError, "b has another model"):
          for n in range(3):
            self.ask(client, str(n))

  def test_one_that_is_left_out_gets_no_work_until_the_next_check(self):
    seen = []
    client = self.make("a", "b", check=lambda url: seen.append(url.url))
    client.check(without=["", "b has the old model"])
    self.assertEqual({self.ask(client, str(n)) for n in range(9)}, {"a"})
    self.now += 1000
    self.assertEqual({self.ask(client, str(n)) for n in range(9)}, {"a"})
    self.assertEqual(seen, ["a"])
    client.check()
    self.assertEqual({self.ask(client, str(n)) for n in range(9)}, {"a", "b"})
    with self.assertRaisesRegex(ConnectionError, "^a is gone$"):
      client.check(without=["a is gone", "b too"])

  def test_a_wrong_one_is_left_out_while_another_is_right(self):
    def check(url):
      if url.url in wrong:
        raise ValueError(f"{url.url} has the old model")

    wrong, client = {"b"}, self.make("a", "b", check=check)
    with self.assertRaisesRegex(ValueError, "^b has the old model$"):
      client.check()
    client.check(all_right=False)
    self.assertEqual({self.ask(client, str(n)) for n in range(9)}, {"a"})
    wrong.add("a")
    with self.assertRaisesRegex(ValueError, "has the old model$"):
      client.check(all_right=False)

  def test_one_that_becomes_right_at_the_start_gets_work(self):
    # It is asked again, since the other does not answer.
    right = iter([False, True])

    def check(url):
      if url.url == "a" and not next(right):
        raise ValueError("a has the old model")
      url.post(b"", str)

    client = self.make("a", "b", check=check)
    self.urls["b"].script = [GONE] * 9
    client.check(all_right=False)
    self.assertEqual(self.ask(client), "a")

  def test_none_answers_at_the_start(self):
    client = self.make(
      "a", "b", patience=3.0, check=lambda url: url.post(b"", str)
    )
    for each in self.urls.values():
      each.script = [GONE] * 9
    with self.assertRaisesRegex(
      ConnectionError, "^a gone, and no better for 3"
    ):
      client.check()
    self.assertEqual(self.waits, [1, 2])

  def test_stopped_while_one_is_asked(self):
    client = self.make("a", "b")
    self.event.is_set = lambda: any(x.asked for x in self.urls.values())
    for url in self.urls.values():
      url.script = [GONE]
    with self.assertRaises(ConnectionError):
      self.ask(client)
    self.assertEqual(sum(x.asked for x in self.urls.values()), 1)
    self.assertEqual(self.waits, [])

  def test_stopped(self):
    client = self.make("a")
    self.urls["a"].script = [GONE]
    self.event.is_set = lambda: True
    with self.assertRaises(ConnectionError):
      self.ask(client)
    self.assertEqual(self.waits, [])


class TwoServersTest(RemoteCase):
  """Round 1's policy behind two servers over real sockets."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.second = scripted_server.Server(pathlib.Path(folder))
    cls.addClassCleanup(cls.second.kill)

  def setUp(self):
    super().setUp()
    self.second.reset()

  def search(self, **options):
    urls = f"{self.server.url}, {self.second.url}/"
    remote = self.remote(url=urls, in_flight=4, **options)
    trees = mcts.search(PROBLEMS, config_of(), calls_of(remote), seed=3)
    return texts_of(trees)

  def expected(self):
    remote = self.remote("one.jsonl", in_flight=4)
    trees = mcts.search(PROBLEMS, config_of(), calls_of(remote), seed=3)
    self.server.reset()
    return texts_of(trees)

  def asked(self):
    return [len(each.seen()["bodies"]) for each in (self.server, self.second)]

  def test_the_same_trees_from_both(self):
    expected = self.expected()
    self.assertEqual(self.search(), expected)
    self.assertGreater(min(self.asked()), 0)
    # All requests of a question are at one of them, but for what spills.
    homes = collections.defaultdict(list)
    for number, each in enumerate((self.server, self.second)):
      for body in each.seen()["bodies"]:
        homes[body["prompt"].split("Question: ")[-1].split("\n")[0]].append(
          number
        )
    stayed = sum(max(map(v.count, (0, 1))) for v in homes.values())
    self.assertGreater(stayed / sum(map(len, homes.values())), 0.7)

  def test_one_is_killed_midway(self):
    expected = self.expected()
    self.second.tell(answers_left=9)
    self.assertEqual(self.search(), expected)
    self.second.wait()
    self.second.start()

  def test_one_that_is_killed_comes_back(self):
    expected = self.expected()
    self.second.tell(answers_left=3)

    def revive():
      self.second.wait()
      self.second.start()

    nurse = threading.Thread(target=revive)
    nurse.start()
    self.assertEqual(self.search(), expected)
    nurse.join()

  def test_one_is_busy_broken_and_talks_rubbish(self):
    expected = self.expected()
    busy = {"status": 429, "answer": {}, "headers": {"Retry-After": "0"}}
    faults = [
      busy,
      {"status": 503, "answer": "loading"},
      {"raw": "HTTP/1.1 200 OK\r\n\r\n<html>"},
      {"cut": 40},
      {"instead": {"choices": []}},
      {"status": 500, "answer": {"error": "out of memory"}},
    ]
    self.second.tell(faults=faults * 3)
    found = self.search()
    self.assertEqual(found, expected)

  def test_one_is_slow(self):
    expected = self.expected()
    self.second.tell(faults=[{"late": 0.2}] * 20)
    self.assertEqual(self.search(), expected)


if __name__ == "__main__":
  absltest.main()
