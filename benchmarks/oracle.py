"""Who picks the right step, and why searches fail, in a run's own trees.

  make demo
  python -m benchmarks.oracle --workdir=runs/tiny

For generated problems it is known which steps are right
(`data/synthetic/oracle.py`). Wherever a node that is right so far has right and
wrong children, the PPM picks that of highest value, the policy that of highest
log-probability, and chance any of them.

Prints JSON lines for the trees of each round, those of training and those of
evaluation: "rates", in all, by depth, by level, and by whether the family was
trained on, as `evaluation/decisions.py` says; "failures", of evaluation: how
many searches gave a right answer, and why the others did not; "mistakes", of
evaluation: [share, nodes], how often the sign of the PPM's value is wrong at a
right node ("right"), at the first wrong one of a path ("wrong"), and at one
after it, if that first one was taken for right ("missed") or not ("noticed").
"""

import collections
import json
import math
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from absl import app, flags

from rstar_jax.config import identity
from rstar_jax.data.synthetic import oracle, templates
from rstar_jax.evaluation import decisions
from rstar_jax.evaluation.decisions import Judged
from rstar_jax.search import answer
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import RIGHT, WRONG, Tree
from rstar_jax.storage import layout, records

_WORKDIR = flags.DEFINE_string("workdir", "runs/tiny", "Folder of a run.")

_GROUPS = {f"synthetic/{e.name}": e.group for e in templates.FAMILIES}


def sets(root: pathlib.Path) -> Iterator[tuple[str, list[Tree]]]:
  """Yields the names and trees of all rounds of a run."""
  for number in layout.rounds(each.name for each in root.iterdir()):
    folder = root / layout.round_name(number)
    places = [(folder / "trees", "shard-*")]
    places += [
      (each, f"{layout.TREES_OF}shard-*")
      for each in sorted((folder / "eval").glob("*"))
    ]
    for place, pattern in places:
      trees = [
        tree_lib.from_record(row)
        for path in sorted(place.rglob(pattern))
        for row in records.read_shard(path)
      ]
      if trees:
        yield str(place.relative_to(root)), trees


def parts(trees: Sequence[Judged]) -> dict[str, list[Judged]]:
  """Returns all trees, and those of each kind."""
  found = {"all": list(trees)}
  depths = {each.depth for tree in trees for each in tree.siblings}
  for depth in sorted(depths):
    found[f"depth {depth}"] = [tree.at(depth) for tree in trees]
  for tree in sorted(trees, key=lambda each: each.problem.level):
    found.setdefault(f"level {tree.problem.level}", []).append(tree)
  for tree in trees:
    seen = _GROUPS[tree.problem.source] == "train"
    name = f"families {'seen' if seen else 'unseen'}"
    found.setdefault(name, []).append(tree)
  return found


def mistakes(
  both: Sequence[tuple[Tree, np.ndarray]],
) -> dict[str, tuple[float, int]]:
  """Returns how often the PPM is wrong, and of how many nodes; see above.

  Args:
    both: trees with a PPM's values, and their labels.
  """
  wrong: dict[str, list[bool]] = {
    name: [] for name in ("right", "wrong", "missed", "noticed")
  }
  for tree, labels in both:
    # Whether the first wrong node on the path to each was taken for right.
    missed: dict[int, bool] = {}
    for node in range(1, len(tree)):
      parent, liked = int(tree.parent[node]), bool(tree.ppm[node] > 0)
      if labels[node] == RIGHT:
        wrong["right"].append(not liked)
      elif parent in missed:
        missed[node] = missed[parent]
        wrong["missed" if missed[node] else "noticed"].append(liked)
      elif labels[node] == WRONG:
        missed[node] = liked
        wrong["wrong"].append(liked)
  return {
    name: (float(np.mean(found)) if found else math.nan, len(found))
    for name, found in wrong.items()
  }


def main(_):
  root = pathlib.Path(_WORKDIR.value)
  config = identity.from_json((root / layout.CONFIG).read_text()).eval
  how = config.search.trajectory_value
  for name, trees in sets(root):
    labels = [oracle.labels(tree) for tree in trees]
    both = list(zip(trees, labels, strict=True))
    for part, found in parts([decisions.judge(*each) for each in both]).items():
      line = {"line": "rates", "trees": name, "of": part}
      print(json.dumps(line | decisions.rates(found)), flush=True)
    if "eval" in name:
      why = [
        decisions.failure(
          *each,
          answer.answer_node(each[0], config.answer_select, how, config.top_k),
        )
        for each in both
      ]
      line = {"line": "failures", "trees": name, "n": len(trees)}
      counts = collections.Counter(each or "right" for each in why)
      print(json.dumps(line | dict(sorted(counts.items()))), flush=True)
      line = {"line": "mistakes", "trees": name}
      print(json.dumps(line | mistakes(both)), flush=True)


if __name__ == "__main__":
  app.run(main)
