"""Tokens that a training computes: rows apart, and as prefix trees.

  make demo
  python -m benchmarks.prefixes --workdir=runs/tiny

For each round and training of a run: the tokens of all rows or sides, one by
one; of pairs whose sides share what they can; of the prefix trees that are
trained on; and the slots of these, with padding. No epoch counts twice.
Attention in a packed row is to all of its slots, so that time is saved by less
where rows are long.
"""

import json
import pathlib

from absl import app, flags

from rstar_jax.config import identity
from rstar_jax.data import batches, prefix_trees
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.pipeline.shards import read_pairs, read_rows

_WORKDIR = flags.DEFINE_string("workdir", None, "Of a run.", required=True)


def tokens_of(arrays: batches.Batch) -> int:
  return int((arrays["ends"] > 0).sum())


def show(name: str, separate: int, pairs: int | None, found: list) -> None:
  """Prints a line of a training, of which `found` are the batches."""
  trees = sum(map(tokens_of, found))
  slots = sum(each["ends"].size for each in found)
  print(
    json.dumps(
      {
        "training": name,
        "separate": separate,
        "pairs": pairs,
        "trees": trees,
        "slots": slots,
        "saved": round(separate / trees, 2),
        "programs": len({each["tokens"].shape for each in found}),
      }
    ),
    flush=True,
  )


def main(_):
  root = pathlib.Path(_WORKDIR.value)
  config = identity.from_json((root / "config.json").read_text())
  for folder in sorted(root.glob("round_*")):
    if not (folder / "policy").exists():
      continue
    tokenizer = load_tokenizer(folder / "policy")
    solutions = read_rows(folder / "sft")
    rows = [
      batches.encode_row(tokenizer, each["question"], each["steps"])
      for each in solutions
    ]
    groups = batches.by_question(each["question"] for each in solutions)
    packed = batches.pack(
      [[rows[number] for number in group] for group in groups],
      config.sft.length,
    )
    separate = sum(len(ids) for ids, _ in rows)
    show(f"{folder.name}/sft", separate, None, [packed.arrays])
    sides = batches.encode_pairs(
      tokenizer, read_pairs(folder / "pairs"), config.ppm.length
    )
    batch_at, count = batches.side_batches(
      sides, config.ppm.batch_size, 1, 0, length=config.ppm.length
    )
    show(
      f"{folder.name}/ppm",
      sum(len(ids) for pair in sides.ids for ids in pair),
      sum(len(prefix_trees.join(pair).tokens) for pair in sides.ids),
      [batch_at(k) for k in range(count)],
    )


if __name__ == "__main__":
  app.run(main)
