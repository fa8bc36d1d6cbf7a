"""Tokens per second of training: our updates, and torch's on the same batches.

  make smollm2
  python -m benchmarks.training --torch_python=PYTHON

One update is the gradient, clipping and AdamW: of SFT on packed rows of two
solutions each, and of the PPM on preference pairs that share most of their
tokens. Both have SmolLM2-135M, float32 masters and the same batches; bfloat16
is autocast in torch. `transformers` runs both sides of a pair whole; ours runs
what they share once. Updates take turns.

Prints JSON lines: losses of the first updates, which must be about equal, and
the median tokens per second, a pair counting with the tokens of both sides.
"""

import statistics

import numpy as np
from absl import app, flags

from benchmarks import lines
from benchmarks.peers import crew as crew_lib
from rstar_jax.data import batches
from rstar_jax.hf import folders

_DTYPES = flags.DEFINE_list(
  "dtypes", ["float32", "bfloat16"], "Dtypes to measure."
)
_KINDS = flags.DEFINE_list("kinds", ["sft", "ppm"], "Trainings to measure.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Measured updates of each.", 1)
_ROWS = flags.DEFINE_integer("rows", 2, "Packed rows per update.", 1)
_LENGTH = flags.DEFINE_integer("length", 512, "Tokens of a packed row.", 8)
_PAIRS = flags.DEFINE_integer("pairs", 2, "Pairs per update.", 1)
_SHARED = flags.DEFINE_integer(
  "shared", 256, "Tokens that the sides of a pair share.", 1
)
_OWN = flags.DEFINE_integer("own", 64, "Tokens of a side's last step.", 1)
_BLOCK = flags.DEFINE_integer(
  "attention_block",
  128,
  "Also measure with this `TrainConfig.attention_block`; 0 does not.",
)
_RATE = 1e-5
# That engine's name.
_BLOCKS = "blocks"


def batch_of(kind: str, number: int) -> tuple[dict, int]:
  """Returns the arguments of an update, and how many tokens it trains on."""
  rng = np.random.default_rng(number)
  draw = lambda size: rng.integers(20, 49000, size, np.int32)  # noqa: E731
  if kind == "ppm":
    pairs = []
    for _ in range(_PAIRS.value):
      shared = draw(_SHARED.value)
      sides = [[*shared, *draw(_OWN.value)] for _ in range(2)]
      pairs.append([[int(i) for i in side] for side in sides])
    tokens = 2 * _PAIRS.value * (_SHARED.value + _OWN.value)
    return {"pairs": pairs}, tokens
  first = 3 * _LENGTH.value // 7
  rows = [
    [(draw(size), np.ones(size, np.int32))]
    for _ in range(_ROWS.value)
    for size in (first, _LENGTH.value - first)
  ]
  packed = batches.pack(rows, _LENGTH.value)
  arrays = {name: each.tolist() for name, each in packed.arrays.items()}
  return arrays, _ROWS.value * _LENGTH.value


def run(crew: crew_lib.Crew, kind: str, dtype: str, width: int) -> None:
  """Measures one kind of update in both libraries, in turn."""
  score = np.random.default_rng(0).normal(0, 0.02, width)
  for name in crew.workers:
    block = {"attention_block": _BLOCK.value} if name == _BLOCKS else {}
    crew.measure_once(
      name, "prepare", kind=kind, score=score.tolist(), rate=_RATE, **block
    )
  rates: dict[str, list[float]] = {name: [] for name in crew.workers}
  losses: dict[str, list[float]] = {name: [] for name in crew.workers}
  # The first call compiles.
  for number in range(_REPEATS.value + 1):
    batch, tokens = batch_of(kind, number)
    for name in crew.workers:
      reply = crew.measure_once(name, kind, **batch)
      losses[name].append(reply.value)
      if number:
        rates[name].append(tokens / reply.seconds)
  medians = {name: statistics.median(each) for name, each in rates.items()}
  lines.show(
    "losses",
    of=kind,
    dtype=dtype,
    **{name: [round(x, 5) for x in each[:3]] for name, each in losses.items()},
  )
  for name, rate in medians.items():
    lines.show(
      "training",
      of=kind,
      dtype=dtype,
      engine=name,
      tokens_per_second=rate,
      least=min(rates[name]),
      most=max(rates[name]),
      ratio=medians[crew_lib.OURS] / rate,
    )


def main(_):
  also = (_BLOCKS,) if _BLOCK.value else ()
  for dtype in _DTYPES.value:
    with crew_lib.start(dtype, ("torch",), also, what="training") as crew:
      config, _ = folders.read_config(crew.folder)
      for kind in _KINDS.value:
        run(crew, kind, dtype, config.embed_dim)


if __name__ == "__main__":
  app.run(main)
