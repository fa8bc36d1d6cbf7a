"""Expands leaves: samples candidates, runs, scores, judges and adds them.

All searches of trees use it: `grow` for one leaf, `grow_all` for several, and
`sample_child` for a node that is not added yet.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from rstar_jax import rng
from rstar_jax.config.schema import SearchConfig
from rstar_jax.grading import judging
from rstar_jax.search import portions, requests
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.requests import Calls, Search
from rstar_jax.search.tree import Child, Draw, Tree
from rstar_jax.steps import grammar
from rstar_jax.types import Candidate, Finish, Prefix

# The fewest nodes that follow a node in a complete solution.
_NODES_AFTER: dict[Finish, int] = {"step": 2, "code": 1, "answer": 0}


@dataclasses.dataclass(eq=False)
class _Leaf:
  """A place in a tree that candidates are sampled for.

  Attributes:
    prefix: texts of the nodes up to it.
    values: the PPM's values of these, nan where it was not asked.
    count: most candidates.
    sampled: the candidates, those that are dropped included.
    kept: the candidates that become nodes, and these.
  """

  prefix: Prefix
  values: Sequence[float]
  count: int
  sampled: Sequence[Candidate] = ()
  kept: list[tuple[Candidate, Child]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False)
class _Draft:
  """A candidate that may become a child of a leaf."""

  leaf: _Leaf
  candidate: Candidate
  text: str
  answer: str | None = None
  ppm: float = math.nan
  correct: int = tree_lib.UNKNOWN
  reward: float = -1.0


def check(config: SearchConfig, calls: Calls) -> None:
  """Raises ValueError if the config needs a PPM and there is none."""
  for field in ("annotation", "terminal_reward"):
    if getattr(config, field) == "ppm" and calls.score is None:
      raise ValueError(f"{field}='ppm' needs calls.score, which is None")


def grow(
  tree: Tree,
  node: int,
  config: SearchConfig,
  seed: int = 0,
  name: Sequence[int | str] = (),
) -> Search[int]:
  """Expands a leaf, as a part of a search (`yield from`).

  Args:
    tree: the tree.
    node: an open leaf.
    config: the search's config.
    seed: the run's seed.
    name: identities of this search (round, number of the tree).

  Returns:
    The number of its children.
  """
  (added,) = yield from grow_all(tree, [node], config, seed, name)
  return added


def grow_all(
  tree: Tree,
  nodes: Sequence[int],
  config: SearchConfig,
  seed: int = 0,
  name: Sequence[int | str] = (),
  counts: Sequence[int] | None = None,
) -> Search[list[int]]:
  """Expands leaves of one tree at once, as a part of a search (`yield from`).

  A candidate's seed derives from the run, the problem and the number of earlier
  expansions of the tree, and thus from nothing outside of the tree.

  Args:
    tree, config, seed, name: as of `grow`.
    nodes: L open leaves, each once.
    counts: number of candidates of each leaf, at least 1; None is
      `config.candidates` of each.

  Returns:
    The number of children of each leaf, L ints.
  """
  if counts is None:
    counts = [config.candidates] * len(nodes)
  leaves = [
    _Leaf(tree.prefix(node), tree.ppm[tree.path(node)[1:]].tolist(), count)
    for node, count in zip(nodes, counts, strict=True)
  ]
  yield from _sample(tree, leaves, config, seed, name)
  for node, leaf in zip(nodes, leaves, strict=True):
    if leaf.kept:
      tree.add_children(node, [child for _, child in leaf.kept])
    if tree.draws is not None:
      _keep_draws(tree, node, leaf)
  return [len(leaf.kept) for leaf in leaves]


def sample_child(
  tree: Tree,
  prefix: Prefix,
  values: Sequence[float],
  config: SearchConfig,
  seed: int = 0,
  name: Sequence[int | str] = (),
) -> Search[Child | None]:
  """Samples one node without adding it, as a part of a search.

  Args:
    tree: counts what is sampled and dropped.
    prefix: texts of the nodes before it.
    values: the PPM's values of these, nan where it was not asked.
    config, seed, name: as of `grow`.

  Returns:
    The node; None if the candidate is dropped.
  """
  leaf = _Leaf(prefix, values, 1)
  yield from _sample(tree, [leaf], config, seed, name)
  return leaf.kept[0][1] if leaf.kept else None


def _sample(
  tree: Tree,
  leaves: Sequence[_Leaf],
  config: SearchConfig,
  seed: int,
  name: Sequence[int | str],
) -> Search[None]:
  """Samples, runs, scores and judges what follows leaves, and fills these.

  Args:
    tree: counts expansions, tokens and what is dropped.
    leaves: not filled yet.
    config, seed, name: as of `grow`.
  """
  question = tree.problem.question
  rows = []
  for leaf in leaves:
    event = (*name, tree.problem.id, "expand", tree.expansions)
    tree.expansions += 1
    seeds = [rng.seed_for(seed, *event, i) for i in range(leaf.count)]
    rows.append(np.array(seeds, np.uint32))
  sampled = yield from portions.sample(
    question, [leaf.prefix for leaf in leaves], rows, config
  )
  drafts = []
  for leaf, candidates in zip(leaves, sampled, strict=True):
    leaf.sampled = candidates
    tree.tokens += sum(len(each.token_ids) for each in candidates)
    valid = valid_candidates(tree, leaf.prefix, candidates, config)
    drafts += [_Draft(leaf, each, each.text) for each in valid]
  drafts = yield from _run(tree, drafts)
  drafts = _extract(tree, drafts)
  yield from _score(question, drafts, config)
  yield from _judge(tree, drafts)
  for draft in drafts:
    draft.leaf.kept.append((draft.candidate, _child(draft, config)))


def _keep_draws(tree: Tree, node: int, leaf: _Leaf) -> None:
  """Records all that was sampled after a node, dropped or not."""
  children = {
    candidate.text: child
    for (candidate, _), child in zip(
      leaf.kept, tree.children(node), strict=True
    )
  }
  tree.draws += [
    Draw(
      node,
      children.get(each.text, tree_lib.NO_NODE),
      each.token_ids,
      each.logprobs,
    )
    for each in leaf.sampled
  ]


def valid_candidates(
  tree: Tree,
  prefix: Prefix,
  candidates: Sequence[Candidate],
  config: SearchConfig,
) -> list[Candidate]:
  """Returns the well-formed candidates of one leaf without duplicates.

  The others are counted in `tree.dropped`: as "length" (token limit), "lost"
  (no answer of a server), "malformed", "duplicate", "depth" (no answer is
  possible within max_depth) or "beside_answer" (answer_dedup="keep_first").
  """
  kept: dict[str, Candidate] = {}
  for each in candidates:
    if each.text in kept:
      tree.drop("duplicate")
    elif each.finish == "length":
      tree.drop("length")
    elif each.finish == "lost":
      tree.drop("lost")
    elif grammar.problem_with(prefix, each.text, each.finish):
      tree.drop("malformed")
    elif len(prefix) + 1 + _NODES_AFTER[each.finish] > config.max_depth:
      tree.drop("depth")
    else:
      kept[each.text] = each
  result = list(kept.values())
  if config.answer_dedup == "keep_first":
    first = next((each for each in result if each.finish == "answer"), None)
    if first is not None:
      for _ in result[1:]:
        tree.drop("beside_answer")
      return [first]
  return result


def _run(tree: Tree, drafts: list[_Draft]) -> Search[list[_Draft]]:
  """Runs the code of drafts and drops those that fail (paper section 3.2)."""
  coded = [each for each in drafts if each.candidate.finish != "answer"]
  if not coded:
    return drafts
  before = {
    leaf: grammar.program(leaf.prefix)
    for leaf in dict.fromkeys(each.leaf for each in coded)
  }
  ran = yield requests.verify(
    [[*before[each.leaf], grammar.code_of(each.text)] for each in coded]
  )
  failed = set()
  for each, result in zip(coded, ran, strict=True):
    if result.status != "ok":
      tree.drop(result.status)
      failed.add(each)
    elif each.candidate.finish == "code":
      each.text = grammar.with_output(each.text, result.stdout)
  return [each for each in drafts if each not in failed]


def _extract(tree: Tree, drafts: list[_Draft]) -> list[_Draft]:
  """Extracts the answers and drops answer steps that box none."""
  kept = []
  for each in drafts:
    if each.candidate.finish == "answer":
      nodes = (*each.leaf.prefix, each.text)
      each.answer = judging.answer_of(tree.problem, nodes)
      if each.answer is None:
        tree.drop("malformed")
        continue
    kept.append(each)
  return kept


def _score(
  question: str, drafts: Sequence[_Draft], config: SearchConfig
) -> Search[None]:
  """Sets the PPM's values that the config uses."""
  rewards = config.terminal_reward == "ppm"
  if config.annotation == "ppm" or (
    rewards and config.trajectory_value != "last"
  ):
    chosen = list(drafts)
  elif rewards:
    chosen = [each for each in drafts if each.answer is not None]
  else:
    return
  rows: dict[_Leaf, list[_Draft]] = {}
  for each in chosen:
    rows.setdefault(each.leaf, []).append(each)
  values = yield [
    requests.score(question, leaf.prefix, [each.text for each in row])
    for leaf, row in rows.items()
  ]
  for row, scores in zip(rows.values(), values, strict=True):
    for each, value in zip(row, scores, strict=True):
      each.ppm = float(value)


def _judge(tree: Tree, drafts: Sequence[_Draft]) -> Search[None]:
  """Sets the verdicts and rewards of answers; undecided is wrong."""
  chosen = [each for each in drafts if each.answer is not None]
  if not chosen:
    return
  judged = yield requests.judge([(tree.problem, e.answer) for e in chosen])
  for each, found in zip(chosen, judged, strict=True):
    if found is None:
      continue
    verdict, each.reward = found
    right = verdict == "equal"
    each.correct = tree_lib.RIGHT if right else tree_lib.WRONG
    tree.undecided += verdict == "undecided"


def _child(draft: _Draft, config: SearchConfig) -> Child:
  """Makes the node; the PPM may give its first visit (paper Eq. 3).

  An answer starts without a visit: its first visit backs up its reward.
  """
  answered = draft.answer is not None
  counted = (
    config.annotation == "ppm" and config.ppm_counts_visit and not answered
  )
  reward = math.nan
  if answered and config.terminal_reward == "ppm":
    reward = tree_lib.trajectory_value(
      (*draft.leaf.values, draft.ppm), config.trajectory_value
    )
  elif answered:
    reward = draft.reward
  return Child(
    text=draft.text,
    kind=tree_lib.KINDS[draft.candidate.finish],
    logprob=draft.candidate.logprob,
    ppm=draft.ppm,
    visits=int(counted),
    value_sum=draft.ppm if counted else 0.0,
    answer=draft.answer,
    correct=draft.correct,
    reward=reward,
  )
