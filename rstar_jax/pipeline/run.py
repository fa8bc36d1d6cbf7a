"""Self-evolution: the rounds, one stage after the other (paper section 3.4).

Round 0 is the base model. Round k searches with the policy of round k - 1 and,
where its trees are annotated by one, the PPM of round k - 1; it trains the
policy of round k from the base model, and the PPM of round k from that policy.

A stage reads finished folders and writes a new one, whose manifest comes last.
A stage whose manifest is there does not run again; one that was killed goes on
from its last whole shard or checkpoint.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from absl import logging

from rstar_jax.config import plugins, validation
from rstar_jax.config.schema import Config
from rstar_jax.hf import folders
from rstar_jax.inference import reward
from rstar_jax.models import host_memory
from rstar_jax.pipeline import (
  checks,
  evaluate,
  extract,
  models,
  ppm,
  reinforce,
  results,
  rollout,
  sft,
)
from rstar_jax.pipeline.context import Context, open_context
from rstar_jax.pipeline.hosts import Host
from rstar_jax.pipeline.on_ray import Ray
from rstar_jax.pipeline.work import Local, Work
from rstar_jax.storage import (
  compiled,
  layout,
  manifests,
  stopping,
  store,
  trackers,
)

_ALONE = Host()


def _roll_out(context: Context, round_: int) -> None:
  """Runs the stage that makes a round's trees, and its policy with them."""
  if round_ == 1:
    _check_writer(context)
  reinforces = context.reinforces(round_)
  stage = reinforce.reinforce if reinforces else rollout.rollout
  stage(context, round_)


# The stages of a round, in order, by the name of their commands.
STAGES = {
  "rollout": _roll_out,  # problems -> trees, and policy by reinforcement
  "extract": extract.extract,  # trees -> solutions and preference pairs
  "sft": sft.train_policy,  # solutions -> policy
  "ppm": ppm.train_ppm,  # pairs -> PPM
  "evaluate": evaluate.evaluate,  # held-out problems -> answers
}


@contextlib.contextmanager
def open_run(
  config: Config,
  workdir: store.Path | str,
  host: Host = _ALONE,
  *,
  reads: bool = False,
) -> Iterator[Context]:
  """Opens a run in its folder: for a program, or a notebook.

  Args:
    config: what the run is.
    workdir: on a disk or in a bucket; it holds compiled programs too, unless
      `config.programs` names another place.
    host: this process, where the run has several.
    reads: whether only models and records are read: nothing is written but
      compiled programs, the folder is not bound to the config, and any setting
      may differ that does not say which model is read; see
      `checks.check_models`.

  Yields:
    What every stage takes.

  Raises:
    ValueError: a config that cannot run, or a folder that holds a run of
      another one; see `checks.check_workdir`.
  """
  folder = store.path(workdir)
  validation.validate(config)
  # Others read the run, or are not the first to say what came out.
  tracked = host.leads and not reads
  if tracked:
    trackers.check(config.trackers)
  work: Work = Local()
  if config.ray.address and not reads:
    work = Ray(config.ray, open_run)
  host_memory.keep_freed()
  compiled.keep(config.programs or folder / layout.PROGRAMS)
  # A device's runtime, which is up by now, may have its own idea of SIGTERM.
  stopping.listen_again()
  if not reads:
    checks.check_workdir(config, folder, host)
  elif checks.has_run(folder):
    checks.check_models(config, folder)
    config = dataclasses.replace(config, rounds=checks.find_run(folder).rounds)
  options = {"tracked": tracked, "writes": not reads}
  with open_context(config, folder, host, work, **options) as context:
    yield context


def evolve(context: Context) -> dict[str, Any]:
  """Runs all rounds, and returns what results.json holds.

  The same call resumes: a finished stage is not run again.

  Raises:
    ValueError: what a later stage would be refused for; see `_check_stages`.
  """
  _check_stages(context)
  evaluate.evaluate(context, 0)
  found = results.write(context)
  for round_ in range(1, len(context.config.rounds) + 1):
    for name, stage in STAGES.items():
      if name != "rollout" or context.config.extract.needs_trees:
        stage(context, round_)
    logging.info("Round %d is done", round_)
    found = results.write(context)
  return found


def _check_stages(context: Context) -> None:
  """Refuses, before anything is spent, what a later stage could not do.

  Raises:
    ValueError: the devices cannot train, a policy or a reward model that is
      named is none, or nobody can write a step in round 1; one line that says
      what to do.
  """
  config = context.config
  models.check_trainings(config)
  for name in {each.policy for each in config.rounds} - {""}:
    folders.check_policy(name)
  rewards = {each.ppm for each in config.rounds} | {config.eval.reward_model}
  for name in rewards - {""}:
    if not plugins.names_one(name) and reward.is_of_others(name):
      reward.described(name)
  _check_writer(context)


def _check_writer(context: Context) -> None:
  """Refuses round 1 if it has no trees yet, and nobody can write a step."""
  if manifests.read(context.folder(1, "trees")) is None:
    checks.first_writer(context.config, checks.knows_grammar(context.tokenizer))


def newest_round(context: Context) -> int:
  """Returns the last round with a trained policy and PPM, 0 without one."""
  for round_ in range(len(context.config.rounds), 0, -1):
    if all(
      manifests.read(context.folder(round_, name)) is not None
      for name in ("policy", "ppm")
    ):
      return round_
  return 0
