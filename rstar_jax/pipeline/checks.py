"""What is checked before a run spends anything: its data, and its folder.

A folder is bound to the identity of one config; see `config/identity.py`.
"""

import collections
import difflib
import json

from rstar_jax.config import identity, plugins
from rstar_jax.config.schema import Config
from rstar_jax.data import problems as problems_lib
from rstar_jax.data import released, training
from rstar_jax.grading import judging
from rstar_jax.grading.grader import Grader
from rstar_jax.pipeline.hosts import Host, wait_until
from rstar_jax.steps import prompts
from rstar_jax.storage import layout, records, store
from rstar_jax.types import Problem

_ALONE = Host()


def check_data(config: Config, *, evaluation: bool = False) -> None:
  """Reads all problems, so that what is wrong with them is said at once.

  Of training data that others made the first row is read.

  Args:
    config: of the run.
    evaluation: whether nothing is trained, so that no training data are wanted.

  Raises:
    ProblemError: one line; see `problems.read` and `released.read_sft`.
    PluginError: a plugin fails on a first problem; see `try_plugins`.
  """
  if config.extract.needs_trees and not evaluation:
    try_plugins(config, training.load(config)[0][0])
  else:
    for data in (config.eval.data, *config.eval.more):
      found = problems_lib.load_problems(
        data, needs_answer=not config.answer_reward
      )
      try_plugins(config, found[0])
  if evaluation:
    return
  for source, read in (
    (config.extract.sft_source, released.read_sft),
    (config.extract.pairs_source, released.read_pairs),
  ):
    if source:
      next(read(source, collections.Counter()))


def try_plugins(config: Config, problem: Problem) -> None:
  """Asks the prompt, the grader and the reward about one problem.

  The other plugins are tried where they are used, since they may take long.

  Args:
    config: of the run.
    problem: one of its problems; its own answer is graded, or "0".

  Raises:
    PluginError: one raises, or returns something of another form.
  """
  prompts.own(config.policy.prompt)(problem.question)
  answer = problem.answer or "0"
  function = plugins.optional(config.grader.function, "config.grader.function")
  if function:
    with Grader(workers=1, function=function) as grader:
      grader.grade([(answer, answer)])
  reward = plugins.optional(config.answer_reward, "config.answer_reward")
  if reward:
    judging.rewards(reward, [(problem, answer)])


def has_run(workdir: store.Path) -> bool:
  """Says whether a folder is bound to a config."""
  return (workdir / layout.CONFIG).exists()


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
  beside = workdir.parent
  names = [
    name
    for name in store.children(beside)
    if (beside / name / layout.CONFIG).exists()
  ]
  near = difflib.get_close_matches(workdir.name, names, n=1)
  hint = f"; did you mean {beside / near[0]}?" if near else ""
  raise ValueError(f"there is no run in {workdir}{hint}")


def check_workdir(
  config: Config, workdir: store.Path, host: Host = _ALONE
) -> None:
  """Binds a folder to the identity of one config, or compares with what it has.

  config.json of the folder holds the whole config of the process that began
  last: fields that do not bind (`identity.identity`) are brought up to date
  there, and so are rounds that were added at the end. A folder in which no
  round was begun is bound anew.

  Args:
    config: of the run.
    workdir: its folder, which all hosts see.
    host: the first one writes.

  Raises:
    ValueError: the folder holds a run of another identity.
  """
  path = workdir / layout.CONFIG
  if not host.leads:
    wait_until(path.exists, str(path))
  check_identity(config, workdir)
  wanted = identity.to_json(config)
  if host.leads and (
    not path.exists() or json.loads(path.read_text()) != wanted
  ):
    records.write_json(path, wanted)


def check_identity(config: Config, workdir: store.Path) -> None:
  """Checks that a run in a folder can go on with a config; changes nothing.

  Raises:
    ValueError: the run is of another identity; names what differs. A field that
      was not there yet when it was begun had its default.
  """
  if not has_run(workdir) or not _begun(workdir):
    return
  differing = identity.continues(find_run(workdir), config)
  if differing:
    raise ValueError(
      f"{workdir} holds a run of another config ({', '.join(differing)}): set "
      "what differs as it was, or give another --workdir"
    )


def check_models(config: Config, workdir: store.Path) -> None:
  """Checks that a config reads the models of a run; changes nothing.

  Raises:
    ValueError: there is no run, or it is of another base model.
  """
  found = find_run(workdir).policy.path
  if found != config.policy.path:
    raise ValueError(
      f"{workdir} holds a run of policy.path={found!r}: give "
      f"--config.policy.path={found}, or another --workdir"
    )


def _begun(workdir: store.Path) -> bool:
  """Says whether a folder holds anything that a config has made."""
  return bool(layout.rounds(store.children(workdir)))
