"""Tries data, grader, servers, sandbox and workdir from this machine."""

import collections
import dataclasses
import functools
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from rstar_jax import outside
from rstar_jax.config import plugins
from rstar_jax.config.schema import ClientConfig, Config, DataConfig, urls_of
from rstar_jax.data import problems as problems_lib
from rstar_jax.data import released
from rstar_jax.grading.grader import Grader
from rstar_jax.inference.engine_client import ServedEngine, ServedScores
from rstar_jax.inference.http_post import Later, Url
from rstar_jax.pipeline import backends, checks, deploy
from rstar_jax.sandbox.pool import Sandbox
from rstar_jax.storage import store
from rstar_jax.tasks.named import load_task
from rstar_jax.tools.preflight.findings import Finding, Findings
from rstar_jax.training.ppm import KINDS

# Rows read of each source, and seconds to wait for a server.
_ROWS, _SECONDS = 8, 10.0
# Settings for a single request with that timeout.
_SOON = {"timeout_seconds": _SECONDS, "patience_seconds": 0.0}


def data(config: Config) -> Findings:
  """Reads the first rows of each source, and grades the problems' answers."""
  extract, further = config.extract, config.decontaminate.against
  answered: dict[str, DataConfig] = {"eval.data": config.eval.data}
  answered |= {f"eval.more[{i}]": e for i, e in enumerate(config.eval.more)}
  if extract.needs_trees:
    answered = {"train": config.train} | answered
  compared = {f"decontaminate.against[{i}]": e for i, e in enumerate(further)}
  tries: dict[str, tuple[str, Callable[[], str]]] = {}
  for sets, is_answered in ((answered, True), (compared, False)):
    for name, each in sets.items():
      attempt = functools.partial(_try_problems, config, each, is_answered)
      tries[name] = each.source, attempt
  for name, source, read in (
    ("sft_source", extract.sft_source, released.read_sft),
    ("pairs_source", extract.pairs_source, released.read_pairs),
  ):
    if source:
      attempt = functools.partial(_try_released, source, read)
      tries[f"extract.{name}"] = source, attempt
  unreached = ""
  for name, (source, attempt) in tries.items():
    if unreached and source.startswith("hf:"):
      yield Finding("error", f"data {name}", f"not tried: {unreached}")
      continue
    try:
      text = attempt()
    except (OSError, ValueError) as error:
      level = "warning" if _wants_package(error) else "error"
      yield Finding(level, f"data {name}", outside.one_line(error))
      if "Couldn't reach" in str(error):  # After half a minute of attempts.
        unreached = "the Hub is not reached from here"
    else:
      yield Finding("ok", f"data {name}", text)


def _wants_package(error: Exception) -> bool:
  """Returns whether only a package is missing, which workers may have.

  launch/ installs `hub` and `gcs` there.
  """
  return "pip install" in str(error)


def _try_problems(config: Config, data: DataConfig, answered: bool) -> str:
  """Reads the first problems of a source.

  Args:
    config: of the run.
    data: the source.
    answered: whether the run answers the problems, and does not only compare
      their questions with others; then their answers are graded.

  Raises:
    ValueError: a problem cannot be read, a plugin fails on the first one, or
      the grader does not find an answer equal to itself.
  """
  task = load_task(config.task)
  few = dataclasses.replace(data, count=min(data.count or _ROWS, _ROWS))
  problems = problems_lib.load_problems(few, task=task)
  text = f"{len(problems)} problems of {data.source} read"
  if not answered:
    return text
  checks.try_plugins(config, problems[0])
  golds = [each.answer for each in problems if each.answer is not None]
  if task.reward or config.grader.function or not golds:
    return text
  with Grader(workers=1, seconds=config.grader.seconds) as grader:
    verdicts = grader.grade([(gold, gold) for gold in golds])
  for gold, verdict in zip(golds, verdicts, strict=True):
    if verdict != "equal":
      raise ValueError(
        f"{text}; the grader does not find {gold!r:.80} equal to itself: see "
        "answer_field and answer_pattern in docs/your_data.md"
      )
  return f"{text}, their answers graded"


def _try_released(source: str, read: Callable[..., Iterator[Any]]) -> str:
  """Reads the first row of released training data."""
  next(read(source, collections.Counter()))
  return f"the first row of {source} read"


def servers(config: Config) -> Findings:
  """Checks that each server of the config answers.

  Those of `config.servers` are checked as a run checks them, except their
  model's outputs, for which the model would have to be loaded here. Where the
  config names no reward model that `servers.reward` would be asked for, only a
  list of models is asked for.
  """
  tries = {
    "remote.url": (config.remote.url, _try_remote),
    "servers.policy": (config.servers.policy, _try_policy),
    "servers.ppm": (config.servers.ppm, _try_ppm),
    "servers.reward": (config.servers.reward, _try_reward),
  }
  for name, (text, attempt) in tries.items():
    for url in urls_of(text):
      try:
        attempt(config, url)
      except (OSError, ValueError, Later) as error:
        yield Finding(
          "error",
          f"server {url}",
          f"config.{name} does not answer from here as it should "
          f"({outside.one_line(error)}): start it, or correct the address",
        )
      else:
        yield Finding("ok", f"server {url}", "answers")


def _try_remote(config: Config, url: str) -> None:
  wanted = config.remote.model
  names = _listed(config.remote, url, "remote")
  if wanted and names and wanted not in names:
    raise ValueError(
      f"it has {', '.join(names)}, not config.remote.model={wanted!r}"
    )


def _try_policy(config: Config, url: str) -> None:
  servers = dataclasses.replace(config.servers, policy=url, **_SOON)
  ServedEngine(servers, config.engine).servers.check()


def _try_ppm(config: Config, url: str) -> None:
  servers = dataclasses.replace(config.servers, ppm=url, **_SOON)
  ServedScores(servers, config.ppm_head).servers.check()


def _try_reward(config: Config, url: str) -> None:
  servers = dataclasses.replace(
    config.servers, reward=url, compare=False, **_SOON
  )
  named = {config.eval.reward_model, *(each.ppm for each in config.rounds)}
  named.update(config.study.rewards)
  for name in sorted(named - {"", *KINDS}):
    if not plugins.names_one(name) and not backends.own_ppm(name):
      deploy.reward(dataclasses.replace(config, servers=servers), name)
      return
  _listed(servers, url, "servers")


def _listed(client: ClientConfig, url: str, field: str) -> list[str]:
  """Returns the models that a server lists, none without a list."""
  client = dataclasses.replace(client, **_SOON)
  answer = Url(f"{url}/models", client, field).get()
  rows = answer.get("data") if isinstance(answer, dict) else None
  return [
    str(each["id"])
    for each in (rows if isinstance(rows, list) else [])
    if isinstance(each, dict) and "id" in each
  ]


def sandbox(config: Config, *, away: bool) -> Finding:
  """Runs a program in this machine's sandbox.

  Args:
    config: of the run.
    away: whether the run will be on another machine.
  """
  wrong = "warning" if away else "error"
  here = " on this machine, which need not be the run's" if away else ""
  try:
    with Sandbox(workers=1, require=config.sandbox.require) as tried:
      (result,) = tried.run([["print(6 * 7)"]])
      degraded = tried.isolation["degraded"]
  except (OSError, RuntimeError, ValueError) as error:
    return Finding(wrong, "sandbox", f"{outside.one_line(error)}{here}")
  if (result.status, result.stdout.strip()) != ("ok", "42"):
    return Finding(
      wrong,
      "sandbox",
      f"a program that prints 42 ended with {result.status}{here}: "
      f"{result.error or result.stdout!r:.80}",
    )
  if degraded:
    return Finding(
      "warning",
      "sandbox",
      f"nothing enforces {', '.join(map(str, degraded))}{here}: "
      "docs/security.md says what would, and config.sandbox.require refuses to "
      "run without",
    )
  return Finding("ok", "sandbox", f"isolates programs{here}")


def workdir(config: Config, folder: str, *, away: bool) -> Finding:
  """Writes a file to the workdir, and removes it.

  Args:
    config: of the run.
    folder: the run's folder.
    away: whether the run will be on another machine. Then a folder that is not
      here is not tried: only that machine may see it.
  """
  try:
    path = store.path(folder)
    if away and not store.is_remote(path) and not path.exists():
      said = f"{folder} is not on this machine, so it was not tried"
      return Finding("warning", "workdir", f"{said}: let each worker see it")
    store.check(path)
    checks.check_identity(config, path)
    probe = path / f".check-{uuid.uuid4().hex}"
    store.write(probe, b"ok")
    store.remove(probe)
  except Exception as error:  # noqa: BLE001, libraries raise many kinds.
    level = "warning" if away and _wants_package(error) else "error"
    return Finding(level, "workdir", f"{folder}: {outside.one_line(error)}")
  return Finding("ok", "workdir", f"{folder} can be written")
