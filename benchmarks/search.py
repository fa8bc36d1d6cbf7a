"""A whole search on each engine: tokens prefilled and decoded, and seconds.

  python -m benchmarks.search --llama_python=PYTHON --vllm_python=PYTHON

W3: eight questions are searched with eight rollouts of eight candidates, six
steps deep. `benchmarks.trace` runs the project's MCTS to learn which leaves
each tree expands and how long their candidates are. Every engine then expands
the same leaves of all trees at once, by its own loop: a tree goes on the moment
that its expansion has ended, from the engine's own samples, and waits for no
other tree. So its prefix cache finds what a real search would find, and its
rows are refilled as a real search would refill them. No code is run and nothing
is scored; --think gives each tree a pause in their place.

Engines take turns, a search each; before, a short one compiles.
Ours has the rows of `configs/smollm2_135m.py` unless --rows says otherwise, and
else the defaults of `EngineConfig`.

Prints JSON lines: "trace", with what there would be to prefill if no prefix
were kept (once for each leaf, or once for each candidate); and of each engine
the tokens that it prefilled and decoded, and the median and range of its
seconds.
"""

import dataclasses
import itertools
import statistics

import numpy as np
from absl import app, flags

from benchmarks import lines, trace
from benchmarks.peers import crew as crew_lib
from benchmarks.peers import protocol
from benchmarks.peers.replay import Leaf
from configs import smollm2_135m

_DTYPE = flags.DEFINE_enum(
  "dtype", "bfloat16", ["float32", "bfloat16"], "Dtype of the model."
)
_PROBLEMS = flags.DEFINE_integer("problems", 8, "Number of trees.", 1)
_ROLLOUTS = flags.DEFINE_integer("rollouts", 8, "Rollouts per tree.", 1)
_CANDIDATES = flags.DEFINE_integer("candidates", 8, "Candidates per leaf.", 1)
_DEPTH = flags.DEFINE_integer("depth", 6, "Steps of a solution.", 2)
_PROMPT = flags.DEFINE_integer("prompt", 256, "Tokens of a question.", 1)
_SHORTEST = flags.DEFINE_integer("shortest", 20, "Fewest tokens of a step.", 1)
_LONGEST = flags.DEFINE_integer("longest", 60, "Most tokens of a step.", 1)
_THINK = flags.DEFINE_float(
  "think", 0.0, "Milliseconds between a tree's expansions.", 0
)
_ROWS = flags.DEFINE_integer(
  "rows", None, "Token slots of this package's engine.", 1
)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Searches of each engine.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the search and the prompts.")

_APART = "ours_without_reuse"


def replay(
  crew: crew_lib.Crew, trees: list[list[Leaf]], seed: int
) -> dict[str, protocol.Reply]:
  """Replays a trace on every engine, one after the other."""
  rng = np.random.default_rng((_SEED.value, seed))
  prompts = rng.integers(20, 49000, (_PROBLEMS.value, _PROMPT.value)).tolist()
  return {
    name: crew.measure_once(
      name,
      "search",
      prompts=prompts,
      trees=[[dataclasses.asdict(leaf) for leaf in tree] for tree in trees],
      seed=seed,
      think=_THINK.value / 1e3,
      **({"reuse": False} if name == _APART else {}),
    )
    for name in crew.workers
  }


def main(_):
  trees = trace.record(
    problems=_PROBLEMS.value,
    rollouts=_ROLLOUTS.value,
    candidates=_CANDIDATES.value,
    depth=_DEPTH.value,
    lengths=(_SHORTEST.value, _LONGEST.value),
    seed=_SEED.value,
  )
  sizes = [trace.prefix_sizes(each, _PROMPT.value) for each in trees]
  unshared = sum(map(sum, sizes))
  repeated = unshared * _CANDIDATES.value
  longest = max(map(max, sizes))
  leaves = list(itertools.chain(*trees))
  decoded = sum(leaf.limit for leaf in leaves) * _CANDIDATES.value
  lines.show(
    "trace",
    expansions=len(leaves),
    longest_tree=max(map(len, trees)),
    switches=trace.switches(trees),
    longest_prefix=longest,
    decoded=decoded,
    prefilled_once_a_leaf=unshared,
    prefilled_once_a_candidate=repeated,
  )
  names = ("llama", "vllm")
  rows = _ROWS.value or smollm2_135m.get_config().engine.rows
  done: dict[str, list[protocol.Reply]] = {}
  with crew_lib.start(_DTYPE.value, names, also=(_APART,), cache_gib=3) as crew:
    crew.ask_each(
      "prepare",
      leaves=_PROBLEMS.value,
      candidates=_CANDIDATES.value,
      prefix=longest,
      new=_LONGEST.value,
      temperature=1.0,
      rows=rows,
    )
    # Of other questions, for all that is compiled at first use.
    replay(crew, [tree[: _DEPTH.value] for tree in trees], 0)
    for number in range(1, _REPEATS.value + 1):
      for name, reply in replay(crew, trees, number).items():
        if reply.value["decoded"] != decoded:
          raise ValueError(f"{name} sampled {reply.value['decoded']} tokens")
        done.setdefault(name, []).append(reply)
  medians = {}
  for name, replies in done.items():
    seconds = [each.seconds for each in replies]
    medians[name] = statistics.median(seconds)
    prefilled = statistics.median(each.value["prefilled"] for each in replies)
    lines.show(
      "search",
      engine=name,
      dtype=_DTYPE.value,
      think=_THINK.value,
      rows=rows if name in (crew_lib.OURS, _APART) else None,
      seconds=medians[name],
      least=min(seconds),
      most=max(seconds),
      tokens_per_second=decoded / medians[name],
      prefilled=prefilled,
      decoded=decoded,
      prefix_free_per_prefilled=repeated / prefilled,
      unshared_per_prefilled=unshared / prefilled,
      cores=statistics.median(each.load.cores for each in replies),
      foreign=max(each.load.foreign for each in replies),
    )
  for name, seconds in medians.items():
    if name != crew_lib.OURS:
      lines.show("ratio", to=name, faster=seconds / medians[crew_lib.OURS])


if __name__ == "__main__":
  app.run(main)
