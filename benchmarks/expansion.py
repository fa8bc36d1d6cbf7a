"""Tokens per second of expansion: prefixes shared by candidates, or repeated.

  python -m benchmarks.expansion
  python -m benchmarks.expansion --candidates=32 --prefix=1024 --max_length=2048

Each leaf has one prefix and several candidates. The engine runs a prefix once
and lets all candidates attend to its keys and values; the baseline runs it once
per candidate, as a sampler without sharing does. Both are the same program code
with random weights, no stop id, and take turns in one process; the medians are
printed as one JSON line. Time counts prefill and decode, not compilation. Rates
per second of this process's CPU time are there for a machine that is shared.
"""

import json
import statistics
import time

import jax
import numpy as np
from absl import app, flags, logging
from flax import nnx

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference.engine import Engine
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.transformer import Transformer

_LEAVES = flags.DEFINE_integer("leaves", 32, "Leaves in a call.", 1)
_CANDIDATES = flags.DEFINE_integer("candidates", 8, "Steps per leaf.", 1)
_PREFIX = flags.DEFINE_integer("prefix", 200, "Tokens of each prefix.", 1)
_NEW = flags.DEFINE_integer("new", 32, "Tokens of each step.", 1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed calls of each kind.", 1)
_DEFAULT = ModelConfig()
_MODEL = {
  name: flags.DEFINE_integer(name, getattr(_DEFAULT, name), "Of the model.", 1)
  for name in (
    "vocab_size",
    "num_layers",
    "embed_dim",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "mlp_dim",
    "max_length",
  )
}
_DTYPE = flags.DEFINE_string("dtype", _DEFAULT.dtype, "Of weights and values.")


def main(_):
  config = ModelConfig(
    **{name: flag.value for name, flag in _MODEL.items()},
    dtype=_DTYPE.value,
    param_dtype=_DTYPE.value,
  )
  model = Transformer(config, rngs=nnx.Rngs(0))
  engine_config = EngineConfig(
    prefix_buckets=(_PREFIX.value,),
    leaf_buckets=(_LEAVES.value, _LEAVES.value * _CANDIDATES.value),
    tail_buckets=(16, 256),
    max_step_tokens=_NEW.value,
  )
  rng = np.random.default_rng(0)
  prefixes = list(
    rng.integers(1, config.vocab_size, (_LEAVES.value, _PREFIX.value), np.int32)
  )
  shape = (_LEAVES.value, _CANDIDATES.value)
  engines = {
    name: Engine(model, engine_config, stop_ids=(), pad_id=0, reuse=False)
    for name in ("shared", "repeated")
  }
  clocks = {"second": time.perf_counter, "cpu_second": time.process_time}
  rates: dict[tuple[str, str], list[float]] = {
    (name, clock): [] for name in engines for clock in clocks
  }
  for repeat in range(_REPEATS.value + 1):
    seeds = rng.integers(0, 2**32, shape, np.uint32)
    for name, engine in engines.items():
      tokens = engine.generated_tokens
      start = {clock: read() for clock, read in clocks.items()}
      if name == "shared":
        engine.expand(prefixes, seeds)
      else:
        repeated = [ids for ids in prefixes for _ in range(shape[1])]
        engine.expand(repeated, seeds.reshape(-1, 1))
      for clock, read in clocks.items():
        seconds = read() - start[clock]
        logging.info("%s, call %d: %.3f %s", name, repeat, seconds, clock)
        if repeat:  # The first call compiles.
          rate = (engine.generated_tokens - tokens) / seconds
          rates[name, clock].append(rate)
  report = {
    "device": jax.devices()[0].device_kind,
    "leaves": _LEAVES.value,
    "candidates": _CANDIDATES.value,
    "prefix": _PREFIX.value,
    "new": _NEW.value,
  }
  for clock in clocks:
    pair = [statistics.median(rates[name, clock]) for name in engines]
    report[f"ratio_per_{clock}"] = round(pair[0] / pair[1], 2)
    for name in engines:
      each = rates[name, clock]
      report[f"{name}_tokens_per_{clock}"] = {
        "median": round(statistics.median(each), 1),
        "min": round(min(each), 1),
        "max": round(max(each), 1),
      }
  print(json.dumps(report))


if __name__ == "__main__":
  app.run(main)
