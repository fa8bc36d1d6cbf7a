"""Tokens per second of expansion, beside the engines that others would use.

  make smollm2
  python -m benchmarks.engines --torch_python=PYTHON --llama_python=PYTHON \
    --vllm_python=PYTHON

Steps are sampled after random prefixes at temperature 1 from the whole
vocabulary, to a fixed length: with SmolLM2-135M, on two cores, in equal
precision. An engine without a Python is left out. Engines take turns, each
round with prompts that none has seen, so that a cache helps within a call and
not between calls. Prefixes are shared in every engine: `transformers` copies a
prefix's cache to its rows, llama.cpp shares cells, vLLM caches prefixes.

  W1     4 prefixes of 256 tokens x 8 candidates of 64
  W2     1 prefix of 1024 tokens x 32 candidates of 64
  W1x16  16 prefixes of 256 tokens x 8 candidates of 64

Prints JSON lines. "check" says with how many of ours an engine's greedy tokens
agree. "machine" has FLOP/s of large matrix products and bytes/s. Of each
engine: tokens per second of prefill and decode together (median and range), the
share of the machine's FLOP/s that the work as such comes to, tokens per second
of CPU, which say more where the machine is not quiet (of one thread, since more
wait for each other), and the cores that other programs used meanwhile. "parts"
says where our time goes. "ours" has the kernels for CPUs, "xla" has none.
"""

import statistics

import numpy as np
from absl import app, flags

from benchmarks import lines, meter
from benchmarks.peers import crew as crew_lib
from rstar_jax.hf import folders
from rstar_jax.models.config import ModelConfig

_DTYPES = flags.DEFINE_list(
  "dtypes", ["float32", "bfloat16"], "Dtypes to measure."
)
_WORKLOADS = flags.DEFINE_list(
  "workloads", ["W1", "W2", "W1x16"], "Workloads to measure."
)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Repetitions of each case.", 1)
_XLA = flags.DEFINE_bool(
  "xla", True, "Also measure this package without kernels."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of prompts and samples.")

# Leaves, candidates, tokens of a prefix, tokens of a step.
WORKLOADS = {
  "W1": (4, 8, 256, 64),
  "W2": (1, 32, 1024, 64),
  "W1x16": (16, 8, 256, 64),
}
_NAMES = ("leaves", "candidates", "prefix", "new")
# Greedy tokens that are compared, after a prefix of so many.
_CHECKED, _CHECK_PREFIX = 12, 61


def flops(config: ModelConfig, shape: tuple[int, int, int, int]) -> float:
  """Returns the FLOPs of a workload, each prefix run once.

  Two for each multiplication of a matrix product; norms, rotations and the
  softmax are left out.
  """
  leaves, candidates, prefix, new = shape
  heads = config.num_heads + config.num_kv_heads
  block = 2 * config.embed_dim * heads * config.head_dim
  block += 3 * config.embed_dim * config.mlp_dim
  unembed = config.embed_dim * config.vocab_size
  # Each token's dot products with what it sees, and their mix.
  pair = 2 * config.num_heads * config.head_dim * config.num_layers
  # A step's last token is sampled and not run.
  rows, ran = leaves * candidates, new - 1
  seen = leaves * prefix * (prefix + 1) / 2
  seen += rows * sum(prefix + i + 1 for i in range(ran))
  tokens = leaves * prefix + rows * ran
  once = leaves + rows * ran
  return 2 * (config.num_layers * block * tokens + unembed * once + pair * seen)


def prompts(shape: tuple[int, int, int, int], *names: int) -> list[list[int]]:
  """Returns random prefixes of ids that are no control tokens of any model."""
  rng = np.random.default_rng((_SEED.value, *names))
  return rng.integers(20, 49000, (shape[0], shape[2])).tolist()


def check(crew: crew_lib.Crew) -> None:
  """Compares greedy steps, so that the engines are known to run one model."""
  shape = (1, 2, _CHECK_PREFIX, _CHECKED)
  crew.ask_each(
    "prepare", **dict(zip(_NAMES, shape, strict=True)), temperature=0.0
  )
  steps = crew.ask_each(
    "expand",
    prefixes=prompts(shape, 0),
    limits=[_CHECKED],
    seed=0,
  )
  found = {name: each["tokens"][0][0] for name, each in steps.items()}
  equal = {
    name: next(
      (i for i in range(_CHECKED) if each[i] != found[crew_lib.OURS][i]),
      _CHECKED,
    )
    for name, each in found.items()
  }
  lines.show("check", of=_CHECKED, first_equal=equal)


def machine(crew: crew_lib.Crew) -> dict[str, float]:
  """Returns the best of what any library reaches, by kind of work."""
  found = {
    name: crew.measure(name, "roofline").value
    for name in (crew_lib.OURS, "torch")
    if name in crew.workers
  }
  best: dict[str, float] = {}
  for each in found.values():
    for kind, value in each.items():
      best[kind] = max(best.get(kind, 0.0), value)
  lines.show(
    "machine",
    **{
      name: {kind: f"{value / 1e9:.1f} G/s" for kind, value in each.items()}
      for name, each in found.items()
    },
  )
  return best


def run(
  crew: crew_lib.Crew, workload: str, dtype: str, peak: float, work: float
) -> None:
  """Measures one workload on every engine, in turn."""
  shape = WORKLOADS[workload]
  leaves, candidates, _, new = shape
  crew.ask_each(
    "prepare", **dict(zip(_NAMES, shape, strict=True)), temperature=1.0
  )
  rates: dict[str, list[float]] = {name: [] for name in crew.workers}
  per_core: dict[str, list[float]] = {name: [] for name in crew.workers}
  loads: dict[str, list[meter.Load]] = {name: [] for name in crew.workers}
  crew.repeated.clear()
  for number in range(_REPEATS.value + 1):
    for name in crew.workers:
      call = crew.measure if number else crew.measure_once
      reply = call(
        name,
        "expand",
        prefixes=prompts(shape, 1, number),
        limits=[new] * leaves,
        seed=number,
      )
      sampled = sum(len(s) for row in reply.value["tokens"] for s in row)
      if sampled != leaves * candidates * new:
        raise ValueError(f"{name} sampled {sampled} tokens on {workload}")
      if number:  # The first call compiles, and warms up.
        load = reply.load
        rates[name].append(sampled / reply.seconds)
        per_core[name].append(sampled / (load.cores * load.seconds))
        loads[name].append(load)
  medians = {name: statistics.median(each) for name, each in rates.items()}
  mine = (crew_lib.OURS, crew_lib.XLA)
  peers = [rate for name, rate in medians.items() if name not in mine]
  for name, rate in medians.items():
    lines.show(
      "engine",
      workload=workload,
      dtype=dtype,
      engine=name,
      tokens_per_second=rate,
      least=min(rates[name]),
      most=max(rates[name]),
      roofline_share=work / (leaves * candidates * new) * rate / peak,
      tokens_per_core_second=statistics.median(per_core[name]),
      cores=statistics.median(each.cores for each in loads[name]),
      foreign=max(each.foreign for each in loads[name]),
      niced=statistics.median(each.niced for each in loads[name]),
      repeated=crew.repeated.get(name, 0),
      prefilled=reply.value["prefilled"] if name == "vllm" else None,
    )
  if peers:
    ratio = medians[crew_lib.OURS] / max(peers)
    lines.show("ratio", workload=workload, dtype=dtype, to_best_peer=ratio)
  parts = crew.measure(crew_lib.OURS, "parts", shape=shape).value
  lines.show("parts", workload=workload, dtype=dtype, **parts)


def main(_):
  for dtype in _DTYPES.value:
    also = (crew_lib.XLA,) if _XLA.value else ()
    with crew_lib.start(dtype, also=also) as crew:
      check(crew)
      peaks = machine(crew)
      config, _ = folders.read_config(crew.folder)
      for workload in _WORKLOADS.value:
        work = flops(config, WORKLOADS[workload])
        run(crew, workload, dtype, peaks[dtype], work)


if __name__ == "__main__":
  app.run(main)
