"""Measures how well reward models find wrong steps, by public benchmarks.

  python -m rstar_jax.tools.judge_rewards --config=configs/tiny.py \
    --reward=ppm:runs/tiny/round_4/ppm --reward=Qwen/Qwen2.5-Math-PRM-7B \
    --processbench=hf:Qwen/ProcessBench \
    --prmbench=hf:hitsmy/PRMBench_Preview/train --trees=runs/tiny/round_4/trees

A reward model is named as in `config.study.rewards`, except the round's own.
--processbench is a folder with a file for each subset (gsm8k.jsonl, .json,
.parquet ...), or a name on the Hub; --prmbench is a file or a split; --trees is
the folder of a finished round's trees on generated problems, where an oracle
knows the right steps (`data/synthetic/oracle.py`). Prints a table for each, and
--output writes the figures as JSON, after each reward model.
"""

import gc
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import app, flags
from etils import epath

from rstar_jax import outside
from rstar_jax.config import flag, plugins
from rstar_jax.config.schema import Config
from rstar_jax.data.rows import ProblemError
from rstar_jax.data.sources import is_file, open_source
from rstar_jax.data.synthetic import oracle
from rstar_jax.evaluation import decisions, prmbench, processbench, step_errors
from rstar_jax.evaluation.step_errors import Marked
from rstar_jax.hf import folders, reward_heads
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.inference import reward
from rstar_jax.inference.ppm import Scorer
from rstar_jax.inference.scoring import ScoringEngine
from rstar_jax.pipeline import backends, hosts, models, reading
from rstar_jax.search.tree import Tree
from rstar_jax.storage.formatting import grid
from rstar_jax.types import Score


def score_of(name: str, config: Config) -> Score:
  """Loads a reward model; see `backends.score_of`.

  Args:
    name: see `backends.score_of`.
    config: its dtype, mesh and engine are used.
  """
  mesh = models.search_mesh(config)

  def ppm(folder: str) -> Scorer:
    dtype = jnp.dtype(config.policy.dtype)
    model = folders.load_ppm(folder, dtype, mesh=mesh)
    engine = ScoringEngine(model, config.engine, mesh=mesh)
    return Scorer(engine, load_tokenizer(folder))

  return backends.score_of(name, config, "--reward", ppm, mesh=mesh)


def check(name: str) -> None:
  """Checks the name of a reward model, without loading it.

  Raises:
    ValueError, OSError: there is no such model, or it cannot be used.
  """
  folder = name.removeprefix(backends.PPM)
  if plugins.names_one(name):
    plugins.load(name, "--reward")
  elif folder == name and reward.is_of_others(name):
    reward.described(name)
  elif reward_heads.HEAD not in folders.merged_fields(folder):
    raise ValueError(
      f"--reward={name} is no PPM: give the folder that a run wrote, or leave "
      f"out {backends.PPM} for another's reward model"
    )


def labelled(trees: Sequence[Tree]) -> list[tuple[Tree, np.ndarray]]:
  """Returns trees of generated problems with their labels, int8 [N] each.

  Raises:
    ValueError: a tree's problem is not one of the generator's.
  """
  return [(tree, oracle.labels(tree)) for tree in trees]


def subsets(source: str) -> dict[str, list[Marked]]:
  """Reads the subsets of ProcessBench in a folder or on the Hub."""
  names = list(processbench.SUBSETS)
  if source.startswith("hf:"):
    sources = {name: f"{source}/{name}" for name in names}
  else:
    sources = {
      name: str(path)
      for name in names
      for path in sorted(epath.Path(source).glob(f"{name}.*"))
      if is_file(path.name)
    }
  if names[0] not in sources:
    raise ProblemError(
      f"--processbench={source} has no {names[0]}.jsonl, on which the "
      "threshold is chosen"
    )
  return {
    name: processbench.read(open_source(each)[1], name)
    for name, each in sources.items()
  }


def on_processbench(
  score: Score, marked: Mapping[str, Sequence[Marked]]
) -> dict[str, Any]:
  """Measures a reward model on subsets; the first gives the threshold."""
  chances = {
    name: step_errors.chances(score, each) for name, each in marked.items()
  }
  first = processbench.SUBSETS[0]
  threshold = processbench.best_threshold(marked[first], chances[first])
  by_subset = {
    name: processbench.measure(each, chances[name], threshold)
    for name, each in marked.items()
  }
  mean = sum(each["f1"] for each in by_subset.values()) / len(by_subset)
  return {"threshold": threshold, "subsets": by_subset, "mean_f1": mean}


def on_trees(
  score: Score, trees: Sequence[tuple[Tree, np.ndarray]]
) -> dict[str, Any]:
  """Measures a reward model on searched trees; see `labelled`."""
  decisions.revalue([tree for tree, _ in trees], score)
  return decisions.rates([decisions.judge(*each) for each in trees])


def tables(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
  """Yields a table for each benchmark, with a row per reward model."""
  for title, columns in _COLUMNS.items():
    rows = {
      name: columns(each[title])
      for name, each in found.items()
      if title in each
    }
    if rows:
      head = [title, *next(iter(rows.values()))]
      cells = [[name, *row.values()] for name, row in rows.items()]
      yield "\n".join(grid(head, cells))


def _percent(value: float) -> str:
  return f"{100 * value:.1f}"


# The columns of each benchmark, in percent.
_COLUMNS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, str]]] = {
  "processbench": lambda found: {
    **{name: _percent(each["f1"]) for name, each in found["subsets"].items()},
    "mean": _percent(found["mean_f1"]),
    "threshold": f"{found['threshold']:.3g}",
  },
  "prmbench": lambda found: {
    **{name: _percent(each) for name, each in found["groups"].items()},
    "overall": _percent(found["overall"]["prm_score"]),
  },
  "trees": lambda found: {
    head: _percent(found[name][0]) if name in found else "-"
    for name, head in (
      ("ppm", "right sibling"),
      ("chance", "by chance"),
      ("pairs", "pairs"),
      ("across", "across"),
    )
  },
}


def judge(
  config: Config,
  rewards: Sequence[str],
  *,
  by_subset: Mapping[str, Sequence[Marked]] | None = None,
  by_kind: Sequence[Marked] = (),
  trees: Sequence[tuple[Tree, np.ndarray]] = (),
) -> Iterator[tuple[str, dict[str, Any]]]:
  """Measures reward models, one after another.

  Args:
    config: see `score_of`.
    rewards: their names.
    by_subset: solutions of ProcessBench.
    by_kind: solutions of PRMBench.
    trees: see `labelled`; their values are replaced.

  Yields:
    A reward model's name, and figures of "processbench", "prmbench", "trees".
  """
  for name in rewards:
    score = score_of(name, config)
    each = {}
    if by_subset:
      each["processbench"] = on_processbench(score, by_subset)
    if by_kind:
      chances = step_errors.chances(score, by_kind)
      each["prmbench"] = prmbench.measure(by_kind, chances)
    if trees:
      each["trees"] = on_trees(score, trees)
    # Frees its memory for the next one.
    del score
    gc.collect()
    yield name, each


def define_flags() -> None:
  """Defines the flags; not at import, since `main.py` has flags of its own."""
  flag.define_config()
  flags.DEFINE_multi_string(
    "reward", [], "Reward model; may be given several times."
  )
  flags.DEFINE_string(
    "processbench", "", "ProcessBench: a folder, or hf:OWNER/NAME."
  )
  flags.DEFINE_string(
    "prmbench", "", "PRMBench: a file, or hf:OWNER/NAME/SPLIT."
  )
  flags.DEFINE_string("trees", "", "Folder of trees, round_k/trees of a run.")
  flags.DEFINE_string("output", "", "JSON file for the figures.")


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise ValueError(f"{argv[1]!r} is no flag; --help lists them")
  given = flags.FLAGS
  bench, kinds, trees = given.processbench, given.prmbench, given.trees
  if given.config is None or not given.reward or not (bench or kinds or trees):
    raise ValueError(
      "give --config, --reward, and --processbench, --prmbench or --trees"
    )
  output = given.output
  if output and not (folder := pathlib.Path(output).absolute().parent).is_dir():
    raise ValueError(f"--output={output}: there is no folder {folder}")
  hosts.check_devices()
  for each in given.reward:
    check(each)
  figures: dict[str, dict[str, Any]] = {}
  for name, found in judge(
    given.config,
    given.reward,
    by_subset=subsets(bench) if bench else None,
    by_kind=prmbench.read(open_source(kinds)[1]) if kinds else (),
    trees=labelled(reading.read_trees(trees)) if trees else (),
  ):
    figures[name] = found
    for each in tables(figures):
      outside.say(f"{each}\n")
    if output:
      text = json.dumps(figures, indent=2)
      pathlib.Path(output).write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
  define_flags()
  with outside.program("rstar_jax.tools.judge_rewards"):
    app.run(main, flags_parser=flag.parse_flags)
