"""A whole search on each engine: tokens prefilled and decoded, and seconds.

  python -m benchmarks.search --llama_python=PYTHON --vllm_python=PYTHON

Eight questions are searched with eight rollouts of eight candidates, six steps
deep. `benchmarks.trace` runs the project's MCTS to learn which leaf of which
tree is expanded at each tick and how long its candidates are; every engine then
expands the same leaves, each going on from its own samples, so that its prefix
cache finds what a real search would find. Engines take turns, tick by tick. No
code is run: how long the device waits for that is what `benchmarks.rollout`
measures.

Prints JSON lines: "trace", with what there would be to prefill if no prefix
were kept (once for each leaf, or once for each candidate); and of each engine
the tokens that it prefilled and decoded, and its seconds.
"""

import numpy as np
from absl import app, flags

from benchmarks import trace
from benchmarks.peers import crew as crew_lib

_DTYPE = flags.DEFINE_enum(
  "dtype", "bfloat16", ["float32", "bfloat16"], "Precision."
)
_PROBLEMS = flags.DEFINE_integer("problems", 8, "Trees.", 1)
_ROLLOUTS = flags.DEFINE_integer("rollouts", 8, "Of each tree.", 1)
_CANDIDATES = flags.DEFINE_integer("candidates", 8, "Of each leaf.", 1)
_DEPTH = flags.DEFINE_integer("depth", 6, "Steps of a solution.", 2)
_PROMPT = flags.DEFINE_integer("prompt", 256, "Tokens of a question.", 1)
_SHORTEST = flags.DEFINE_integer("shortest", 20, "Tokens of a step.", 1)
_LONGEST = flags.DEFINE_integer("longest", 60, "Tokens of a step.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the search and of the prompts.")

_APART = "ours_without_reuse"


def record(seed: int, rollouts: int) -> list[list[trace.Leaf]]:
  return trace.record(
    problems=_PROBLEMS.value,
    rollouts=rollouts,
    candidates=_CANDIDATES.value,
    depth=_DEPTH.value,
    lengths=(_SHORTEST.value, _LONGEST.value),
    seed=seed,
  )


def replay(
  crew: crew_lib.Crew, ticks: list[list[trace.Leaf]], seed: int
) -> dict[str, dict[str, float]]:
  """Replays a trace on every engine; returns what each did."""
  rng = np.random.default_rng((_SEED.value, seed))
  prompts = rng.integers(20, 49000, (_PROBLEMS.value, _PROMPT.value)).tolist()
  states = {name: trace.Replay(prompts) for name in crew.workers}
  sums = {
    name: {"seconds": 0.0, "prefilled": 0, "foreign_seconds": 0.0}
    for name in crew.workers
  }
  for number, tick in enumerate(ticks):
    for name, state in states.items():
      reply = crew.measure_once(
        name,
        "expand",
        prefixes=state.prefixes(tick),
        limits=[leaf.limit for leaf in tick],
        seed=number,
        trees=[leaf.tree for leaf in tick],
      )
      state.add(tick, reply.value["tokens"])
      sums[name]["seconds"] += reply.seconds
      sums[name]["prefilled"] += reply.value["prefilled"]
      sums[name]["foreign_seconds"] += reply.load.foreign * reply.load.seconds
  for name, state in states.items():
    sums[name] |= {
      "decoded": state.decoded,
      "tokens_per_second": state.decoded / sums[name]["seconds"],
      "prefix_free_per_prefilled": state.repeated / sums[name]["prefilled"],
      "unshared_per_prefilled": state.unshared / sums[name]["prefilled"],
    }
  return sums


def main(_):
  ticks = record(_SEED.value, _ROLLOUTS.value)
  counts = trace.Replay([[0] * _PROMPT.value] * _PROBLEMS.value)
  for tick in ticks:
    counts.add(tick, [[[0] * leaf.limit] * _CANDIDATES.value for leaf in tick])
  longest = trace.longest(ticks, _PROMPT.value)
  crew_lib.show(
    "trace",
    ticks=len(ticks),
    expansions=sum(map(len, ticks)),
    switches=trace.switches(ticks),
    longest_prefix=longest,
    decoded=counts.decoded,
    prefilled_once_a_leaf=counts.unshared,
    prefilled_once_a_candidate=counts.repeated,
  )
  names = ("llama", "vllm")
  with crew_lib.start(_DTYPE.value, names, also=(_APART,), cache_gib=3) as crew:
    for name, worker in crew.workers.items():
      worker.ask(
        "prepare",
        leaves=_PROBLEMS.value,
        candidates=_CANDIDATES.value,
        prefix=longest,
        new=_LONGEST.value,
        temperature=1.0,
        reuse=name != _APART,
      )
    # Another search, of one rollout, for all that is compiled at first use.
    replay(crew, record(_SEED.value + 1, 1), 1)
    done = replay(crew, ticks, 0)
  for name, row in done.items():
    crew_lib.show("search", engine=name, dtype=_DTYPE.value, **row)
  ours = done[crew_lib.OURS]["seconds"]
  for name, row in done.items():
    if name != crew_lib.OURS:
      crew_lib.show("ratio", to=name, faster=row["seconds"] / ours)


if __name__ == "__main__":
  app.run(main)
