"""A round on a Ray cluster whose processes and nodes come and go.

  make ray
  make ray ARGS="--bucket --searchers=4 --problems=30"
  python -m tests.pipeline.ray_live --searchers=20 --seconds=3

Several nodes of a real cluster are started on this machine. A driver searches a
round on them and evaluates the base model, by a scripted policy with the real
sandbox and grader. Every few seconds a searcher is killed, a node joins, or one
is lost; the driver is killed midway, and started again. In the end all files
have to be those of one process, and no tree may be there twice. With --bucket
the run is in a bucket (`tests/fake_gcs.py`) that is slow, and refuses calls.
"""

import contextlib
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from absl import app, flags

from rstar_jax import testing
from rstar_jax.storage import records, store
from tests import fake_gcs, tiny_run

_SEARCHERS = flags.DEFINE_integer("searchers", 6, "Searchers.")
_PROBLEMS = flags.DEFINE_integer("problems", 150, "Problems of the round.")
_SECONDS = flags.DEFINE_float("seconds", 4.0, "Seconds between two deaths.")
_SEED = flags.DEFINE_integer("seed", 0, "Of what dies.")
_BUCKET = flags.DEFINE_bool("bucket", False, "Whether the run is in a bucket.")
_KEEP = flags.DEFINE_string("keep", "", "A new folder that is kept.")

ROOT = pathlib.Path(__file__).parents[2]
# Seconds of a call of the policy.
_CALL = 0.05
_CPUS = 3  # Searchers of a node.
# A variable that our processes have.
_MARK = "RAY_LIVE"

# Names of Ray's settings: how long it waits for its own processes.
PATIENCE = {
  "agent_register_timeout_ms": "600000",
  "gcs_rpc_server_connect_timeout_s": "600",
  "health_check_failure_threshold": "30",
  "raylet_start_wait_time_s": "600",
  "worker_register_timeout_seconds": "600",
}

CONFIG = """
from rstar_jax.config import schema as config_lib
from tests import tiny_run

def get_config():
  search = config_lib.SearchConfig(in_flight=4)
  config = tiny_run.make_config(
    {train!r},
    {test!r},
    search=search,
    rounds=(config_lib.RoundConfig(rollouts=4, candidates=4, trees=2),),
    policy=config_lib.PolicyConfig(backend="tests.pipeline.ray_live:policy"),
  )
  config.eval.search.in_flight = 4
  return config
"""


def policy(config, folder):
  """Returns a scripted policy that takes its time; see `policy.backend`."""
  del config, folder
  toy = testing.ToySum()

  def expand(questions, prefixes, seeds):
    time.sleep(_CALL)
    return toy(questions, prefixes, seeds)

  return expand


class Run:
  """A run by the command line; the stages that search, one after the other."""

  def __init__(
    self, folder: pathlib.Path, workdir: store.Path, *arguments: str
  ):
    self.workdir, name = workdir, workdir.name
    self._log = folder / f"{name}.log"
    self._command = [
      *(sys.executable, "-u", "-m", "rstar_jax.main"),
      *(f"--config={folder / 'config.py'}", f"--workdir={self.workdir}"),
      *arguments,
    ]

  def start(self, stage: str, round_: int) -> subprocess.Popen:
    with self._log.open("a") as log:
      return subprocess.Popen(
        [*self._command, f"--stage={stage}", f"--round={round_}"],
        cwd=ROOT,
        stdout=log,
        stderr=log,
      )

  def check(self, process: subprocess.Popen) -> None:
    if process.wait():
      raise RuntimeError(self._log.read_text()[-3000:])

  def searchers(self) -> list[int]:
    """Returns the pids of the searchers that live."""
    return [
      int(each.name)
      for each in pathlib.Path("/proc").iterdir()
      if each.name.isdecimal() and _is_searcher(each)
    ]

  def names(self) -> list[str]:
    """Returns the names of the files of all records."""
    return [
      name
      for name in store.files(self.workdir)
      if re.match(r"round_\d+/(trees|eval)/", name)
    ]

  def contents(self) -> dict[str, bytes]:
    """Returns the files of all records."""
    return {name: store.read(self.workdir / name) for name in self.names()}


@contextlib.contextmanager
def place(
  folder: pathlib.Path, drawn: random.Random
) -> Iterator[tuple[store.Path, dict[int, int]]]:
  """Yields where a run may be, and how often it was refused or late there."""
  if not _BUCKET.value:
    yield folder, {}
    return
  with fake_gcs.serve("bucket") as (bucket, _):
    bucket.hook = weather = fake_gcs.Unsteady(drawn)
    yield store.path("gs://bucket"), weather.refused


class Weather:
  """What happens to a cluster."""

  def __init__(self, cluster, run: Run, drawn: random.Random):
    self._cluster, self._run, self._drawn = cluster, run, drawn
    self.pids: set[int] = set()
    self.nodes = [self._node() for _ in range(-(-_SEARCHERS.value // _CPUS))]
    self.seen = {"searchers killed": 0, "nodes lost": 0, "nodes added": 0}

  def _node(self):
    # Searchers hold no objects to speak of. On a busy machine some of a node's
    # processes give up on each other.
    for _ in range(10):
      try:
        return self._cluster.add_node(
          num_cpus=_CPUS, object_store_memory=80 << 20, wait=False
        )
      except Exception as error:
        print("a node did not start:", error, flush=True)
    raise RuntimeError("no node starts")

  def strikes(self) -> None:
    """Kills a searcher; sometimes a node is lost, or added."""
    living = self._run.searchers()
    self.pids.update(living)
    if living:
      os.kill(self._drawn.choice(living), signal.SIGKILL)
      self.seen["searchers killed"] += 1
    if self._drawn.random() < 0.15 and len(self.nodes) > 1:
      node = self.nodes.pop(self._drawn.randrange(len(self.nodes)))
      self._cluster.remove_node(node, allow_graceful=False)
      self.seen["nodes lost"] += 1
    elif self._drawn.random() < 0.25 or len(self.nodes) < 2:
      self.nodes.append(self._node())
      self.seen["nodes added"] += 1


def _patiently(call: Callable[[], Any], seconds: float = 60.0) -> Any:
  end = time.monotonic() + seconds
  while True:
    try:
      return call()
    except RuntimeError:
      if time.monotonic() > end:
        raise
      time.sleep(1.0)


def _is_searcher(process: pathlib.Path) -> bool:
  """Says whether a process is a searcher of ours, by its folder in /proc."""
  try:
    title = (process / "cmdline").read_bytes()
    ours = f"{_MARK}={os.getpid()}".encode()
    return title.startswith(b"ray::_Searcher") and ours in (
      process / "environ"
    ).read_bytes().split(b"\0")
  except OSError:
    return False


def check(folder: pathlib.Path) -> dict[str, int]:
  """Runs all of it in a new folder; returns what was counted."""
  answers = {f"make {i}": str(1 + i % 7) for i in range(_PROBLEMS.value)}
  some = dict(list(answers.items())[: _PROBLEMS.value // 3])
  train = tiny_run.write_problems(folder / "train.jsonl", answers)
  test = tiny_run.write_problems(folder / "test.jsonl", some)
  (folder / "config.py").write_text(CONFIG.format(train=train, test=test))
  stages = (("evaluate", 0), ("rollout", 1))

  alone = Run(folder, folder / "alone")
  began = time.monotonic()
  for stage in stages:
    alone.check(alone.start(*stage))
  print(f"one process: {time.monotonic() - began:.0f} s", flush=True)
  wanted = alone.contents()

  # All of it is on this machine, so that a node has what the driver has; and it
  # may be slow.
  os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
  os.environ[_MARK] = str(os.getpid())
  os.environ.update({f"RAY_{name}": value for name, value in PATIENCE.items()})
  from ray._private import services
  from ray.cluster_utils import Cluster

  # Ray has half a minute for it.
  get = services.get_node
  services.get_node = lambda *args: _patiently(lambda: get(*args))
  drawn = random.Random(_SEED.value)
  with contextlib.ExitStack() as stack:
    # Its processes find the bucket by their environment.
    top, refused = stack.enter_context(place(folder, drawn))
    cluster = Cluster(
      initialize_head=True,
      head_node_args={
        "num_cpus": 0,
        "object_store_memory": 80 << 20,
        "include_dashboard": False,
      },
    )
    stack.callback(cluster.shutdown)
    run = Run(
      folder,
      top / "together",
      f"--config.ray.address={cluster.address}",
      f"--config.ray.searchers={_SEARCHERS.value}",
    )
    weather, drivers = Weather(cluster, run, drawn), 0
    for stage in stages:
      process = run.start(*stage)
      began, killed = time.monotonic(), False
      while process.poll() is None:
        time.sleep(_SECONDS.value)
        weather.strikes()
        begun = sum("shard" in name for name in run.names())
        if stage == ("rollout", 1) and not killed and begun > len(wanted) // 3:
          process.kill()
          process.wait()
          drivers, killed = drivers + 1, True
          process = run.start(*stage)
        print(
          f"{stage[0]}: {time.monotonic() - began:.0f} s, {weather.seen}",
          f"{len(weather.nodes)} nodes, {len(weather.pids)} searchers so far,",
          f"{len(run.names())} files of {len(wanted)}",
          *([f"calls refused or late: {dict(refused)}"] if refused else []),
          flush=True,
        )
      run.check(process)
    found = run.contents()
    assert found.keys() == wanted.keys(), found.keys() ^ wanted.keys()
    differing = [name for name in wanted if found[name] != wanted[name]]
    assert not differing, differing
    ids = [
      (row["problem"]["id"], n % 2)
      for name in sorted(found)
      if re.match(r"round_1/trees/shard", name)
      for n, row in enumerate(records.read_shard(run.workdir / name))
    ]
  assert len(ids) == len(set(ids)) == 2 * _PROBLEMS.value, len(ids)
  assert drivers == 1 and weather.seen["searchers killed"], weather.seen
  return weather.seen | {
    "drivers killed": drivers,
    "files": len(found),
    "trees": len(ids),
    **{f"calls with {status or 'delay'}": n for status, n in refused.items()},
  }


def main(_) -> None:
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(_KEEP.value or temporary)
    folder.mkdir(parents=True, exist_ok=True)
    found = check(folder)
  print(", ".join(f"{name} {value}" for name, value in found.items()))


if __name__ == "__main__":
  sys.exit(app.run(main))
