"""Expands leaves: sample, parse, run, score, grade, add.

All searches expand their trees with `grow`.
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

# Smallest number of nodes that follow a node in a complete solution.
_NODES_AFTER: dict[Finish, int] = {"step": 2, "code": 1, "answer": 0}


@dataclasses.dataclass
class _Draft:
  """A candidate that may become a child of a leaf, the `leaf`-th given."""

  leaf: int
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
  """Expands leaves of one tree at once, as a part of a search.

  A candidate's seed derives from the run, the problem and the number of earlier
  expansions of its tree, so that it depends on nothing beside the tree.

  Args:
    tree, config, seed, name: as of `grow`.
    nodes: L open leaves, each once.
    counts: number of candidates of each leaf, at least 1; `config.candidates`
      if None.

  Returns:
    The number of children of each leaf, L ints.
  """
  if counts is None:
    counts = [config.candidates] * len(nodes)
  leaves = [
    (tree.prefix(node), tree.ppm[tree.path(node)[1:]].tolist())
    for node in nodes
  ]
  found = yield from _sample(tree, leaves, counts, config, seed, name)
  for node, (kept, sampled) in zip(nodes, found, strict=True):
    if kept:
      tree.add_children(node, [child for _, child in kept])
    if tree.draws is not None:
      _keep_draws(tree, node, kept, sampled)
  return [len(kept) for kept, _ in found]


def sample_child(
  tree: Tree,
  prefix: Prefix,
  before: Sequence[float],
  config: SearchConfig,
  seed: int = 0,
  name: Sequence[int | str] = (),
) -> Search[Child | None]:
  """Samples one node without adding it, as a part of a search.

  Args:
    tree: counts what is sampled and dropped.
    prefix: the steps before the node.
    before: the PPM's values of these.
    config, seed, name: as of `grow`.

  Returns:
    The node; None if the candidate is dropped.
  """
  ((kept, _),) = yield from _sample(
    tree, [(prefix, before)], [1], config, seed, name
  )
  return kept[0][1] if kept else None


# What was sampled after a leaf: the candidates that became nodes, and all.
_Sampled = tuple[list[tuple[Candidate, Child]], Sequence[Candidate]]


def _sample(
  tree: Tree,
  leaves: Sequence[tuple[Prefix, Sequence[float]]],
  counts: Sequence[int],
  config: SearchConfig,
  seed: int,
  name: Sequence[int | str],
) -> Search[list[_Sampled]]:
  """Samples, runs, scores and judges the next nodes of leaves.

  Args:
    tree: counts expansions, tokens and what is dropped.
    leaves: prefix of each leaf, and the PPM's values of its steps.
    counts: most candidates of each leaf.
    config, seed, name: as of `grow`.
  """
  question = tree.problem.question
  prefixes = [prefix for prefix, _ in leaves]
  rows = []
  for count in counts:
    event = (*name, tree.problem.id, "expand", tree.expansions)
    tree.expansions += 1
    seeds = [rng.seed_for(seed, *event, i) for i in range(count)]
    rows.append(np.array(seeds, np.uint32))
  sampled = yield from portions.sample(question, prefixes, rows, config)
  drafts = []
  for leaf, candidates in enumerate(sampled):
    tree.tokens += sum(len(each.token_ids) for each in candidates)
    kept = valid_candidates(tree, prefixes[leaf], candidates, config)
    drafts += [_Draft(leaf, each, each.text) for each in kept]
  drafts = yield from _run(tree, prefixes, drafts)
  drafts = _extract(tree, prefixes, drafts)
  yield from _score(question, prefixes, drafts, config)
  yield from _judge(tree, drafts)
  found: list[_Sampled] = [([], candidates) for candidates in sampled]
  for draft in drafts:
    child = _child(draft, leaves[draft.leaf][1], config)
    found[draft.leaf][0].append((draft.candidate, child))
  return found


def _keep_draws(
  tree: Tree,
  node: int,
  kept: Sequence[tuple[Candidate, Child]],
  candidates: Sequence[Candidate],
) -> None:
  """Records all that was sampled after a node, dropped or not."""
  children = {
    candidate.text: child
    for (candidate, _), child in zip(kept, tree.children(node), strict=True)
  }
  tree.draws += [
    Draw(
      node,
      children.get(each.text, tree_lib.NO_NODE),
      each.token_ids,
      each.logprobs,
    )
    for each in candidates
  ]


def valid_candidates(
  tree: Tree,
  prefix: Prefix,
  candidates: Sequence[Candidate],
  config: SearchConfig,
) -> list[Candidate]:
  """Returns the well-formed candidates of one leaf without duplicates.

  Counts the others in `tree.dropped`: "length" (token limit), "lost" (no answer
  of a server), "malformed", "duplicate", "depth" (no answer is possible within
  max_depth) and "beside_answer" (answer_dedup="keep_first").
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


def _run(
  tree: Tree, prefixes: Sequence[Prefix], drafts: list[_Draft]
) -> Search[list[_Draft]]:
  """Runs the code of drafts and drops those that fail (paper section 3.2)."""
  coded = [each for each in drafts if each.candidate.finish != "answer"]
  if not coded:
    return drafts
  before = {
    leaf: grammar.program(prefixes[leaf])
    for leaf in {each.leaf: None for each in coded}
  }
  programs = [
    [*before[each.leaf], grammar.code_of(each.text)] for each in coded
  ]
  ran = yield requests.verify(programs)
  failed = set()
  for each, result in zip(coded, ran, strict=True):
    if result.status != "ok":
      tree.drop(result.status)
      failed.add(id(each))
    elif each.candidate.finish == "code":
      each.text = grammar.with_output(each.text, result.stdout)
  return [each for each in drafts if id(each) not in failed]


def _extract(
  tree: Tree, prefixes: Sequence[Prefix], drafts: list[_Draft]
) -> list[_Draft]:
  """Extracts the answers and drops answer steps that box none."""
  kept = []
  for each in drafts:
    if each.candidate.finish == "answer":
      each.answer = judging.answer_of(
        tree.problem, (*prefixes[each.leaf], each.text)
      )
      if each.answer is None:
        tree.drop("malformed")
        continue
    kept.append(each)
  return kept


def _score(
  question: str,
  prefixes: Sequence[Prefix],
  drafts: Sequence[_Draft],
  config: SearchConfig,
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
  rows: dict[int, list[_Draft]] = {}
  for each in chosen:
    rows.setdefault(each.leaf, []).append(each)
  values = yield [
    requests.score(question, prefixes[leaf], [each.text for each in row])
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


def _child(
  draft: _Draft, before: Sequence[float], config: SearchConfig
) -> Child:
  """Makes the node; the PPM may give its first visit (paper Eq. 3).

  An answer starts without a visit: its first one backs up its reward.

  Args:
    draft: the candidate.
    before: the PPM's values at the steps above it, oldest first.
    config: the search's config.
  """
  answered = draft.answer is not None
  counted = (
    config.annotation == "ppm" and config.ppm_counts_visit and not answered
  )
  reward = math.nan
  if answered and config.terminal_reward == "ppm":
    reward = tree_lib.trajectory_value(
      (*before, draft.ppm), config.trajectory_value
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
