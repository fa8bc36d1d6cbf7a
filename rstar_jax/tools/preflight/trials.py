"""Tries data, grader, servers, sandbox and workdir from this machine."""

import dataclasses
import os
import urllib.error
import urllib.request
import uuid

from rstar_jax import outside
from rstar_jax.config.schema import Config, DataConfig, urls_of
from rstar_jax.data import problems as problems_lib
from rstar_jax.grading.grader import Grader
from rstar_jax.inference.engine_client import ServedEngine, ServedScores
from rstar_jax.pipeline import checks
from rstar_jax.sandbox.pool import Sandbox
from rstar_jax.storage import store
from rstar_jax.tasks.named import load_task
from rstar_jax.tools.preflight.findings import Finding, Findings, one_line

# Rows read of each source, and seconds to wait for a server.
_ROWS, _SECONDS = 8, 10.0
# Settings for a single request with that timeout.
_SOON = {"timeout_seconds": _SECONDS, "patience_seconds": 0.0}


def data(config: Config) -> Findings:
  """Reads the first problems of each source, and grades their answers."""
  task = load_task(config.task)
  sources: dict[str, DataConfig] = {"eval.data": config.eval.data}
  if config.extract.needs_trees:
    sources = {"train": config.train} | sources
  sources |= {f"eval.more[{i}]": e for i, e in enumerate(config.eval.more)}
  tried, unreached = False, ""
  for name, data in sources.items():
    if unreached and data.source.startswith("hf:"):
      yield Finding("error", f"data {name}", f"not tried: {unreached}")
      continue
    count = min(data.count or _ROWS, _ROWS)
    few = dataclasses.replace(data, count=count)
    try:
      problems = problems_lib.load_problems(few, task=task)
      if not tried:
        checks.try_plugins(config, problems[0])
      tried = True
    except (OSError, ValueError) as error:
      # Workers get their own packages: launch/ installs `hub` there.
      level = "warning" if "pip install" in str(error) else "error"
      yield Finding(level, f"data {name}", one_line(error))
      if "Couldn't reach" in str(error):  # After half a minute of attempts.
        unreached = "the Hub is not reached from here"
      continue
    text = f"{len(problems)} problems of {data.source} read"
    golds = [each.answer for each in problems if each.answer is not None]
    if golds and not task.reward and not config.grader.function:
      with Grader(workers=1, seconds=config.grader.seconds) as grader:
        verdicts = grader.grade([(gold, gold) for gold in golds])
      wrong = [
        gold
        for gold, verdict in zip(golds, verdicts, strict=True)
        if verdict != "equal"
      ]
      if wrong:
        yield Finding(
          "error",
          f"data {name}",
          f"{text}; the grader does not find {wrong[0]!r:.80} equal to itself: "
          "see answer_field and answer_pattern in docs/your_data.md",
        )
        continue
      text += ", their answers graded"
    yield Finding("ok", f"data {name}", text)


def servers(config: Config) -> Findings:
  """Checks that each server of the config answers.

  Servers of a policy and a PPM are checked as a run checks them, except their
  model's outputs, for which the model would have to be loaded here.
  """
  tries = {
    "remote.url": (config.remote.url, _try_remote),
    "servers.policy": (config.servers.policy, _try_policy),
    "servers.ppm": (config.servers.ppm, _try_ppm),
  }
  for name, (text, attempt) in tries.items():
    for url in urls_of(text):
      try:
        attempt(config, url)
      except (OSError, ValueError) as error:
        yield Finding(
          "error",
          f"server {url}",
          f"config.{name} does not answer from here as it should "
          f"({one_line(error)}): start it, or correct the address",
        )
      else:
        yield Finding("ok", f"server {url}", "answers")


def _try_remote(config: Config, url: str) -> None:
  wanted = config.remote.model
  names = _listed(url, config.remote.api_key_env)
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


def _listed(url: str, key_env: str) -> list[str]:
  """Returns the models that a server lists, none without a list."""
  request = urllib.request.Request(f"{url}/models")
  if key_env:
    key = os.environ.get(key_env, "")
    request.add_unredirected_header("Authorization", f"Bearer {key}")
  try:
    with urllib.request.urlopen(request, timeout=_SECONDS) as response:
      answer = outside.parse(response.read(1 << 20))
  except urllib.error.HTTPError as error:
    if error.code in (404, 405):
      return []
    raise
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
    return Finding(wrong, "sandbox", f"{one_line(error)}{here}")
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


def workdir(config: Config, folder: str) -> Finding:
  """Writes a file to the workdir, and removes it."""
  try:
    path = store.path(folder)
    store.check(path)
    checks.check_identity(config, path)
    probe = path / f".check-{uuid.uuid4().hex}"
    store.write(probe, b"ok")
    store.remove(probe)
  except Exception as error:  # noqa: BLE001, libraries raise many kinds.
    return Finding("error", "workdir", f"{folder}: {one_line(error)}")
  return Finding("ok", "workdir", f"{folder} can be written")
