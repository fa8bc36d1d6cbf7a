"""Checks a run's data and folder before it spends anything.

A folder is bound to the identity of one config; see `config/identity.py`.
"""

import collections

from rstar_jax.config import identity, plugins
from rstar_jax.config.schema import Config
from rstar_jax.data import problems as problems_lib
from rstar_jax.data import released, training
from rstar_jax.grading import judging
from rstar_jax.grading.grader import Grader
from rstar_jax.hf import finding
from rstar_jax.pipeline.hosts import ALONE, Host, wait_until
from rstar_jax.steps.tokenizer import HfTokenizer
from rstar_jax.storage import json_io, layout, manifests, store
from rstar_jax.tasks.named import load_task
from rstar_jax.types import Problem


def check_data(config: Config, *, evaluation: bool = False) -> None:
  """Reads all problems, so that a run fails early if they are unusable.

  Of released training data only the first row is read.

  Args:
    config: the run's config.
    evaluation: whether only an evaluation runs, so that training data are not
      read.

  Raises:
    ProblemError: see `problems.read` and `released.read_sft`; one line.
    PluginError: a plugin fails on the first problem; see `try_plugins`.
  """
  if config.extract.needs_trees and not evaluation:
    try_plugins(config, training.load(config)[0][0])
  else:
    for _, problems in problems_lib.splits(config):
      try_plugins(config, problems[0])
  if evaluation:
    return
  if not config.extract.needs_trees:
    training.screen(config)
  for source, read in (
    (config.extract.sft_source, released.read_sft),
    (config.extract.pairs_source, released.read_pairs),
  ):
    if source:
      next(read(source, collections.Counter()))


def check_base(config: Config) -> None:
  """Checks that the base model can be found; its weights are not needed yet.

  Raises:
    ValueError: there is no such model; one line.
  """
  base = config.policy.path
  if base and not store.is_remote(base):
    finding.find(base, weights=False)


def try_plugins(config: Config, problem: Problem) -> None:
  """Calls the task's functions and the grader's plugin on one problem.

  Other plugins may be slow; they are first called where they are used.

  Args:
    config: the run's config.
    problem: its answer is graded; "0" is, where it has none.

  Raises:
    PluginError: a plugin raises, or returns a value of the wrong form.
  """
  task = load_task(config.task)
  task.prompt(problem.question)
  task.few_shot(problem.question)
  answer = problem.answer or "0"
  function = plugins.optional(config.grader.function, "config.grader.function")
  if function:
    with Grader(workers=1, function=function) as grader:
      grader.grade([(answer, answer)])
  if task.reward:
    judging.rewards(task.reward, [(problem, answer)])


def knows_grammar(tokenizer: HfTokenizer) -> bool:
  """Returns whether a model's own vocabulary has the step markers."""
  return tokenizer.known == tokenizer.vocab_size


def first_writer(config: Config, knows: bool) -> str:
  """Returns a description of the model that writes the steps of round 1.

  Args:
    config: the run's config.
    knows: whether the base model `knows_grammar`. If not, its embeddings of the
      markers are untrained, and it cannot write steps.

  Raises:
    ValueError: no model can; the message lists the remedies.
  """
  policy, first = config.policy, config.rounds[0]
  base = policy.path or "the base model of the package"
  if not config.extract.needs_trees:
    return "nobody, since solutions and pairs are given,"
  for given, writer in (
    (config.remote.url, f"{config.remote.model} at {config.remote.url}"),
    (first.policy, first.policy),
    (policy.backend, policy.backend),
    (policy.prompt == "few_shot", f"{base}, shown solved examples,"),
    (knows, base),
  ):
    if given:
      return writer
  raise ValueError(
    f"nobody can write a step in round 1: {base} has never seen the step "
    "grammar; in another --workdir name a server in config.remote.url and its "
    "config.remote.model, or a policy that has in config.rounds[0].policy, or "
    "set config.policy.prompt=few_shot"
  )


def check_loading(config: Config, host: Host) -> None:
  """Checks that each host can tell when servers have a round's model.

  Raises:
    ValueError: one of several hosts loads it, and outputs are not compared.
  """
  several = config.ray.searchers if config.ray.address else host.count
  if several > 1 and config.servers.load and not config.servers.compare:
    raise ValueError(
      "config.servers.compare=False hides from other hosts whether "
      f"config.servers.load={config.servers.load!r} has put a model on the "
      "servers: leave it True, or search on one host"
    )


def has_run(workdir: store.Path) -> bool:
  """Returns whether a folder is bound to a config."""
  return (workdir / layout.CONFIG).exists()


def begun(workdir: store.Path) -> bool:
  """Returns whether a folder holds any round."""
  return bool(layout.rounds(store.children(workdir)))


def find_run(workdir: store.Path) -> Config:
  """Returns the config that the run in a folder is bound to.

  Raises:
    ValueError: there is no run; names the nearest folder beside it that has
      one.
  """
  path = workdir / layout.CONFIG
  text = store.read(path)
  if text is not None:
    return identity.from_json(text, str(path))
  raise ValueError(layout.no_run(workdir))


def check_workdir(
  config: Config, workdir: store.Path, host: Host = ALONE
) -> None:
  """Binds a folder to the identity of a config, or checks that it matches.

  config.json holds the whole config of the latest process: fields that do not
  bind (`identity.identity`) are updated, and so are rounds added at the end. A
  folder without a begun round is bound anew.

  Args:
    config: the run's config.
    workdir: the run's folder, which all hosts see.
    host: this process; only the first one writes.

  Raises:
    ValueError: the folder holds a run of another identity.
  """
  path = workdir / layout.CONFIG
  if not host.leads:
    wait_until(path.exists, str(path))
  check_identity(config, workdir)
  wanted = identity.to_json(config)
  if host.leads and json_io.read(path) != wanted:
    json_io.write(path, wanted)


def check_identity(config: Config, workdir: store.Path) -> None:
  """Checks that a config can resume the run in a folder; changes nothing.

  Raises:
    ValueError: the run has another identity; the message names the fields that
      differ. A field that is newer than the run counts as its default. Or the
      config has more rounds, and the evaluation of the last one is not over.
  """
  if not has_run(workdir) or not begun(workdir):
    return
  bound = find_run(workdir)
  _check_continues(bound, config, workdir)
  if len(config.rounds) > len(bound.rounds) and bound.eval.early_problems:
    _check_evaluated(workdir, len(bound.rounds))


def _check_evaluated(workdir: store.Path, last: int) -> None:
  """Checks that the last round's evaluation is finished, or not begun.

  With `eval.early_problems` it would go on as that of an earlier round, which
  has fewer problems.

  Raises:
    ValueError: it is neither.
  """
  folder = layout.stage_folder(workdir, last, "eval")
  if store.children(folder) and manifests.read(folder) is None:
    raise ValueError(
      f"{folder} is not finished, and with eval.early_problems further rounds "
      f"would alter what it solves: finish it with {last} rounds, or delete "
      "it, before you add rounds"
    )


def _check_continues(bound: Config, config: Config, workdir: store.Path):
  differing = identity.continues(bound, config)
  if differing:
    raise ValueError(
      f"{workdir} holds a run of another config ({', '.join(differing)}): set "
      "what differs as it was, or give another --workdir"
    )


def check_bound(config: Config, workdir: store.Path) -> None:
  """Checks that a folder is still bound to the config that a stage began with.

  Two runs of different configs that begin in a new folder at the same time both
  find it free. The one that bound it first stops here, before it writes
  records.

  Raises:
    ValueError: it is bound to another config; the message names the fields that
      differ.
  """
  if has_run(workdir):
    _check_continues(find_run(workdir), config, workdir)


def check_models(config: Config, workdir: store.Path) -> None:
  """Checks that a config can load the models of a run; changes nothing.

  Raises:
    ValueError: there is no run, or it has another base model.
  """
  found = find_run(workdir).policy.path
  if found != config.policy.path:
    raise ValueError(
      f"{workdir} holds a run of policy.path={found!r}: give "
      f"--config.policy.path={found}, or another --workdir"
    )
