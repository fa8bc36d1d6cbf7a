"""The remote policy against a real server process on loopback."""

import collections
import concurrent.futures
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.config.schema import RemoteConfig
from rstar_jax.inference import server_pool
from rstar_jax.inference.completions_client import Remote
from rstar_jax.search import mcts
from rstar_jax.steps import grammar, prompts
from rstar_jax.storage.journal import Journal
from tests.inference import scripted_server
from tests.search.toys import PROBLEMS, calls_of, config_of, texts_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Three leaves: at the root, after a step, and after closed code.
QUESTIONS = ["make 4", "make 5", "make 6"]
STEP = "<code>\nx = 0\nx += 1\n<end_of_step>"
SHOWN = grammar.with_output("\nx += 3\nprint(x)\n<end_of_code>", "4")
PREFIXES = [(), (STEP,), (STEP, SHOWN)]
SEEDS = np.array([[7, 1, 5, 3], [2, 2**32 - 9, 9, 4], [6, 8, 0, 4]], np.uint32)


class RemoteCase(parameterized.TestCase):
  """A server for each class, as new for each test."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.server = scripted_server.Server(pathlib.Path(folder))
    cls.addClassCleanup(cls.server.kill)

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.server.reset()
    self.enter_context(mock.patch.object(server_pool, "FIRST_WAIT", 0.01))

  def remote(self, journal="requests.jsonl", **overrides) -> Remote:
    config = {"url": self.server.url, "model": scripted_server.MODEL}
    config |= {"samples_per_request": 1, "timeout_seconds": 60.0, **overrides}
    remote = Remote(RemoteConfig(**config), Journal(self.folder / journal))
    # What was on its way when something failed is not for the next test.
    self.addCleanup(remote._pool.shutdown)
    return remote

  def ask(self, remote=None):
    return (remote or self.remote())(QUESTIONS, PREFIXES, SEEDS)

  def expected(self):
    """What the toy itself says, with no server between."""
    return testing.ToySum()(QUESTIONS, PREFIXES, SEEDS)


class AnswersTest(RemoteCase):
  def test_as_without_a_server_and_in_order(self):
    self.assertEqual(self.ask(), self.expected())

  def test_requests(self):
    remote = self.remote(extra='{"logprobs": 1, "min_p": 0.25}', max_tokens=77)
    self.ask(remote)
    bodies = self.server.seen()["bodies"]
    self.assertCountEqual(
      [(each["prompt"], each["seed"]) for each in bodies],
      [
        (prompts.few_shot(question) + "".join(prefix), int(seed))
        for question, prefix, row in zip(
          QUESTIONS, PREFIXES, SEEDS, strict=True
        )
        for seed in row
      ],
    )
    first = bodies[0]
    for name in ("prompt", "seed"):
      first.pop(name)
    self.assertEqual(
      first,
      {
        "model": "toy",
        "n": 1,
        "temperature": 0.7,
        "top_p": 1.0,
        "max_tokens": 77,
        "stop": ["<end_of_step>", "<end_of_code>", "<end_of_answer>"],
        "logprobs": 1,
        "min_p": 0.25,
      },
    )

  @parameterized.parameters((3, [3, 1]), (4, [4]), (9, [4]))
  def test_several_samples_a_request(self, size, counts):
    found = self.ask(self.remote(samples_per_request=size))
    seen = self.server.seen()["bodies"]
    self.assertCountEqual([each["n"] for each in seen], counts * 3)
    # Each request has its first candidate's seed; the server adds the index.
    draws = SEEDS.astype(np.int64)
    for start in range(0, 4, size):
      for column in range(start, min(start + size, 4)):
        draws[:, column] = SEEDS[:, start] + np.int64(column - start)
    self.assertEqual(found, testing.ToySum()(QUESTIONS, PREFIXES, draws))

  def test_in_flight_is_a_bound_for_all_threads_together(self):
    self.server.tell(hold=3)
    remote = self.remote(in_flight=3)
    seeds = [SEEDS + shift for shift in (0, 100, 200)]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
      parts = [pool.submit(remote, QUESTIONS, PREFIXES, row) for row in seeds]
    for part, row in zip(parts, seeds, strict=True):
      self.assertEqual(
        part.result(), testing.ToySum()(QUESTIONS, PREFIXES, row)
      )
    seen = self.server.seen()
    self.assertLen(seen["bodies"], 3 * SEEDS.size)
    self.assertEqual(seen["peak"], 3)


class LossTest(RemoteCase):
  """Neither side's death loses what was answered, or pays for it twice."""

  def assert_each_answered_once(self):
    counts = collections.Counter(self.server.seen()["answered"])
    self.assertEqual(set(counts.values()), {1})
    self.assertLen(counts, SEEDS.size)

  def test_a_server_that_dies_and_comes_back(self):
    self.server.tell(answers_left=5)

    def revive():
      self.server.wait()
      self.server.start()

    nurse = threading.Thread(target=revive)
    nurse.start()
    found = self.ask(self.remote(in_flight=2))
    nurse.join()
    self.assertEqual(found, self.expected())
    self.assert_each_answered_once()

  def test_a_server_that_stays_dead(self):
    self.server.tell(answers_left=5)
    message = "gave no complete answer .*no better for 0.3 s .* run the same"
    with self.assertRaisesRegex(ConnectionError, message) as raised:
      self.ask(self.remote(in_flight=1, patience_seconds=0.3))
    self.assertNotIn("\n", str(raised.exception))
    self.server.wait()
    self.assertLen(Journal(self.folder / "requests.jsonl"), 5)
    self.server.start()
    self.assertEqual(self.ask(), self.expected())
    self.assert_each_answered_once()

  def test_the_same_bytes_from_the_journal(self):
    self.server.tell(fickle=True)
    first = self.ask()
    self.assertEqual(self.ask(), first)
    self.assertLen(self.server.seen()["bodies"], SEEDS.size)
    # Without it, this server says something else.
    self.assertNotEqual(self.ask(self.remote("other.jsonl")), first)

  def test_equal_requests_get_equal_answers(self):
    self.server.tell(fickle=True)
    seeds = np.full((3, 4), 7, np.uint32)
    first = self.remote()(QUESTIONS, PREFIXES, seeds)
    self.assertEqual([len(set(row)) for row in first], [1, 1, 1])
    self.assertEqual(self.remote()(QUESTIONS, PREFIXES, seeds), first)

  def test_anything_else_is_asked_anew(self):
    self.ask()
    self.ask(self.remote(temperature=0.5))
    self.remote()(QUESTIONS, PREFIXES, SEEDS + 1)
    seen = self.server.seen()
    self.assertLen(seen["bodies"], 3 * SEEDS.size)
    self.assertLen(set(seen["answered"]), 3 * SEEDS.size)

  def test_our_own_death(self):
    # Ours dies while its sixth request waits.
    self.server.tell(fickle=True, faults=[{}] * 5 + [{"late": 60}])
    program = f"""
      from tests.inference.completions_client_test import *
      config = RemoteConfig(
        url={self.server.url!r}, model="toy", samples_per_request=1, in_flight=1
      )
      journal = Journal(pathlib.Path({str(self.folder)!r}, "requests.jsonl"))
      Remote(config, journal)(QUESTIONS, PREFIXES, SEEDS)
    """
    ours = subprocess.Popen(
      [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT
    )
    while len(self.server.seen()["bodies"]) < 6:
      self.assertIsNone(ours.poll())
      threading.Event().wait(0.02)
    ours.send_signal(signal.SIGKILL)
    ours.wait()
    path = self.folder / "requests.jsonl"
    with path.open("ab") as file:
      file.write(path.read_bytes()[:50])
    found = self.ask()
    self.assert_each_answered_once()
    self.assertEqual(self.ask(), found)
    self.assert_each_answered_once()


class SearchTest(RemoteCase):
  @parameterized.parameters(
    ({}, 1),
    # Every option once, from one request a leaf.
    ({"offsets": [0, 1], "covers": True}, 3),
  )
  def test_the_same_trees_as_without_a_server(self, toy, size):
    self.server.tell(toy=toy)
    config = config_of()
    local, remote = (
      mcts.search(PROBLEMS, config, calls_of(policy), seed=3)
      for policy in (
        testing.ToySum(**toy),
        self.remote(samples_per_request=size, in_flight=4),
      )
    )
    self.assertEqual(texts_of(remote), texts_of(local))
    self.assertGreater(sum(len(tree) for tree in local), 50)

  def test_tokens_from_usage(self):
    # This shape has neither ids nor logprobs, and tells the sum of tokens.
    toy = {"options": ["x += 1", "x += 20", "x += 3"]}
    self.server.tell(shape="sglang", toy=toy)
    remote = self.remote(samples_per_request=3)
    trees = mcts.search(PROBLEMS[:2], config_of(), calls_of(remote), seed=3)
    lines = (self.folder / "requests.jsonl").read_text().splitlines()
    usage = [json.loads(line)["answer"]["usage"] for line in lines]
    spent = sum(each["completion_tokens"] for each in usage)
    self.assertTrue(any(each["completion_tokens"] % 3 for each in usage))
    self.assertEqual(sum(tree.tokens for tree in trees), spent)
    self.assertEqual(remote.generated_tokens, spent)
    for tree in trees:
      self.assertTrue(np.isnan(tree.logprob[1:]).all())


if __name__ == "__main__":
  absltest.main()
