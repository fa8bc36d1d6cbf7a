"""Ways to train a reward model on runs' trees, judged by the oracle.

  make demo
  python -m benchmarks.rewards --workdir=runs/tiny --updates=540

A way is "ppm", "pqm" or "orm" (`reward` in the config), with "_across" for
`extract.pairs_across`, "_balanced" for `reward_balanced` or "_logit" for
`ppm_head="logit"`. Each model begins as the policy of the run's last round,
learns from the trees that this round's PPM learnt from, and makes as many
updates as every other. Several runs, --workdir=A,B, are of the same problems;
each trains every way by each of --seeds.

They value the solutions that the round's policy sampled in the evaluation: none
of them had a part in these, as a PPM has in the trees that it guides. What the
solutions of a problem share makes them a tree.

Prints a JSON line for each model, with the figures of
`evaluation/decisions.py`; "answers", how often a right answer has a higher
value than a wrong one; "best" and "best_min", how often the sample of highest
value at the last step, or of the highest least value, is right. Then one for
each way with the means, and "less FIRST", their difference to the first way's,
of equal runs, seeds and problems: [mean, low, high], 95% intervals of a
bootstrap that draws models and problems anew (one model: problems alone). At
the end the same as a table.

The same command goes on where it was ended: models and their figures are in
--folder, by run, way, updates and seed.
"""

import itertools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import app, flags
from flax import nnx

import rstar_jax as rj
from rstar_jax import rng
from rstar_jax.config import identity
from rstar_jax.data import pairs as pairs_lib
from rstar_jax.data import problems as problems_lib
from rstar_jax.data import sides
from rstar_jax.data.synthetic import oracle
from rstar_jax.evaluation import decisions, intervals, quality
from rstar_jax.hf import folders, saving
from rstar_jax.inference.ppm import Scorer
from rstar_jax.inference.scoring import ScoringEngine
from rstar_jax.models.transformer import ppm_from_policy
from rstar_jax.pipeline import extract, models, reading
from rstar_jax.pipeline import ppm as ppm_stage
from rstar_jax.pipeline.context import Context
from rstar_jax.search import sampled_tree
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import STEP, Child, Tree
from rstar_jax.storage import layout, records, store
from rstar_jax.storage.formatting import grid
from rstar_jax.training import loop
from rstar_jax.training import ppm as ppm_lib

_WORKDIR = flags.DEFINE_list(
  "workdir", ["runs/tiny"], "Folders of finished runs."
)
_FOLDER = flags.DEFINE_string(
  "folder", "runs/rewards", "Folder for the models."
)
_WAYS = flags.DEFINE_list(
  "ways",
  ["ppm", "ppm_across", "pqm", "pqm_balanced", "orm", "orm_balanced"],
  "Reward models to train.",
)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the trainings.")
_UPDATES = flags.DEFINE_integer("updates", 540, "Updates of each training.", 1)

# What is shown of a model, beside answers.
_RATES = ("ppm", "pairs", "across", "saturated")
_SHOWN = (*_RATES, "answers", "best", "best_min")
Figures = dict[str, dict[str, float]]


class Samples:
  """Sampled solutions of a problem as a tree.

  Attributes:
    tree: its nodes are the steps, each prefix once.
    ends: the node of each solution's answer.
    right: whether each solution's answer is; bool [n].
  """

  def __init__(self, problem: rj.Problem, rows: Sequence[dict[str, Any]]):
    """Makes the tree of solutions that have an answer.

    Args:
      problem: the problem.
      rows: solutions, as `evaluation/solutions.py` records them.
    """
    kept = [each for each in rows if each["answer"] is not None]
    paths = [tuple(each["steps"]) for each in kept]
    self.tree = Tree(problem)
    places = sampled_tree.add_paths(
      self.tree, [[Child(text, STEP) for text in path] for path in paths]
    )
    self.ends = [places[path] for path in paths]
    self.right = np.array([each["verdict"] == "equal" for each in kept], bool)

  def answers(self) -> float | None:
    """Returns how often a right answer is above a wrong one; ties are half."""
    ends, first = np.unique(self.ends, return_index=True)
    if not len(ends):
      return None
    return quality.auc(self.tree.ppm[ends], self.right[first])

  def best(self, how: tree_lib.TrajectoryValue) -> float:
    """Returns how often a solution of highest value is right."""
    if not self.ends:
      return 0.0
    values = [
      tree_lib.trajectory_value(
        self.tree.ppm[self.tree.path(end)[1:]].tolist(), how
      )
      for end in self.ends
    ]
    return decisions.picked(np.array(values), self.right) or 0.0


def samples_of(context: Context, round_: int) -> list[Samples]:
  """Returns what was sampled for the problems of a round's evaluation."""
  folder = context.finished(round_, "eval")
  rows = {
    row["problem_id"]: row["trajectories"]
    for path in sorted(folder.glob("*/shard-*"))
    for row in records.read_shard(path)
    if row["source"] == "samples"
  }
  return [
    Samples(problem, rows[problem.id])
    for _, problems in problems_lib.splits(context.config)
    for problem in problems
    if problem.id in rows
  ]


def figures(samples: Sequence[Samples]) -> Figures:
  """Returns each figure by problem; see above."""
  judged = [
    decisions.judge(each.tree, oracle.labels(each.tree)) for each in samples
  ]
  found = {name: decisions.by_problem(judged, name) for name in _RATES}
  of = {each.tree.problem.id: each for each in samples}
  answers = {id_: each.answers() for id_, each in of.items()}
  return found | {
    "answers": {k: v for k, v in answers.items() if v is not None},
    "best": {id_: each.best("last") for id_, each in of.items()},
    "best_min": {id_: each.best("min") for id_, each in of.items()},
  }


def line(models: Sequence[Figures]) -> dict[str, list[float]]:
  """Returns the means of all figures over models, with their intervals."""
  return _intervals(models, None)


def less(
  models: Sequence[Figures], others: Sequence[Figures]
) -> dict[str, list[float]]:
  """Returns the differences of models, each to the other in its place."""
  return _intervals(models, others)


def _intervals(
  models: Sequence[Figures], others: Sequence[Figures] | None
) -> dict[str, list[float]]:
  found = {}
  for name in models[0]:
    every = [each[name] for each in (*models, *(others or ()))]
    # A rate is known of problems that have something to decide.
    ids = [id_ for id_ in every[0] if all(id_ in each for each in every)]
    if not ids:
      continue
    values = np.array([[each[id_] for id_ in ids] for each in every])
    if others is not None:
      values = values[: len(models)] - values[len(models) :]
    interval = values.mean(), *intervals.crossed(values, 0)
    found[name] = [round(float(each), 3) for each in interval]
  return found


def table(lines: Sequence[dict[str, Any]]) -> list[str]:
  """Returns a Markdown table of the ways' lines, in percent."""

  def cells(found: Mapping[str, list[float]], form: str) -> list[str]:
    shown = (found.get(name) for name in _SHOWN)
    return [
      form.format(*(100 * x for x in each)) if each else "-" for each in shown
    ]

  rows = []
  for each in lines:
    label = f"{each['way']}, n={each['n']}, models={each['models']}"
    rows.append([label, *cells(each, "{:.0f} [{:.0f}, {:.0f}]")])
    for name in each:
      if name.startswith("less "):
        differences = cells(each[name], "{:+.0f} [{:+.0f}, {:+.0f}]")
        rows.append([name, *differences])
  return grid(["way", *_SHOWN], rows)


def config_of(config: rj.Config, way: str, updates: int) -> rj.Config:
  """Changes a config to train in a way; returns it.

  Raises:
    ValueError: there is no such way.
  """
  kind, *more = way.split("_")
  if set(more) - {"across", "balanced", "logit"}:
    raise ValueError(f"{way}: no such way")
  config.reward = kind
  config.extract.pairs_across = "across" in more
  config.reward_balanced = "balanced" in more
  config.ppm_head = "logit" if "logit" in more else "tanh"
  config.ppm.updates = updates
  return config


def train(
  context: Context,
  round_: int,
  trees: Sequence[Tree],
  seed: int,
  folder: pathlib.Path,
) -> int:
  """Trains and saves a reward model as the config says; returns its items.

  A training that was ended goes on from its last checkpoint.
  """
  config = context.config
  if config.reward == "ppm":
    items = pairs_lib.pairs(trees, config.extract)[0]
    encode = sides.encode_pairs
  else:
    items = ppm_stage.scored(trees, config.reward)
    encode = sides.encode_scored
  model = ppm_from_policy(
    models.load_policy(context, round_, train=config.ppm),
    config.ppm_head,
    rngs=nnx.Rngs(rng.seed_for(seed, "ppm head", round_)),
  )
  model = ppm_lib.train_sides(
    model,
    encode(context.tokenizer, items, config.ppm.length),
    config.ppm,
    loop.Session(
      config.reward,
      rng.seed_for(seed, "ppm", round_),
      folder=folder / layout.CHECKPOINTS,
      progress=False,
    ),
    held_out=sides.Encoded([]),
    kind=config.reward,
    balanced=config.reward_balanced,
  )
  saving.save_ppm(model, folder, tokenizer=context.tokenizer)
  return len(items)


def kept(
  file: pathlib.Path, make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
  """Returns what is in a file, which is made if it is not there."""
  if not file.exists():
    store.write(file, json.dumps(make()).encode())
  return json.loads(file.read_text())


def measured(root: pathlib.Path) -> dict[str, list[Figures]]:
  """Returns the figures of a run's models by way, one for each seed."""
  text = (root / layout.CONFIG).read_text()
  round_ = max(layout.rounds(each.name for each in root.iterdir()))
  of_ways: dict[str, list[Figures]] = {}
  with rj.open_run(identity.from_json(text), root, reads=True) as context:
    samples = samples_of(context, round_)
    trees = [
      tree
      for folder in extract.tree_folders(context, round_)
      for tree in reading.read_trees(folder)
    ]
    for way, seed in itertools.product(_WAYS.value, map(int, _SEEDS.value)):
      config = config_of(context.config, way, _UPDATES.value)
      name = f"{way}-{_UPDATES.value}-{seed}"
      folder = pathlib.Path(_FOLDER.value) / root.name / name

      def make(config=config, seed=seed, folder=folder) -> dict[str, Any]:
        items = train(context, round_, trees, seed, folder)
        engine = ScoringEngine(folders.load_ppm(folder), config.engine)
        score = Scorer(engine, context.tokenizer)
        decisions.revalue([each.tree for each in samples], score)
        return {"items": items, "figures": figures(samples)}

      found = kept(folder / "figures.json", make)
      of_ways.setdefault(way, []).append(found["figures"])
      said = {"run": root.name, "way": way, "seed": seed}
      said |= {"updates": _UPDATES.value, "items": found["items"]}
      row = {"line": "model"} | said | line([found["figures"]])
      print(json.dumps(row), flush=True)
  return of_ways


def main(_):
  runs = [measured(pathlib.Path(each)) for each in _WORKDIR.value]
  first, lines = _WAYS.value[0], []
  of_ways = {
    way: [each for run in runs for each in run[way]] for way in _WAYS.value
  }
  for way, found in of_ways.items():
    row = {"line": "way", "way": way, "models": len(found)}
    # Each sampled problem has a best answer, right or not.
    row |= {"n": len(found[0]["best"])} | line(found)
    if way != first:
      row[f"less {first}"] = less(found, of_ways[first])
    print(json.dumps(row), flush=True)
    lines.append(row)
  print("\n".join(table(lines)))


if __name__ == "__main__":
  app.run(main)
