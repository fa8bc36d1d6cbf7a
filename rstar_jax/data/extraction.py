"""Makes training data from one file of trees.

Worker processes of `pipeline/extract.py` run this. They load no accelerator
library, and hold the compressed rows of one file and the trees of one problem.
"""

import dataclasses

from rstar_jax.config.schema import ExtractConfig
from rstar_jax.data import counts as counts_lib
from rstar_jax.data import pairs as pairs_lib
from rstar_jax.data import pools
from rstar_jax.data import trajectories as trajectories_lib
from rstar_jax.data import unsolved as unsolved_lib
from rstar_jax.storage import layout, records, store


@dataclasses.dataclass(frozen=True)
class Job:
  """The files to make from a part of the trees.

  Attributes:
    part: the trees.
    sft: file of their solutions; None makes none.
    pairs: file of their pairs; None makes none.
  """

  part: pools.Part
  sft: store.Path | None
  pairs: store.Path | None

  @property
  def unsolved(self) -> store.Path:
    """The file, beside `sft`, that lists the problems that no tree solved."""
    assert self.sft is not None
    return self.sft.with_name(layout.UNSOLVED + self.sft.name)

  def left(self) -> "Job":
    """Returns the job without the files that are complete."""
    sft, pairs = self.sft, self.pairs
    if sft and all(map(records.is_complete, (sft, self.unsolved))):
      sft = None
    if pairs and records.is_complete(pairs):
      pairs = None
    return Job(self.part, sft, pairs)


def write(job: Job, config: ExtractConfig, seed: int) -> None:
  """Writes the files of a job, problem by problem.

  Their headers hold the counts of `trajectories.sft_rows` and `pairs.pairs`.

  Args:
    job: trees and files.
    config: how rows and pairs are chosen.
    seed: root seed of the run.
  """
  sft = job.sft and records.ShardWriter(job.sft)
  pairs = job.pairs and records.ShardWriter(job.pairs)
  # The counts for no trees, so that every count has its name.
  solutions, ranked = (
    trajectories_lib.sft_rows([], config, seed)[1],
    pairs_lib.pairs([], config)[1],
  )
  unsolved = []
  for trees in pools.problems(job.part):
    if sft is not None:
      rows, stats = trajectories_lib.sft_rows(trees, config, seed)
      for each in rows:
        sft.put(each)
      if row := unsolved_lib.report(trees):
        unsolved.append(row)
      counts_lib.add(solutions, stats)
    if pairs is not None:
      pairs_found, stats = pairs_lib.pairs(trees, config)
      for pair in pairs_found:
        pairs.put(pair)
      counts_lib.add(ranked, stats)
  if sft is not None:
    unsolved.sort(key=unsolved_lib.rank)
    solutions["suspects"] = sum(each["suspect"] for each in unsolved)
    records.write_shard(job.unsolved, unsolved)
    sft.write(solutions)
  if pairs is not None:
    pairs.write(ranked)
