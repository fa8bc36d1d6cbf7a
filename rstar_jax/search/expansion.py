"""Expands many leaves at once: sample, parse, run, score, grade, add.

All searches expand their trees with `grow`, which calls each callable at most
once for all leaves.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rstar_jax import rng
from rstar_jax.config.schema import SearchConfig
from rstar_jax.grading import answers, judging
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import Child, Tree
from rstar_jax.steps import grammar
from rstar_jax.types import (
  Candidate,
  Expand,
  Finish,
  Grade,
  Prefix,
  Score,
  Verify,
)

# Smallest number of nodes that follow a node in a complete solution.
_NODES_AFTER: dict[Finish, int] = {"step": 2, "code": 1, "answer": 0}


@dataclasses.dataclass(frozen=True)
class Calls:
  """The callables of a search.

  Attributes:
    expand: samples next steps.
    verify: runs programs.
    grade: compares answers.
    score: scores steps with the PPM; None if the search uses no PPM.
    reward: says what an answer is worth, in the place of `grade`; problems need
      no gold answer then.
    begin: maps the number of a group of a search to that group's callables, or
      None if they are all the same. Callables with a cache start with an empty
      one for each group, so that no search depends on another.
  """

  expand: Expand
  verify: Verify
  grade: Grade
  score: Score | None = None
  reward: judging.Reward | None = None
  begin: Callable[[int], "Calls"] | None = None

  def of_group(self, number: int) -> "Calls":
    """Returns the callables of a group at the start of a search."""
    return self.begin(number) if self.begin else self

  def replace(self, **fields: Any) -> "Calls":
    """Returns callables with others in their place, in every group too."""
    begin = self.begin
    return dataclasses.replace(
      self,
      **fields,
      begin=begin and (lambda group: begin(group).replace(**fields)),
    )


@dataclasses.dataclass
class _Draft:
  """A candidate that may become a child of leaf number `leaf`."""

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
  trees: Sequence[Tree],
  nodes: Sequence[int],
  config: SearchConfig,
  calls: Calls,
  seed: int = 0,
  name: Sequence[int | str] = (),
) -> list[int]:
  """Expands leaf nodes[i] of trees[i] for all i at once.

  A candidate's seed derives from the run, the problem and the number of earlier
  expansions of its tree, so that it does not depend on the rest of the batch.

  Args:
    trees: B trees; a tree may occur several times with different nodes.
    nodes: B open leaves.
    config: the search's config.
    calls: the callables.
    seed: the run's seed.
    name: identities of this search (round, number of the tree).

  Returns:
    The number of children of each leaf, B ints.
  """
  check(config, calls)
  questions = [tree.problem.question for tree in trees]
  prefixes = [
    tree.prefix(node) for tree, node in zip(trees, nodes, strict=True)
  ]
  seeds = np.empty((len(trees), config.candidates), np.uint32)
  for row, tree in enumerate(trees):
    event = (*name, tree.problem.id, "expand", tree.expansions)
    seeds[row] = [
      rng.seed_for(seed, *event, column) for column in range(config.candidates)
    ]
    tree.expansions += 1
  sampled = calls.expand(questions, prefixes, seeds)
  drafts = []
  for leaf, candidates in enumerate(sampled):
    trees[leaf].tokens += sum(len(each.token_ids) for each in candidates)
    kept = valid_candidates(trees[leaf], prefixes[leaf], candidates, config)
    drafts += [_Draft(leaf, each, each.text) for each in kept]
  drafts = _extract(trees, _run(trees, prefixes, drafts, calls))
  _score(questions, prefixes, drafts, config, calls)
  _grade(trees, drafts, calls)
  children: list[list[Child]] = [[] for _ in trees]
  before = [
    tree.ppm[tree.path(node)[1:]]
    for tree, node in zip(trees, nodes, strict=True)
  ]
  for draft in drafts:
    child = _child(draft, before[draft.leaf], config)
    children[draft.leaf].append(child)
  for tree, node, each in zip(trees, nodes, children, strict=True):
    if each:
      tree.add_children(node, each)
  return [len(each) for each in children]


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
  trees: Sequence[Tree],
  prefixes: Sequence[Prefix],
  drafts: list[_Draft],
  calls: Calls,
) -> list[_Draft]:
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
  failed = set()
  for each, result in zip(coded, calls.verify(programs), strict=True):
    if result.status != "ok":
      trees[each.leaf].drop(result.status)
      failed.add(id(each))
    elif each.candidate.finish == "code":
      each.text = grammar.with_output(each.text, result.stdout)
  return [each for each in drafts if id(each) not in failed]


def _extract(trees: Sequence[Tree], drafts: list[_Draft]) -> list[_Draft]:
  """Extracts the boxed answers and drops answers without one."""
  kept = []
  for each in drafts:
    if each.candidate.finish == "answer":
      each.answer = answers.final_answer(each.text)
      if each.answer is None:
        trees[each.leaf].drop("malformed")
        continue
    kept.append(each)
  return kept


def _score(
  questions: Sequence[str],
  prefixes: Sequence[Prefix],
  drafts: Sequence[_Draft],
  config: SearchConfig,
  calls: Calls,
) -> None:
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
  if not rows:
    return
  values = calls.score(
    [questions[leaf] for leaf in rows],
    [prefixes[leaf] for leaf in rows],
    [[each.text for each in row] for row in rows.values()],
  )
  for row, scores in zip(rows.values(), values, strict=True):
    for each, value in zip(row, scores, strict=True):
      each.ppm = float(value)


def _grade(
  trees: Sequence[Tree], drafts: Sequence[_Draft], calls: Calls
) -> None:
  """Sets the verdicts and rewards of answers; undecided is wrong."""
  chosen = [each for each in drafts if each.answer is not None]
  answered = [(trees[each.leaf].problem, each.answer) for each in chosen]
  judged = judging.judge(answered, calls.grade, calls.reward)
  for each, found in zip(chosen, judged, strict=True):
    if found is None:
      continue
    verdict, each.reward = found
    right = verdict == "equal"
    each.correct = tree_lib.RIGHT if right else tree_lib.WRONG
    trees[each.leaf].undecided += verdict == "undecided"


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
