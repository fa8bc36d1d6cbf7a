"""Samples the candidates of leaves, a portion at a time.

Most candidates of a search repeat steps that the leaf has already. With
`SearchConfig.unseen_mass` a leaf gets no further portion once a new step is
unlikely. Its candidates are the first ones of those that it would get without
(this is not in the paper).
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
    question: the problem's.
    prefixes: L prefixes.
    seeds: L arrays uint32 [C], a seed for each candidate that a leaf may get.
    config: uses `unseen_mass` and `portion`.

  Returns:
    The candidates of each leaf, in the order of their seeds.

  Raises:
    ValueError: there is not a candidate for each seed.
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
    answers = yield asked
    for leaf, request, candidates in zip(open_, asked, answers, strict=True):
      wanted = len(request.args[-1])
      if len(candidates) != wanted:
        # None at all would be asked for forever.
        raise ValueError(
          f"expand must return {wanted} candidates after this prefix, one for "
          f"each seed, not {len(candidates)}"
        )
      found[leaf] += candidates
    open_ = [
      leaf
      for leaf in open_
      if len(found[leaf]) < len(seeds[leaf])
      and unseen_mass(prefixes[leaf], found[leaf]) > config.unseen_mass
    ]
  return found


def unseen_mass(prefix: Prefix, candidates: Sequence[Candidate]) -> float:
  """Estimates the probability that the next candidate is new and well-formed.

  It is the Good-Turing estimate: the share of the candidates that are
  well-formed and were sampled once.

  Args:
    prefix: texts of the nodes before the candidates.
    candidates: at least one.

  Returns:
    A number in [0, 1]; 1 if no candidate is well-formed.
  """
  counts = collections.Counter(
    each.text
    for each in candidates
    if not grammar.problem_with(prefix, each.text, each.finish)
  )
  once = sum(count == 1 for count in counts.values())
  return once / len(candidates) if counts else 1.0
