"""Peak memory of reading and writing a checkpoint of a gigabyte.

  python -m benchmarks.loading --folder=DISK --torch_python=PYTHON

Each case runs in a process of its own on the CPU, where the parameters
themselves are in host memory. Its peak is what it held above what it had after
its imports, as a share of the parameters' bytes in their dtype in memory: 1 is
the model and nothing else. Baselines: `transformers`, and reading whole files
with `safetensors` before `jnp.asarray`. Prints one JSON line a case, the worst
of its repeats:

  peak: anonymous memory; for a model written, the model included
  mapped: pages of mapped files at most, which the system can take back
  seconds, cpu_seconds: the least of its repeats
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import safetensors.numpy
from absl import app, flags

from benchmarks import checkpoint, memory
from rstar_jax.config.schema import MeshConfig
from rstar_jax.hf import folders, saving
from rstar_jax.models import meshes
from rstar_jax.models.transformer import Transformer, arrays_of

_FOLDER = flags.DEFINE_string(
  "folder", None, "Folder with 5 GB of space; default a temporary one."
)
_TORCH_PYTHON = flags.DEFINE_string(
  "torch_python", sys.executable, "A Python that has torch and transformers."
)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Runs of each case.", 1)
_ONLY = flags.DEFINE_string(
  "only", "", "Run only cases whose name has this word."
)
_CASE = flags.DEFINE_string("case", None, "Run one case, for measuring.")


@dataclasses.dataclass(frozen=True)
class Case:
  """What is measured.

  Attributes:
    what: "import", "gguf", "export", "transformers" or "load_file".
    dtype: of the parameters in memory.
    devices: that the parameters are spread over.
    shard_bytes: most bytes of a file that is written.
  """

  what: str
  dtype: str = "bfloat16"
  devices: int = 1
  shard_bytes: int = saving.SHARD_BYTES

  @property
  def name(self) -> str:
    name = f"{self.what} {self.dtype}, {self.devices} device"
    name += "s" if self.devices > 1 else ""
    if self.what == "export":
      name += f", files of {self.shard_bytes / 1e9:g} GB"
    return name


CASES = (
  *(
    Case("import", dtype, devices)
    for devices in (1, 8)
    for dtype in ("bfloat16", "float32")
  ),
  Case("gguf", "float32"),
  *(
    Case("export", devices=devices, shard_bytes=size)
    for devices in (1, 8)
    for size in (100_000_000, saving.SHARD_BYTES)
  ),
  Case("transformers", "bfloat16"),
  Case("transformers", "float32"),
  Case("load_file", "bfloat16"),
)


def load(case: Case, source: pathlib.Path) -> Transformer:
  """Reads the model to the devices of the case."""
  mesh = None
  if case.devices > 1:
    mesh = meshes.make(MeshConfig(data=1, fsdp=-1, tensor=2))
  model = folders.load_policy(source, jnp.dtype(case.dtype), mesh=mesh)
  jax.block_until_ready(arrays_of(model))
  return model


def run_import(case: Case, folder: pathlib.Path) -> None:
  source = folder / ("model.gguf" if case.what == "gguf" else "model")
  memory.mark("ready")
  kept = load(case, source)
  memory.mark("end")
  del kept


def run_export(case: Case, folder: pathlib.Path) -> None:
  memory.mark("ready")
  model = load(case, folder / "model")
  memory.mark("start")
  saving.save_policy(model, folder / "written", shard_bytes=case.shard_bytes)
  memory.mark("end")


def run_transformers(case: Case, folder: pathlib.Path) -> None:
  import torch
  from transformers import AutoModelForCausalLM, Qwen2ForCausalLM

  del Qwen2ForCausalLM  # Imported when it is used first, which is no loading.
  memory.mark("ready")
  model = AutoModelForCausalLM.from_pretrained(
    folder / "model", dtype=getattr(torch, case.dtype)
  )
  # What is mapped is read when it is used.
  for parameter in model.parameters():
    parameter.sum().item()
  memory.mark("end")


def run_load_file(case: Case, folder: pathlib.Path) -> None:
  memory.mark("ready")
  arrays = {}
  for file in (folder / "model").glob("*.safetensors"):
    arrays |= safetensors.numpy.load_file(file)
  arrays = {
    name: jnp.asarray(array, case.dtype) for name, array in arrays.items()
  }
  jax.block_until_ready(arrays)
  memory.mark("end")


_RUN = {
  "import": run_import,
  "gguf": run_import,
  "export": run_export,
  "transformers": run_transformers,
  "load_file": run_load_file,
}


def run(name: str, folder: pathlib.Path) -> None:
  """Runs one case in this process."""
  case = next(case for case in CASES if case.name == name)
  jax.config.update("jax_num_cpu_devices", case.devices)
  # The first array starts what jax starts once.
  jax.block_until_ready(jnp.zeros(()))
  _RUN[case.what](case, folder)


def measure(case: Case, folder: pathlib.Path, parameters: int) -> None:
  """Runs a case in processes of its own and prints its line."""
  python = sys.executable
  if case.what == "transformers":
    python = _TORCH_PYTHON.value
  command = [python, "-m", "benchmarks.loading", f"--folder={folder}"]
  usages = [
    memory.measure(
      [*command, f"--case={case.name}"], os.environ | {"JAX_PLATFORMS": "cpu"}
    )
    for _ in range(_REPEATS.value)
  ]
  size = parameters * jnp.dtype(case.dtype).itemsize
  row = {
    "case": case.name,
    "peak": round(max(each.anonymous for each in usages) / size, 3),
    "mapped": round(max(each.mapped for each in usages) / size, 3),
    "seconds": round(min(each.seconds for each in usages), 2),
    "cpu_seconds": round(min(each.cpu_seconds for each in usages), 2),
  }
  print(json.dumps(row), flush=True)


def main(_):
  if _CASE.value:
    run(_CASE.value, pathlib.Path(_FOLDER.value))
    return
  has_torch = not subprocess.run(
    [_TORCH_PYTHON.value, "-c", "import torch, transformers"],
    capture_output=True,
    check=False,
  ).returncode
  with tempfile.TemporaryDirectory(dir=_FOLDER.value) as name:
    folder = pathlib.Path(name)
    parameters = checkpoint.write(folder / "model")
    checkpoint.write_gguf(folder / "model", folder / "model.gguf")
    print(json.dumps({"parameters": parameters}), flush=True)
    os.sync()  # Nothing is timed while these files go to the disk.
    for case in CASES:
      if _ONLY.value not in case.name:
        continue
      if case.what == "transformers" and not has_torch:
        print(json.dumps({"case": case.name, "skipped": "no torch"}))
        continue
      measure(case, folder, parameters)


if __name__ == "__main__":
  app.run(main)
