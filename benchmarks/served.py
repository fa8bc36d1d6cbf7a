"""Self-evolution with the policy and the PPM behind vLLM, one server killed.

  python -m benchmarks.served --vllm_python=PYTHON --folder=runs/served

Two rounds of a small run. Two servers have the policy and one the PPM, each a
process of vLLM; the weights of each round are put there by requests.
One of the policy's is killed in the middle of each search, and started again
with the model that it was started with first, so that it has to be found out.
What is printed is what the run measured, and what the servers were asked.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence

from absl import app, flags, logging

import rstar_jax as rj
from rstar_jax.hf import folders
from rstar_jax.inference import loading

_PYTHON = flags.DEFINE_string(
  "vllm_python", None, "A Python that has vLLM's CPU build.", required=True
)
_FOLDER = flags.DEFINE_string(
  "folder", "runs/served", "Folder of the run, and of the servers' logs."
)
_PORT = flags.DEFINE_integer("port", 8200, "First of three ports.")
_PROBLEMS = flags.DEFINE_integer("problems", 24, "Training problems.")
_KILL_AFTER = flags.DEFINE_float(
  "kill_after", 20.0, "Seconds of work until a server is killed."
)
_THREADS = flags.DEFINE_integer("threads", 1, "Cores of each server.")

# What vLLM reads; weights are replaced by requests of its development mode.
_ENVIRONMENT = {
  "VLLM_SERVER_DEV_MODE": "1",
  "VLLM_NO_USAGE_STATS": "1",
  "VLLM_CPU_KVCACHE_SPACE": "1",
  "HF_HUB_OFFLINE": "1",
}
# Seconds for a server to load.
_LOADS = 600


class Server:
  """A `vllm serve` at a port, of a policy or of a PPM.

  Attributes:
    url: its base.
    starts: how often it was started.
  """

  def __init__(self, port: int, role: str, core: int):
    self.url = f"http://127.0.0.1:{port}/v1"
    self.starts = 0
    self._port, self._role, self._core = port, role, core
    self._process: subprocess.Popen | None = None

  def start(self, folder: str) -> None:
    """Starts it with a model, and waits until it answers."""
    # As `vllm serve` does, which the CPU build's package has no name for.
    command = [_PYTHON.value, "-m", "vllm.entrypoints.openai.api_server"]
    command += [f"--model={folder}", f"--port={self._port}", "--dtype=float32"]
    command += ["--max-model-len=1024", "--max-num-seqs=64"]
    command += ["--block-size=32", "--enforce-eager"]
    if self._role == "ppm":
      command += ["--runner=pooling"]
    cores = f"{self._core}-{self._core + _THREADS.value - 1}"
    log = pathlib.Path(_FOLDER.value) / f"vllm-{self._port}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
      # A group of its own: what it starts is killed with it.
      self._process = subprocess.Popen(
        command,
        start_new_session=True,
        stdout=file,
        stderr=file,
        env=os.environ
        | _ENVIRONMENT
        | {"VLLM_CPU_OMP_THREADS_BIND": cores, "PYTHONPATH": ""},
      )
    self.starts += 1
    until = time.monotonic() + _LOADS
    health = self.url.removesuffix("/v1") + "/health"
    while time.monotonic() < until:
      if self._process.poll() is not None:
        raise RuntimeError(f"vLLM ended: see {log}")
      with contextlib.suppress(OSError):
        urllib.request.urlopen(health, timeout=5).close()
        return
      time.sleep(1)
    raise RuntimeError(f"vLLM does not answer: see {log}")

  def running(self) -> bool:
    return self._process is not None and self._process.poll() is None

  def kill(self) -> None:
    if self._process is not None:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(self._process.pid, signal.SIGKILL)
      self._process.wait()


class Fleet:
  """Two servers of the policy and one of the PPM."""

  def __init__(self, base: str):
    cores = os.cpu_count() or 1
    self.policies = [
      Server(_PORT.value + n, "policy", n % cores) for n in range(2)
    ]
    self.ppm = Server(_PORT.value + 2, "ppm", 0)
    self._base = base
    self.kills = 0

  def put(
    self, config: rj.Config, role: str, folder: str, urls: Sequence[str]
  ) -> None:
    """Puts a model on the servers of a role; see `servers.load`."""
    for each in self.policies if role == "policy" else [self.ppm]:
      if each.running():
        loading.vllm(config, role, folder, [each.url])
      else:
        each.start(folder)
    logging.info("%s is at %s", folder, ", ".join(urls))

  def harm(self, over: threading.Event) -> None:
    """Kills one of the policy's, and starts it with the base model again."""
    victim = self.policies[1]
    while not over.wait(_KILL_AFTER.value):
      if not victim.running():
        continue
      logging.info("killing %s", victim.url)
      victim.kill()
      self.kills += 1
      if self.kills > 2:
        return
      victim.start(self._base)

  def close(self) -> None:
    for each in (*self.policies, self.ppm):
      each.kill()


_FLEET: list[Fleet] = []


def load(
  config: rj.Config, role: str, folder: str, urls: Sequence[str]
) -> None:
  """What `servers.load` names."""
  _FLEET[0].put(config, role, folder, urls)


def make_config(fleet: Fleet) -> rj.Config:
  """Returns the config of two small rounds on a fleet."""
  config = rj.load_config("configs/tiny.py")
  config.shard_size = 8
  config.train.count = _PROBLEMS.value
  config.eval.data.count = max(8, _PROBLEMS.value // 3)
  config.eval.samples, config.eval.early_problems = 4, 4
  config.eval.search.rollouts, config.eval.search.candidates = 2, 4
  config.rounds = (
    rj.RoundConfig(rollouts=4, candidates=4),
    rj.RoundConfig(rollouts=4, candidates=4, annotation="ppm"),
  )
  config.servers.policy = ",".join(each.url for each in fleet.policies)
  config.servers.ppm = fleet.ppm.url
  config.servers.load = f"{__name__}:load"
  config.servers.in_flight = 64
  config.servers.timeout_seconds = 120.0
  return config


def main(_) -> None:
  # So that servers end with this, however it is ended.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
  base = str(folders.BASE_MODEL)
  fleet = Fleet(base)
  _FLEET.append(fleet)
  over = threading.Event()
  try:
    config = make_config(fleet)
    began = time.perf_counter()
    with rj.open_run(config, _FOLDER.value) as run:
      harm = threading.Thread(target=fleet.harm, args=(over,), daemon=True)
      harm.start()
      rj.evolve(run)
    seconds = time.perf_counter() - began
  finally:
    over.set()
    fleet.close()
  report = pathlib.Path(_FOLDER.value) / "results.json"
  print(f"two rounds in {seconds:.0f} s, {fleet.kills} kills; {report}")
  for each in (*fleet.policies, fleet.ppm):
    print(f"{each.url}: started {each.starts} times")


if __name__ == "__main__":
  app.run(main)
