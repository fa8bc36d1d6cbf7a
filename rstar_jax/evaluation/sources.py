"""Sources of solutions: the one table of what each of them is and needs.

  greedy        one solution at temperature 0
  samples       independent solutions; a unit is a solution
  beam          step beam search; the whole search is one unit
  diverse_beam  step beam search in groups that differ in their first steps
  rebase        a budget of samples, divided again at each depth; one unit
  mcts          one search; a unit is a rollout
  searches      independent searches; a unit is one
  ab_mcts       one search that goes wider or deeper at each node; as mcts
  module:function  a search of the user's (`SearchConfig.method`); a unit is a
                rollout, where it records them

These are the methods of `config.study`, which `solvers.py` runs. Those of an
evaluation and of who asks questions are a source and a choice (`methods.py`).
"""

import dataclasses

from rstar_jax.config.schema import SearchConfig
from rstar_jax.search import sampling


@dataclasses.dataclass(frozen=True)
class Source:
  """What a source is.

  Attributes:
    title: for people; "" is its name.
    guided: whether a reward model guides it, step by step. Otherwise the policy
      writes whole code blocks, without a reward model.
    greedy: whether it is one solution, at temperature 0.
    independent: whether its units are independent, and have one vote each.
  """

  title: str = ""
  guided: bool = True
  greedy: bool = False
  independent: bool = False

  @property
  def shared(self) -> bool:
    """Whether each reward model has a say on the same solutions."""
    return not self.guided and not self.greedy

  def count(self, samples: int) -> int:
    """Returns how many solutions are sampled where others take `samples`."""
    return 1 if self.greedy else samples

  def in_flight(self, search: SearchConfig, samples: int) -> int:
    """Returns how many problems are worth as much as the searches in flight."""
    if self.guided:
      return search.in_flight
    return sampling.in_flight_of(search, self.count(samples))


SOURCES = {
  "greedy": Source("Greedy", guided=False, greedy=True),
  "samples": Source("Samples", guided=False, independent=True),
  "beam": Source("Step beams"),
  "diverse_beam": Source("Diverse beams"),
  "rebase": Source("REBASE"),
  "mcts": Source("One search"),
  "searches": Source("Searches", independent=True),
  "ab_mcts": Source("AB-MCTS"),
}


def of(name: str) -> Source:
  """Returns a source by its name; a search of the user's is a plain one."""
  return SOURCES.get(name, Source())
