"""Ways to train a policy, at equal numbers of generated tokens.

  python -m benchmarks.algorithms --workdir=runs/algorithms

Runs a config by each algorithm with each seed:

  paper   its rounds, which are self-evolution: solutions of a search
  expert  expert iteration: the same, but solutions are independent samples
  grpo    reinforcement on samples
  tree    reinforcement on trees, by `reinforce.advantage`

An algorithm has as many rounds as the config; --expert, --grpo and --tree give
them sizes, and have to be such that all make about as many tokens. After each
round the policy answers held-out problems of each set of the config: once at
temperature 0, and --samples times as the config samples.

Prints a JSON line for each point and set: tokens generated in training so far;
the processor seconds of all processes and wall seconds of training so far (the
policy's alone, and the PPM's where the next round's search needs it);
"pass@1", the mean over samples, "pass@k", and "greedy". At the end a line for
each algorithm, round and set has their means over seeds, with 95% bootstrap
intervals over problems, of which each one's results are averaged over seeds
first; and "less paper", the paired difference. Points that are there are not
made again. A round that was interrupted while it trained has to be removed,
since nobody knows what it has cost.

The defaults are for configs/tiny.py.
"""

import json
import math
import pathlib
import resource
import time

import numpy as np
from absl import app, flags

import rstar_jax as rj
from benchmarks import lines
from rstar_jax.data import problems as problems_lib
from rstar_jax.evaluation import intervals
from rstar_jax.pipeline import backends
from rstar_jax.search import sampling
from rstar_jax.storage import json_io, layout, manifests

_CONFIG = flags.DEFINE_string(
  "config", "configs/tiny.py", "Config file of the runs."
)
_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/algorithms", "Folder for the runs."
)
_ALGORITHMS = flags.DEFINE_list(
  "algorithms", ["paper", "expert", "grpo", "tree"], "Algorithms to compare."
)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the runs.")
_EXPERT = flags.DEFINE_list(
  "expert",
  ["6", "8", "7", "9"],
  "Samples per problem in expert rounds.",
)
_GRPO = flags.DEFINE_list(
  "grpo", ["12", "8"], "Turns of a grpo round, and samples per problem."
)
_TREE = flags.DEFINE_list(
  "tree", ["10", "4", "4"], "Turns of a tree round, rollouts, candidates."
)
_TURN = flags.DEFINE_integer("turn", 16, "Problems per turn.", 1)
_PROBLEMS = flags.DEFINE_integer(
  "problems", 200, "Held-out problems per set.", 1
)
_SAMPLES = flags.DEFINE_integer(
  "samples", 8, "Samples per held-out problem.", 1
)
_RATE = flags.DEFINE_float("rate", 3e-4, "Learning rate of reinforcement.", 0)
_ADVANTAGE = flags.DEFINE_string(
  "advantage", "treerl", "Advantage of tree rounds."
)


def config_of(algorithm: str, seed: int) -> rj.Config:
  """Returns the config of a run by an algorithm."""
  config = rj.load_config(_CONFIG.value)
  config.seed = seed
  for each in config.eval.sets:
    each.count = _PROBLEMS.value
  rounds = len(config.rounds)
  reinforce = config.reinforce
  reinforce.problems, reinforce.advantage = _TURN.value, _ADVANTAGE.value
  reinforce.train = rj.TrainConfig(
    batch_size=8,
    length=512,
    learning_rate=_RATE.value,
    schedule="constant",
    weight_decay=0.0,
    checkpoint_every=50,
  )
  match algorithm:
    case "paper":
      pass
    case "expert":
      counts = [int(each) for each in _EXPERT.value]
      if len(counts) != rounds:
        raise ValueError(
          f"--expert={','.join(_EXPERT.value)}: {_CONFIG.value} has {rounds} "
          "rounds"
        )
      config.rounds = tuple(
        rj.RoundConfig(rollout="samples", rollouts=count) for count in counts
      )
    case "grpo":
      reinforce.iterations, group = map(int, _GRPO.value)
      one = rj.RoundConfig(rollout="samples", algorithm="grpo", rollouts=group)
      config.rounds = (one,) * rounds
    case "tree":
      reinforce.iterations, rollouts, candidates = map(int, _TREE.value)
      one = rj.RoundConfig(
        algorithm="tree", rollouts=rollouts, candidates=candidates
      )
      config.rounds = (one,) * rounds
    case other:
      raise ValueError(f"--algorithms={other}: no such algorithm")
  return config


def spent() -> tuple[float, float]:
  """Returns processor seconds, those of ended children too, and the time."""
  used = [
    resource.getrusage(who)
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  ]
  seconds = sum(each.ru_utime + each.ru_stime for each in used)
  return seconds, time.monotonic()


def train(config: rj.Config, folder: pathlib.Path, round_: int) -> dict:
  """Trains the policy of a round; returns what it cost.

  Raises:
    ValueError: another process trained a part of the round.
  """
  path = folder / f"cost-{round_}.json"
  if path.exists():
    return json.loads(path.read_text())
  begun = folder / layout.round_name(round_)
  if begun.exists():
    raise ValueError(
      f"{begun} was interrupted while it was trained, so its seconds are not "
      "known; remove it and run the same command again"
    )
  before = spent()
  with rj.open_run(config, folder) as context:
    stages = ["rollout"]
    if config.rounds[round_ - 1].algorithm == "sft":
      stages += ["extract", "sft"]
    after = config.rounds[round_ : round_ + 1]
    if after and after[0].annotation == "ppm":
      stages.append("ppm")
    for name in stages:
      rj.STAGES[name](context, round_)
    trees = manifests.read(context.folder(round_, "trees"))
  # Its workers have ended.
  cpu, wall = (b - a for a, b in zip(before, spent(), strict=True))
  tokens = trees["generated_tokens"]
  cost = {"tokens": tokens, "cpu_seconds": cpu, "seconds": wall}
  json_io.write(path, cost)
  return cost


def measure(config: rj.Config, folder: pathlib.Path, round_: int) -> dict:
  """Returns how often a policy is right, greedily and sampling, by set."""
  found: dict[str, dict[str, list[int]]] = {}
  with rj.open_run(config, folder) as context:
    backend = backends.ModelBackend(context, round_)
    kinds = (("greedy", 0.0, 1), ("right", None, _SAMPLES.value))
    for split, problems in problems_lib.splits(config):
      for name, temperature, count in kinds:
        solved = sampling.sample(
          problems,
          count,
          backend.blocks(temperature),
          config.seed,
          name=("algorithms", round_),
        )
        found.setdefault(split, {})[name] = [
          sum(one.verdict == "equal" for one in each) for each in solved
        ]
  return found


def rates(found: dict[str, list[int]]) -> dict[str, np.ndarray]:
  """Returns each problem's rates, float64 [P] by name."""
  n = _SAMPLES.value
  right = np.array(found["right"])
  # Whether any of half of the samples is right, whichever half it is: the
  # unbiased estimate of arXiv 2107.03374.
  k = max(n // 2, 1)
  missed = [math.comb(n - int(c), k) / math.comb(n, k) for c in right]
  return {
    "pass@1": right / n,
    f"pass@{k}": 1 - np.array(missed),
    "greedy": np.array(found["greedy"], float),
  }


def compare(points: dict[tuple[str, int], list[dict]]) -> None:
  """Prints what each algorithm comes to over seeds, and less the paper's.

  Args:
    points: of each seed, by algorithm and round.
  """
  for (algorithm, round_), found in points.items():
    costs = {
      key: float(np.mean([each["cost"][key] for each in found]))
      for key in found[0]["cost"]
    }
    base = points.get(("paper", round_))
    for split in found[0]["sets"]:
      line: dict[str, list[float]] = {}
      for name in rates(found[0]["sets"][split]):
        mean = _mean(found, split, name)
        line[name] = [float(mean.mean()), *intervals.bootstrap(mean, 0)]
        if base and algorithm != "paper":
          apart = mean - _mean(base, split, name)
          line[f"{name} less paper"] = [
            float(apart.mean()),
            *intervals.bootstrap(apart, 0),
          ]
      lines.show(
        "algorithm",
        algorithm=algorithm,
        set=split,
        round=round_,
        seeds=len(found),
        **costs,
        **line,
      )


def _mean(points: list[dict], split: str, name: str) -> np.ndarray:
  """Returns the rate of each problem of a set, as a mean over seeds."""
  each_seed = [rates(each["sets"][split])[name] for each in points]
  return np.mean(each_seed, axis=0)


def main(_):
  points: dict[tuple[str, int], list[dict]] = {}
  for seed in map(int, _SEEDS.value):
    for algorithm in _ALGORITHMS.value:
      config = config_of(algorithm, seed)
      folder = pathlib.Path(_WORKDIR.value) / f"{algorithm}-{seed}"
      total = {"tokens": 0, "cpu_seconds": 0.0, "seconds": 0.0}
      for round_ in range(len(config.rounds) + 1):
        path = folder / f"point-{round_}.json"
        if not path.exists():
          cost = train(config, folder, round_) if round_ else total
          found = {"cost": cost, "sets": measure(config, folder, round_)}
          json_io.write(path, found)
        found = json.loads(path.read_text())
        total = {
          key: total[key] + (found["cost"][key] if round_ else 0)
          for key in total
        }
        point = {"cost": total, "sets": found["sets"]}
        points.setdefault((algorithm, round_), []).append(point)
        for split, counts in found["sets"].items():
          means = {k: float(np.mean(v)) for k, v in rates(counts).items()}
          lines.show(
            "point",
            algorithm=algorithm,
            seed=seed,
            round=round_,
            set=split,
            **total,
            **means,
          )
  compare(points)


if __name__ == "__main__":
  app.run(main)
