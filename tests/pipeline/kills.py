"""Kills a search at random moments, again and again.

  python -m tests.pipeline.kills --kills=20

Processes search a round and evaluate it, with a scripted policy that writes
down which searches begin. Each is killed by SIGKILL and followed by the next,
until so many were killed; a last one finishes. The files have to be those of a
process that nobody killed, and no search may begin again that was finished: of
each process at most those in flight do.
"""

import dataclasses
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from unittest import mock

from absl import app, flags

from rstar_jax import testing
from rstar_jax.config import schema as config_lib
from rstar_jax.pipeline import backends, evaluate, hosts, rollout
from rstar_jax.pipeline.hosts import Host
from rstar_jax.storage import manifests
from tests import tiny_run

_KILLS = flags.DEFINE_integer("kills", 20, "Processes to kill.")
_HOSTS = flags.DEFINE_integer("hosts", 1, "Most hosts, threads of a process.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")

IN_FLIGHT = 4
# Two additions of 1, 2 or 3 give 2 to 6: some problems cannot be solved.
ANSWERS = {f"make {i}": str(1 + i % 7) for i in range(24)}
# Seconds of a call of the policy, and of the longest search that is killed.
_CALL, _LONGEST = 0.002, 0.3


class Run:
  """A round whose processes can be killed.

  Attributes:
    workdir: its folder.
  """

  def __init__(
    self, folder: pathlib.Path, source: str, in_flight: int = IN_FLIGHT
  ):
    """Makes the folder.

    Args:
      folder: of the run and its log.
      source: the problems.
      in_flight: most searches at once on a host.
    """
    folder.mkdir()
    search = config_lib.SearchConfig(in_flight=in_flight)
    config = tiny_run.make_config(
      source,
      source,
      shard_size=5,
      search=search,
      rounds=(
        config_lib.RoundConfig(
          rollouts=3, candidates=3, trees=2, extra_rollouts=(2,)
        ),
      ),
    )
    config.eval.search.in_flight = in_flight
    self.workdir = folder / "run"
    self._context = tiny_run.make_context(config, self.workdir)
    self._log = folder / "log"
    for name in ("policy", "ppm"):
      manifests.write(self.workdir / "round_1" / name, {}, [])

  def start(self, count: int = 1) -> int:
    """Starts a process that searches on so many hosts; returns its pid."""
    self._write("starts")
    pid = os.fork()
    if pid:
      return pid
    code = 1
    try:
      os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
      threads = [
        threading.Thread(target=self._work, args=(Host(index, count),))
        for index in range(count)
      ]
      with (
        mock.patch.object(hosts, "_POLL_SECONDS", 0.01),
        mock.patch.object(backends, "ModelBackend", self._backend()),
      ):
        for each in threads:
          each.start()
        for each in threads:
          each.join()
      code = int(any(self._manifests()))
    finally:
      os._exit(code)

  def finish(self, count: int = 1) -> None:
    """Runs a process to its end."""
    _, status = os.waitpid(self.start(count), 0)
    if status:
      raise RuntimeError(self._log.read_text()[-2000:])

  def kill_after(self, seconds: float, count: int = 1) -> bool:
    """Kills a process so long after its first search began, if it did.

    Returns whether it was not done yet.
    """
    pid = self.start(count)
    size = self._log.stat().st_size
    while (
      os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    ):
      if self._log.stat().st_size > size:
        break
      time.sleep(0.001)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL

  def begun(self) -> list[set[tuple[str, ...]]]:
    """Returns the searches that each process began: question and seeds."""
    processes: list[set[tuple[str, ...]]] = []
    for line in self._log.read_text().splitlines():
      if line == "starts":
        processes.append(set())
      else:
        processes[-1].add(tuple(json.loads(line)))
    return processes

  def contents(self) -> dict[str, bytes]:
    """Returns the files of both stages."""
    return {
      str(path.relative_to(self.workdir)): path.read_bytes()
      for name in ("trees", "eval")
      for path in (self.workdir / "round_1" / name).rglob("*")
      if path.is_file()
    }

  def _manifests(self) -> list[bool]:
    return [
      manifests.read(self.workdir / "round_1" / name) is None
      for name in ("trees", "eval")
    ]

  def _work(self, host: Host) -> None:
    try:
      context = dataclasses.replace(self._context, host=host)
      rollout.rollout(context, 1)
      evaluate.evaluate(context, 1)
    except BaseException:
      self._write(traceback.format_exc())

  def _write(self, text: str) -> None:
    with self._log.open("a") as file:
      file.write(text + "\n")

  def _backend(self) -> type[tiny_run.ScriptedBackend]:
    policy = testing.ToySum()

    def logged(call: Callable) -> Callable:
      def expand(questions, prefixes, seeds):
        time.sleep(_CALL)
        for question, prefix, row in zip(
          questions, prefixes, seeds, strict=True
        ):
          # The first call of each search has seeds of its own.
          if not prefix:
            self._write(json.dumps([question, *map(str, row)]))
        return call(questions, prefixes, seeds)

      return expand

    class Policy:
      __call__ = staticmethod(logged(policy))
      block = staticmethod(logged(policy.block))

    return tiny_run.ScriptedBackend.scripted(Policy())


def check(
  folder: pathlib.Path, kills: int, most_hosts: int = 1, seed: int = 0
) -> dict[str, int]:
  """Kills a run so often; returns what was counted.

  Args:
    folder: a new one.
    kills: processes to kill; one that was done before starts another run.
    most_hosts: each process has 1 to so many hosts.
    seed: of the moments and hosts.

  Raises:
    AssertionError: the files differ, or more was searched again than was in
      flight.
  """
  source = tiny_run.write_problems(folder / "problems.jsonl", ANSWERS)
  straight = Run(folder / "straight", source, in_flight=16)
  straight.finish()
  wanted = straight.contents()
  (once,) = straight.begun()
  # Two manifests, and the shards of trees, of records, and of their trees.
  assert len(wanted) == 2 + 3 * 5, sorted(wanted)
  drawn = random.Random(seed)
  runs = killed = again = 0
  while killed < kills:
    run = Run(folder / f"run-{runs}", source)
    runs += 1
    while killed < kills and run.kill_after(
      drawn.uniform(0, _LONGEST), drawn.randint(1, most_hosts)
    ):
      killed += 1
    run.finish(drawn.randint(1, most_hosts))
    found = run.contents()
    assert found.keys() == wanted.keys(), found.keys() ^ wanted.keys()
    differing = [name for name in wanted if found[name] != wanted[name]]
    assert not differing, differing
    before: set[tuple[str, ...]] = set()
    for begun in run.begun():
      twice = {question for question, *_ in begun & before}
      assert len(twice) <= IN_FLIGHT * most_hosts, twice
      again += len(twice)
      before |= begun
    assert before == once, before ^ once
  return {"runs": runs, "killed": killed, "in all": len(once), "again": again}


def main(_) -> None:
  with tempfile.TemporaryDirectory() as folder:
    found = check(pathlib.Path(folder), _KILLS.value, _HOSTS.value, _SEED.value)
  print(", ".join(f"{name} {value}" for name, value in found.items()))


if __name__ == "__main__":
  sys.exit(app.run(main))
