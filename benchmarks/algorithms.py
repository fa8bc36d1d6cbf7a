"""Ways to train a policy, at equal numbers of generated tokens.

  python -m benchmarks.algorithms --workdir=runs/algorithms

Runs `configs/tiny.py` by each algorithm with each seed:

  paper   self-evolution: solutions of a search, by the PPM in rounds 3 and 4
  expert  expert iteration: the same, but solutions are independent samples
  grpo    reinforcement on samples
  tree    reinforcement on trees, by `reinforce.advantage`

An algorithm has four rounds, of sizes that make about as many tokens in all.
After each of them the policy answers held-out problems: once at temperature 0,
and --samples times as the config samples.

Prints a JSON line for each point: tokens generated in training so far; the
processor seconds of all processes and wall seconds of training so far (the
policy's alone, and the PPM's where the next round's search needs it);
"pass@1", the mean over samples, "pass@k", and "greedy". At the end a line for
each algorithm and round has their means over seeds, with 95% bootstrap
intervals over problems, of which each one's results are averaged over seeds
first; and "less paper", the paired difference. Points that are there are not
made again.
"""

import json
import math
import pathlib
import resource
import time

import numpy as np
from absl import app, flags

import rstar_jax as rj
from benchmarks.peers import crew as crew_lib
from configs import tiny
from rstar_jax.evaluation import intervals
from rstar_jax.pipeline import backends, shards
from rstar_jax.pipeline.context import Context
from rstar_jax.search import sampling
from rstar_jax.storage import records

_WORKDIR = flags.DEFINE_string("workdir", "runs/algorithms", "Where to run.")
_ALGORITHMS = flags.DEFINE_list(
  "algorithms", ["paper", "expert", "grpo", "tree"], "Which."
)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Of the runs.")
_PROBLEMS = flags.DEFINE_integer("problems", 200, "Held-out problems.", 1)
_SAMPLES = flags.DEFINE_integer("samples", 8, "Of each of them.", 1)
_RATE = flags.DEFINE_float("rate", 3e-4, "Of reinforcement.", 0)
_ADVANTAGE = flags.DEFINE_string("advantage", "treerl", "Of tree.")


def config_of(algorithm: str, seed: int) -> rj.Config:
  """Returns the config of a run of four rounds."""
  config = tiny.get_config()
  config.seed = seed
  config.eval.data.count = _PROBLEMS.value
  reinforce = config.reinforce
  reinforce.problems, reinforce.advantage = 16, _ADVANTAGE.value
  reinforce.train = rj.TrainConfig(
    batch_size=8,
    length=512,
    learning_rate=_RATE.value,
    schedule="constant",
    weight_decay=0.0,
    checkpoint_every=50,
  )
  match algorithm:
    case "expert":
      counts = (6, 8, 7, 9)
      config.rounds = tuple(
        rj.RoundConfig(rollout="samples", rollouts=count) for count in counts
      )
    case "grpo":
      reinforce.iterations = 12
      one = rj.RoundConfig(rollout="samples", algorithm="grpo", rollouts=8)
      config.rounds = (one,) * 4
    case "tree":
      reinforce.iterations = 10
      one = rj.RoundConfig(algorithm="tree", rollouts=4, candidates=4)
      config.rounds = (one,) * 4
    case "paper":
      pass
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
  """Trains the policy of a round; returns what it cost."""
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
    trees = records.read_manifest(context.folder(round_, "trees"))
  # Its workers have ended.
  cpu, wall = (b - a for a, b in zip(before, spent(), strict=True))
  tokens = trees["generated_tokens"]
  return {"tokens": tokens, "cpu_seconds": cpu, "seconds": wall}


def measure(config: rj.Config, folder: pathlib.Path, round_: int) -> dict:
  """Returns how often a policy is right: greedily, and of its samples."""
  ((_, problems),) = shards.splits(config)

  def right(context: Context, greedy: bool, count: int) -> list[int]:
    backend = backends.ModelBackend(context, round_)
    found = sampling.sample(
      problems,
      count,
      backend.blocks(greedy=greedy),
      config.seed,
      name=("algorithms", round_),
    )
    return [sum(e.verdict == "equal" for e in each) for each in found]

  with rj.open_run(config, folder) as context:
    return {
      "greedy": right(context, True, 1),
      "right": right(context, False, _SAMPLES.value),
    }


def rates(point: dict) -> dict[str, np.ndarray]:
  """Returns each problem's rates, float64 [P] by name."""
  n = _SAMPLES.value
  right = np.array(point["right"])
  # Whether any of half of the samples is right, whichever half it is: the
  # unbiased estimate of arXiv 2107.03374.
  k = max(n // 2, 1)
  missed = [math.comb(n - int(c), k) / math.comb(n, k) for c in right]
  return {
    "pass@1": right / n,
    f"pass@{k}": 1 - np.array(missed),
    "greedy": np.array(point["greedy"], float),
  }


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
          found = cost | measure(config, folder, round_)
          path.write_text(json.dumps(found))
        found = json.loads(path.read_text())
        total = {
          key: total[key] + (found[key] if round_ else 0) for key in total
        }
        point = found | total
        points.setdefault((algorithm, round_), []).append(point)
        means = {key: float(np.mean(v)) for key, v in rates(point).items()}
        crew_lib.show(
          "point",
          algorithm=algorithm,
          seed=seed,
          round=round_,
          **total,
          **means,
        )
  for (algorithm, round_), found in points.items():
    costs = {
      key: float(np.mean([each[key] for each in found]))
      for key in ("tokens", "cpu_seconds", "seconds")
    }
    line = {}
    for name in rates(found[0]):
      mean = np.mean([rates(each)[name] for each in found], axis=0)
      line[name] = [float(mean.mean()), *intervals.bootstrap(mean, 0)]
      base = points.get(("paper", round_))
      if base and algorithm != "paper":
        other = np.mean([rates(each)[name] for each in base], axis=0)
        apart = mean - other
        line[f"{name} less paper"] = [
          float(apart.mean()),
          *intervals.bootstrap(apart, 0),
        ]
    crew_lib.show(
      "mean",
      algorithm=algorithm,
      round=round_,
      seeds=len(found),
      **costs,
      **line,
    )


if __name__ == "__main__":
  app.run(main)
