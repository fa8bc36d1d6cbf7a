"""When search wins: accuracy by difficulty, quality of the PPM and budget.

  nice -n 10 python -m benchmarks.simulation --plot=simulation.svg

A scripted policy that slips at each step, and a PPM that is wrong about some
paths (`benchmarks/scripted.py`), solve generated problems of a given number of
steps, by the project's own searches:

  mcts       as at test time: the PPM's value counts as a first visit, by which
             both values of `uct_unvisited` are the same
  mcts_mean  the same, in which an answer backs up the mean value of its steps
  mcts_zero, mcts_inf  without that visit, by both values of `uct_unvisited`
  beam_W     step beam search of width W

A search gives the solution of highest last value; "NAME, mean" is that of
highest mean value over its steps, and "NAME, weighted" a vote weighted by mean
values. Of N samples there are "majority", "best" and "weighted", by last
values, and "best, mean" and "weighted, mean".

The PPM prefers a right sibling to a wrong one with probability 1 - flip, and is
wrong about different paths independently, unless it is --blind. --problems are
drawn for each number of steps and seed.

Prints JSON lines: "siblings" for each cell, in trees of the first MCTS: how
often the highest-valued child of a node that is right so far is right, where
there are right and wrong ones ("picked"); how often any is right ("found"); how
many there are ("children"). "point" for each cell and method, of searches after
1, 2, 3, 4, 6, ... rollouts: accuracy, generated tokens per problem, and those
that the PPM reads, each node once. "gap" for each search at its whole budget:
its accuracy less that of each way to choose among samples, interpolated at the
search's tokens, with 95% bootstrap intervals over problems; "pooled" is that of
all cells of some kind. "beyond" says that all samples cost less than a search.

With --seconds, lines of `benchmarks.seconds`, gaps are given once more for each
number of problems in flight there, with samples that take the search's time by
--clock ("by"). --budgets=FOLDER draws accuracy by tokens and by seconds, of 6
steps or more, the largest slip and a flip of 0.1.
"""

import collections
import dataclasses
import itertools
import json
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from absl import app, flags

from benchmarks import equal_cost, plot, scripted
from benchmarks.equal_cost import Cell, Curve, Curves
from rstar_jax import rng
from rstar_jax.config.schema import SearchConfig
from rstar_jax.data.synthetic import generator
from rstar_jax.data.synthetic.solutions import SolvedProblem
from rstar_jax.evaluation import choices, decisions, solutions
from rstar_jax.hf.folders import BASE_MODEL
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.search import beam, mcts, sampling
from rstar_jax.search.tree import (
  OPEN,
  RIGHT,
  TrajectoryValue,
  Tree,
  trajectory_value,
)
from rstar_jax.steps import grammar
from rstar_jax.steps.tokenizer import encode_piece
from rstar_jax.types import Prefix

LEVELS = flags.DEFINE_list(
  "levels", ["2", "4", "6", "8", "10", "12", "14"], "Steps of a problem."
)
_SLIPS = flags.DEFINE_list(
  "slips", ["0.1", "0.2", "0.3"], "Error rates of the policy."
)
_FLIPS = flags.DEFINE_list(
  "flips", ["0", "0.05", "0.1", "0.2", "0.3", "0.4"], "Error rates of the PPM."
)
PROBLEMS = flags.DEFINE_integer(
  "problems", 8, "Problems per level and seed.", 1
)
_SEEDS = flags.DEFINE_integer("seeds", 5, "Number of seeds.", 1)
_SPREAD = flags.DEFINE_float(
  "spread",
  0.0,
  "Spread of error rates over steps; see `scripted.Policy`.",
  0,
  1,
)
_BLIND = flags.DEFINE_bool(
  "blind", False, "Whether the PPM repeats its mistakes; see `scripted.Ppm`."
)
SAMPLES = flags.DEFINE_integer("samples", 128, "Most samples per problem.", 1)
_ROLLOUTS = flags.DEFINE_integer("rollouts", 8, "Rollouts of an MCTS.", 1)
_CANDIDATES = flags.DEFINE_integer(
  "candidates", 8, "Candidates per expansion.", 1
)
BEAMS = flags.DEFINE_list("beams", ["1", "4"], "Widths of beams.")
_MCTS = flags.DEFINE_list(
  "mcts", ["mcts", "mcts_zero", "mcts_inf"], "Kinds of MCTS."
)
_TABLES = flags.DEFINE_string(
  "tables", "", "Markdown file for tables of 6 to 14 steps."
)
_PLOT = flags.DEFINE_string(
  "plot", "", "SVG file for the largest slip, at flip 0.1."
)
_SECONDS = flags.DEFINE_string(
  "seconds", "", "File with the output of benchmarks.seconds."
)
# What these lines measure time by, and how it is called.
_CLOCKS = {
  "seconds": "seconds",
  "device": "device seconds",
  "cpu": "CPU seconds",
}
_CLOCK = flags.DEFINE_enum("clock", "seconds", list(_CLOCKS), "Unit of cost.")
_BUDGETS = flags.DEFINE_string("budgets", "", "Folder for SVGs by cost.")
# What these draw, of what there is.
_DRAWN = (
  *("majority", "weighted", "best, mean", "mcts, mean", "mcts_mean, mean"),
  "beam_4, mean",
)

# Splits without errors, the shortest problems first.
_SPLITS = ("test", "long_test")
Tokens = Callable[[str], int]
# How a search's answer is chosen: choice, value of a solution, suffix.
_OF_SEARCHES: tuple[tuple[str, TrajectoryValue, str], ...] = (
  ("best", "last", ""),
  ("best", "mean", ", mean"),
  ("weighted", "mean", ", weighted"),
)


def drawn(levels: Iterable[int], count: int, seed: int) -> list[SolvedProblem]:
  """Draws problems of the generator, `count` of each level."""
  missing = dict.fromkeys(levels, count)
  found: list[SolvedProblem] = []
  for split in _SPLITS:
    offered = {level for level, _ in generator.LEVELS[split]}
    for index in itertools.count():
      if not any(missing.get(level, 0) for level in offered):
        break
      solved = generator.generate(split, index, seed)
      if missing.get(solved.problem.level, 0):
        missing[solved.problem.level] -= 1
        found.append(solved)
  if any(missing.values()):
    raise ValueError(f"--levels: no split has problems of {missing}")
  return found


def steps_of(most: int) -> list[int]:
  """Returns numbers of units: 1, 2, 3, 4, 6, 8, 12, ... and the most."""
  powers = [2**i for i in range(most.bit_length())]
  numbers = {*powers, *(3 * each for each in powers), most}
  return sorted(each for each in numbers if each <= most)


def search_configs() -> dict[str, SearchConfig]:
  """Returns the kinds of MCTS that there are."""
  usual = SearchConfig(
    rollouts=_ROLLOUTS.value,
    candidates=_CANDIDATES.value,
    annotation="ppm",
    terminal_reward="ppm",
    max_depth=2 * max(map(int, LEVELS.value)) + 2,
  )
  bare = dataclasses.replace(usual, ppm_counts_visit=False)
  return {
    "mcts": usual,
    "mcts_mean": dataclasses.replace(usual, trajectory_value="mean"),
    "mcts_zero": dataclasses.replace(bare, uct_unvisited="zero"),
    "mcts_inf": dataclasses.replace(bare, uct_unvisited="inf"),
  }


class Problem:
  """Solves one problem by all methods."""

  def __init__(
    self,
    solved: SolvedProblem,
    slip: float,
    seed: int,
    tokens: Tokens,
  ):
    self.siblings: dict[float, list[list[float]]] = {}
    self._problem = solved.problem
    self._seed = seed
    self._tokens = tokens
    self._checker = scripted.Checker(solved)
    self._policy = scripted.Policy(
      solved, slip, tokens, seed, spread=_SPREAD.value
    )
    self._chances = scripted.Chances(
      rng.seed_for(seed, "ppm", solved.problem.id)
    )

  def _ppm(self, flip: float) -> scripted.Ppm:
    return scripted.Ppm(self._checker, flip, self._chances, _BLIND.value)

  def searches(self, flip: float) -> dict[str, Curve]:
    """Returns the curves of all searches."""
    ppm = self._ppm(flip)
    world = scripted.World(self._policy, self._checker, ppm)
    configs = search_configs()
    found = {}
    for name in _MCTS.value:
      search = mcts.search_tree(
        Tree(self._problem), configs[name], self._seed, ("mcts",)
      )
      tree = world.run(search)
      found |= self._of_tree(tree, name, False)
      self.siblings.setdefault(flip, self._decided(tree))
    for width in map(int, BEAMS.value):
      search = beam.beams(
        Tree(self._problem), width, configs["mcts"], self._seed, name=("beam",)
      )
      tree = world.run(search)
      found |= self._of_tree(tree, f"beam_{width}", True)
    return found

  def _of_tree(self, tree: Tree, name: str, beams: bool) -> dict[str, Curve]:
    found = {}
    nodes = [each for _, each, _ in tree.growth] or [len(tree)]
    nodes[-1] = len(tree)
    sizes = [self._tokens(_written(text)) for text in tree.texts]
    read = np.cumsum(sizes)
    # A single beam has a single answer.
    for choice, how, suffix in _OF_SEARCHES[: 1 if name == "beam_1" else None]:
      record = solutions.of_tree(tree, name, "", how, visited=beams)
      units = [len(record["spent"])] if beams else steps_of(_ROLLOUTS.value)
      last = len(nodes) - 1
      found[name + suffix] = Curve(
        *_right(record, choice, units),
        read=tuple(int(read[nodes[min(u - 1, last)] - 1]) for u in units),
      )
    return found

  def _decided(self, tree: Tree) -> list[list[float]]:
    """Returns what there was to pick, for each node that is right so far.

    Returns:
      picked (nan where there was nothing to pick), found, and children of each.
    """
    labels = np.array(
      [
        int(self._checker.right(tree.prefix(node))) for node in range(len(tree))
      ],
      np.int8,
    )
    found = []
    for node in np.flatnonzero((labels == RIGHT) & (tree.num_children > 0)):
      span = tree.span(node)
      right = labels[span] == RIGHT
      picked = decisions.picked(tree.ppm[span], right)
      decided = right.any() and not right.all()
      if tree.terminal[span.start] == OPEN:
        found.append(
          [picked if decided else np.nan, float(right.any()), len(right)]
        )
    return found

  def samples(self, flips: Sequence[float]) -> dict[tuple[float, str], Curve]:
    """Returns the curves of all ways to choose among samples, by flip."""
    world = scripted.World(self._policy, self._checker)
    found = world.run(
      sampling.solutions(
        self._problem, SAMPLES.value, self._seed, name=("samples",)
      ),
      blocks=True,
    )
    record = solutions.of_samples(self._problem, "samples", "", found)
    units = steps_of(SAMPLES.value)
    read = self._read([each.steps for each in found], units)
    curves = {}
    for flip in flips:
      ppm = self._ppm(flip)
      for how, suffix in (("last", ""), ("mean", ", mean")):
        valued = record | {
          "trajectories": [
            each | {"value": _value(ppm, each, how)}
            for each in record["trajectories"]
          ]
        }
        for choice in ("best", "weighted"):
          curves[flip, choice + suffix] = Curve(
            *_right(valued, choice, units), read=read
          )
      curves[flip, "majority"] = Curve(
        *_right(record, "majority", units), read=(0,) * len(units)
      )
    return curves

  def _read(
    self, paths: Sequence[Prefix], units: Sequence[int]
  ) -> tuple[int, ...]:
    """Returns the tokens of all nodes of the first paths, equal ones once."""
    seen: set[Prefix] = set()
    totals, total = [], 0
    for path in paths:
      for end in range(1, len(path) + 1):
        if path[:end] not in seen:
          seen.add(path[:end])
          total += self._tokens(_written(path[end - 1]))
      totals.append(total)
    return tuple(totals[each - 1] for each in units)


def _right(
  record: solutions.Record, choice: str, units: Sequence[int]
) -> tuple[tuple[int, ...], tuple[bool, ...]]:
  """Returns tokens and verdicts of a record's first units."""
  outcomes = [choices.choose(record, choice, each) for each in units]
  return (
    tuple(each.tokens for each in outcomes),
    tuple(each.right for each in outcomes),
  )


def _value(
  ppm: scripted.Ppm, trajectory: solutions.Record, how: TrajectoryValue
) -> float | None:
  """Returns the PPM's value of a solution, None without an answer."""
  if trajectory["answer"] is None:
    return None
  path = tuple(trajectory["steps"])
  first = 1 if how == "mean" else len(path)
  values = [ppm(path[:end]) for end in range(first, len(path) + 1)]
  return trajectory_value(values, how)


def _written(text: str) -> str:
  """Returns what the policy wrote of a node's text."""
  return text.partition(f"\n{grammar.OUTPUT}")[0]


def solved_by_all(tokens: Tokens) -> tuple[Curves, dict[Cell, list]]:
  """Solves all problems by all methods; returns curves, and `siblings`."""
  flips = list(map(float, _FLIPS.value))
  levels = list(map(int, LEVELS.value))
  found: Curves = collections.defaultdict(list)
  decided: dict[Cell, list] = collections.defaultdict(list)
  for seed in range(_SEEDS.value):
    for solved in drawn(levels, PROBLEMS.value, seed):
      for slip in map(float, _SLIPS.value):
        problem = Problem(solved, slip, seed, tokens)
        cell = solved.problem.level, slip
        for (flip, name), curve in problem.samples(flips).items():
          found[(*cell, flip), name].append(curve)
        for flip in flips:
          for name, curve in problem.searches(flip).items():
            found[(*cell, flip), name].append(curve)
          decided[*cell, flip] += problem.siblings[flip]
  return found, decided


def by_cost(found: Curves, lines: Iterable[Mapping]) -> dict[str, Curves]:
  """Returns curves by each kind of cost, tokens first.

  Args:
    found: curves by tokens.
    lines: of `benchmarks.seconds`.
  """
  rates: dict[int, dict[str, float]] = {}
  for each in lines:
    if each["line"] == "rate":
      of_flight = rates.setdefault(each["in_flight"], {})
      of_flight[each["method"]] = each[_CLOCK.value]
  name = _CLOCKS[_CLOCK.value]
  return {"tokens": found} | {
    f"{name}, {number} in flight": equal_cost.in_seconds(found, each)
    for number, each in rates.items()
  }


def _named(cell: Cell) -> dict[str, float]:
  return dict(zip(("level", "slip", "flip"), cell, strict=True))


class Lines:
  """Prints JSON lines, and keeps them."""

  def __init__(self):
    self.found: list[dict] = []

  def show(self, kind: str, **fields) -> None:
    self.found.append({"line": kind} | fields)
    print(json.dumps(self.found[-1]), flush=True)


def show_cells(found: Curves, decided: dict[Cell, list], lines: Lines) -> None:
  """Prints "siblings" and "point"; see above."""
  for cell in _cells(found):
    picked, right, children = np.array(decided[cell]).T
    lines.show(
      "siblings",
      **_named(cell),
      decisions=int((~np.isnan(picked)).sum()),
      picked=float(np.nanmean(picked)),
      found=float(right.mean()),
      children=float(children.mean()),
    )
  for cell, name in sorted(found):
    curves = found[cell, name]
    lines.show(
      "point",
      **_named(cell),
      method=name,
      n=len(curves),
      tokens=np.mean([each.cost for each in curves], axis=0).tolist(),
      right=np.mean([each.right for each in curves], axis=0).tolist(),
      read=np.mean([each.read for each in curves], axis=0).tolist(),
    )


def show_gaps(costs: Mapping[str, Curves], lines: Lines) -> None:
  """Prints "gap" and "pooled"; see above.

  Args:
    costs: see `by_cost`.
    lines: prints them.
  """
  cells = _cells(costs["tokens"])
  names = {name for _, name in costs["tokens"]}
  searches = sorted(names - set(equal_cost.SAMPLED))
  for (by, curves), cell in itertools.product(costs.items(), cells):
    for name in searches:
      line = equal_cost.gaps(curves, [cell], name)
      lines.show("gap", by=by, **_named(cell), method=name, **line)
  for (by, curves), flip in itertools.product(
    costs.items(), map(float, _FLIPS.value)
  ):
    for name, levels in (("2-4", range(2, 6)), ("6-14", range(6, 15))):
      for slips in ((0.1,), (0.2, 0.3)):
        part = [
          cell
          for cell in cells
          if cell[0] in levels and cell[1] in slips and cell[2] == flip
        ]
        for search in searches if part else ():
          line = equal_cost.gaps(curves, part, search)
          line = dict(flip=flip, method=search) | line
          lines.show("pooled", by=by, levels=name, slips=slips, **line)


def draw(costs: Mapping[str, Curves], lines: Sequence[dict]) -> None:
  """Writes the files that flags name: tables, and plots by steps and cost.

  Args:
    costs: see `by_cost`.
    lines: all that were printed.
  """
  if _TABLES.value:
    pathlib.Path(_TABLES.value).write_text(equal_cost.tables(lines))
  slip = max(map(float, _SLIPS.value))
  if _PLOT.value:
    curves = equal_cost.figure(lines, slip, 0.1)
    picture = plot.svg(curves, x="steps", y="right, in %", linear=True)
    pathlib.Path(_PLOT.value).write_text(picture)
  cells = _cells(costs["tokens"])
  hard = [cell for cell in cells if cell[0] >= 6 and cell[1:] == (slip, 0.1)]
  for by, curves in costs.items() if _BUDGETS.value else ():
    there = [each for each in _DRAWN if (hard[0], each) in curves]
    picture = plot.svg(
      equal_cost.budgets(curves, hard, there),
      **dict(x=by, y="right, in %", linear=True),
    )
    name = by.lower().replace(",", "").replace(" ", "-")
    (pathlib.Path(_BUDGETS.value) / f"oracle-{name}.svg").write_text(picture)


def _cells(found: Curves) -> list[Cell]:
  return sorted({cell for cell, _ in found})


def main(_):
  began = time.process_time()
  lines = Lines()
  tokenizer = load_tokenizer(BASE_MODEL)
  found, decided = solved_by_all(
    lambda text: len(encode_piece(tokenizer, text))
  )
  path = pathlib.Path(_SECONDS.value)
  timed = path.read_text().splitlines() if _SECONDS.value else []
  costs = by_cost(found, map(json.loads, timed))
  show_cells(found, decided, lines)
  show_gaps(costs, lines)
  draw(costs, lines.found)
  lines.show("done", seconds=time.process_time() - began)


if __name__ == "__main__":
  app.run(main)
