"""A round's training data as a data set for others."""

from rstar_jax.data import export as export_lib
from rstar_jax.data import pairs as pairs_lib
from rstar_jax.data import trajectories as trajectories_lib
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.shards import each_row
from rstar_jax.storage import layout, store


def export(context: Context, round_: int) -> str:
  """Writes the round's training data as a data set: export. Returns a line."""
  folder = context.folder(round_, layout.EXPORT)
  solutions = each_row(context.finished(round_, "sft"))
  pairs = each_row(context.finished(round_, "pairs"))
  with store.staged(folder) as local:
    counts = export_lib.write(
      local,
      map(trajectories_lib.from_dict, solutions),
      map(pairs_lib.from_dict, pairs),
      context.tokenizer.prompt,
    )
  return f"{folder}: {counts['sft']} solutions, {counts['pairs']} pairs"
