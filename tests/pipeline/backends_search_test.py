"""A search with a real policy and engine: what its trees may depend on."""

import dataclasses
import pathlib

from absl.testing import absltest

from configs import tiny
from rstar_jax.data.synthetic import generator
from rstar_jax.pipeline import backends
from rstar_jax.pipeline import context as session
from rstar_jax.search import mcts


class SearchTest(absltest.TestCase):
  def test_trees_do_not_depend_on_how_the_device_is_used(self):
    """Rows, steps, prefills, pages, trees in flight: the same bytes."""
    config = tiny.get_config()
    problems = generator.problems(split="train", count=5, seed=0)
    workdir = pathlib.Path(self.create_tempdir().full_path)
    changes = (
      dict(),
      dict(in_flight=2, prefill_tokens=64),
      dict(in_flight=3, rows=40, inner_steps=3),
      dict(in_flight=1, rows=32, inner_steps=1, pages=200),
    )
    found = []
    for change in changes:
      run = dataclasses.replace(config)
      run.engine = dataclasses.replace(
        config.engine,
        **{k: v for k, v in change.items() if hasattr(config.engine, k)},
      )
      search = dataclasses.replace(
        config.search,
        rollouts=3,
        candidates=3,
        **{k: v for k, v in change.items() if hasattr(config.search, k)},
      )
      with session.open_context(run, workdir) as context:
        calls = backends.ModelBackend(context, 0).steps()
        for _ in range(2):
          trees = mcts.search(problems, search, calls, seed=3)
          found.append([each.to_json() for each in trees])
    for other in found[1:]:
      self.assertEqual(found[0], other)
    self.assertGreater(sum(map(len, trees)), 40)


if __name__ == "__main__":
  absltest.main()
