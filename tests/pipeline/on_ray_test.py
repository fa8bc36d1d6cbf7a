"""Searches on a stand-in for Ray: the files of one process, whoever dies."""

import contextlib
import functools
import io
import pathlib
import random
import sys
import threading
import time
import types
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.config.schema import Config, RayConfig
from rstar_jax.pipeline import on_ray, shards, units, work
from rstar_jax.pipeline.hosts import Host
from rstar_jax.search import requests
from rstar_jax.search.requests import Calls
from rstar_jax.storage import manifests, records, store
from rstar_jax.types import Problem
from tests import fake_gcs
from tests.pipeline import fake_ray

CALLS = Calls(expand=None, verify=list, grade=None)
PROBLEMS = [Problem(f"p{i}", f"What is {i}?", str(i)) for i in range(30)]


@contextlib.contextmanager
def opens(config, workdir, host):
  yield types.SimpleNamespace(config=config, workdir=workdir, host=host)


class Watched(work.Load):
  """Notes in `seen` how many problems were left when a call began."""

  seen: list[int] = []

  def begin(self, count: int) -> None:
    self.seen.append(self._left)
    super().begin(count)


class Searcher:
  """Writes a row of each problem, as stages do.

  Attributes:
    hosts: class attribute; those that opened one.
    fails: class attribute; called with the shards of a call.
    steps: class attribute; called with the unit of each search.
  """

  hosts: list = []
  fails = staticmethod(lambda shards: None)
  steps = staticmethod(lambda unit: None)

  def __init__(self, context, full: int):
    self.hosts.append(context.host)
    self.load = Watched(full)
    self._context = context

  def __call__(self, found):
    self.fails(found)

    def search(unit):
      yield requests.verify([])
      self.steps(unit)
      yield requests.verify([])
      return {"": [{"id": unit.problem.id}]}

    host = self._context.host.index
    with units.Units(found, "one", "t", host=host, load=self.load) as stage:
      stage.search(lambda unit: (search(unit), CALLS), 2)


class RayCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.run_ = types.SimpleNamespace(
      config=Config(), workdir=self.folder, host=Host()
    )
    self.cut = shards.cut(PROBLEMS, 3, self.folder / "trees")
    Searcher.hosts, Watched.seen = [], []
    Searcher.fails = Searcher.steps = staticmethod(lambda _: None)
    # Its handlers are the process's, and here all actors are in one.
    self.enter_context(
      mock.patch.object(on_ray.logs, "to_file", contextlib.nullcontext)
    )
    self.enter_context(contextlib.redirect_stderr(io.StringIO()))

  def backend(self, ray: fake_ray.Ray, **config) -> on_ray.Ray:
    config = RayConfig(**{"address": "auto", "searchers": 3} | config)
    with mock.patch.dict(sys.modules, ray=ray):
      return on_ray.Ray(config, opens)

  def search(self, ray: fake_ray.Ray, full: int = 4, **config) -> None:
    make = functools.partial(Searcher, full=full)
    self.backend(ray, **config).search(self.run_, make, self.cut)

  def straight(self) -> dict[str, bytes]:
    """Returns the files that a search has to leave."""
    folder = self.folder / "straight"
    for shard in self.cut:
      rows = [{"id": unit.problem.id} for unit in shard.units]
      records.write_shard(folder / shard.path.name, rows)
    return self.contents(folder)

  def contents(self, folder=None) -> dict[str, bytes]:
    folder = folder or self.folder / "trees"
    return {name: store.read(folder / name) for name in store.files(folder)}


class SearchTest(RayCase):
  @parameterized.parameters((1, 1, 1), (3, 3, 3), (3, 2, 9), (20, 3, 4))
  def test_all_shards(self, searchers, room, full):
    ray = fake_ray.Ray(room)
    self.search(ray, full, searchers=searchers)
    self.assertEqual(self.contents(), self.straight())
    names = [name for _, name in ray.called]
    self.assertEqual(names.count("search"), 10)
    # No more than there are shards, and room for.
    self.assertLen(ray.actors, min(searchers, 10))
    self.assertEqual(names.count("open"), min(searchers, room))
    self.assertEqual(names.count("close"), names.count("open"))
    self.assertLen(Watched.seen, 10)
    self.assertBetween(max(Watched.seen), 0, full - 1)
    self.assertFalse(any(each.alive for each in ray.actors))
    # The first host is the driver.
    indices = {each.index for each in Searcher.hosts}
    self.assertEqual(indices, set(range(1, 1 + min(searchers, room))))

  @parameterized.parameters((3, 1), (4, 2), (6, 2), (7, 3))
  def test_a_searcher_is_kept_full(self, full, at_once):
    """A shard more begins when fewer problems are left than keep it full."""
    ray, lock = fake_ray.Ray(1), threading.Condition()
    begun = set()

    def steps(unit):
      with lock:
        begun.add(int(unit.problem.id[1:]) // 3)
        lock.notify_all()
        # Nothing is done before all have begun that should.
        assert lock.wait_for(lambda: len(begun) >= at_once, 10)

    Searcher.steps = staticmethod(steps)
    self.search(ray, full, searchers=1)
    self.assertEqual(self.contents(), self.straight())
    self.assertBetween(max(Watched.seen), 3 * (at_once - 1), full - 1)

  @parameterized.parameters(1, 2, 3, 5)
  def test_actors_die_and_others_go_on(self, every):
    ray = fake_ray.Ray(3)
    counted = []

    def strikes(actor, name, _):
      with ray.lock:
        counted.append(name)
        dies = len(counted) % (every + 1) == 0 and len(counted) < 40
      # The call goes on: this one is only thought dead.
      if dies:
        actor.die()

    ray.strikes = strikes
    self.search(ray)
    for thread in threading.enumerate():
      if thread.name.endswith("(_work)"):
        thread.join()
    self.assertEqual(self.contents(), self.straight())
    self.assertGreater(len(ray.actors), 3)

  def test_in_a_bucket_that_is_slow_and_refuses_calls(self):
    ray, straight = fake_ray.Ray(3), self.straight()
    bucket, _ = self.enter_context(fake_gcs.serve("bucket"))
    self.folder = self.run_.workdir = store.path("gs://bucket/run")
    self.cut = shards.cut(PROBLEMS, 3, self.folder / "trees")
    counted = []

    def strikes(actor, name, _):
      with ray.lock:
        counted.append(name)
        dies = name == "search" and counted.count(name) % 4 == 0
      if dies:
        actor.die()

    ray.strikes = strikes
    bucket.hook = weather = fake_gcs.Unsteady(random.Random(1), 0.002)
    self.search(ray)
    for thread in threading.enumerate():
      if thread.name.endswith("(_work)"):
        thread.join()
    bucket.hook = lambda *_: None
    self.assertEqual(self.contents(), straight)
    self.assertGreater(len(ray.actors), 3)
    self.assertGreater(min(weather.refused[n] for n in (0, 429, 503)), 0)

  def test_a_host_joins_while_others_work(self):
    ray = fake_ray.Ray(0)
    ray.strikes = lambda actor, name, _: name == "search" and ray.grow(3)
    said = []

    def say(text, file):
      del file
      said.append("0 of 3 are at work" in text)
      if said[-1]:
        ray.grow(1)

    with (
      mock.patch.object(on_ray, "_SILENCE", 0.05),
      mock.patch.object(on_ray.outside, "say", say),
    ):
      self.search(ray)
    self.assertEqual(self.contents(), self.straight())
    self.assertLen(Searcher.hosts, 3)
    self.assertTrue(any(said))

  def test_what_is_there_is_not_searched(self):
    work.Local().search(
      self.run_, functools.partial(Searcher, full=1), self.cut[:7]
    )
    ray = fake_ray.Ray(3)
    self.search(ray)
    self.assertEqual([name for _, name in ray.called].count("search"), 3)
    self.assertEqual(self.contents(), self.straight())
    ray = fake_ray.Ray(3)
    self.search(ray)
    self.assertEmpty(ray.joined)

  def test_a_damaged_shard_is_searched_again(self):
    ray, folder = fake_ray.Ray(3), self.folder / "trees"
    self.search(ray)
    manifests.write(folder, {})
    path = self.cut[4].path
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with self.assertLogs(level="WARNING"):
      self.assertIsNone(shards.begin(self.run_.host, folder))
    ray = fake_ray.Ray(3)
    self.search(ray)
    self.assertEqual([name for _, name in ray.called].count("search"), 1)
    self.assertEqual(self.contents(), self.straight())

  def test_of_joined_hosts_the_first_asks(self):
    self.run_.host = Host(1, 2)
    ray = fake_ray.Ray(3)
    self.search(ray)
    self.assertEmpty(ray.joined)

  def test_what_a_searcher_raises(self):
    def fails(found):
      if self.cut[4].path == found[0].path:
        raise ValueError("this is wrong")

    Searcher.fails = staticmethod(fails)
    ray = fake_ray.Ray(3)
    with self.assertRaisesRegex(ValueError, "^this is wrong$"):
      self.search(ray)
    self.assertFalse(any(each.alive for each in ray.actors))

  def test_a_shard_that_kills(self):
    ray = fake_ray.Ray(3)

    def strikes(actor, name, args):
      if name == "search" and args[0].path == self.cut[4].path:
        actor.die()

    ray.strikes = strikes
    with self.assertRaisesRegex(OSError, "^more than 20 .*00004-of-.*died$"):
      self.search(ray, full=1)
    # The others are not held up by it.
    self.assertGreater(len(self.contents()), 5)

  def test_many_that_die_at_work_at_once(self):
    """They have loaded their models, which are not the cause."""
    problems = [Problem(f"p{i}", "?", "0") for i in range(90)]
    self.cut = shards.cut(problems, 1, self.folder / "trees")
    ray = fake_ray.Ray(60)

    def strikes(actor, name, _):
      if actor.number < 60 and name == "search":
        while [name for _, name in ray.called].count("search") < 60:
          time.sleep(0.001)
        actor.die()
      # No other one has loaded them before all have died.
      while actor.number >= 60 and len(ray.actors) < 120:
        time.sleep(0.001)

    ray.strikes = strikes
    self.search(ray, searchers=60)
    self.assertEqual(self.contents(), self.straight())
    self.assertLen(ray.actors, 120)

  def test_models_that_kill(self):
    ray = fake_ray.Ray(3)
    ray.strikes = lambda actor, name, args: actor.die()
    with self.assertRaisesRegex(OSError, "^more than 20 .* the models; .*$"):
      self.search(ray)

  def test_the_same_as_on_this_machine(self):
    make = functools.partial(Searcher, full=1)
    for index in (1, 0):
      self.run_.host = Host(index, 2)
      work.Local().search(self.run_, make, self.cut)
    self.assertEqual(self.contents(), self.straight())


class ClusterTest(RayCase):
  def test_what_searchers_need(self):
    ray = fake_ray.Ray(1)
    needs = ("CPU=8", "GPU=0.5", "TPU=4", "TPU-v6e=1")
    self.search(ray, searchers=1, needs=needs)
    self.assertEqual(
      ray.options,
      [
        {
          "max_concurrency": 256,
          "num_cpus": 8,
          "num_gpus": 0.5,
          "resources": {"TPU": 4, "TPU-v6e": 1},
        }
      ],
    )
    self.assertEqual(ray.joined, [("auto",)])

  def test_no_ray(self):
    with (
      mock.patch.dict(sys.modules, ray=None),
      self.assertRaisesRegex(ValueError, r"^.*'rstar_jax\[ray\]'.*$"),
    ):
      on_ray.Ray(RayConfig(address="auto"), opens)

  def test_no_cluster(self):
    ray = fake_ray.Ray(1)
    ray.init = mock.Mock(side_effect=ConnectionError("found none\nhere"))
    with self.assertRaisesRegex(
      ValueError, r"^config.ray.address='auto' .*found none\): start .*$"
    ):
      self.search(ray)


class MapTest(RayCase):
  @parameterized.parameters(0, 1, 9)
  def test_every_item_once_with_its_result(self, count):
    ray = fake_ray.Ray(0)
    found = self.backend(ray).map(abs, iter(range(-count, 0)))
    self.assertCountEqual(found, [(-n, n) for n in range(1, count + 1)])
    self.assertEqual(ray.options, [{"max_retries": 20}])

  def test_items_are_taken_as_there_is_room(self):
    taken = iter(range(100))
    results = self.backend(fake_ray.Ray(0, cpus=3)).map(abs, taken)
    next(results)
    self.assertEqual(next(taken), 6)

  def test_what_the_function_raises(self):
    with self.assertRaises(TypeError):
      list(self.backend(fake_ray.Ray(0)).map(abs, ["x"]))

  def test_a_task_that_kills(self):
    ray = fake_ray.Ray(0)
    error = ray.exceptions.WorkerCrashedError("died\nof a test")
    ray.get = mock.Mock(side_effect=error)
    with self.assertRaisesRegex(OSError, "^Ray gave up: died$"):
      list(self.backend(ray).map(abs, [1]))


if __name__ == "__main__":
  absltest.main()
