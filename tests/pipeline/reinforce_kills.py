"""Kills reinforcement at random moments, again and again.

  python -m tests.pipeline.reinforce_kills --kills=5 --hosts=2

Processes of the program reinforce the shipped base model, on a mesh of all
their devices. All are killed by SIGKILL and followed by the next ones, until
so many were killed; the last ones finish. The trees and the policy have to be
those of a run that nobody killed.
"""

import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from absl import app, flags

from rstar_jax.storage import json_io, layout, manifests
from tests import tiny_run
from tests.pipeline.hosts_test import free_port
from tests.pipeline.resume_test import problems
from tests.run import ROOT

_KILLS = flags.DEFINE_integer("kills", 5, "How often to kill.")
_HOSTS = flags.DEFINE_integer("hosts", 1, "Processes.")
_DEVICES = flags.DEFINE_integer("devices", 1, "Devices of a process.")
_ALGORITHM = flags.DEFINE_enum("algorithm", "grpo", ("grpo", "tree"), "Which.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")

# Seconds from the first file of a process to its end, at most.
_LONGEST = 6.0
_CONFIG = """
from rstar_jax.config import schema as config_lib
from tests import tiny_run

def get_config():
  spec = config_lib.RoundConfig(
    rollout={rollout!r}, algorithm={algorithm!r}, rollouts=4, candidates=3
  )
  config = tiny_run.make_config(
    {train!r}, {train!r}, rounds=(spec,), programs={programs!r}
  )
  config.reinforce.iterations = 4
  config.reinforce.problems = 3
  config.reinforce.updates = 2
  config.reinforce.train.batch_size = 2
  config.reinforce.train.length = 256
  config.reinforce.train.learning_rate = 3e-4
  config.reinforce.train.checkpoint_every = 3
  config.train_mesh.data, config.train_mesh.fsdp = 1, -1
  return config
"""


def start(folder: pathlib.Path, run: str) -> list[subprocess.Popen]:
  """Starts the processes of a run, or goes on with it."""
  count, port = _HOSTS.value, free_port()
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={_DEVICES.value}",
  }
  arguments = [f"--config={folder / 'config.py'}", "--stage=rollout"]
  arguments += [f"--workdir={folder / run}", "--round=1"]
  if count > 1:
    arguments += ["--distributed", f"--coordinator=localhost:{port}"]
    arguments += [f"--processes={count}"]
  found = []
  for index in range(count):
    own = [f"--process={index}"] if count > 1 else []
    with (folder / f"{run}-{index}.log").open("a") as log:
      found.append(
        subprocess.Popen(
          [sys.executable, "-m", "rstar_jax.main", *arguments, *own],
          cwd=ROOT,
          env=environment,
          stdout=log,
          stderr=log,
        )
      )
  return found


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  """Returns the files of the trees and the policy, but for checkpoints."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for name in ("trees", "policy")
    for path in (folder / "round_1" / name).rglob("*")
    if path.is_file()
    and "checkpoints" not in path.parts
    and not path.name.startswith(layout.VERIFIED)
  }


def finish(folder: pathlib.Path, run: str) -> dict[str, bytes]:
  """Runs processes to their end; returns what they wrote."""
  codes = [each.wait() for each in start(folder, run)]
  if any(codes):
    raise RuntimeError((folder / f"{run}-0.log").read_text()[-3000:])
  return contents(folder / run)


def kill_after(folder: pathlib.Path, run: str, seconds: float) -> bool:
  """Kills processes so long after they changed a file of the round.

  Returns:
    Whether they were not done yet.
  """
  before = set((folder / run).glob("round_1/*/**"))
  started = start(folder, run)
  while set((folder / run).glob("round_1/*/**")) == before:
    if any(each.poll() is not None for each in started):
      break
    time.sleep(0.01)
  time.sleep(seconds)
  for each in started:
    each.send_signal(signal.SIGKILL)
  return [each.wait() for each in started] != [0] * len(started)


def main(_) -> None:
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    train = tiny_run.write_problems(
      folder / "train.jsonl", problems("train", (1, 2, 2, 3, 3, 1))
    )
    rollout = "samples" if _ALGORITHM.value == "grpo" else "search"
    (folder / "config.py").write_text(
      _CONFIG.format(
        rollout=rollout,
        algorithm=_ALGORITHM.value,
        train=train,
        programs=str(folder / "programs"),
      )
    )
    wanted = finish(folder, "straight")
    assert len(wanted) > 4 * 2 + 2, sorted(wanted)
    drawn, killed, runs = random.Random(_SEED.value), 0, 0
    while killed < _KILLS.value:
      run = f"run-{runs}"
      runs += 1
      while killed < _KILLS.value and kill_after(
        folder, run, drawn.uniform(0, _LONGEST)
      ):
        killed += 1
      found = finish(folder, run)
      differing = [n for n in wanted | found if wanted.get(n) != found.get(n)]
      assert not differing, differing
    first = folder / "straight/round_1/trees/turn-00000"
    digest = manifests.read(first)["files"]
    print(f"{runs} runs, {killed} killed; trees of the first turn: ", end="")
    print(json_io.digest(digest)[:12])


if __name__ == "__main__":
  app.run(main)
