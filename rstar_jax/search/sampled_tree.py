"""A tree of independently sampled solutions, to compare a search with.

Each solution is a rollout. Solutions with a common prefix share its nodes, as
the candidates of a search do, so that whatever is made from the trees of a
search can be made from these trees.
"""

import math
from collections.abc import Sequence

from rstar_jax.search import sampling, selection
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.requests import Search
from rstar_jax.search.sampling import Sample
from rstar_jax.search.tree import NO_NODE, ROOT_INDEX, Child, Draw, Tree
from rstar_jax.types import Prefix

# `correct` of a node by the verdict; of any other verdict it is wrong.
_CORRECT = {None: tree_lib.UNKNOWN, "equal": tree_lib.RIGHT}


def sample_tree(
  tree: Tree,
  n: int,
  seed: int = 0,
  name: Sequence[int | str] = (),
) -> Search[Tree]:
  """Samples n solutions of a tree's problem, and adds them to it.

  A solution without an answer is a failed rollout, and backs nothing up.

  Args:
    tree: a new tree.
    n: number of solutions.
    seed: the run's seed.
    name: identities of this sampling; seeds derive from them.

  Returns:
    The tree. All nodes are added at once: each entry of `growth` has them all.
  """
  samples = yield from sampling.solutions(tree.problem, n, seed, name=name)
  places = _add_nodes(tree, samples)
  tree.expansions += n
  for each in samples:
    tree.tokens += each.tokens
    if each.answer is None:
      tree.drop(each.status)
      tree.failed_rollouts += 1
      tree.end_rollout()
    else:
      tree.undecided += each.verdict == "undecided"
      selection.finish(tree, places[each.steps])
    if tree.draws is not None:
      tree.draws += _draws(each, places)
  return tree


def _add_nodes(tree: Tree, samples: Sequence[Sample]) -> dict[Prefix, int]:
  """Adds the solutions whose code ran; returns the node of each prefix."""
  ran = [each for each in samples if _ran(each)]
  places = add_paths(
    tree,
    [[_child(each, depth) for depth in range(len(each.steps))] for each in ran],
  )
  for each in ran:
    end = places[each.steps]
    if tree.terminal[end] == tree_lib.OPEN:
      tree.give_up(end)
  return places


def add_paths(
  tree: Tree, paths: Sequence[Sequence[Child]]
) -> dict[Prefix, int]:
  """Adds paths to a new tree; those with a common prefix share its nodes.

  Args:
    tree: a new tree.
    paths: nodes from the root's child on, oldest first. Of equal ones the first
      is added.

  Returns:
    Texts from the root's child to a node -> the node.
  """
  places: dict[Prefix, int] = {(): ROOT_INDEX}
  texts = [tuple(each.text for each in path) for path in paths]
  for depth in range(max(map(len, paths), default=0)):
    # Siblings are added together, in the order of their first paths.
    families: dict[Prefix, dict[str, Child]] = {}
    for path, names in zip(paths, texts, strict=True):
      if depth < len(path):
        family = families.setdefault(names[:depth], {})
        family.setdefault(names[depth], path[depth])
    for prefix, family in families.items():
      nodes = tree.add_children(places[prefix], list(family.values()))
      for text, node in zip(family, nodes, strict=True):
        places[*prefix, text] = node
  return places


def _ran(sample: Sample) -> bool:
  """Returns whether a sample's code ran, so that an answer was requested."""
  return len(sample.written) > 1


def _child(sample: Sample, depth: int) -> Child:
  """Returns a node of a sample whose code ran."""
  text = sample.steps[depth]
  code = len(sample.steps) - 1 - (sample.answer is not None)
  if depth > code:
    return Child(
      text,
      tree_lib.ANSWER,
      logprob=sample.written[1].logprob,
      answer=sample.answer,
      correct=_CORRECT.get(sample.verdict, tree_lib.WRONG),
      reward=-1.0 if sample.reward is None else sample.reward,
    )
  # The policy wrote all steps of the code in one text.
  logprob = math.nan if code else sample.written[0].logprob
  kind = tree_lib.CODE if depth == code else tree_lib.STEP
  return Child(text, kind, logprob=logprob)


def _draws(sample: Sample, places: dict[Prefix, int]) -> list[Draw]:
  """Returns the texts that were written: the code, and the answer if any."""
  if not _ran(sample):
    ends = [NO_NODE]
  elif sample.answer is None:
    ends = [places[sample.steps], NO_NODE]
  else:
    ends = [places[sample.steps[:-1]], places[sample.steps]]
  return [
    Draw(parent, node, each.token_ids, each.logprobs)
    for parent, node, each in zip(
      [ROOT_INDEX, *ends], ends, sample.written, strict=False
    )
  ]
