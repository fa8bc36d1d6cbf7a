"""The stage that makes training data: trees to solutions and pairs."""

import collections

from rstar_jax.data import pairs as pairs_lib
from rstar_jax.data import released
from rstar_jax.data import trajectories as trajectories_lib
from rstar_jax.data import unsolved as unsolved_lib
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.shards import finish, pool_trees
from rstar_jax.storage import layout, records, store

# Rows per shard of training data that do not come from trees.
_SHARD_ROWS = 10_000


def tree_folders(context: Context, round_: int) -> list[store.Path]:
  """Returns the tree folders of the last `extract.rounds` rounds."""
  first = max(round_ - context.config.extract.rounds + 1, 1)
  return [
    context.finished(number, "trees") for number in range(first, round_ + 1)
  ]


def extract(context: Context, round_: int) -> None:
  """Makes SFT rows and preference pairs: sft, pairs.

  They come from the trees of the last `extract.rounds` rounds, or from
  `extract.sft_source` and `extract.pairs_source` where these are set.
  """
  config = context.config.extract
  # All hosts look, so that all report a missing folder.
  folders = tree_folders(context, round_) if config.needs_trees else []
  trees = None
  for name, source in (
    ("sft", config.sft_source),
    ("pairs", config.pairs_source),
  ):
    folder = context.folder(round_, name)
    if records.read_manifest(folder) is not None:
      continue
    if not context.host.leads:
      finish(context.host, folder, dict)
      continue
    if source:
      stats = _copy(source, name, folder)
    else:
      if trees is None:
        trees = pool_trees(folders, f"round {round_} extract, reading trees")
      if name == "sft":
        found, stats = trajectories_lib.sft_rows(
          trees, config, context.config.seed
        )
        rows = [trajectories_lib.to_dict(each) for each in found]
        left = unsolved_lib.report(trees)
        stats["suspects"] = sum(each["suspect"] for each in left)
        records.write_shard(folder / layout.UNSOLVED, left)
      else:
        found, stats = pairs_lib.pairs(trees, config)
        rows = [pairs_lib.to_dict(each) for each in found]
      records.write_shard(folder / records.shard_name(0, 1), rows)
    records.write_manifest(folder, stats)
    numbers = {k: v for k, v in stats.items() if not isinstance(v, dict)}
    context.writer.write(round_, numbers, name)


def _copy(source: str, name: str, folder: store.Path) -> dict:
  """Writes what others made as shards; returns how much it was, by reason."""
  skipped: released.Skipped = collections.Counter()
  if name == "sft":
    rows = map(trajectories_lib.to_dict, released.read_sft(source, skipped))
  else:
    rows = map(pairs_lib.to_dict, released.read_pairs(source, skipped))
  count = records.write_shards(folder, rows, _SHARD_ROWS)
  return {
    "rows": count,
    "skipped": skipped.total(),
    "reasons": dict(skipped),
  }
