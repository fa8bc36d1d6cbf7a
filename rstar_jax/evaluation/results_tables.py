"""Renders results.json as Markdown, by split and round."""

from collections.abc import Mapping
from typing import Any

from rstar_jax.evaluation import intervals
from rstar_jax.evaluation.accuracy import COMPARED, MISSED
from rstar_jax.evaluation.methods import METHODS
from rstar_jax.storage.formatting import grid

# Methods that have a column.
_COLUMNS = (*COMPARED, "mcts")


def markdown(results: Mapping[str, Any]) -> str:
  """Renders results.json, one table per split and one row per round.

  Columns are those of the paper's Tables 3 and 6, and the share of training
  problems solved (Table 2).

  Args:
    results: {"rows": rows of `accuracy.table`, "solved": [{"round", "share"}]},
      and "config", whose `eval.search.method` may name a search plugin.
  """
  search = results.get("config", {}).get("eval", {}).get("search", {})
  plugin = search.get("method", "mcts")
  columns = {each: METHODS[each].column for each in _COLUMNS}
  if plugin != "mcts":
    columns["mcts"] = plugin
  solved = {each["round"]: each["share"] for each in results["solved"]}
  lines = []
  for split in dict.fromkeys(row["split"] for row in results["rows"]):
    rows = {
      (row["round"], row["method"]): row
      for row in results["rows"]
      if row["split"] == split
    }
    rounds = sorted({number for number, _ in rows})
    counts = sorted({row["n"] for row in rows.values()})
    lines += [
      f"### {split}",
      "",
      f"Right answers in % of {' or '.join(map(str, counts))} problems, with "
      "95% bootstrap intervals over problems.",
      "",
      *grid(
        ["Round", *columns.values(), "Training problems solved"],
        [
          [
            str(number),
            *(interval(rows.get((number, method))) for method in columns),
            f"{100 * solved[number]:.1f}" if number in solved else "-",
          ]
          for number in rounds
        ],
      ),
      "",
      "Generated tokens per problem; in parentheses the number of samples, "
      "which is the search's budget or all there are.",
      "",
      *grid(
        ["Round", *columns.values()],
        [
          [
            str(number),
            *(_tokens(rows.get((number, method))) for method in columns),
          ]
          for number in rounds
        ],
      ),
      "",
      *_search_gain_lines(rows, columns),
      *_policy_gain_lines(rows, results),
    ]
  return "\n".join(lines)


def _search_gain_lines(
  rows: Mapping[tuple[int, str], Mapping[str, Any]],
  columns: Mapping[str, str],
) -> list[str]:
  """Returns a table of each round's gain by search; [] without searches."""
  searches = {
    number: row
    for (number, method), row in sorted(rows.items())
    # Results of older runs lack it.
    if method == "mcts" and row.get("less")
  }
  if not searches:
    return []
  return [
    f"{columns['mcts']} less each of the others, in points, paired by problem, "
    "with 95% intervals and McNemar's verdict; and why it does not solve the "
    "rest, in %: its tree holds a right answer and another is chosen (choice); "
    "one of the samples is right (search); none is (policy).",
    "",
    *grid(
      ["Round", *(columns[method] for method in COMPARED), *MISSED],
      [
        [
          str(number),
          *(_points(row["less"].get(method)) for method in COMPARED),
          *_shares(row),
        ]
        for number, row in searches.items()
      ],
    ),
    "",
  ]


def _policy_gain_lines(
  rows: Mapping[tuple[int, str], Mapping[str, Any]], results: Mapping[str, Any]
) -> list[str]:
  """Returns the newest policy's gain over round 0, and its training data."""
  last = max(number for number, _ in rows)
  less = rows.get((last, "policy"), {}).get("less")
  # Results of older runs lack it.
  if not less:
    return []
  text = (
    f"The policy alone, round {last} less round 0, paired by problem: "
    f"{_points(less['base'])}."
  )
  solved = [each for each in results["solved"] if each["round"] <= last]
  if solved:
    shares = {each["round"]: each["share"] for each in (solved[0], solved[-1])}
    shares_text = " and ".join(
      f"{100 * share:.1f}% in round {number}"
      for number, share in shares.items()
    )
    text += f" Of the training problems searches solved {shares_text}"
    pairs = [
      each.get("pairs")
      for each in results.get("ppm", [])
      if each["round"] <= last
    ]
    text += (
      f"; the PPM learnt from {pairs[-1]} pairs." if any(pairs[-1:]) else "."
    )
  return [text, ""]


def _points(less: Mapping[str, Any] | None) -> str:
  if less is None:
    return "-"
  return intervals.Difference(**less).points


def _shares(row: Mapping[str, Any]) -> list[str]:
  missed = row.get("missed")
  if missed is None:
    return ["-"] * len(MISSED)
  return [f"{100 * missed[each] / row['n']:.1f}" for each in MISSED]


def interval(row: Mapping[str, Any] | None) -> str:
  """Formats a row's accuracy and interval, in %; "-" for None."""
  if row is None:
    return "-"
  return intervals.percent(row["accuracy"], row["low"], row["high"])


def _tokens(row: Mapping[str, Any] | None) -> str:
  if row is None:
    return "-"
  samples = f" ({row['samples']})" if row["samples"] else ""
  return f"{row['tokens_per_problem']:.0f}{samples}"
