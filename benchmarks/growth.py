"""How the time of an expansion grows: with trees, candidates and paths.

  python -m benchmarks.growth --plot=growth.svg

One size grows while the others stand: the number of trees, the candidates of
each, the tokens of a path, which is new to the engine or is held by it since
the call before, as in a search. The model is small and random, so that all of
it takes minutes; the engine is the real one. Each size is compiled, then
measured in rounds, all sizes of a kind in turn. Prints a JSON line for each
kind: the sizes, the median seconds of a call, and exponents, which are 0 where
growth costs nothing and 1 where twice as much takes twice as long. "fitted" is
the slope of the least-squares line through the larger half of the sizes, both
axes logarithmic: at the smaller ones a call's fixed cost would make it less.
"fitted_all" is through all of them; "exponents" are between neighbours. The
plot has the same lines.
"""

import math
import pathlib
import statistics
import time
from collections.abc import Sequence

import numpy as np
from absl import app, flags
from flax import nnx

from benchmarks import lines, meter, plot
from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.generated import Stop
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.transformer import Transformer

_REPEATS = flags.DEFINE_integer("repeats", 5, "Repetitions of each case.", 1)
_PLOT = flags.DEFINE_string("plot", None, "SVG file to write.")
_LOCK = flags.DEFINE_string(
  "lock", None, "File to lock while measuring, on a shared machine."
)
_DTYPE = flags.DEFINE_string(
  "dtype", "float32", "Dtype of weights and activations."
)

_MODEL = ModelConfig(
  vocab_size=2048,
  num_layers=4,
  embed_dim=256,
  num_heads=4,
  num_kv_heads=2,
  head_dim=64,
  mlp_dim=704,
  max_length=8192,
)
_NEW = 32
# Token slots, whatever there is to do: as many as a laptop's config has.
_ROWS = 64
# What stands while another grows: trees, candidates, tokens of a path.
_STANDING = {"trees": 4, "candidates": 8, "path": 256}
_GROWING = {
  "trees": (1, 2, 4, 8, 16, 32, 64, 128, 256),
  "candidates": (1, 2, 4, 8, 16, 32, 64),
  "path": (128, 256, 512, 1024, 2048, 4096),
  "held path": (128, 256, 512, 1024, 2048, 4096),
}
_HELD = "held path"


def seconds_of(
  model: Transformer, kind: str, sizes: tuple[int, ...]
) -> list[float]:
  """Returns the median seconds of a call for each size."""
  rng = np.random.default_rng(0)
  calls = []
  turns = meter.Turns(_LOCK.value)
  for size in sizes:
    shape = _STANDING | {kind.removeprefix("held "): size}
    config = EngineConfig(
      max_prefix_tokens=shape["path"],
      max_step_tokens=_NEW,
      max_block_tokens=_NEW,
      rows=_ROWS,
    )
    engine = Engine(model, config)
    calls.append((engine, shape, _paths(rng, shape)))
  found: list[list[float]] = [[] for _ in sizes]
  for repeat in range(_REPEATS.value + 2):
    for (engine, shape, held), into in zip(calls, found, strict=True):
      prefixes = held if kind == _HELD else _paths(rng, shape)
      seeds = rng.integers(
        0, 2**32, (shape["trees"], shape["candidates"]), np.uint32
      )
      with turns.mine():
        start = time.perf_counter()
        engine.expand(prefixes, seeds, Stop(_NEW))
        seconds = time.perf_counter() - start
      if repeat > 1:  # The first calls compile.
        into.append(seconds)
  turns.end()
  return [statistics.median(each) for each in found]


def _paths(rng: np.random.Generator, shape: dict[str, int]) -> list[np.ndarray]:
  size = shape["trees"], shape["path"]
  return list(rng.integers(1, _MODEL.vocab_size, size, np.int32))


def exponents(sizes: tuple[int, ...], seconds: list[float]) -> list[float]:
  """Returns the slope between neighbours, both axes logarithmic."""
  return [
    math.log(seconds[i + 1] / seconds[i]) / math.log(sizes[i + 1] / sizes[i])
    for i in range(len(sizes) - 1)
  ]


def fitted(sizes: Sequence[int], seconds: Sequence[float]) -> float:
  """Returns the slope of the least-squares line, both axes logarithmic."""
  return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def main(_):
  config = ModelConfig(
    **{**vars(_MODEL), "dtype": _DTYPE.value, "param_dtype": _DTYPE.value}
  )
  model = Transformer(config, rngs=nnx.Rngs(0))
  curves = {}
  for kind, sizes in _GROWING.items():
    seconds = seconds_of(model, kind, sizes)
    slopes = exponents(sizes, seconds)
    lines.show(
      "growth",
      of=kind,
      standing={k: v for k, v in _STANDING.items() if k not in kind},
      sizes=sizes,
      seconds=[round(each, 4) for each in seconds],
      exponents=[round(each, 2) for each in slopes],
      fitted=fitted(*(each[len(sizes) // 2 :] for each in (sizes, seconds))),
      fitted_all=fitted(sizes, seconds),
    )
    curves[kind] = list(zip(sizes, seconds, strict=True))
  if _PLOT.value:
    text = plot.svg(curves, x="trees, candidates, or tokens", y="seconds")
    pathlib.Path(_PLOT.value).write_text(text)


if __name__ == "__main__":
  app.run(main)
