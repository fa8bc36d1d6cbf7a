"""The SFT stage: trains each round's policy (paper section 3.4)."""

import contextlib

from rstar_jax import rng
from rstar_jax.data import batches, held_out, stored_rows
from rstar_jax.data import trajectories as trajectories_lib
from rstar_jax.data.stored_rows import StoredRows
from rstar_jax.hf import saving
from rstar_jax.pipeline import models
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.reading import rows_of
from rstar_jax.pipeline.shards import finish, finish_model
from rstar_jax.storage import layout, manifests, scalars, stopping, store
from rstar_jax.training import loop, sft


def train_policy(context: Context, round_: int) -> None:
  """Fine-tunes on the round's solutions, from `config.sft_from`.

  It writes round_k/policy. A round that trains by reinforcement has its policy
  already, made together with its trees.

  Raises:
    ValueError: the round solved no problem, or by reinforcement its policy is
      not finished.
  """
  if context.reinforces(round_):
    context.finished(round_, "policy")
    return
  folder = context.folder(round_, "policy")
  if context.host.agree(manifests.read(folder) is not None):
    return
  rows = folder / layout.ROWS
  if manifests.read(rows) is None:
    context.finished(round_, "sft")  # Each host says so if it is not.
    finish(context.host, rows, lambda: pack(context, round_, rows))
  if not manifests.read(rows)["solutions"]:
    raise ValueError(
      f"round {round_} solved no problem, so there is nothing to train the "
      "policy on: in another --workdir give easier problems, more rollouts or "
      "a better base model"
    )
  config, mesh = context.config.sft, models.train_mesh(context.config)
  named = context.config.sft_from
  start = {"base": 0, "last": round_ - 1}.get(named, named)
  with contextlib.ExitStack() as stack:
    training, kept = (
      StoredRows(stack.enter_context(store.local(rows / name)))
      for name in held_out.PARTS
    )
    if not training.solutions:
      # Nothing is held out where nothing would be left to train on.
      training, kept = kept, training
    model = sft.train_packed(
      models.load_policy(context, start, train=config, mesh=mesh),
      training,
      config,
      loop.Session(
        scalars.training(round_, "sft"),
        rng.seed_for(context.config.seed, "sft", round_),
        mesh,
        folder / layout.CHECKPOINTS,
        context.writer,
        adapter=models.adapter_saver(context, folder, start, config),
      ),
      held_out=kept,
    )
  with stopping.deferred():
    saving.save_policy(model, folder, tokenizer=context.tokenizer)
    finish_model(context.host, folder, {"solutions": training.solutions})


def pack(context: Context, round_: int, folder: store.Path) -> dict[str, int]:
  """Encodes and packs a round's solutions; returns their number."""
  config, seed = context.config.sft, context.config.seed
  solutions = map(
    trajectories_lib.from_dict, rows_of(context.finished(round_, "sft"))
  )
  count = 0
  with store.staged(folder) as local, contextlib.ExitStack() as stack:
    files = {
      name: stack.enter_context(stored_rows.Writer(local / name, config.length))
      for name in held_out.PARTS
    }
    for name, group in held_out.by_problem(solutions):
      rows = [
        batches.encode_row(context.tokenizer, each.question, each.steps)
        for each in group
      ]
      files[held_out.part_of(seed, name, config.held_out)].put(rows)
      count += len(rows)
  return {"solutions": count}
