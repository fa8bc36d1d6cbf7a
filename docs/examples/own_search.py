"""A search of one's own: best-first, which grows the leaf of highest value.

python docs/examples/own_search.py
"""

import rstar_jax as rj


def search_tree(tree, config, seed, name):
  """Grows the best leaf of a tree, `config.rollouts` times."""
  for _ in range(config.rollouts):
    if leaves := tree.leaves():
      best = max(leaves, key=lambda node: tree.ppm[node])
      if not (yield from rj.grow(tree, best, config, seed, name)):
        tree.give_up(best)
  return tree


def best_first(problems, config, calls, seed=0, name=()):
  """Searches a tree for each problem, many at once."""
  trees = map(rj.Tree, problems)
  searches = [search_tree(tree, config, seed, name) for tree in trees]
  return rj.run_searches(searches, calls, config.in_flight)


if __name__ == "__main__":
  # A scripted policy that adds 1, 2 or 3 twice; `rj.load_calls` has a real.
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
