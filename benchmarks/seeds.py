"""Tables of several runs that differ in their seed, from their records alone.

  python -m benchmarks.seeds runs/tiny-0 runs/tiny-1 runs/tiny-2

A cell is the mean over seeds, with the lowest and the highest of them. Paired
differences have 95% intervals that draw seeds and problems anew. With
--less=DIR,DIR,... the last round's methods are compared with those of these
runs, of the same seeds and problems.
"""

import json
import pathlib
import typing
from collections.abc import Sequence

import numpy as np
from absl import app, flags

from rstar_jax import rng
from rstar_jax.evaluation import intervals, methods, solutions
from rstar_jax.grading import choose
from rstar_jax.pipeline.reading import read_rows
from rstar_jax.storage.formatting import grid

_LESS = flags.DEFINE_list("less", [], "Folders of runs to compare with.")
_COLUMNS = {
  "policy": "Policy pass@1",
  "majority": "Majority",
  "best_of_n": "Best-of-N",
  "mcts": "MCTS+PPM",
  "pass@k": "pass@k",
}
_PAIRS = (("mcts", "policy"), ("mcts", "majority"), ("mcts", "best_of_n"))


def outcomes(
  records: Sequence[solutions.Record], select: choose.Select, k: int
) -> dict:
  """Returns {(split, method): {problem id: Outcome}} of a round of a run."""
  found = {}
  for split, by_source in methods.by_split(records).items():
    _, by_method = methods.solve_split(by_source, select, k)
    for method, group in by_method.items():
      found[split, method] = {each.problem_id: each for each in group}
  return found


def spread(values: list[float]) -> str:
  """Returns "mean (lowest-highest)" in percent."""
  if not values:
    return "-"
  mean, low, high = (100 * f(values) for f in (np.mean, min, max))
  return f"{mean:.1f} ({low:.1f}-{high:.1f})"


def share_right(group: dict) -> float:
  return float(np.mean([each.right for each in group.values()]))


def tables(folders: list[pathlib.Path]) -> str:
  """Returns the Markdown of all tables."""
  runs = [json.loads((each / "results.json").read_text()) for each in folders]
  rounds = sorted({row["round"] for row in runs[0]["rows"]})
  config = runs[0]["config"]["eval"]
  select, k = config["answer_select"], config["top_k"]
  records = {
    r: [read_rows(each / f"round_{r}" / "eval") for each in folders]
    for r in rounds
  }
  data = {r: [outcomes(each, select, k) for each in records[r]] for r in rounds}
  # By each way to choose among the search's trajectories.
  chosen = {
    how: [outcomes(each, how, k) for each in records[rounds[-1]]]
    for how in typing.get_args(choose.Select)
  }
  solved = {
    r: [s["share"] for run in runs for s in run["solved"] if s["round"] == r]
    for r in rounds
  }
  lines = [f"Seeds: {', '.join(str(run['config']['seed']) for run in runs)}."]
  for split in dict.fromkeys(key[0] for key in data[rounds[-1]][0]):
    lines += ["", f"### {split}", "", *_of_split(data, split, solved)]
    said = ", ".join(
      f"{how} {spread([share_right(each[split, 'mcts']) for each in found])}"
      for how, found in chosen.items()
    )
    said = f"The search's answer by each choice ({select} above): {said}."
    lines += ["", said]
  lines += ["", "### PPM on held-out pairs of training problems", ""]
  return "\n".join([*lines, *_of_ppm(runs, rounds)])


def _of_split(
  data: dict[int, list[dict]], split: str, solved: dict[int, list[float]]
) -> list[str]:
  """Returns the lines on a split's problems.

  Args:
    data: `outcomes` of all runs, by round.
    split: the split.
    solved: shares of training problems solved, by round.
  """
  last, rows = data[max(data)], []
  for r, found in data.items():
    cells = [str(r)]
    for method in _COLUMNS:
      groups = [d[split, method] for d in found if (split, method) in d]
      sizes = {len(group) for group in groups}
      cell = spread([share_right(group) for group in groups])
      cells.append(cell + (f", n={sizes.pop()}" if groups else ""))
    rows.append([*cells, spread(solved[r])])
  head = ["Round", *_COLUMNS.values(), "Training problems solved"]
  lines = [*grid(head, rows), "", "Last round, by level:", ""]
  lines += _levels(data, split)
  lines += ["", "Last round, paired differences in points:", ""]
  for first, second in _PAIRS:
    lines.append(_difference(last, split, first, second))
  lines.append(_growth(data, split))
  tokens = {
    method: np.mean([o.tokens for d in last for o in d[split, method].values()])
    for method in _COLUMNS
    if (split, method) in last[0]
  }
  said = ", ".join(f"{m} {t:.0f}" for m, t in tokens.items())
  return [*lines, "", f"Generated tokens per problem, last round: {said}."]


def _of_ppm(runs: list[dict], rounds: list[int]) -> list[str]:
  """Returns the table of the PPM's accuracy on held-out pairs."""
  rows = []
  for r in filter(None, rounds):
    found = [p for run in runs for p in run["ppm"] if p["round"] == r]
    cells = [str(r)]
    for kind in ("held_out_step", "held_out_final"):
      cells.append(spread([p[kind]["accuracy"] for p in found if kind in p]))
    cells.append(f"{np.mean([p['pairs'] for p in found]):.0f}")
    rows.append(cells)
  return grid(["Round", "Step pairs", "Final pairs", "Pairs trained on"], rows)


def _levels(data: dict[int, list[dict]], split: str) -> list[str]:
  start, last = min(data), data[max(data)]
  levels = sorted({o.level for o in last[0][split, "policy"].values()})
  rows = []
  shown = [(f"policy, round {start}", data[start], "policy")]
  shown += [(m, last, m) for m in _COLUMNS if (split, m) in last[0]]
  for name, found, method in shown:
    cells = [name]
    for level in levels:
      right = [
        each.right
        for run in found
        for each in run[split, method].values()
        if each.level == level
      ]
      cells.append(f"{100 * np.mean(right):.0f}" if right else "-")
    rows.append(cells)
  return grid(["Method", *(f"level {level}" for level in levels)], rows)


def _paired(ones: list[dict], twos: list[dict], name: str) -> str:
  ids = [each for each in ones[0] if each in twos[0]]
  values = np.array(
    [
      [float(a[i].right - b[i].right) for i in ids]
      for a, b in zip(ones, twos, strict=True)
    ]
  )
  ends = intervals.crossed(values, rng.seed_for(0, name))
  said = intervals.percent(values.mean(), *ends, signed=True)
  return f"{said} over {len(ids)} problems"


def _difference(last: list[dict], split: str, first: str, second: str) -> str:
  if (split, first) not in last[0] or (split, second) not in last[0]:
    return f"- {first} less {second}: not measured"
  pair = [[d[split, method] for d in last] for method in (first, second)]
  return f"- {first} less {second}: {_paired(*pair, f'{first} {second}')}"


def _growth(data: dict[int, list[dict]], split: str) -> str:
  pair = [[d[split, "policy"] for d in data[r]] for r in (max(data), min(data))]
  said = _paired(*pair, "growth")
  return f"- policy, last round less round {min(data)}: {said}"


def _last(folders: list[pathlib.Path]) -> list[dict]:
  """Returns `outcomes` of each run's last round."""
  found = []
  for folder in folders:
    results = json.loads((folder / "results.json").read_text())
    round_ = max(row["round"] for row in results["rows"])
    config = results["config"]["eval"]
    rows = read_rows(folder / f"round_{round_}" / "eval")
    found.append(outcomes(rows, config["answer_select"], config["top_k"]))
  return found


def compared(
  folders: list[pathlib.Path], others: list[pathlib.Path]
) -> list[str]:
  """Returns lines: each method of the last rounds less that of other runs.

  Args:
    folders: runs.
    others: as many, each of the same seed and problems as that in its place.
  """
  ours, theirs = _last(folders), _last(others)
  lines = []
  for split, method in sorted(ours[0]):
    if (split, method) in theirs[0]:
      pair = [[each[split, method] for each in of] for of in (ours, theirs)]
      said = _paired(*pair, f"less {method}")
      lines.append(f"- {split}, {method}, less the other runs': {said}")
  return lines


def main(argv: list[str]) -> None:
  if len(argv) < 2:
    raise app.UsageError("give one or more finished work folders")
  folders = [pathlib.Path(each) for each in argv[1:]]
  others = [pathlib.Path(each) for each in _LESS.value]
  if others and len(others) != len(folders):
    raise app.UsageError("give --less as many folders as there are runs")
  print(tables(folders))
  if others:
    print("\n".join(["", *compared(folders, others)]))


if __name__ == "__main__":
  app.run(main)
