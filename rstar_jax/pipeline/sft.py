"""The stage that trains the policy, from the base model in every round.

(Paper section 3.4.)
"""

from rstar_jax import rng
from rstar_jax.data import held_out
from rstar_jax.data import trajectories as trajectories_lib
from rstar_jax.hf import folders
from rstar_jax.pipeline import models
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.shards import finish_model, read_rows
from rstar_jax.storage import layout, records, stopping
from rstar_jax.training import sft


def train_policy(context: Context, round_: int) -> None:
  """Fine-tunes on the round's solutions, from `config.sft_from`: policy.

  By reinforcement the policy is there, made with the round's trees.
  """
  if context.reinforces(round_):
    context.finished(round_, "policy")
    return
  folder = context.folder(round_, "policy")
  if context.host.agree(records.read_manifest(folder) is not None):
    return
  rows = [
    trajectories_lib.from_dict(row)
    for row in read_rows(context.finished(round_, "sft"))
  ]
  if not rows:
    raise ValueError(
      f"round {round_} solved no problem, so there is nothing to train the "
      "policy on: in another --workdir give easier problems, more rollouts or "
      "a better base model"
    )
  config, mesh = context.config.sft, models.train_mesh(context.config)
  named = context.config.sft_from
  start = {"base": 0, "last": round_ - 1}.get(named, named)
  training, kept = (
    [(row.question, row.steps) for row in part]
    for part in held_out.divide(
      rows,
      lambda row: row.problem_id,
      context.config.seed,
      config.held_out,
    )
  )
  model = sft.train_sft(
    models.load_policy(context, start, train=config, mesh=mesh),
    training,
    config,
    held_out=kept,
    mesh=mesh,
    seed=rng.seed_for(context.config.seed, "sft", round_),
    tokenizer=context.tokenizer,
    name=layout.training_name(round_, "sft"),
    folder=folder / layout.CHECKPOINTS,
    writer=context.writer,
    adapter=models.adapter_saver(context, folder, start, config),
  )
  with stopping.deferred():
    folders.save_policy(model, folder, tokenizer=context.tokenizer)
    finish_model(context.host, folder, {"solutions": len(training)})
