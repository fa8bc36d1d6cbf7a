"""Renders the tables of a study as Markdown, from its records."""

from collections.abc import Mapping, Sequence
from typing import Any

from rstar_jax import rng
from rstar_jax.evaluation import adaptive, cost, intervals, sources
from rstar_jax.evaluation.results_tables import interval
from rstar_jax.evaluation.solutions import Record
from rstar_jax.evaluation.tables import (
  Group,
  at_budget,
  grouped,
  right_by_problem,
  table,
)
from rstar_jax.storage.formatting import grid

# Choices that the table by number of units shows.
_CURVES = ("majority", "best", "weighted")


def render(
  records: Sequence[Record],
  quality: Mapping[str, Mapping[str, Any]],
  *,
  seed: int,
  k: int = 4,
  parameters: int | None = None,
) -> str:
  """Renders all tables of a study.

  Args:
    records: see `solutions.py`.
    quality: reward model -> `quality.summary` of it.
    seed, k, parameters: see `tables.table`.
  """
  lines = []
  for split in dict.fromkeys(record["split"] for record in records):
    part = [record for record in records if record["split"] == split]
    rows = table(part, seed=seed, k=k, parameters=parameters)
    lines += [f"### {split}", "", *_methods(part, rows, seed, k)]
    lines += ["", *_curve(rows), "", *_budget(part, seed, k), ""]
    lines += [*_adaptive(part, seed), ""]
  return "\n".join([*lines, *_quality(quality)]).rstrip() + "\n"


def time(work: Mapping[str, cost.Work]) -> list[str]:
  """Returns the table of methods' times and tokens on this machine.

  Args:
    work: work on all problems, by folders of model and method: "ppm/mcts".
  """
  cells = []
  for name, total in work.items():
    model, _, method = name.partition("/")
    each = total.of_problem()
    cells.append(
      [
        _title(method),
        "-" if model == "policy" else model,
        f"{total.problems:.0f}",
        f"{each.wall_seconds:.3g}",
        f"{each.device_seconds:.3g}",
        f"{each.generated_tokens:.0f}",
        f"{each.scored_tokens:.0f}",
        f"{total.compile_seconds:.0f}",
      ]
    )
  head = [
    *("Method", "Guided by", "Problems", "Seconds", "On the device"),
    *("Generated", "Scored", "Compiling, s"),
  ]
  return [
    "### Time",
    "",
    "What a problem took on this machine, with as many in flight as the config "
    "says and one method after another: seconds, those in which a model "
    "computed, tokens that the policy generated and that the reward model "
    "computed. Compiling is not among them. Another run takes another time, so "
    "that this table is in no file.",
    "",
    *grid(head, cells),
    "",
  ]


def _methods(
  part: Sequence[Record],
  rows: Sequence[Mapping[str, Any]],
  seed: int,
  k: int,
) -> list[str]:
  """Returns the table of all methods and choices, with all units."""
  groups = grouped(part)
  rows = [row for row in rows if _has_all_units(row, groups)]
  reference = _reference(rows)
  head = [
    *("Method", "Guided by", "Choice", "Right, %"),
    *("Tokens", "Till settled", "TFLOPs"),
  ]
  lines = [
    f"With all that each method found, of {rows[0]['n']} problems: right "
    "answers in % with 95% bootstrap intervals; a problem's generated tokens, "
    "those until no later vote could change the choice, and what the policy "
    "computes for all of them.",
  ]
  if reference is not None:
    head.append(f"Against {_name(reference)}, {reference['choice']}")
    lines[0] += (
      " A difference is claimed where the interval over pairs leaves out 0 and "
      "McNemar's p is below 0.05."
    )
  cells = []
  for row in rows:
    cells.append(
      [
        _name(row),
        row["reward"] or "-",
        row["choice"],
        interval(row),
        f"{row['tokens']:.0f}",
        "-"
        if row["tokens_settled"] is None
        else f"{row['tokens_settled']:.0f}",
        "-" if row["flops"] is None else f"{row['flops'] / 1e12:.3g}",
      ]
    )
    if reference is not None:
      cells[-1].append(_against(row, reference, groups, seed, k))
  return [*lines, "", *grid(head, cells)]


def _curve(rows: Sequence[Mapping[str, Any]]) -> list[str]:
  """Returns the table of accuracy by number of units (paper Figure 3)."""
  rows = [
    row for row in rows if _is_main_choice(row) or row["choice"] in _CURVES
  ]
  sizes = sorted({row["units"] for row in rows})
  lines: dict[tuple, dict[int, str]] = {}
  for row in rows:
    key = _name(row), row["reward"] or "-", row["choice"]
    cell = f"{100 * row['accuracy']:.1f} ({row['tokens']:.0f})"
    lines.setdefault(key, {})[row["units"]] = cell
  return [
    "By the number of samples, rollouts or searches; generated tokens a "
    "problem in parentheses. Of samples and searches that never stopped early "
    "it is the mean over all subsets of so many, for a weighted vote over at "
    "most 128 of them; of others the first ones.",
    "",
    *grid(
      ["Method", "Guided by", "Choice", *map(str, sizes)],
      [
        [*key, *(cells.get(size, "-") for size in sizes)]
        for key, cells in lines.items()
      ],
    ),
  ]


def _budget(part: Sequence[Record], seed: int, k: int) -> list[str]:
  """Returns the table of accuracy at the cost of one search."""
  search = [r for r in part if r["source"] == "mcts"] or [
    r for r in part if r["source"] == "searches"
  ]
  if not search:
    return []
  first = [r for r in search if r["reward"] == search[0]["reward"]]
  budget = sum(r["tokens"] for r in first) / len(first)
  rows = [
    row
    for row in at_budget(part, budget, seed=seed, k=k)
    if _is_main_choice(row)
  ]
  one = search[0]["source"] == "mcts"
  return [
    f"For at most {budget:.0f} generated tokens a problem, what "
    f"{'one search takes' if one else 'the searches take'}.",
    "",
    *grid(
      ["Method", "Guided by", "Choice", "Units", "Right, %", "Tokens"],
      [
        [
          _name(row),
          row["reward"] or "-",
          row["choice"],
          str(row["units"]),
          interval(row),
          f"{row['tokens']:.0f}",
        ]
        for row in rows
      ],
    ),
  ]


def _adaptive(part: Sequence[Record], seed: int) -> list[str]:
  """Returns the table of sampling until the majority is certain."""
  records = [
    each
    for each in part
    if each["source"] == "samples" and each["reward"] is None
  ]
  if not records or records[0].get("stop"):
    return []
  return [
    "Where a problem is sampled until its majority is so in truth with a "
    "probability, so that the hard get more; beside it as many tokens spent "
    "alike on all.",
    "",
    *grid(
      ["Probability", "Samples", "Fewest-most", "Right, %", "Tokens", "Alike"],
      [
        [
          f"{row['confidence']:g}",
          f"{row['units']:.1f}",
          f"{row['fewest']}-{row['most']}",
          interval(row),
          f"{row['tokens']:.0f}",
          f"{100 * row['alike']:.1f}",
        ]
        for row in adaptive.table(records, seed=seed)
      ],
    ),
  ]


def _quality(quality: Mapping[str, Mapping[str, Any]]) -> list[str]:
  if not quality:
    return []
  cells = []
  for name, each in quality.items():
    pairs = each["pairs"]
    cells.append(
      [
        name,
        *(
          f"{100 * pairs[kind]['accuracy']:.1f} ({pairs[kind]['n']})"
          if kind in pairs
          else "-"
          for kind in ("step", "final")
        ),
        _number(each.get("auc")),
        _number(each.get("auc_within")),
        _number(each.get("calibration_error")),
        *(
          _number(each.get("by_step", {}).get(str(-back), {}).get("auc"))
          for back in (1, 2, 3)
        ),
        str(each.get("solutions", 0)),
      ]
    )
  return [
    "### Reward models",
    "",
    "On trees whose problems none was trained on: how often the preferred side "
    "of a pair has the higher value, in % (pairs); of the values of whole "
    "solutions, the area under the ROC curve against the outcome, its mean "
    "within problems, and the calibration error; and the area of the values "
    "one, two and three steps before the answer.",
    "",
    *grid(
      [
        *("Model", "Step pairs", "Final pairs", "AUC", "within problems"),
        "Calibration",
        *("1 before", "2 before", "3 before", "Solutions"),
      ],
      cells,
    ),
  ]


def _has_all_units(
  row: Mapping[str, Any], groups: Mapping[Group, list]
) -> bool:
  records = groups[row["split"], row["reward"], row["method"]]
  return row["units"] == cost.units_of(records)


def _is_main_choice(row: Mapping[str, Any]) -> bool:
  """Returns whether a row has its method's main choice.

  It is the only one of records that were stopped by it.
  """
  source = sources.of(row["method"])
  if row["stop"]:
    return row["choice"] == row["stop"]
  if source.shared and row["reward"] is None:
    return row["choice"] == "majority"
  return row["choice"] == ("first" if source.greedy else "best")


def _reference(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
  """Returns the row of the paper's method, the reference of the others."""
  for row in rows:
    if row["method"] in ("mcts", "searches") and _is_main_choice(row):
      return row
  return None


def _against(
  row: Mapping[str, Any],
  reference: Mapping[str, Any],
  groups: Mapping[Group, list],
  seed: int,
  k: int,
) -> str:
  if row is reference:
    return "-"

  def right(each: Mapping[str, Any]) -> dict[str, bool]:
    records = groups[each["split"], each["reward"], each["method"]]
    return right_by_problem(records, each["choice"], each["units"], k)

  difference = intervals.compare(
    right(row),
    right(reference),
    rng.seed_for(seed, "against", _name(row), row["choice"]),
  )
  return "-" if difference is None else difference.points


def _name(row: Mapping[str, Any]) -> str:
  return _title(row["method"])


def _title(method: str) -> str:
  # A plugin has no title.
  return sources.of(method).title or method


def _number(value: float | None) -> str:
  return "-" if value is None else f"{value:.3f}"
