"""Judges evaluations on generated problems by the oracle."""

import collections
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from rstar_jax.data.synthetic import oracle
from rstar_jax.evaluation import decisions
from rstar_jax.evaluation.decisions import Judged
from rstar_jax.report import trees as trees_lib
from rstar_jax.search import tree as tree_lib
from rstar_jax.storage import layout
from rstar_jax.storage.records import each_row

_SOURCE = "synthetic/"


def of_round(
  folder: epath.Path, evaluation: Mapping[str, Any]
) -> list[dict[str, Any]]:
  """Judges the searches of a round's evaluation.

  Args:
    folder: the round's folder.
    evaluation: `eval` of the run's config as JSON; any field may be missing.

  Returns:
    For each split with generated problems: "split"; "failures", numbers of
    searches by outcome: "right", or the reason of `decisions.failure`; and
    `decisions.rates`, of all problems and by "levels".
  """
  splits: dict[str, list[tuple[Judged, str]]] = {}
  for path in sorted((folder / "eval").glob(f"*/{layout.TREES_OF}shard-*")):
    # Trees are written first, so that these may be missing.
    rows = each_row(path.with_name(path.name.removeprefix(layout.TREES_OF)))
    if (first := next(rows, None)) and (
      judged := list(_judged(path, evaluation))
    ):
      splits.setdefault(first["split"], []).extend(judged)
  return [
    {
      "split": split,
      "failures": collections.Counter(why for _, why in judged),
      "levels": _by_level([tree for tree, _ in judged]),
      **decisions.rates([tree for tree, _ in judged]),
    }
    for split, judged in splits.items()
  ]


def _judged(
  path: epath.Path, evaluation: Mapping[str, Any]
) -> Iterator[tuple[Judged, str]]:
  """Yields each tree of a shard, judged, and the outcome of its search."""
  for record in trees_lib.records(path):
    if not record["problem"]["source"].startswith(_SOURCE):
      return
    tree = tree_lib.from_record(record)
    try:
      labels = oracle.labels(tree)
    except ValueError:
      continue  # The generator of another version made the problem.
    why = decisions.failure(tree, labels, trees_lib.given(tree, evaluation))
    yield decisions.judge(tree, labels), why or "right"


def _by_level(trees: list[Judged]) -> list[dict[str, Any]]:
  levels = collections.defaultdict(list)
  for tree in trees:
    levels[tree.problem.level].append(tree)
  return [
    {"level": level, **decisions.rates(levels[level])}
    for level in sorted(levels)
  ]
