"""Self-evolution: all rounds, stage after stage (paper section 3.4).

Round 0 is the base model. Round k searches with the policy of round k - 1 and,
if a PPM annotates its trees, the PPM of round k - 1. It trains the policy of
round k from the base model, and the PPM of round k from that policy.

A stage reads finished folders and writes a new one, whose manifest comes last.
A stage with a manifest does not run again; a killed one resumes from its
journals and shards, or its last checkpoint.
"""

import contextlib
import dataclasses
import operator
from collections.abc import Iterator
from typing import Any

from absl import logging

from rstar_jax.config import validation
from rstar_jax.config.schema import Config
from rstar_jax.hf import folders
from rstar_jax.models import host_memory
from rstar_jax.pipeline import (
  backends,
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
from rstar_jax.pipeline.hosts import ALONE, Host
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
from rstar_jax.training import lora


def _roll_out(context: Context, round_: int) -> None:
  """Makes a round's trees and, by reinforcement, its policy with them."""
  if round_ == 1:
    rollout.check_search(context)
    _check_writer(context)
  reinforces = context.reinforces(round_)
  stage = reinforce.reinforce if reinforces else rollout.rollout
  stage(context, round_)


# The stages of a round, in order, by their commands' names.
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
  host: Host = ALONE,
  *,
  reads: bool = False,
) -> Iterator[Context]:
  """Opens a run in its folder, for a program or a notebook.

  Args:
    config: of the run.
    workdir: the run's folder, on a disk or in a bucket. It also holds compiled
      programs, unless `config.programs` names another place.
    host: this process, where the run has several.
    reads: whether the run is opened for reading. Then nothing but compiled
      programs is written, the folder is not bound to the config, and settings
      may differ from the run's, except those that `checks.check_models`
      compares.

  Yields:
    The context that every stage takes.

  Raises:
    ValueError: the config cannot run on so many hosts, or at all; or the
      folder holds a run of another config, see `checks.check_workdir`.
  """
  folder = store.path(workdir)
  validation.validate(config)
  if not reads:
    checks.check_loading(config, host)
  # Trackers get metrics once: from the first host of a run that writes.
  tracked = host.leads and not reads
  if tracked:
    trackers.check(config.trackers)
  work: Work = Local()
  if config.ray.address and not reads:
    work = Ray(config.ray, open_run)
  host_memory.keep_freed()
  compiled.keep(config.programs or folder / layout.PROGRAMS)
  # The device's runtime, started by now, may have replaced the handler of
  # SIGTERM.
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
  """Runs all rounds; returns the content of results.json.

  The same call resumes: a finished stage is not run again.

  Raises:
    ValueError: a later stage could not run; see `_check_stages`.
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
  """Checks, before anything is spent, that all stages can run.

  Raises:
    ValueError: `search` sets what rounds do; the devices cannot train; the base
      model, a named policy, start of SFT or reward model is not usable, or not
      by the config's engine; or no model can write a step in round 1; one line
      that says what to do.
  """
  config = context.config
  rollout.check_search(context)
  models.check_trainings(config)
  for name in sorted({each.policy for each in config.rounds} - {""}):
    if config.policy.backend:
      folders.check_policy(name)  # It writes text, by a tokenizer of its own.
    else:
      models.check_policy(context, name)
  if "sft" in config.trainings and config.sft_from not in ("base", "last"):
    models.check_policy(context, config.sft_from)
  rewards = {each.ppm for each in config.rounds} | {config.eval.reward_model}
  for name in sorted(rewards - {""}):
    backends.check_score(name, config)
  _check_writer(context)
  models.check_rows(context.tokenizer, models.base(config))
  for name, train in _starts(config):
    models.check_saved(context.tokenizer, name)
    lora.check_base(name, operator.attrgetter(train)(config))
  for name in _on_engines(config):
    models.check_engine(config, name)


def _starts(config: Config) -> list[tuple[str, str]]:
  """Returns the models that policies are trained from, but those of rounds.

  Each has the field of its training.
  """
  base, starts = str(models.base(config)), set()
  for number, each in enumerate(config.rounds):
    last = "" if number else base
    named = {"base": base, "last": last}
    if each.algorithm == "sft":
      starts.add((named.get(config.sft_from, config.sft_from), "sft"))
    else:
      starts.add((each.policy or last, "reinforce.train"))
  return sorted(each for each in starts if each[0])


def _on_engines(config: Config) -> list[str]:
  """Returns the models that searches load, or whose descendants they load."""
  found: set[str] = set()
  samples = not (config.policy.backend or config.servers.policy)
  if samples:
    found = {str(models.base(config)), *(each.policy for each in config.rounds)}
  # A PPM is a policy with another head.
  if samples or not config.servers.ppm:
    found.update(name for name, _ in _starts(config))
  return sorted(found - {""})


def _check_writer(context: Context) -> None:
  """Checks that a model can write steps in round 1, unless it has trees."""
  if manifests.read(context.folder(1, "trees")) is None:
    checks.first_writer(context.config, checks.knows_grammar(context.tokenizer))


def newest_round(context: Context) -> int:
  """Returns the last round with a trained policy and PPM, 0 for none."""
  for round_ in range(len(context.config.rounds), 0, -1):
    if all(
      manifests.read(context.folder(round_, name)) is not None
      for name in ("policy", "ppm")
    ):
      return round_
  return 0
