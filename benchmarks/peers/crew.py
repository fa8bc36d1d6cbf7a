"""The engines that are there, started with one model and asked in turn."""

import contextlib
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
from absl import flags

from benchmarks import meter
from benchmarks.peers import protocol
from configs import smollm2_135m
from rstar_jax.hf import folders, saving

OURS = "ours"
# Ours without kernels for CPUs: what XLA makes of the same functions.
XLA = "xla"
_PYTHONS = {
  "torch": flags.DEFINE_string(
    "torch_python", None, "A Python that has torch and transformers."
  ),
  "llama": flags.DEFINE_string(
    "llama_python", None, "A Python that has llama-cpp-python."
  ),
  "vllm": flags.DEFINE_string(
    "vllm_python", None, "A Python that has vLLM's CPU build."
  ),
}
_MODEL = flags.DEFINE_string(
  "model", None, "GGUF file; default that of `make smollm2`."
)
_THREADS = flags.DEFINE_integer("threads", 2, "Cores of each engine.", 1)
_LOCK = flags.DEFINE_string(
  "lock", None, "File to lock while measuring, on a shared machine."
)
_LOG = flags.DEFINE_string("log", None, "File for the engines' messages.")
_FOLDER = flags.DEFINE_string(
  "folder", None, "Folder for models; default a temporary one."
)
_FOREIGN = flags.DEFINE_float(
  "foreign",
  0.25,
  "Cores that other processes may use; beyond it a call is repeated.",
)
# Calls that are repeated at most, for one that counts.
_TRIES = 3


class Crew:
  """Engines by name, ours first.

  Attributes:
    workers: by name: "ours", "torch", "llama" and "vllm", where there is one.
    repeated: calls that did not count, by name.
    folder: of the model, as `transformers` reads it.
  """

  def __init__(self, folder: pathlib.Path):
    self.workers: dict[str, protocol.Worker] = {}
    self.folder = folder
    self.repeated: dict[str, int] = {}
    self.turns = meter.Turns(_LOCK.value)

  def ask_each(self, call: str, **arguments: Any) -> dict[str, Any]:
    """Calls a method of every engine, one after the other; returns values."""
    return {
      name: self.measure_once(name, call, **arguments).value
      for name in self.workers
    }

  def measure(self, name: str, call: str, **arguments: Any) -> protocol.Reply:
    """Calls a method while the machine is quiet, with a new seed if repeated.

    Args:
      name: of the engine.
      call: of the method, which may be called several times.
      **arguments: of the call; `seed` is counted up with each try.

    Returns:
      The first reply during which others used few cores, or the last.
    """
    for attempt in range(_TRIES):
      reply = self.measure_once(name, call, **arguments)
      if reply.load.foreign <= _FOREIGN.value:
        break
      if attempt < _TRIES - 1:
        self.repeated[name] = self.repeated.get(name, 0) + 1
      if "seed" in arguments:
        arguments["seed"] += 1_000_003
    return reply

  def measure_once(
    self, name: str, call: str, **arguments: Any
  ) -> protocol.Reply:
    """Calls a method, whoever else uses the machine."""
    with self.turns.mine():
      return self.workers[name].ask(call, **arguments)


@contextlib.contextmanager
def start(
  dtype: str,
  names: Sequence[str] = (),
  also: Sequence[str] = (),
  what: str = "engine",
  **options: Any,
) -> Iterator[Crew]:
  """Starts the engines whose Python was given.

  Args:
    dtype: "float32" or "bfloat16", of weights and activations.
    names: those that are wanted beside ours; none are all.
    also: names of more engines of ours.
    what: "engine" or "training", of their modules' names.
    **options: for all engines' "open".

  Yields:
    Engines that have the model: the same weights, rounded to the dtype.
  """
  gguf = _MODEL.value or smollm2_135m.get_config().policy.path
  pythons = {
    name: flag.value
    for name, flag in _PYTHONS.items()
    if flag.value and (name in names or not names)
  }
  with contextlib.ExitStack() as stack:
    root = _FOLDER.value or stack.enter_context(tempfile.TemporaryDirectory())
    log = None
    if _LOG.value:
      log = stack.enter_context(open(_LOG.value, "a"))
    # Training has masters in float32, whatever it computes in.
    kept = jnp.float32 if what == "training" else jnp.dtype(dtype)
    folder = pathlib.Path(root) / jnp.dtype(kept).name
    if not (folder / "config.json").exists():
      saving.save_policy(folders.load_policy(gguf, kept), folder)
    crew = Crew(folder)
    stack.callback(crew.turns.end)
    ours = dict.fromkeys((OURS, *also), sys.executable)
    for name, python in (ours | pythons).items():
      module = f"{'our' if name in ours else name}_{what}"
      crew.workers[name] = stack.enter_context(
        protocol.Worker(module, python, threads=_THREADS.value, log=log)
      )
      crew.measure_once(
        name,
        "open",
        folder=str(folder),
        gguf=str(gguf),
        dtype=dtype,
        threads=_THREADS.value,
        kernels="xla" if name == XLA else "auto",
        **options,
      )
    yield crew
