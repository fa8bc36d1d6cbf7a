"""Tokens that a training computes: rows apart, and as prefix trees.

  python -m benchmarks.prefixes            # trees of the paper's shape, made up

  make demo
  python -m benchmarks.prefixes --workdir=runs/tiny       # those of a run

For each training (of each round of a run): "separate", the tokens of all rows,
sides, or steps with what comes before them, one by one; "paths", of those alone
that none of a question goes on from, as if the others were read within them;
"trees", of the prefix trees that are trained on; and "slots", these with
padding. No epoch counts twice.
Attention in a packed row is to all of its slots, so that time is saved by less
where rows are long.

What is made up are the texts; the trees are those of the search itself, 16
rollouts of 8 candidates to a depth of 16, without a PPM ("terminal") and with
one. A prompt has 120 tokens, and a step as many as are drawn from 60 to 120.
From the third step on, each is the last one before the answer at a share of
0.15. A step is wrong at a share of 0.25, and then the answer is; what the PPM
says is half noise. No code fails; of a path all answers are equal, and no two
steps are.
"""

import pathlib
import random
from collections.abc import Iterable, Sequence

import numpy as np
from absl import app, flags

from benchmarks import lines
from rstar_jax import testing
from rstar_jax.config import identity
from rstar_jax.config.schema import Config, SearchConfig, TrainConfig
from rstar_jax.data import (
  advantages,
  batches,
  experience,
  prefix_trees,
  sides,
)
from rstar_jax.data import pairs as pairs_lib
from rstar_jax.data import trajectories as trajectories_lib
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.pipeline.reading import read_pairs, read_rows
from rstar_jax.search import mcts
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.requests import Calls
from rstar_jax.search.tree import Tree
from rstar_jax.steps import grammar
from rstar_jax.steps import tokenizer as tokenizer_lib
from rstar_jax.training import ppm
from rstar_jax.types import Candidate, ExecResult, Prefix, Problem

_WORKDIR = flags.DEFINE_string(
  "workdir", "", "Folder of a run; default generated trees."
)
_PROBLEMS = flags.DEFINE_integer("problems", 64, "Number of generated trees.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the generated trees.")

SEARCHES = {
  kind: SearchConfig(rollouts=16, candidates=8, annotation=kind)
  for kind in ("terminal", "ppm")
}
# A byte is a token, and so is a marker.
TOKENIZER = testing.ByteTokenizer()
_PROMPT, _STEP = 120, (60, 120)
_LAST, _WRONG = 0.15, 0.25
_SLIP = "# wrong"
_CLOSING = {finish: marker for marker, finish in grammar.FINISHES.items()}


def made_up(count: int, config: SearchConfig, seed: int = 0) -> list[Tree]:
  """Returns the trees of `count` problems, with what was drawn."""
  size = _PROMPT - len(TOKENIZER.encode(TOKENIZER.prompt("")))
  problems = [
    Problem(f"p{n}", str(n).ljust(size, "?"), "1") for n in range(count)
  ]

  def expand(questions, prefixes, seeds):
    return [
      [_written(prefix, int(each), config.max_depth) for each in row]
      for prefix, row in zip(prefixes, seeds, strict=True)
    ]

  def verify(programs):
    return [ExecResult("ok", "1\n") for _ in programs]

  def score(questions, prefixes, rows):
    noise = testing.score_by_hash(questions, prefixes, rows)
    right = [
      [1.0 - 2 * _slipped((*prefix, step)) for step in row]
      for prefix, row in zip(prefixes, rows, strict=True)
    ]
    return [
      np.float32(each + values) / 2
      for each, values in zip(right, noise, strict=True)
    ]

  return mcts.search(
    problems,
    config,
    Calls(expand, verify, testing.grade_equal, score),
    seed,
    trees=[Tree(problem, keeps_draws=True) for problem in problems],
  )


def _slipped(steps: Prefix) -> bool:
  return any(_SLIP in step for step in steps)


def _written(prefix: Prefix, seed: int, depth: int) -> Candidate:
  """Returns the step that a seed draws after others."""
  answers = bool(prefix) and grammar.END_OF_CODE in prefix[-1]
  drawn = random.Random(prefix[-1] if answers else seed)
  wrong = drawn.random() < _WRONG
  last = len(prefix) >= 2 and drawn.random() < _LAST
  if answers:
    finish = "answer"
    value = int(not _slipped(prefix))
    start, end = grammar.ANSWER, f" \\boxed{{{value}}}{grammar.END_OF_ANSWER}"
  else:
    # An answer follows the last one.
    finish = "code" if last or len(prefix) >= depth - 2 else "step"
    start = ("" if prefix else grammar.CODE) + (_SLIP if wrong else "#")
    end = "\nx = 1\n" + _CLOSING[finish]
  size = drawn.randint(*_STEP) - len(TOKENIZER.encode(start + end))
  filled = "".join(drawn.choices("abcdefgh", k=size))
  ids = tuple(TOKENIZER.encode(start + filled + end))
  return Candidate(
    start + filled + end, ids, -float(len(ids)), finish, (-1.0,) * len(ids)
  )


def show_sft(
  name: str,
  tokenizer: tokenizer_lib.Tokenizer,
  solutions: Sequence[tuple[str, Prefix]],
  config: TrainConfig,
) -> None:
  rows = [batches.encode_row(tokenizer, *each) for each in solutions]
  groups = batches.by_question(question for question, _ in solutions)
  packed = batches.pack(_grouped(groups, rows), config.length)
  show(name, _grouped(groups, [ids for ids, _ in rows]), [packed.arrays])


def show_sides(name: str, encoded: sides.Encoded, config: TrainConfig) -> None:
  batch_at, count = sides.make_batches(
    encoded, config.batch_size, 1, 0, length=config.length
  )
  groups = [
    [ids for item in group.ids for ids in item] for group in encoded.groups
  ]
  show(name, groups, [batch_at(k) for k in range(count)])


def _grouped(groups: Iterable[Sequence[int]], items: Sequence) -> list[list]:
  return [[items[number] for number in group] for group in groups]


def show_draws(name: str, trees: Sequence[Tree], config: Config) -> None:
  """Prints the line of reinforcement on trees."""
  settings = config.reinforce
  groups: list[list[np.ndarray]] = []
  for tree in trees:
    worth = advantages.of_tree(tree, settings.advantage)
    # What is left out in training is left out here too.
    known = ~np.isnan(worth) & worth.any()
    prompt, rows = TOKENIZER.prompt(tree.problem.question), []
    for draw, counts in zip(tree.draws or (), known, strict=True):
      if counts:
        before = tokenizer_lib.encode_solution(
          TOKENIZER, prompt, tree.prefix(draw.parent)
        )
        rows.append(np.array([*before, *draw.token_ids], np.int32))
    groups.append(rows)
  arrays, _ = experience.batch(
    trees,
    TOKENIZER,
    settings.advantage,
    normalize=settings.normalize,
    length=settings.train.length,
  )
  show(name, groups, [arrays])


def show(
  name: str,
  groups: Iterable[Sequence[np.ndarray]],
  found: Sequence[batches.Batch],
) -> None:
  """Prints a line of a training.

  Args:
    name: of the training.
    groups: the ids of its rows, by question.
    found: the batches that are made of them.
  """
  separate = paths = 0
  for rows in groups:
    tree = prefix_trees.join(rows)
    separate += sum(map(len, rows))
    last = {int(places[-1]) for places in tree.places}
    ends = [each for each in last if tree.ends[each] == each + 1]
    paths += int(np.sum(tree.positions[ends] + 1))
  trees = sum(map(tokens_of, found))
  slots = sum(each["ends"].size for each in found)
  lines.show(
    "training",
    of=name,
    separate=separate,
    paths=paths,
    trees=trees,
    slots=slots,
    saved=round(separate / trees, 2),
    of_paths=round(paths / trees, 2),
    programs=len({each["tokens"].shape for each in found}),
  )


def tokens_of(arrays: batches.Batch) -> int:
  return int((arrays["ends"] > 0).sum())


def show_run(root: pathlib.Path) -> None:
  """Prints the lines of each round of a run."""
  config = identity.from_json((root / "config.json").read_text())
  for folder in sorted(root.glob("round_*")):
    if not (folder / "policy").exists():
      continue
    tokenizer = load_tokenizer(folder / "policy")
    solutions = [
      (each["question"], each["steps"]) for each in read_rows(folder / "sft")
    ]
    show_sft(f"{folder.name}/sft", tokenizer, solutions, config.sft)
    encoded = sides.encode_pairs(
      tokenizer, read_pairs(folder / "pairs"), config.ppm.length
    )
    show_sides(f"{folder.name}/ppm", encoded, config.ppm)


def show_made_up(kind: str, count: int, seed: int) -> None:
  """Prints the shape of trees that are made up, and the lines of trainings."""
  config, trees = Config(), made_up(count, SEARCHES[kind], seed)
  groups = [trajectories_lib.graded([tree]) for tree in trees]
  ended = [each for right, wrong, _ in groups for each in (*right, *wrong)]
  lines.show(
    "trees",
    annotation=kind,
    trees=count,
    solved=round(sum(map(tree_lib.solved, trees)) / count, 2),
    nodes=round(sum(map(len, trees)) / count),
    answers=round(len(ended) / count, 1),
    right=round(float(np.mean([each.correct for each in ended])), 2),
    steps=round(float(np.mean([len(each.steps) for each in ended])), 1),
    deepest=max(len(each.steps) for each in ended),
    sampled_tokens=round(sum(tree.tokens for tree in trees) / count),
  )
  rows, _ = trajectories_lib.sft_rows(trees, config.extract, seed)
  solutions = [(each.question, each.steps) for each in rows]
  show_sft(f"{kind}/sft", TOKENIZER, solutions, config.sft)
  pairs, _ = pairs_lib.pairs(trees, config.extract)
  length = config.ppm.length
  encoded = sides.encode_pairs(TOKENIZER, pairs, length)
  show_sides(f"{kind}/ppm", encoded, config.ppm)
  items = ppm.q_values(trajectories_lib.distinct(ended))
  encoded = sides.encode_scored(TOKENIZER, items, length)
  show_sides(f"{kind}/pqm", encoded, config.ppm)
  show_draws(f"{kind}/reinforce", trees, config)


def main(_):
  if _WORKDIR.value:
    show_run(pathlib.Path(_WORKDIR.value))
  else:
    for kind in SEARCHES:
      show_made_up(kind, _PROBLEMS.value, _SEED.value)


if __name__ == "__main__":
  app.run(main)
