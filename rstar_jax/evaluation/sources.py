"""Sources of solutions: the table of what each one is and needs.

  greedy        one solution at temperature 0
  samples       independent solutions; a unit is a solution
  beam          step beam search; the whole search is one unit
  diverse_beam  step beam search in groups that differ in their first steps
  rebase        a budget of samples, divided anew at each depth; one unit
  mcts          one search, as `eval.search` says; a unit is a rollout
  puct          the same, with `selection="puct"`
  searches      independent searches; a unit is a search
  ab_mcts       one search that goes wider or deeper at each node; a unit is a
                rollout
  module:function  a search plugin (`SearchConfig.method`); a unit is a
                rollout, if it records them

These are the methods of `config.study`, which `solvers.py` runs. The methods of
an evaluation and of `solve` are a source and a choice (`methods.py`).
"""

import dataclasses

from rstar_jax.config.schema import SearchConfig


@dataclasses.dataclass(frozen=True)
class Source:
  """A source's properties.

  Attributes:
    title: name in tables; "" is the source's own name.
    guided: whether a reward model guides it, step by step. Otherwise the policy
      writes whole code blocks, without a reward model.
    greedy: whether it is one solution at temperature 0.
    independent: whether its units are independent, with one vote each.
  """

  title: str = ""
  guided: bool = True
  greedy: bool = False
  independent: bool = False

  @property
  def shared(self) -> bool:
    """Whether all reward models choose among the same solutions."""
    return not self.guided and not self.greedy

  def count(self, samples: int) -> int:
    """Returns the number of solutions: 1 if greedy, else `samples`."""
    return 1 if self.greedy else samples

  def in_flight(self, search: SearchConfig, samples: int) -> int:
    """Returns how many problems to solve at once.

    Those that are sampled have about as many solutions in flight as a search
    has candidates.

    Args:
      search: a search's config.
      samples: number of solutions of each problem, where it is sampled.
    """
    if self.guided:
      return search.in_flight
    candidates = search.in_flight * search.candidates
    return max(candidates // self.count(samples), 1)


SOURCES = {
  "greedy": Source("Greedy", guided=False, greedy=True),
  "samples": Source("Samples", guided=False, independent=True),
  "beam": Source("Step beams"),
  "diverse_beam": Source("Diverse beams"),
  "rebase": Source("REBASE"),
  "mcts": Source("One search"),
  "puct": Source("One search, PUCT"),
  "searches": Source("Searches", independent=True),
  "ab_mcts": Source("AB-MCTS"),
}


def of(name: str) -> Source:
  """Returns a source by its name; a search plugin has the defaults."""
  return SOURCES.get(name, Source())
