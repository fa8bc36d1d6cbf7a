"""A search of one's own: best-first, which grows the leaf of highest value.

python docs/examples/own_search.py
"""

import rstar_jax as rj


def best_first(problems, config, calls, seed=0, name=()):
  """Grows the best leaf of each tree, `config.rollouts` times."""
  trees = [rj.Tree(problem) for problem in problems]
  for _ in range(config.rollouts):
    # All trees at once: what `calls` are given together is one device call.
    going = [tree for tree in trees if tree.leaves()]
    best = [max(tree.leaves(), key=lambda n: tree.ppm[n]) for tree in going]
    added = rj.grow(going, best, config, calls, seed, name)
    for tree, leaf, count in zip(going, best, added, strict=True):
      if not count:
        tree.give_up(leaf)
  return trees


if __name__ == "__main__":
  # A scripted policy that adds 1, 2 or 3 twice; `rj.load_calls` has a real
  # one.
  calls = rj.Calls(
    expand=rj.testing.ToySum(covers=True),
    verify=rj.testing.run_trusted,
    grade=rj.testing.grade_equal,
    score=rj.testing.score_by_hash,
  )
  config = rj.SearchConfig(rollouts=7, candidates=3, annotation="ppm")
  problems = [rj.Problem(f"p{n}", f"Make {n}.", str(n)) for n in (5, 6)]
  for search in (best_first, rj.search):
    for tree in search(problems, config, calls):
      answers = sorted({each.answer for each in rj.trajectories(tree)})
      print(search.__name__, tree.problem.id, len(tree), "nodes", answers)
