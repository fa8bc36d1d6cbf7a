"""A search with a real policy and engine: what its trees may depend on."""

import dataclasses
import pathlib

import numpy as np
from absl.testing import absltest

from configs import tiny
from rstar_jax.data.synthetic import generator
from rstar_jax.pipeline import backends
from rstar_jax.pipeline import context as session
from rstar_jax.search import mcts


class SearchTest(absltest.TestCase):
  def test_trees_do_not_depend_on_how_the_device_is_used(self):
    """Slots, buckets, batches, halvings, caches: the same trees."""
    config = tiny.get_config()
    problems = generator.problems(split="train", count=5, seed=0)
    workdir = pathlib.Path(self.create_tempdir().full_path)
    changes = (
      dict(),
      dict(in_flight=2),
      dict(in_flight=3, cache_candidates=False, least_rows=1),
      dict(leaf_buckets=(3,), prefix_buckets=(96, 384), tail_buckets=(24,)),
    )
    found, logprobs = [], []
    for change in changes:
      run = dataclasses.replace(config)
      run.engine = dataclasses.replace(
        config.engine,
        **{"leaf_buckets": (2, 5)}
        | {k: v for k, v in change.items() if hasattr(config.engine, k)},
      )
      search = dataclasses.replace(
        config.search,
        rollouts=3,
        candidates=3,
        **{k: v for k, v in change.items() if hasattr(config.search, k)},
      )
      with session.open_context(run, workdir) as context:
        backend = backends.ModelBackend(context, 0)
        calls = backend.steps()
        trees = [mcts.search(problems, search, calls, seed=3) for _ in range(2)]
      usage = backend.usage()
      self.assertLess(usage["prefilled_tokens"], usage["prefix_tokens"] / 2)
      for turn in trees:
        records = [each.to_record() for each in turn]
        # The last bits of sums of log-probabilities differ.
        logprobs.append(
          [x for each in records for x in each["nodes"].pop("logprob")]
        )
        found.append(records)
    for other, sums in zip(found[1:], logprobs[1:], strict=True):
      self.assertEqual(found[0], other)
      np.testing.assert_allclose(logprobs[0], sums, atol=1e-3)
    nodes = sum(len(each["nodes"]["text"]) for each in found[0])
    self.assertGreater(nodes, 40)


if __name__ == "__main__":
  absltest.main()
