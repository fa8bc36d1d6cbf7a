"""The run's models behind servers over real sockets, and not behind any."""

import shutil
import sys
from unittest import mock

import numpy as np
from absl.testing import absltest
from flax import nnx

from rstar_jax.hf import folders, saving
from rstar_jax.inference import reward
from rstar_jax.models.config import RopeScaling
from rstar_jax.models.transformer import Transformer, ppm_from_policy
from rstar_jax.pipeline import backends, deploy, models
from rstar_jax.pipeline.hosts import Host
from rstar_jax.pipeline.shards import cut
from rstar_jax.serve import engine_server
from rstar_jax.steps.tokenizer import HfTokenizer
from rstar_jax.storage import manifests, records
from rstar_jax.types import Problem
from tests import tiny_run
from tests.inference import small, stand_in
from tests.inference.engine_client_test import reward_server
from tests.models import jitted
from tests.parity import reward_cases
from tests.pipeline.context_test import ContextCase

QUESTIONS = ["one?", "two?", "and three?"]
SEEDS = np.array([[3, 5], [7, 11], [13, 17]], np.uint32)
# What `load` below was called with.
CALLS: list = []
SERVERS: list[stand_in.StandIn] = []


def load(config, role, folder, urls):
  """Puts a model on our stand-ins."""
  del config
  CALLS.append((role, folder, tuple(urls)))
  for each in SERVERS:
    each.served.answer("/update_weights_from_disk", {"model_path": folder})


def load_first(config, role, folder, urls):
  """Puts a model on the first stand-in alone."""
  del config, role
  body = {"model_path": folder}
  SERVERS[0].served.answer("/update_weights_from_disk", body)
  return ["", *("it was gone" for _ in urls[1:])]


class RewardTest(ContextCase):
  """A published reward model behind a server."""

  def test_the_same_values_as_here(self):
    name = reward_cases.write(self.folder / "reward", "rlhflow")
    self.config.engine.max_prefix_tokens = 512
    here = reward.load_reward(name, self.config.engine)
    asked = [("q?", (), ["a", "b c"]), ("p?", ("a",), ["<code>\nd"])]
    expected = [here.submit(*each).result() for each in asked]
    off = 0.0

    def logits_of(path):
      (value,) = here.engine.submit([path]).result()
      return [off, 2 * float(np.arctanh(value))]

    self.config.servers.reward = reward_server(self, logits_of)
    self.config.servers.patience_seconds = 0.0
    # The run's own PPM would be elsewhere.
    self.config.servers.ppm = "http://127.0.0.1:9/v1"
    self.config.policy.backend = "__main__:own"
    sys.modules["__main__"].own = lambda config, folder: None
    context = self.context()
    backend = backends.ModelBackend(context, 0, reward=name)
    for each, want in zip(asked, expected, strict=True):
      found = backend.score.submit(*each).result()
      np.testing.assert_allclose(found, want, atol=1e-6)
    off = 0.5
    with self.assertRaisesRegex(ValueError, "reward: values are off by 0.1"):
      deploy.reward(self.config, name)
    # Not compared, it is believed.
    self.config.servers.compare = False
    deploy.reward(self.config, name)


class ExpectedTest(absltest.TestCase):
  """What a server's outputs are compared with."""

  def test_a_prompt_is_as_long_as_it_is_without_padding(self):
    # LongRoPE chooses by the length; with padding all would be long.
    rope = RopeScaling(
      kind="longrope",
      original_length=20,
      short_factor=(1.0,) * 16,
      long_factor=(4.0,) * 16,
    )
    model = small.model("tanh", rope=rope)
    rows = [list(range(1, size)) for size in (12, 21, 22, 33)]
    expected = [jitted.call(model, np.array([ids]))[0, -1] for ids in rows]
    found = deploy._last_outputs(model, rows)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


class ServedCase(ContextCase):
  """A base policy, one of round 1 with a PPM, and servers of the base."""

  def setUp(self):
    super().setUp()
    self.config.engine.max_step_tokens = 5
    self.config.engine.max_block_tokens = 9
    self.config.policy.path = str(tiny_run.make_base(self.folder / "base"))
    policy = folders.load_policy(self.config.policy.path)
    tokenizer = HfTokenizer(self.config.policy.path)
    trained = Transformer(policy.config, rngs=nnx.Rngs(5))
    ppm = ppm_from_policy(trained, "tanh", rngs=nnx.Rngs(7))
    context = self.context()
    for name, model in (("policy", trained), ("ppm", ppm)):
      folder = context.folder(1, name)
      save = saving.save_ppm if name == "ppm" else saving.save_policy
      save(model, folder, tokenizer=tokenizer)
      manifests.write(folder, {})
    self.begin()

  def begin(self):
    """Starts two servers of the base policy and of the PPM."""
    ppm = self.context().folder(1, "ppm")
    path = self.config.policy.path
    SERVERS[:] = [
      stand_in.StandIn(
        engine_server.EngineService(self.config, policy=path, ppm=str(ppm))
      )
      for _ in range(2)
    ]
    for each in SERVERS:
      self.addCleanup(each.close)
    CALLS.clear()

  def use(self, **options):
    urls = ",".join(each.url for each in SERVERS)
    fields = {"policy": urls, "ppm": urls, "patience_seconds": 0.0} | options
    for name, value in fields.items():
      setattr(self.config.servers, name, value)

  def context(self):
    context = super().context()
    context.sandbox = context.grader = mock.Mock()
    return context

  def backend(self, round_, **options):
    return backends.ModelBackend(self.context(), round_, **options)


class BackendTest(ServedCase):
  def test_the_same_steps_and_values_as_here(self):
    prefixes = [()] * 3

    def ask(backend):
      calls = backend.steps()
      steps = [["a = 1"], ["b", "c"], ["x"]]
      return (
        calls.expand(QUESTIONS, prefixes, SEEDS),
        backend.blocks(temperature=0.0).expand(QUESTIONS, prefixes, SEEDS),
        calls.score(QUESTIONS, prefixes, steps),
      )

    here = ask(self.backend(1, reward="ppm"))
    self.use(load=f"{__name__}:load")
    backend = self.backend(1, reward="ppm")
    there = ask(backend)
    self.assertEqual(there[:2], here[:2])
    for found, expected in zip(there[2], here[2], strict=True):
      np.testing.assert_allclose(found, expected, atol=1e-6)
    usage = backend.usage()
    self.assertGreater(usage["generated_tokens"], 20)
    self.assertEqual(usage["set_aside"], 0)
    self.assertIsNone(backend.parameters())
    # The PPM was there before.
    policy = str(models.policy_of(self.context(), 1))
    urls = tuple(each.url for each in SERVERS)
    self.assertEqual(CALLS, [("policy", policy, urls)])

  def test_another_round_s_model(self):
    self.use(ppm="")
    self.backend(0)
    with self.assertRaisesRegex(
      ValueError, "another model than .*round_1/policy: log-prob.*servers.load"
    ):
      self.backend(1)
    self.assertEqual(CALLS, [])
    self.use(ppm="", load=f"{__name__}:load")
    self.backend(1)
    self.backend(1)
    self.assertLen(CALLS, 1)
    with self.assertRaisesRegex(ValueError, "another model"):
      self.use(ppm="", load="")
      self.backend(0)

  def test_the_first_searcher_puts_it_there(self):
    def backend(index):
      context = self.context()
      context.host = Host(index, 3)
      return backends.ModelBackend(context, 1)

    self.use(ppm="", load=f"{__name__}:load")
    for index in (1, 2):
      with self.assertRaisesRegex(ValueError, "another model"):
        backend(index)
    self.config.ray.address = "auto"
    with self.assertRaisesRegex(ValueError, "another model"):
      backend(2)
    self.assertEqual(CALLS, [])
    backend(1)
    backend(2)
    self.assertLen(CALLS, 1)

  def test_another_searcher_leaves_out_what_has_the_old_model(self):
    self.use(ppm="", load=f"{__name__}:load_first")
    for index in (0, 1):
      context = self.context()
      context.host = Host(index, 2)
      backend = backends.ModelBackend(context, 1)
      before = len(SERVERS[1].asked)
      for n in range(8):
        backend.steps().expand([f"question {n}"], [()], SEEDS[:1])
      self.assertLen(SERVERS[1].asked, before)

  def test_the_first_host_with_a_shard_left_puts_it_there(self):
    shards = cut([Problem(f"p{n}", "?") for n in range(4)], 1, self.folder)
    made = []

    def make(context):
      made.append(backends.ModelBackend(context, 1))
      return lambda share: None

    def search(index, count=3):
      context = self.context()
      context.host = Host(index, count)
      context.work.search(context, make, shards)

    self.use(ppm="", load=f"{__name__}:load")
    # Hosts 0 and 1 have shards before host 2; then host 1 alone has.
    for done, index in ((None, 1), (0, 1), (3, 2)):
      if done is not None:
        records.write_shard(shards[done].path, [{}])
      with self.assertRaisesRegex(ValueError, "another model"):
        search(index)
    self.assertEqual(CALLS, [])
    search(0)
    self.assertEmpty(made)
    search(1)
    self.assertLen(CALLS, 1)
    search(2)
    self.assertLen(made, 2)
    self.assertLen(CALLS, 1)

  def test_without_a_comparison_it_is_put_there_always(self):
    self.use(ppm="", compare=False, load=f"{__name__}:load")
    self.backend(0)
    self.backend(0)
    self.assertLen(CALLS, 2)

  def test_one_that_did_not_load_it_gets_no_work(self):
    self.use(ppm="", compare=False, load="sglang")
    SERVERS[1].faults = [{"status": 503}]
    backend = self.backend(1)
    for n in range(8):
      backend.steps().expand([f"question {n}"], [()], SEEDS[:1])
    self.assertGreater(len(SERVERS[0].asked), 16)
    self.assertLen(SERVERS[1].asked, 1)

  def test_another_ppm(self):
    self.use(policy="")
    folder = self.context().folder(1, "ppm")
    policy = folders.load_policy(self.config.policy.path)
    shutil.rmtree(folder)
    other = ppm_from_policy(policy, "tanh", rngs=nnx.Rngs(8))
    saving.save_ppm(
      other, folder, tokenizer=HfTokenizer(self.config.policy.path)
    )
    with self.assertRaisesRegex(ValueError, "another model.*values are off"):
      deploy.ppm(self.context(), folder)

  def test_nobody_is_there(self):
    self.use(ppm="")
    for each in SERVERS:
      each.close()
    with self.assertRaisesRegex(ConnectionError, "gave no complete answer"):
      self.backend(0)

  def test_a_base_model_without_the_markers(self):
    self.use(ppm="")
    context = self.context()
    context.tokenizer.known -= 1
    with self.assertRaisesRegex(ValueError, "no tokens for the step markers"):
      backends.ModelBackend(context, 0)


if __name__ == "__main__":
  absltest.main()
