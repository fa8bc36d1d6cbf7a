r"""Trains the base model that ships with the package.

  python -m rstar_jax.tools.bootstrap --workdir=DIR \
    --output=rstar_jax/base_model

The paper's first data come from a large language model. On a laptop there is
none, so a small transformer trained from scratch stands in for it. A large
model can read, and has seen things done well and badly: right steps are among
its samples, but often not the likeliest. So the small model is trained on
worked solutions of mostly easy problems (the splits "worked", then "stretch"),
many of which, as on the web, contain a mistake (injected by
`data/synthetic/relations.py`); it learns to write both. Only the answers of the
training problems tell later stages which are right. The weights are part of the
package, since their training takes an hour.

A model for the long problems of `configs/tiny_long.py` is trained from it:

  python -m rstar_jax.tools.bootstrap --workdir=DIR --output=runs/long_model \
    --base=rstar_jax/base_model
"""

import dataclasses

import numpy as np
from absl import app, flags, logging
from flax import nnx

from rstar_jax import outside
from rstar_jax.config import schema as config_lib
from rstar_jax.data import batches
from rstar_jax.data.synthetic import generator
from rstar_jax.hf import folders, saving
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.transformer import Transformer
from rstar_jax.steps import prompts
from rstar_jax.steps.tokenizer import HfTokenizer, Tokenizer
from rstar_jax.storage import metrics, store
from rstar_jax.tools import train_tokenizer
from rstar_jax.training import loop, own_data, sft

# Worked problems that the tokenizer learns its merges from.
_TOKENIZER_PROBLEMS = 6000

# Small batches, many updates: a model learns to copy names and numbers from the
# question late and suddenly, after a number of updates rather than of tokens.
TRAIN = config_lib.TrainConfig(
  batch_size=12,
  length=320,
  optimizer="muon",
  learning_rate=3e-3,
  schedule="linear",
  warmup=0.03,
  weight_decay=0.01,
  checkpoint_every=100,
  log_every=20,
)
# Split of the generator, number of updates, and config.
PHASES = (
  ("worked", 1500, TRAIN),
  ("stretch", 2400, TRAIN),
)
# The phases with --base.
LONG_PHASES = (
  (
    "long_worked",
    800,
    dataclasses.replace(
      TRAIN, batch_size=6, length=704, learning_rate=2.5e-3, warmup=0.05
    ),
  ),
)
# Approximate tokens of a worked problem; a batch draws more problems than fit.
_TOKENS = {"worked": 160, "stretch": 160, "long_worked": 300}
MODEL = ModelConfig(vocab_size=768, max_length=1024)


def worked_batches(
  tokenizer: Tokenizer,
  batch_size: int,
  length: int,
  seed: int,
  split: str = "worked",
) -> batches.BatchAt:
  """Makes batches of worked problems that are never seen twice.

  Args:
    tokenizer: encodes the problems.
    batch_size: B, packed rows.
    length: T, tokens per row.
    seed: seed of the problems.
    split: the generator's split.

  Returns:
    Batch k as a function of k alone, arrays [B, T] (`batches.Packed`).
  """
  per_batch = batch_size * length // _TOKENS[split]

  def batch_at(k: int) -> batches.Batch:
    rows = []
    for index in range(k * per_batch, (k + 1) * per_batch):
      worked = generator.generate(split, index, seed)
      rows.append(
        batches.encode_row(tokenizer, worked.problem.question, worked.steps)
      )
    # The longest first: they pack well, and those left out are short.
    rows.sort(key=lambda row: -len(row[0]))
    packed = batches.pack([[row] for row in rows], length).arrays
    return {
      name: np.concatenate(
        [array[:batch_size], np.zeros_like(array, shape=(batch_size, length))]
      )[:batch_size]
      for name, array in packed.items()
    }

  return batch_at


def make_tokenizer(folder: store.Path, vocab_size: int, seed: int):
  """Trains the tokenizer on texts of training families and names only."""
  texts = []
  for index in range(_TOKENIZER_PROBLEMS):
    split = ("train", "worked")[index % 2]
    worked = generator.generate(split, index, seed)
    texts.append(
      prompts.prompt(worked.problem.question) + "".join(worked.steps)
    )
  with store.staged(folder) as local:
    train_tokenizer.train(texts, vocab_size, local)
    return HfTokenizer(local)


def train(
  workdir: store.Path, output: store.Path, *, seed: int, base: str = ""
) -> Transformer:
  """Trains the base model and writes it as a Hugging Face folder.

  Args:
    workdir: holds checkpoints and metrics; the same folder resumes.
    output: gets config.json, model.safetensors and the tokenizer's files.
    seed: seed of weights and problems.
    base: folder of a model that is trained further, on long problems; "" starts
      from scratch.

  Returns:
    The model.

  Raises:
    ValueError: the workdir has checkpoints of another seed or base.
  """
  if base:
    model, phases = folders.load_policy(base), LONG_PHASES
  else:
    model = Transformer(dataclasses.replace(MODEL), rngs=nnx.Rngs(seed))
    phases = PHASES
  for split, steps, config in phases:
    own_data.bind(workdir / split, (), config, model, seed=seed, updates=steps)
  if base:
    tokenizer = HfTokenizer(base)
  else:
    tokenizer = make_tokenizer(output, MODEL.vocab_size, seed)
  writer = metrics.MetricsWriter(workdir)
  for split, steps, config in phases:
    loop.fit_model(
      model,
      sft.sft_loss,
      worked_batches(tokenizer, config.batch_size, config.length, seed, split),
      steps,
      config,
      loop.Session(f"bootstrap_{split}", folder=workdir / split, writer=writer),
    )
  writer.close()
  saving.save_policy(model, output, tokenizer=tokenizer)
  logging.info("The base model is in %s", output)
  return model


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise ValueError(f"{argv[1]!r} is no flag; --help lists them")
  given = flags.FLAGS
  train(
    store.path(given.workdir),
    store.path(given.output),
    seed=given.seed,
    base=given.base,
  )


def define_flags() -> None:
  """Defines the flags; not at import, since `main.py` has flags of its own."""
  flags.DEFINE_string(
    "workdir", None, "Folder of checkpoints and metrics; the same one resumes."
  )
  flags.DEFINE_string(
    "output", None, "Folder for the model's and the tokenizer's files."
  )
  flags.DEFINE_string(
    "base", "", "Folder of a model to train further, on long problems."
  )
  flags.DEFINE_integer("seed", 0, "Seed of weights and problems.")
  flags.mark_flags_as_required(["workdir", "output"])


if __name__ == "__main__":
  define_flags()
  with outside.program("rstar_jax.tools.bootstrap"):
    app.run(main)
