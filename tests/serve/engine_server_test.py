"""Our engine behind a server: real sockets, a tiny model."""

import dataclasses
import functools
import json
import pathlib
import socket
import tempfile
import threading
import urllib.error
import urllib.request
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.config.schema import ServersConfig, TrainConfig
from rstar_jax.hf import adapters, folders, saving
from rstar_jax.inference import engine_client, loading, reward
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.generated import Stop
from rstar_jax.inference.scoring import ScoringEngine
from rstar_jax.models.transformer import (
  Transformer,
  arrays_in,
  ppm_from_policy,
  reconfigured,
)
from rstar_jax.pipeline import deploy
from rstar_jax.serve import engine_http, engine_server
from rstar_jax.steps import grammar
from rstar_jax.training import lora
from tests import tiny_run
from tests.parity import reward_cases
from tests.serve.served import until
from tests.steps import alike

STOP = Stop(7, frozenset([5, 9, 700]))
PROMPTS = [[1, 2, 3], list(range(30, 70)), [400] * 17]
SEEDS = [3, 2**32 - 1, 77]


@functools.cache
def models() -> tuple[pathlib.Path, list[pathlib.Path]]:
  """Returns the folders of a policy, and of two PPMs of it."""
  base = pathlib.Path(tempfile.mkdtemp())
  tiny_run.make_base(base / "policy")
  policy = folders.load_policy(base / "policy")
  for number, head in enumerate(("tanh", "logit")):
    ppm = ppm_from_policy(policy, head, rngs=nnx.Rngs(number))
    saving.save_ppm(ppm, base / head)
  return base / "policy", [base / "tanh", base / "logit"]


def config_of():
  config = tiny_run.make_config("train.jsonl", "test.jsonl")
  config.engine.max_step_tokens = 9
  return config


@functools.cache
def engine() -> Engine:
  return Engine(folders.load_policy(models()[0]), config_of().engine)


def other_policy() -> Transformer:
  """Returns a policy of the same form with other weights."""
  config = folders.load_policy(models()[0]).config
  return Transformer(config, rngs=nnx.Rngs(9))


def place() -> socket.socket:
  """Returns a socket that is bound to a free port."""
  return socket.create_server(("127.0.0.1", 0))


class ServeCase(parameterized.TestCase):
  """A server of the policy and of the PPM, for all tests."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    policy, (ppm, _) = models()
    cls.served = engine_server.EngineService(
      config_of(), policy=str(policy), ppm=str(ppm)
    )
    cls.url = cls.listen()

  @classmethod
  def listen(cls, **options) -> str:
    server = engine_http.make(cls.served, place(), **options)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    cls.addClassCleanup(server.server_close)
    cls.addClassCleanup(server.shutdown)
    return f"http://127.0.0.1:{server.server_port}/v1"

  def config(self, **options) -> ServersConfig:
    both = {"policy": self.url, "ppm": self.url, "patience_seconds": 0.0}
    return ServersConfig(**both | options)

  def post(self, path, body, headers=()):
    url = self.url.removesuffix("/v1") + path
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} | dict(headers)
    request = urllib.request.Request(url, data, sent)
    try:
      with urllib.request.urlopen(request, timeout=60) as response:
        return response.status, json.load(response)
    except urllib.error.HTTPError as error:
      return error.code, json.load(error)["error"]["message"]


class AnswersTest(ServeCase):
  def test_the_same_steps_as_without_it(self):
    """Ids to the bit, and log-probabilities as JSON has them."""
    client = engine_client.ServedEngine(self.config(), config_of().engine)
    ours = engine()
    for warm in (None, 0.0, 0.3, 5.0):
      for prompt in PROMPTS:
        found = client.submit(prompt, SEEDS, STOP, temperature=warm).result()
        expected = ours.submit(prompt, SEEDS, STOP, temperature=warm).result()
        self.assertEqual(found, expected)
    self.assertGreater(client.generated_tokens, 6 * len(SEEDS))

  def test_several_samples_of_a_request(self):
    body = {"prompt": PROMPTS[0], "n": 3, "seed": 2**32 - 2, "max_tokens": 5}
    body |= {"temperature": config_of().engine.temperature}
    # Of fields that are not done those that ask for nothing.
    body |= {"stream": False, "echo": None, "presence_penalty": 0.0}
    status, answer = self.post("/v1/completions", body)
    self.assertEqual(status, 200)
    ours = engine()
    eos = self.served._policy.tokenizer.eos_id
    seeds = [2**32 - 2, 2**32 - 1, 0]
    expected = ours.submit(
      PROMPTS[0], seeds, Stop(5, frozenset([eos]))
    ).result()
    self.assertEqual(
      [tuple(each["token_ids"]) for each in answer["choices"]],
      [each.token_ids for each in expected],
    )

  def test_a_marker_that_the_model_writes_as_text_ends_a_sample(self):
    body = {"prompt": PROMPTS[1], "seed": 7, "max_tokens": 9, "temperature": 1}
    (whole,) = self.post("/v1/completions", body)[1]["choices"]
    ids = whole["token_ids"]
    self.assertEqual((len(ids), whole["finish_reason"]), (9, "length"))
    plain = {
      grammar.END_OF_STEP: [0, *ids[2:5], 0],
      grammar.END_OF_CODE: [0, *ids[1:4], 0],
    }
    policy = self.served._policy
    self.enter_context(
      mock.patch.object(
        self.served,
        "_policy",
        dataclasses.replace(policy, plain=mock.Mock(encode=plain.get)),
      )
    )
    for markers, count in (
      ([grammar.END_OF_STEP], 6),
      ([grammar.END_OF_STEP, grammar.END_OF_CODE], 5),
      ([], 9),
    ):
      body["stop"] = markers
      (found,) = self.post("/v1/completions", body)[1]["choices"]
      self.assertEqual(found["token_ids"], ids[:count])
      ended = "stop" if markers else "length"
      self.assertEqual(
        (found["finish_reason"], found["stop_reason"]), (ended, None)
      )

  def test_a_model_that_has_not_learnt_the_markers(self):
    folder = self.create_tempdir().full_path
    saving.save_policy(other_policy(), folder)
    alike.write("qwen2", folder)
    policy = engine_server.EngineService(config_of(), policy=folder)._policy
    for marker in grammar.FINISHES:
      self.assertLen(policy.tokenizer.encode(marker), 1)
      self.assertGreater(len(policy.plain.encode(marker)), 3)

  @parameterized.parameters("tanh", "logit")
  def test_the_same_values_as_without_it(self, head):
    _, ppms = models()
    ppm = next(each for each in ppms if each.name == head)
    service = engine_server.EngineService(config_of(), ppm=str(ppm))
    server = engine_http.make(service, place())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    self.addCleanup(server.server_close)
    self.addCleanup(server.shutdown)
    url = f"http://127.0.0.1:{server.server_port}"
    client = engine_client.ServedScores(self.config(ppm=url), head)
    ours = ScoringEngine(folders.load_ppm(ppm), config_of().engine)
    found = client.submit(PROMPTS).result()
    expected = ours.submit(PROMPTS).result()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    self.assertGreater(np.ptp(expected), 0.01)
    self.assertEqual(client.scored, 3)

  @parameterized.parameters("qwen", "rlhflow", "two_labels")
  def test_a_reward_model_of_others(self, form):
    folder = pathlib.Path(self.create_tempdir().full_path)
    name = reward_cases.write(folder, form)
    config = config_of()
    config.engine.max_prefix_tokens = 512
    here = reward.load_reward(name, config.engine)
    service = engine_server.EngineService(config, ppm=name)
    server = engine_http.make(service, place())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    self.addCleanup(server.server_close)
    self.addCleanup(server.shutdown)
    config.servers.reward = f"http://127.0.0.1:{server.server_port}/v1"
    # What it gives is compared with the model when it is asked first.
    there = deploy.reward(config, name)
    asked = "q?", ("a",), ["b", "<code>\nc"]
    found = there.submit(*asked).result()
    np.testing.assert_allclose(found, here.submit(*asked).result(), atol=1e-6)
    self.assertGreater(np.ptp(found), 1e-4)

  def test_a_model_is_put_in_its_place(self):
    policy, (first, _) = models()
    folder = pathlib.Path(self.create_tempdir().full_path)
    other = Transformer(folders.load_policy(policy).config, rngs=nnx.Rngs(9))
    saving.save_policy(other, folder / "policy")
    client = engine_client.ServedEngine(self.config(), config_of().engine)
    before = client.submit(PROMPTS[1], SEEDS, STOP).result()
    config = config_of()
    config.servers = self.config()
    loading.sglang(config, "policy", str(folder / "policy"), [self.url])
    found = client.submit(PROMPTS[1], SEEDS, STOP).result()
    expected = Engine(other, config.engine).submit(PROMPTS[1], SEEDS, STOP)
    self.assertEqual(found, expected.result())
    self.assertNotEqual(found, before)
    loading.sglang(config, "policy", str(policy), [self.url])
    again = client.submit(PROMPTS[1], SEEDS, STOP).result()
    self.assertEqual(again, before)
    # A PPM goes to its own place, and nothing is put where nothing is.
    loading.sglang(config, "ppm", str(first), [self.url])
    with self.assertRaisesRegex(ValueError, "model_path=.*nowhere"):
      loading.sglang(config, "ppm", str(folder / "nowhere"), [self.url])
    # One of the same shapes that would be computed otherwise.
    saving.save_policy(reconfigured(other, rope_theta=5e5), folder / "turns")
    with self.assertRaisesRegex(
      ValueError, "turns: .* in rope_theta: start the server with this model"
    ):
      loading.sglang(config, "policy", str(folder / "turns"), [self.url])
    again = client.submit(PROMPTS[1], SEEDS, STOP).result()
    self.assertEqual(again, before)
    self.assertEqual(self.served.folders["policy"], str(policy))

  def test_an_adapter_of_a_ppm_goes_to_the_ppm_s_place(self):
    policy, (first, _) = models()
    folder = str(pathlib.Path(self.create_tempdir().full_path))
    ppm = ppm_from_policy(folders.load_policy(policy), rngs=nnx.Rngs(5))
    config = TrainConfig(lora_rank=2, lora_alpha=3.0)
    added, _ = lora.begin(nnx.split(ppm)[1], config, 7)
    added = arrays_in(added)
    adapters.save(folder, added, ppm, base=str(policy), alpha=3.0)
    path, ids = "/update_weights_from_disk", {"input": PROMPTS}
    before = self.post("/pooling", ids)
    self.assertEqual(self.post(path, {"model_path": folder})[0], 200)
    found = self.served._reward.engine.submit(PROMPTS).result()
    expected = ScoringEngine(ppm, config_of().engine).submit(PROMPTS).result()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    self.assertNotEqual(self.post("/pooling", ids), before)
    self.assertEqual(self.post(path, {"model_path": str(first)})[0], 200)
    self.assertEqual(self.post("/pooling", ids), before)


# A request that is refused, and the words.
BAD = (
  ({"prompt": [768]}, "has 768 as prompt, want 0 to 767"),
  ({"prompt": [-1]}, "has -1 as prompt"),
  ({"prompt": ["a"]}, 'has "a" in prompt'),
  ({"prompt": []}, "the prompt has no tokens"),
  ({"prompt": ""}, "the prompt has no tokens"),
  ({"prompt": None}, "has null as prompt"),
  ({"prompt": [1] * 161}, "161 tokens; the context length is 160"),
  ({"n": 0}, "has 0 as n, want 1 to 256"),
  ({"seed": 2**32}, "as seed, want 0 to"),
  ({"max_tokens": 65}, "as max_tokens, want 1 to 64"),
  ({"stop": ["two words"]}, "is not one token here"),
  ({"stop_token_ids": [9999]}, "as stop_token_ids"),
  ({"temperature": -0.3}, "temperature=-0.3 is below 0"),
  ({"temperature": "1"}, 'has "1" as temperature'),
  ({"stream": True}, "stream is not supported here: leave it out"),
  ({"echo": True}, "echo is not supported here: leave it out"),
  ({"presence_penalty": 0.5}, "presence_penalty is not supported here"),
  ({"frequency_penalty": -1}, "frequency_penalty is not supported here"),
  ({"logit_bias": {"5": 1}}, "logit_bias is not supported here"),
  ({"repetition_penalty": 1.1}, "repetition_penalty is not supported here"),
  ({"best_of": 2}, "best_of is not supported here"),
  ({"suffix": "x"}, "suffix is not supported here"),
  ({"top_p": 0.3}, "start this server with --config.engine.top_p=0.3"),
)


class OrderTest(ServeCase):
  def test_a_model_waits_only_for_the_requests_before_it(self):
    order, waiting = [], self.served._changed._waiters

    def ask(path):
      thread = threading.Thread(target=self.served.answer, args=(path, {}))
      thread.start()
      return thread

    def told(name):
      return mock.patch.object(
        self.served, name, side_effect=lambda _: order.append(name)
      )

    with told("_load"), told("_pool"):
      with self.served._in_progress():
        load = ask("/update_weights_from_disk")
        until(lambda: len(waiting) == 1)
        late = ask("/pooling")
        until(lambda: len(waiting) == 2 or order)
      load.join()
      late.join()
      self.assertEqual(order, ["_load", "_pool"])
      ask("/pooling").join()
    self.assertEqual(order[2:], ["_pool"])


class RefusalsTest(ServeCase):
  @parameterized.parameters(*BAD)
  def test_a_request_for_samples(self, wrong, words):
    temperature = config_of().engine.temperature
    body = {"prompt": [1], "max_tokens": 2, "temperature": temperature} | wrong
    status, message = self.post("/v1/completions", body)
    self.assertEqual(status, 400)
    self.assertIn(words, message)

  @parameterized.parameters(
    ("/v1/completions", b"{", 400, "is not JSON"),
    ("/v1/completions", b"[]", 400, "is no object"),
    ("/pooling", {"input": [[]]}, 400, "has no tokens"),
    ("/pooling", {"input": [[768]]}, 400, "as input"),
    (
      "/pooling",
      {"input": [[1], [1] * 257]},
      400,
      "has 257 tokens; the context length is 256",
    ),
    ("/pooling", {"input": "a"}, 400, 'has "a" as input'),
    ("/nothing", {}, 404, "Not Found"),
    (
      "/update_weights_from_disk",
      {"model_path": 3},
      400,
      "has 3 as model_path",
    ),
  )
  def test_another_request(self, path, body, code, words):
    status, message = self.post(path, body)
    self.assertEqual(status, code)
    self.assertIn(words, message)


if __name__ == "__main__":
  absltest.main()
