"""Makes training data of the trees of a file.

It is what processes do for `pipeline/extract.py`. They load no accelerator
library, and hold the rows of a file, compressed, and the trees of a problem.
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
class Task:
  """The files to be made of a part of the trees.

  Attributes:
    part: the trees.
    sft: the file of its solutions; None where it is not wanted.
    pairs: that of its pairs.
  """

  part: pools.Part
  sft: store.Path | None
  pairs: store.Path | None

  @property
  def unsolved(self) -> store.Path:
    """Where the problems are listed that no tree solved, beside `sft`."""
    assert self.sft is not None
    return self.sft.with_name(layout.UNSOLVED + self.sft.name)

  def left(self) -> "Task":
    """Returns the task without what is there."""
    sft, pairs = self.sft, self.pairs
    if sft and all(map(records.is_complete, (sft, self.unsolved))):
      sft = None
    if pairs and records.is_complete(pairs):
      pairs = None
    return Task(self.part, sft, pairs)


def write(task: Task, config: ExtractConfig, seed: int) -> None:
  """Writes the files of a task, problem by problem.

  What is counted is in their headers; see `trajectories.sft_rows` and
  `pairs.pairs`.

  Args:
    task: what to write.
    config: of the extraction.
    seed: the run's.
  """
  sft = task.sft and records.ShardWriter(task.sft)
  pairs = task.pairs and records.ShardWriter(task.pairs)
  # As of no trees, so that each count is there.
  solutions, ranked = (
    trajectories_lib.sft_rows([], config, seed)[1],
    pairs_lib.pairs([], config)[1],
  )
  unsolved = []
  for trees in pools.problems(task.part):
    if sft is not None:
      rows, stats = trajectories_lib.sft_rows(trees, config, seed)
      for row in rows:
        sft.put(trajectories_lib.to_dict(row))
      unsolved += unsolved_lib.report(trees)
      counts_lib.add(solutions, stats)
    if pairs is not None:
      found, stats = pairs_lib.pairs(trees, config)
      for pair in found:
        pairs.put(pairs_lib.to_dict(pair))
      counts_lib.add(ranked, stats)
  if sft is not None:
    unsolved.sort(key=unsolved_lib.rank)
    solutions["suspects"] = sum(each["suspect"] for each in unsolved)
    records.write_shard(task.unsolved, unsolved)
    sft.write(solutions)
  if pairs is not None:
    pairs.write(ranked)
