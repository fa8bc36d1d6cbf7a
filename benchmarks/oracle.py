"""Who picks the right step, and why searches fail, in a run's own trees.

  make demo
  python -m benchmarks.oracle --workdir=runs/tiny

For generated problems it is known which steps are right
(`data/synthetic/oracle.py`). Wherever a node that is right so far has right and
wrong children, the PPM picks that of highest value, the policy that of highest
log-probability, and chance any of them.

Prints JSON lines for the trees of each round, those of training and those of
evaluation: "siblings", in all, by depth, by level, and by whether the family
was trained on: how often each picks a right child, and how often the PPM values
a right child above a wrong one ("pairs"), [rate, low, high], means over
problems of each one's mean, with 95% bootstrap intervals over problems; n
problems, `decisions` of them. "failures", of evaluation: problems whose answer
is wrong because no right step was sampled ("policy"), because right steps were
never expanded ("search"), or because another answer was chosen ("choice").
"""

import collections
import json
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from absl import app, flags

from benchmarks import siblings
from rstar_jax.config import identity
from rstar_jax.data.synthetic import oracle, templates
from rstar_jax.evaluation import intervals
from rstar_jax.search import answer
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import Tree
from rstar_jax.storage import layout, records

_WORKDIR = flags.DEFINE_string("workdir", "runs/tiny", "Of a run.")

_GROUPS = {f"synthetic/{e.name}": e.group for e in templates.FAMILIES}
# Who picks -> whether a right child, of siblings.
_PICKS = {
  "chance": lambda each: each.chance,
  "policy": lambda each: siblings.picked(each.logprob, each.right),
  "ppm": lambda each: siblings.picked(each.ppm, each.right),
  "pairs": lambda each: siblings.preferred(each.ppm, each.right),
}
# Of a problem: what is known of it, and what there was to decide.
Decided = list[tuple[Tree, siblings.Siblings]]


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


def rates(decided: Decided) -> dict:
  """Returns how often each one picks right; see above."""
  line: dict = {"n": len({tree.problem.id for tree, _ in decided})}
  line["decisions"] = len(decided)
  for name, pick in _PICKS.items():
    by_problem = collections.defaultdict(list)
    for tree, each in decided:
      if (found := pick(each)) is not None:
        by_problem[tree.problem.id].append(found)
    means = np.array([np.mean(each) for each in by_problem.values()])
    if len(means):
      line[name] = [float(means.mean()), *intervals.bootstrap(means, 0)]
  return line


def parts(decided: Decided) -> dict[str, Decided]:
  """Returns all decisions, and those of each kind of them."""
  found: dict[str, Decided] = {"all": decided}
  for tree, each in sorted(decided, key=lambda e: e[1].depth):
    found.setdefault(f"depth {each.depth}", []).append((tree, each))
  for tree, each in sorted(decided, key=lambda e: e[0].problem.level):
    found.setdefault(f"level {tree.problem.level}", []).append((tree, each))
  for tree, each in decided:
    seen = _GROUPS[tree.problem.source] == "train"
    name = f"families {'seen' if seen else 'unseen'}"
    found.setdefault(name, []).append((tree, each))
  return found


def failures(
  trees: Sequence[Tree], labels: Sequence[np.ndarray], config
) -> dict[str, int]:
  """Counts why searches failed."""
  how, counts = config.eval.search.trajectory_value, collections.Counter()
  for tree, each in zip(trees, labels, strict=True):
    chosen = answer.answer_node(
      tree, config.eval.answer_select, how, config.eval.top_k
    )
    counts[siblings.failure(tree, each, chosen) or "right"] += 1
  return dict(sorted(counts.items()))


def main(_):
  root = pathlib.Path(_WORKDIR.value)
  config = identity.from_json((root / layout.CONFIG).read_text())
  for name, trees in sets(root):
    labels = [oracle.labels(tree) for tree in trees]
    decided = [
      (tree, each)
      for tree, label in zip(trees, labels, strict=True)
      for each in siblings.decisions(tree, label)
    ]
    for part, found in parts(decided).items():
      line = {"line": "siblings", "trees": name, "of": part} | rates(found)
      print(json.dumps(line), flush=True)
    if "eval" in name:
      line = {"line": "failures", "trees": name, "n": len(trees)}
      line |= failures(trees, labels, config)
      print(json.dumps(line), flush=True)


if __name__ == "__main__":
  app.run(main)
