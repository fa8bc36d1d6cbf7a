r"""The paper's tables and Figure 3 in miniature, of runs that differ in seed.

  python -m benchmarks.paper runs/0 runs/1 runs/2 \
    --learnt='any=runs/0-any,runs/1-any,runs/2-any' --figure=figure3

Made of records alone: the evaluations of all rounds, the study of the last
round (`rstar_jax study --round=4`), one of round 1 with later rounds' PPMs, and
branches of each run for what its policy learnt from. What is not there is
left out.

An accuracy is the mean over seeds, with a 95% interval from a bootstrap that
draws seeds and problems anew (all seeds have the same problems), and the lowest
and highest seed. Answers are those of highest value (paper section 4.1).
"""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
from absl import app, flags

from benchmarks import plot
from rstar_jax import rng
from rstar_jax.evaluation import intervals, methods, tables
from rstar_jax.pipeline import study_tables
from rstar_jax.pipeline.reading import read_rows
from rstar_jax.storage import layout
from rstar_jax.storage.formatting import grid

_LEARNT = flags.DEFINE_multi_string(
  "learnt",
  [],
  "NAME=FOLDER,FOLDER,...: branches whose policy was trained on it.",
)
_FIGURE = flags.DEFINE_string(
  "figure", None, "Path of the figures, without suffix."
)
# Of each seed, whether each problem was solved, by its id.
Right = Sequence[Mapping[str, bool]]
Folders = Sequence[pathlib.Path]


def cell(right: Right | None) -> str:
  """Writes an accuracy: "mean [interval] (lowest-highest seed)" in percent."""
  values = stacked(right)
  if values is None:
    return "-"
  ends = intervals.crossed(values, rng.seed_for(0, "cell"))
  each = values.mean(axis=1)
  return (
    f"{intervals.percent(values.mean(), *ends)} "
    f"({100 * each.min():.0f}-{100 * each.max():.0f})"
  )


def against(first: Right | None, second: Right | None) -> str:
  """Writes a difference in points, and whether it can be told from none.

  It is of the problems that all seeds of both have.
  """
  if first is None or second is None:
    return "-"
  both = stacked([*first, *second])
  if both is None:
    return "-"
  apart = both[: len(first)] - both[len(first) :]
  low, high = intervals.crossed(apart, rng.seed_for(0, "against"))
  said = intervals.percent(apart.mean(), low, high, signed=True)
  return said + (", not distinguishable" if low <= 0 <= high else "")


def stacked(found: Right | None) -> np.ndarray | None:
  """Returns what each seed made of the problems that all have, float [S, N]."""
  if found is None:
    return None
  shared = [name for name in found[0] if all(name in each for each in found)]
  if not shared:
    return None
  return np.array([[each[name] for name in shared] for each in found], float)


def evaluated(runs: Folders, round_: int, method: str) -> Right:
  """Returns what an evaluation's method made of each problem."""
  found = []
  for run in runs:
    records = [
      row
      for row in read_rows(run / f"round_{round_}" / "eval")
      if row["source"] == methods.METHODS[method].source
    ]
    outcomes = methods.solve(records, method, len(records), "best")
    found.append({each.problem_id: each.right for each in outcomes})
  return found


class Study:
  """The studies of one round of all runs."""

  def __init__(self, runs: Folders, round_: int):
    self._groups = []
    for run in runs:
      records = study_tables.read(run / f"round_{round_}" / layout.STUDY)
      groups = {}
      for (_, reward, method), group in tables.grouped(records).items():
        # PPMs of other rounds are named by their folders.
        name = re.sub(r"^ppm:.*/round_(\d+)/ppm$", r"ppm \1", reward or "")
        groups[name, method] = group
      self._groups.append(groups)

  def right(
    self, reward: str, method: str, choice: str, units: int
  ) -> Right | None:
    """Returns what was right after so many units, None where a run lacks it."""
    if not all((reward, method) in each for each in self._groups):
      return None
    return [
      tables.right_by_problem(each[reward, method], choice, units)
      for each in self._groups
    ]

  def tokens(self, reward: str, method: str, units: int) -> float:
    """Returns the mean generated tokens of a problem after so many units."""
    return float(
      np.mean(
        [
          record["spent"][min(units, len(record["spent"])) - 1]
          for each in self._groups
          for record in each[reward, method]
        ]
      )
    )


def by_round(runs: Folders, rounds: int) -> list[str]:
  """Returns the lines of Tables 2, 3 and 6: what each round solves."""
  results = [json.loads((run / "results.json").read_text()) for run in runs]
  levels = list(results[0]["solved"][0]["levels"])
  head = ["Round", "All", *(f"Level {level}" for level in levels)]
  rows = []
  for k in range(1, rounds + 1):
    found = [s for r in results for s in r["solved"] if s["round"] == k]
    shares = [[each["share"] for each in found]] + [
      [
        each["levels"][level]["solved"] / each["levels"][level]["problems"]
        for each in found
      ]
      for level in levels
    ]
    rows.append([str(k), *map(_spread, shares)])
  lines = [
    "## Table 2: training problems solved, %",
    "",
    *grid(head, rows),
  ]
  rows = []
  for k in range(rounds + 1):
    policy = evaluated(runs, k, "policy")
    search = evaluated(runs, k, "mcts") if k else None
    rows.append([str(k), cell(policy), cell(search), against(search, policy)])
  head = ["Round", "Table 3: policy", "Table 6: search", "Search less policy"]
  return [
    *lines,
    "",
    "## Tables 3 and 6: by round, %",
    "",
    *grid(head, rows),
  ]


def ppms(runs: Folders, rounds: int) -> list[str]:
  """Returns the lines of Table 4: the first policy with each round's PPM."""
  study = Study(runs, 1)
  names = ["ppm", *(f"ppm {k}" for k in range(2, rounds + 1))]
  first = study.right("ppm", "mcts", "best", _most(runs, 1))
  rows = [
    ["none, greedy", cell(study.right("", "greedy", "first", 1)), "-"],
  ]
  for k, name in enumerate(names, 1):
    found = study.right(name, "mcts", "best", _most(runs, 1))
    if found is not None:
      rows.append(
        [str(k), cell(found), against(found, first) if k > 1 else "-"]
      )
  head = ["PPM of round", "Search with the policy of round 1, %", "Less PPM 1"]
  return ["## Table 4: the PPM of each round", "", *grid(head, rows)]


def learnt(
  runs: Folders, rounds: int, named: Mapping[str, Folders]
) -> list[str]:
  """Returns the lines of Table 7: the last policy, of other solutions."""
  ours = Study(runs, rounds).right("", "greedy", "first", 1)
  rows = [
    ["highest average Q (the paper's)", _rows(runs, rounds), cell(ours), "-"]
  ]
  for name, folders in named.items():
    found = Study(folders, rounds).right("", "greedy", "first", 1)
    rows.append(
      [name, _rows(folders, rounds), cell(found), against(found, ours)]
    )
  head = ["Solutions", "Rows", "Greedy, %", "Less the first"]
  return [
    "## Table 7: what the policy learns from",
    "",
    *grid(head, rows),
  ]


def rewards(runs: Folders, rounds: int, rollouts: int = 8) -> list[str]:
  """Returns the lines of Table 8: reward models, and how they are used."""
  study, most = Study(runs, rounds), _most(runs, rounds)
  reference = study.right("ppm", "mcts", "best", rollouts)
  rows = []
  for method, units in (("samples", most), ("mcts", rollouts), ("mcts", most)):
    for reward in ("orm", "pqm", "ppm"):
      found = study.right(reward, method, "best", units)
      if found is not None:
        what = "best of" if method == "samples" else "search, rollouts:"
        same = study.right("ppm", method, "best", units)
        tokens = study.tokens(reward, method, units)
        rows.append(
          [
            reward.upper(),
            f"{what} {units}",
            f"{tokens:.0f}",
            cell(found),
            "-" if reward == "ppm" else against(found, same),
            "-"
            if (reward, method, units) == ("ppm", "mcts", rollouts)
            else against(found, reference),
          ]
        )
  head = [
    *("Model", "Used for", "Tokens", "Right, %", "Less the PPM, so used"),
    f"Less the PPM's search of {rollouts}",
  ]
  return ["## Table 8: reward models", "", *grid(head, rows)]


def trajectories(runs: Folders, rounds: int) -> tuple[list[str], dict, dict]:
  """Returns Figure 3 as a table's lines, and curves by number and tokens."""
  study, most = Study(runs, rounds), _most(runs, rounds)
  sizes = tables.sizes(most)
  curves = {
    "search, PPM": ("ppm", "mcts", "best"),
    "searches, PPM": ("ppm", "searches", "best"),
    "best of N, PPM": ("ppm", "samples", "best"),
    "best of N, ORM": ("orm", "samples", "best"),
    "majority": ("", "samples", "majority"),
    "pass@N": ("", "samples", "pass"),
    "in its tree": ("ppm", "mcts", "pass"),
  }
  rows, numbers, costs = [], {}, {}
  for name, (reward, method, choice) in curves.items():
    found = [study.right(reward, method, choice, n) for n in sizes]
    values = [stacked(each) for each in found]
    if values[0] is None:
      continue
    accuracy = [100 * float(each.mean()) for each in values]
    tokens = [study.tokens(reward, method, n) for n in sizes]
    numbers[name] = list(zip(sizes, accuracy, strict=True))
    costs[name] = list(zip(tokens, accuracy, strict=True))
    rows.append(
      [name]
      + [f"{a:.1f} ({t:.0f})" for a, t in zip(accuracy, tokens, strict=True)]
    )
    rows[-1].append(against(found[-1], found[0]))
  head = ["Method", *map(str, sizes), f"{most} less 1"]
  lines = ["## Figure 3: by number of trajectories, % (tokens)", ""]
  return [*lines, *grid(head, rows)], numbers, costs


def _most(runs: Folders, round_: int) -> int:
  """Returns how many trajectories all runs' studies of a round have, from 1."""
  found = [
    json.loads(path.read_text())["made_with"]["trajectories"]
    for run in runs
    for path in run.glob(f"round_{round_}/study/*/*/MANIFEST.json")
  ]
  return min(found, default=1)


def _rows(runs: Folders, round_: int) -> str:
  return _spread(
    [
      json.loads((run / f"round_{round_}/sft/MANIFEST.json").read_text())[
        "rows"
      ]
      for run in runs
    ],
    1,
  )


def _spread(values: Sequence[float], times: float = 100) -> str:
  low, mean, high = (times * f(values) for f in (min, np.mean, max))
  return f"{mean:.0f} ({low:.0f}-{high:.0f})"


def main(argv: list[str]) -> None:
  runs = [pathlib.Path(each) for each in argv[1:]]
  if not runs:
    raise app.UsageError("give one or more finished work folders")
  config = json.loads((runs[0] / "config.json").read_text())
  rounds = len(config["rounds"])
  named = {}
  for each in _LEARNT.value:
    name, _, folders = each.partition("=")
    named[name] = [pathlib.Path(folder) for folder in folders.split(",")]
  figure, numbers, costs = trajectories(runs, rounds)
  for part in (
    by_round(runs, rounds),
    ppms(runs, rounds),
    learnt(runs, rounds, named),
    rewards(runs, rounds),
    figure,
  ):
    # A head and two lines of a table are no table.
    if len(part) > 4:
      print("\n".join([*part, ""]))
  if _FIGURE.value:
    for end, curves, x in (
      ("", numbers, "trajectories"),
      ("-tokens", costs, "generated tokens a problem"),
    ):
      path = pathlib.Path(f"{_FIGURE.value}{end}.svg")
      path.write_text(plot.svg(curves, x=x, y="right, %", linear=True))


if __name__ == "__main__":
  app.run(main)
