"""Tests of the thread of a model."""

import threading
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference import engine as engine_lib
from rstar_jax.inference import paged_model
from rstar_jax.inference.busy import Busy
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.generated import Stop
from rstar_jax.inference.scoring import ScoringEngine
from tests.inference import small


def make(**config):
  sizes = dict(
    kernels="xla",
    rows=32,
    prefill_tokens=64,
    max_prefix_tokens=30,
    max_step_tokens=9,
    max_block_tokens=9,
  )
  return Engine(small.model(), EngineConfig(**sizes | config))


class PagedModelTest(parameterized.TestCase):
  def test_the_thread_ends_with_the_last_request(self):
    engine = make()
    before = set(threading.enumerate())
    for turn in range(3):
      engine.submit(small.prefix(5), [turn], Stop(3)).result()
      self.assertEmpty(small.leaks(engine))
      self.assertIsNone(engine._thread)
    self.assertEqual(set(threading.enumerate()), before)
    # The prefix, and how far each of three steps was computed.
    self.assertEqual(engine.memory.used, 4)

  def test_calls_take_the_lock_that_models_share(self):
    lock, busy = mock.MagicMock(), Busy()
    inside = []
    lock.__enter__.side_effect = lambda: inside.append("lock")
    lock.__exit__.side_effect = lambda *_: inside.append("free")
    config = EngineConfig(kernels="xla", rows=32, prefill_tokens=64)
    engine = Engine(small.model(), config, lock=lock, busy=busy)
    self.assertIs(engine.busy, busy)
    with mock.patch.object(
      paged_model,
      "_prefill",
      side_effect=lambda *args, **options: inside.append("call") or 1 / 0,
    ):
      with self.assertRaises(ZeroDivisionError):
        engine.submit(small.prefix(5), [1], Stop(3)).result()
    self.assertEqual(inside, ["lock", "call", "free"])

  @parameterized.parameters(
    # What arrives is added to a call with room, and not to a full one, which
    # is planned meanwhile. A path's last token has a call of its own.
    dict(first=9, planned=False, calls=2),
    dict(first=65, planned=True, calls=3),
  )
  def test_what_comes_while_another_model_computes(self, first, planned, calls):
    lock, waits = threading.Lock(), threading.Semaphore(0)
    shared = mock.MagicMock()

    def enter():
      waits.release()
      lock.acquire()

    shared.__enter__.side_effect = enter
    shared.__exit__.side_effect = lambda *_: lock.release()
    config = EngineConfig(kernels="xla", rows=32, prefill_tokens=64)
    policy = Engine(small.model(), config, lock=shared)
    ppm = ScoringEngine(small.model("tanh"), config, lock=shared)
    decode, values = engine_lib._decode, []

    def while_it_computes(*args, **options):
      if not values:
        waits.acquire()
        values.append(ppm.submit([small.prefix(first)]))
        # The PPM's thread has done what it does before it has the device.
        waits.acquire()
        self.assertEqual(ppm.memory.shards[0].prefills == [], planned)
        values.extend(ppm.submit([small.prefix(9, n)]) for n in (1, 2))
      return decode(*args, **options)

    with mock.patch.object(engine_lib, "_decode", while_it_computes):
      policy.submit([9], [1], Stop(3)).result()
    alone = ScoringEngine(small.model("tanh"), config)
    paths = [small.prefix(first), small.prefix(9, 1), small.prefix(9, 2)]
    for path, value in zip(paths, values, strict=True):
      self.assertEqual(value.result(), alone.submit([path]).result())
    self.assertEqual(ppm.slots, calls * 64)


if __name__ == "__main__":
  absltest.main()
