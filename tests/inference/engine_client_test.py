"""Engines behind servers that fail, against engines that are here."""

import dataclasses
import http.server
import json
import threading
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.config.schema import ServersConfig
from rstar_jax.hf import folders, saving
from rstar_jax.inference import engine_client, server_pool
from rstar_jax.inference.generated import LOST, Generated, Stop
from rstar_jax.inference.policy import Policy
from rstar_jax.inference.protocols import Reading
from rstar_jax.inference.scoring import ScoringEngine
from rstar_jax.pipeline import deploy
from rstar_jax.serve import engine_server
from rstar_jax.steps.tokenizer import HfTokenizer
from tests.inference import stand_in
from tests.serve import engine_server_test
from tests.serve.engine_server_test import PROMPTS, SEEDS

# With the end of the text, at which SGLang ends in any case.
STOP = Stop(7, frozenset([1, 5, 9, 700]))

LEAVES = [
  (prompt, [seed + n for seed in SEEDS[::2]])
  for n in range(6)
  for prompt in PROMPTS
]


def rubbish(answer):
  return {"choices": [{"text": None}], "data": 3}


def of_token(answer):
  answer["choices"][0]["token_ids"] = [1 << 40]
  return answer


class TwoCase(parameterized.TestCase):
  """Two servers of one policy and PPM; the second one fails."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    policy, (ppm, _) = engine_server_test.models()
    cls.ppm = ppm
    cls.served = engine_server.EngineService(
      engine_server_test.config_of(), policy=str(policy), ppm=str(ppm)
    )
    cls.scores = ScoringEngine(
      folders.load_ppm(ppm), engine_server_test.config_of().engine
    )

  def setUp(self):
    super().setUp()
    self.enter_context(mock.patch.object(server_pool, "FIRST_WAIT", 0.01))
    self.protocol = "openai"

  def begin(self, protocol="openai"):
    self.protocol = protocol
    self.both = [stand_in.StandIn(self.served, protocol) for _ in range(2)]
    for each in self.both:
      self.addCleanup(each.close)

  def config(self, **options):
    urls = ", ".join(each.url for each in self.both)
    fields = {
      **{"policy": urls, "ppm": urls, "protocol": self.protocol},
      **{"in_flight": 6, "timeout_seconds": 20.0, "patience_seconds": 60.0},
    }
    config = engine_server_test.config_of()
    config.servers = dataclasses.replace(config.servers, **fields | options)
    return config

  def engine(self, **options):
    config = self.config(**options)
    return engine_client.ServedEngine(config.servers, config.engine)

  def ask(self, engine):
    waiting = [
      engine.submit(prompt, seeds, STOP, tree=str(prompt))
      for prompt, seeds in LEAVES
    ]
    return [each.result() for each in waiting]

  def expected(self):
    return self.ask(engine_server_test.engine())


class StepsTest(TwoCase):
  @parameterized.parameters("openai", "sglang")
  def test_the_same_as_here(self, protocol):
    self.begin(protocol)
    self.assertEqual(self.ask(self.engine()), self.expected())
    asked = [len(each.asked) for each in self.both]
    self.assertGreater(min(asked), 3)

  def test_a_sample_that_sglang_aborts_is_asked_for_again(self):
    self.begin("sglang")

    def aborted(answer):
      meta = answer["meta_info"]
      # As it is when models are put there, or the server is paused.
      meta["finish_reason"] = {
        **{"type": "abort", "message": "Aborted"},
        **{"status_code": None, "err_type": None},
      }
      del meta["output_token_logprobs"][1:]
      return answer

    for each in self.both:
      each.faults = [{}, {"change": aborted}, {"change": aborted}]
    self.assertEqual(self.ask(self.engine()), self.expected())

  def test_without_seeds(self):
    self.begin("sglang_jax")
    self.assertLen(self.ask(self.engine()), len(LEAVES))
    for each in self.both:
      for _, body in each.asked:
        self.assertNotIn("sampling_seed", body["sampling_params"])

  def test_a_prefix_that_is_too_long(self):
    self.begin()
    engine = self.engine()
    empty = [Generated((), (), -1)] * 3
    self.assertEqual(engine.submit([1] * 161, SEEDS, STOP).result(), empty)
    said = {"status": 400, "said": "the maximum context length is 9 tokens"}
    self.ask(engine)
    self.both[0].faults = self.both[1].faults = [said]
    (found,) = engine.submit([1, 2], [3], STOP).result()
    self.assertEqual(found, empty[0])
    self.assertEqual(engine.too_long, 2)

  def test_what_cannot_be_sampled_is_not_asked_for(self):
    self.begin()
    engine = self.engine()
    for prefix, stop, options, words in (
      ([], STOP, {}, "the prefix is empty"),
      ([1], Stop(65), {}, "limit=65 is not in"),
      ([1], STOP, {"temperature": -1.0}, "temperature=-1.0 is not"),
      ([1], STOP, {"temperature": float("nan")}, "temperature=nan is not"),
    ):
      with self.assertRaisesRegex(ValueError, words):
        engine.submit(prefix, SEEDS, stop, **options)
    self.assertEmpty([each for one in self.both for each in one.asked])

  @parameterized.parameters(
    {"status": 429},
    {"status": 503},
    {"status": 500},
    {"raw": b"HTTP/1.1 200 OK\r\n\r\n<html>"},
    {"raw": b"\0"},
    {"change": rubbish},
    {"change": of_token},
    {"late": 0.2},
  )
  def test_faults_of_one(self, **fault):
    self.begin()
    engine = self.engine()
    engine.servers.check()
    self.both[1].faults = [fault] * 9
    self.ask(engine)
    self.assertEqual(self.ask(engine), self.expected())
    self.assertEqual(engine.set_aside, 0)

  def test_one_is_killed_midway_and_comes_back(self):
    self.begin()
    engine = self.engine()
    self.both[1].answers_left = 7
    self.assertEqual(self.ask(engine), self.expected())
    dead = len(self.both[1].asked)
    self.assertGreater(dead, 7)
    self.assertEqual(self.ask(engine), self.expected())
    self.both[1].answers_left = None
    self.both[1].start()
    for server in engine.servers._servers:
      server.rests_until = 0
    self.assertEqual(self.ask(engine), self.expected())
    self.assertGreater(len(self.both[1].asked), dead + 3)

  def test_no_answer_that_can_be_read_is_a_lost_step(self):
    self.begin()
    engine = self.engine(patience_seconds=0.0)
    self.ask(engine)
    for each in self.both:
      each.faults = [{"change": rubbish}] * 2
    tokenizer = HfTokenizer(engine_server_test.models()[0])
    policy = Policy(engine, tokenizer, limit=5)
    rows = policy(["one?", "two?"], [(), ()], np.array([[1], [2]]))
    found = [each.finish for row in rows for each in row]
    self.assertIn("lost", found)
    self.assertEqual(engine.set_aside, found.count("lost"))
    self.assertEqual(Generated((), (), LOST).logprob, 0)

  def test_all_are_gone(self):
    self.begin()
    engine = self.engine(patience_seconds=0.0)
    for each in self.both:
      each.close()
    with self.assertRaisesRegex(ConnectionError, "config.servers.patience"):
      self.ask(engine)
    with self.assertRaisesRegex(ConnectionError, "gave no complete answer"):
      engine.servers.check()

  def test_who_asked_may_go(self):
    self.begin()
    engine = self.engine(in_flight=1)
    engine.servers.check()
    self.both[0].faults = self.both[1].faults = [{"status": 429}] * 999
    waiting = engine.submit([1], SEEDS, STOP)
    self.assertTrue(waiting.cancel())
    for each in self.both:
      each.faults = []
    self.assertLen(engine.submit([1], SEEDS, STOP).result(timeout=60), 3)


class ScoresTest(TwoCase):
  def ask_values(self, engine):
    waiting = [engine.submit(PROMPTS[:n], tree=str(n)) for n in (1, 2, 3) * 3]
    return [each.result().tolist() for each in waiting]

  @parameterized.parameters("openai", "sglang")
  def test_the_same_as_here(self, protocol):
    self.begin(protocol)
    engine = engine_client.ServedScores(self.config().servers, "tanh")
    self.both[1].faults = [
      *({"status": 503}, {}, {"change": rubbish}, {"late": 0.2}),
      {"raw": b"HTTP/1.1 200 OK\r\n\r\n[["},
    ]
    for found, expected in zip(
      self.ask_values(engine), self.ask_values(self.scores), strict=True
    ):
      np.testing.assert_allclose(found, expected, atol=1e-6)

  def test_no_paths_and_none_empty(self):
    self.begin()
    engine = engine_client.ServedScores(self.config().servers, "tanh")
    self.assertEqual(engine.submit([]).result().shape, (0,))
    with self.assertRaisesRegex(ValueError, "has no tokens"):
      engine.submit([[1], []])


def made_up(path):
  """Returns what a made-up reward model gives: of a bad and a good step."""
  return [len(path) % 5 / 2, sum(path) % 7 / 3]


def reward_answer(path, body, logits_of):
  """Answers as vLLM and SGLang do for a reward model, and as they are asked."""
  (given,) = (body[n] for n in ("input", "prompt", "input_ids") if n in body)
  both = [logits_of(each) for each in given]
  match path, body.get("task"):
    case "/pooling", "classify":
      data = [{"index": i, "data": each} for i, each in enumerate(both)]
      return {"data": data}
    case "/pooling", "token_classify":
      data = [
        {"index": i, "data": [[9.0, -9.0], each]} for i, each in enumerate(both)
      ]
      return {"data": data[::-1]}
    case "/v1/completions", None:
      good, bad = (f"token_id:{key}" for key in body["logprob_token_ids"])
      tops = [{"token_id:3": 0.0, good: each[1], bad: each[0]} for each in both]
      return {
        "choices": [
          {"index": i, "logprobs": {"top_logprobs": [each]}}
          for i, each in enumerate(tops)
        ]
      }
    case "/classify", None:
      return [{"embedding": each} for each in both]
    case "/generate", None:
      answers = [
        [[each[1], good, None], [each[0], bad, None]]
        for each, (good, bad) in zip(
          both, body["token_ids_logprob"], strict=True
        )
      ]
      return [
        {"meta_info": {"output_token_ids_logprobs": [each]}} for each in answers
      ]


def reward_server(test, logits_of=made_up) -> str:
  """Starts a server of a reward model, for a test; returns its base."""

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
      body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
      text = json.dumps(reward_answer(self.path, body, logits_of)).encode()
      self.send_response(200)
      self.send_header("Content-Length", str(len(text)))
      self.end_headers()
      self.wfile.write(text)

    def log_message(self, *args):
      del args

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  test.addCleanup(server.server_close)
  test.addCleanup(server.shutdown)
  return f"http://127.0.0.1:{server.server_port}/v1"


class RewardsTest(parameterized.TestCase):
  """Published reward models, as vLLM and SGLang answer for them."""

  @parameterized.product(
    protocol=("openai", "sglang"),
    reading=(
      Reading("token_classify", (1, 0)),
      Reading("classify", (1, 0)),
      Reading("answers", (11, 13)),
    ),
  )
  def test_values(self, protocol, reading):
    paths = [[4, 5, 6, 7], [4, 9], [13]]
    expected = []
    for path in paths:
      bad, good = np.exp(made_up(path))
      expected.append(2 * good / (good + bad) - 1)
    url = reward_server(self)
    config = ServersConfig(reward=url, protocol=protocol)
    for off in (0.0, 0.3):
      scores = engine_client.ServedScores(
        config,
        "odds",
        engine_client.Expected(
          "its name", paths, values=np.array(expected) + off
        ),
        role="reward",
        reading=reading,
      )
      if off:
        with self.assertRaisesRegex(ValueError, "than its name: values are of"):
          scores.servers.check()
      else:
        scores.servers.check()
        found = scores.submit(paths).result()
        np.testing.assert_allclose(found, expected, atol=1e-6)


class OtherModelTest(TwoCase):
  """What a server computes is compared with the model before it gets work."""

  def expected_of(self, policy):
    model = folders.load_policy(policy)
    tokens = deploy._tokens(model, PROMPTS)
    return engine_client.Expected(str(policy), PROMPTS, tokens=tokens)

  def make(self, **options):
    config = self.config(**options)
    expected = self.expected_of(engine_server_test.models()[0])
    return engine_client.ServedEngine(config.servers, config.engine, expected)

  def test_the_right_one(self):
    self.begin()
    self.make(tolerance=1e-4).servers.check()

  def test_weights_of_another(self):
    self.begin()
    folder = self.create_tempdir().full_path
    other = engine_server_test.other_policy()
    tokenizer = HfTokenizer(engine_server_test.models()[0])
    saving.save_policy(other, folder, tokenizer=tokenizer)
    self.both[1].served = engine_server.EngineService(
      engine_server_test.config_of(), policy=folder
    )
    with self.assertRaisesRegex(
      ValueError,
      f"^{self.both[1].url}.* answers as another model than .* are off by",
    ) as raised:
      self.make().servers.check()
    self.assertNotIn("\n", str(raised.exception))
    # And where it comes back with them in the middle of a run.
    self.both[1].served = self.served
    engine = self.make()
    engine.servers.check()
    self.both[1].answers_left = 5
    self.assertEqual(self.ask(engine), self.expected())
    self.both[1].answers_left = None
    self.both[1].served = engine_server.EngineService(
      engine_server_test.config_of(), policy=folder
    )
    self.both[1].start()
    for server in engine.servers._servers:
      server.rests_until = 0
    self.assertEqual(self.ask(engine), self.expected())

  def test_log_probabilities_at_the_temperature_of_sampling(self):
    """SGLang gives these, unless it is told otherwise."""
    self.begin()

    def scaled(answer):
      values = answer["choices"][0]["logprobs"]["token_logprobs"]
      # As of a model that is less sure of itself.
      values[:] = [value / 2 for value in values]
      return answer

    for each in self.both:
      each.faults = [{"change": scaled}] * 99
    with self.assertRaisesRegex(ValueError, "log-probabilities are off"):
      self.make().servers.check()
    # A request that is greedy there would not have shown it.
    self.begin("sglang")
    self.make().servers.check()
    for each in self.both:
      each.scales = True
    with self.assertRaisesRegex(ValueError, "log-probabilities are off"):
      self.make().servers.check()

  @parameterized.parameters(
    (lambda a: a["choices"][0].pop("token_ids"), "has no token_ids"),
    (lambda a: a["choices"][0].pop("logprobs"), "has no log-probabilities"),
    (lambda a: a["choices"].clear(), "is without choices"),
    (
      lambda a: a["choices"][0]["token_ids"].append(3),
      "has 2 tokens and 1 log-prob",
    ),
  )
  def test_no_server_for_this(self, change, words):
    self.begin()
    for compare in (True, False):
      engine = self.make() if compare else self.engine()
      for each in self.both:
        each.faults = [{"change": lambda a: (change(a), a)[1]}]
      with self.assertRaisesRegex(ValueError, words):
        engine.servers.check()

  def test_another_ppm(self):
    self.begin()
    paths = [[3, 1, 4], [1, 5, 9, 2]]
    right = self.scores.submit(paths).result()
    for values, fits in ((right, True), (right + 0.3, False)):
      expected = engine_client.Expected(str(self.ppm), paths, values=values)
      engine = engine_client.ServedScores(
        self.config().servers, "tanh", expected
      )
      if fits:
        engine.servers.check()
      else:
        with self.assertRaisesRegex(ValueError, "values are off by 0.3"):
          engine.servers.check()


if __name__ == "__main__":
  absltest.main()
