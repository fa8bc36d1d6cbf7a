"""Samples the candidates of leaves, of each as many as seem worth it.

Most of what a search samples are steps that it has. With
`SearchConfig.unseen_mass` candidates come a portion at a time, and a leaf gets
no more of them once a new one is unlikely. Those that it gets are the first
ones of all that it would have got (this is not in the paper).
"""

import collections
from collections.abc import Sequence

import numpy as np

from rstar_jax.config.schema import SearchConfig
from rstar_jax.search import requests
from rstar_jax.search.requests import Search
from rstar_jax.steps import grammar
from rstar_jax.types import Candidate, Prefix


def sample(
  question: str,
  prefixes: Sequence[Prefix],
  seeds: Sequence[np.ndarray],
  config: SearchConfig,
) -> Search[list[list[Candidate]]]:
  """Samples the candidates of L leaves, as a part of a search.

  Args:
    question: of the problem.
    prefixes: L prefixes.
    seeds: of the candidates that each leaf can get, L of uint32 [C].
    config: `unseen_mass` and `portion` are used.

  Returns:
    The candidates of each leaf, in the order of their seeds.
  """
  found: list[list[Candidate]] = [[] for _ in prefixes]
  open_ = list(range(len(prefixes)))
  while open_:
    asked = []
    for leaf in open_:
      rest = seeds[leaf][len(found[leaf]) :]
      if config.unseen_mass:
        rest = rest[: config.portion]
      asked.append(requests.expand(question, prefixes[leaf], rest))
    for leaf, candidates in zip(open_, (yield asked), strict=True):
      found[leaf] += candidates
    open_ = [
      leaf
      for leaf in open_
      if len(found[leaf]) < len(seeds[leaf])
      and unseen_mass(prefixes[leaf], found[leaf]) > config.unseen_mass
    ]
  return found


def unseen_mass(prefix: Prefix, candidates: Sequence[Candidate]) -> float:
  """Estimates how likely the next candidate is a new well-formed one.

  The Good-Turing estimate: the share of the candidates that are well-formed and
  were sampled once. 1 if none is well-formed.

  Args:
    prefix: texts of the nodes before them.
    candidates: at least one.
  """
  counts = collections.Counter(
    each.text
    for each in candidates
    if not grammar.problem_with(prefix, each.text, each.finish)
  )
  once = sum(count == 1 for count in counts.values())
  return once / len(candidates) if counts else 1.0
