"""Validates a config: ranges, and rules between fields.

All checks come before any work. An error is one line with the field, its value
and the valid ones. Names and types are checked where a field is assigned
(`config/closed.py`).
"""

import dataclasses
import json
import math
import operator
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

from rstar_jax import outside
from rstar_jax.config import closed, plugins
from rstar_jax.config import schema as config_lib
from rstar_jax.storage import layout


def validate(config: config_lib.Config) -> None:
  """Checks everything that can be checked before a run.

  Args:
    config: a whole config, with the command line's overrides.

  Raises:
    ValueError: one line about the first invalid field.
  """
  _check_ranges("config", config)
  _check_meshes(config)
  _check_rounds(config)
  _check_test_time(config)
  _check_rewards(config)
  _check_study(config.study)
  _check_remote(config.remote)
  _check_ray(config.ray)
  _check_servers(config)
  for name in ("sft", "ppm"):
    check_training(f"config.{name}", getattr(config, name))
  _check_train("config.reinforce.train", config.reinforce.train)
  for index, each in enumerate(config.extract.min_correct_of):
    _check(
      "," not in each,
      f"config.extract.min_correct_of[{index}]={each!r} is the name of one "
      "source: give a tuple of several, as in \"('a', 'b')\"",
    )
  splits = {"eval.data": config.eval.data}
  if config.extract.needs_trees:
    splits["train"] = config.train
  for name in ("eval.more", "decontaminate.against"):
    for index, data in enumerate(operator.attrgetter(name)(config)):
      splits[f"{name}[{index}]"] = data
  sources = [data.source for data in config.eval.sets]
  folders = [layout.folder_name(each) for each in sources]
  for source, folder in zip(sources, folders, strict=True):
    _check(
      folders.count(folder) == 1,
      f"config.eval: {source!r} would share the folder {folder!r} with "
      "another set; give one of them another name, e.g. by a link",
    )
  for name, data in splits.items():
    _check_pattern(name, data.answer_pattern)
    _check_where(name, data)
    _check(
      data.count > 0 or not data.source.startswith("synthetic:"),
      f"config.{name}.count must be above 0: {data.source} has no end",
    )


def check_training(name: str, train: config_lib.TrainConfig) -> None:
  """Checks the config of a training whose batches are cut by `accumulate`.

  Args:
    name: of the config in messages, such as "config.sft".
    train: the config.

  Raises:
    ValueError: one line about the first invalid field.
  """
  _check_ranges(name, train)
  _check(
    train.batch_size % train.accumulate == 0,
    f"{name}.accumulate={train.accumulate} must divide "
    f"{name}.batch_size={train.batch_size}",
  )
  _check_train(name, train)


def _check_train(name: str, train: config_lib.TrainConfig) -> None:
  _check(
    train.held_out != 1,
    f"{name}.held_out=1 would leave no problem to train on: give at least 2, "
    "or 0 for none",
  )
  _check(
    not train.eval_every
    or train.held_out > 0
    or (name == "config.ppm" and train.held_out < 0),
    f"{name}.eval_every={train.eval_every} would measure nothing: set "
    f"{name}.held_out too, or leave it 0",
  )
  matrices = train.lora_matrices
  _check(
    len(set(matrices)) == len(matrices),
    f"{name}.lora_matrices={matrices} names one twice",
  )
  _check(
    matrices != () or not train.lora_rank,
    f"{name}.lora_matrices is empty: give at least one, or set "
    f"{name}.lora_rank=0",
  )


def _check_ranges(name: str, value: Any) -> None:
  """Checks the ranges of a dataclass's fields, nested ones included."""
  for field in dataclasses.fields(value):
    for each, each_value in _values(
      f"{name}.{field.name}", getattr(value, field.name)
    ):
      if dataclasses.is_dataclass(each_value):
        _check_ranges(each, each_value)
      else:
        _check_kept(each, each_value)
        _check_range(each, each_value, *closed.range_of(field))
        _check_plugin(each, each_value, *closed.plugin_of(field))


def _values(name: str, value: Any) -> Iterator[tuple[str, Any]]:
  """Yields (name, value), or that of each element of a tuple."""
  if not isinstance(value, tuple):
    yield name, value
    return
  for index, each in enumerate(value):
    yield f"{name}[{index}]", each


def _check_kept(name: str, value: Any) -> None:
  """Checks that config.json, from which a run resumes, can hold a value."""
  try:
    outside.parse(json.dumps(value), strict=True, constant=float)
  except ValueError as error:
    raise ValueError(f"{name} {error}: config.json cannot hold that") from None


def _check_range(name: str, value: Any, above, least, most, below) -> None:
  bounds = {
    "above": (above, operator.gt),
    "at least": (least, operator.ge),
    "at most": (most, operator.le),
    "below": (below, operator.lt),
  }
  given = {k: v for k, v in bounds.items() if v[0] is not None}
  _check(
    not isinstance(value, float) or math.isfinite(value),
    f"{name}={value!r} must be finite",
  )
  right = " and ".join(f"{word} {bound}" for word, (bound, _) in given.items())
  _check(
    all(holds(value, bound) for bound, holds in given.values()),
    f"{name}={value!r} must be {right}",
  )


def _check_plugin(name: str, value: Any, takes, words) -> None:
  """Checks that the function that a field names can be loaded and called."""
  if takes is None or value in (words or ()):
    return
  if words is None and not plugins.names_one(value):
    return  # A file, or the name of a model.
  if any(each.endswith(":") and value.startswith(each) for each in words or ()):
    return
  if ":" not in value:
    others = ", ".join(map(repr, filter(None, words)))
    raise ValueError(
      f"{name}={value!r} must be {f'one of {others}, or ' if others else ''}a "
      f"function of yours as {plugins.FORM!r}"
    )
  plugins.load(value, name, takes)


def _check_meshes(config: config_lib.Config) -> None:
  for name in ("search_mesh", "train_mesh"):
    sizes = vars(getattr(config, name))
    for axis, size in sizes.items():
      _check(
        size > 0 or size == -1,
        f"config.{name}.{axis}={size} must be above 0, or -1 for all that is "
        "left",
      )
    left = [axis for axis, size in sizes.items() if size == -1]
    _check(
      len(left) < 2,
      f"config.{name}: {' and '.join(left)} are -1, but one axis alone can "
      "take what is left",
    )
  mesh = config.train_mesh
  if -1 in (mesh.data, mesh.fsdp):
    return  # Unknown until the devices are.
  parts = mesh.data * mesh.fsdp
  for name, train in config.trainings.items():
    rows = train.batch_size // train.accumulate
    _check(
      rows % parts == 0,
      f"config.{name}: micro-batches of {rows} rows (batch_size / accumulate) "
      f"cannot be cut into {parts} parts (train_mesh.data x train_mesh.fsdp)",
    )


def _check_rounds(config: config_lib.Config) -> None:
  _check(len(config.rounds) > 0, "config.rounds is empty: give at least one")
  first = config.rounds[0]
  _check(
    first.annotation == "terminal" or first.ppm != "",
    "config.rounds[0].annotation must be 'terminal': round 1 has no PPM yet; "
    "or name one in config.rounds[0].ppm",
  )
  _check(
    config.sft_from != "",
    "config.sft_from is empty: give 'base', 'last' or a folder",
  )
  if config.remote.url:
    for field, usual in (("policy", ""), ("annotation", "terminal")):
      value = getattr(first, field)
      _check(
        value == usual,
        f"config.rounds[0].{field}={value!r} would not be used: the servers "
        f"of config.remote.url make round 1; leave it {usual!r}, or "
        "config.remote.url empty",
      )
  for index, each in enumerate(config.rounds):
    name = f"config.rounds[{index}]"
    _check(
      not each.ppm or each.annotation == "ppm",
      f"{name}.ppm={each.ppm!r} would not be asked: {name}.annotation is "
      f"{each.annotation!r}, not 'ppm'",
    )
    if each.rollout == "samples":
      _check(
        each.annotation == "terminal",
        f"{name}.annotation='ppm' is for a search, and {name}.rollout is "
        "'samples'",
      )
      _check(
        index > 0 or not config.remote.url,
        f"{name}.rollout='samples' is for our own engine: a server is asked "
        "for steps; leave config.remote.url empty",
      )
    if each.algorithm != "sft":
      _check_reinforcement(name, each, config, first=index == 0)


def _check_reinforcement(
  name: str,
  spec: config_lib.RoundConfig,
  config: config_lib.Config,
  *,
  first: bool,
) -> None:
  why = f"{name}.algorithm={spec.algorithm!r}"
  _check(
    spec.algorithm != "tree" or spec.rollout == "search",
    f"{why} needs a tree of steps: set {name}.rollout='search', or 'grpo'",
  )
  rules = {
    "trees=1": spec.trees == 1,
    "extra_rollouts=()": not spec.extra_rollouts,
  }
  for rule, holds in rules.items():
    _check(holds, f"{why} takes one tree a problem and turn: set {name}.{rule}")
  rules = {
    "extract.sft_source='' and extract.pairs_source=''": (
      not config.extract.sft_source and not config.extract.pairs_source
    ),
    "policy.backend=''": not config.policy.backend,
    "servers.policy=''": not config.servers.policy,
    "search.method='mcts'": config.search.method == "mcts",
    "search.answer_dedup='merge'": config.search.answer_dedup == "merge",
    "reinforce.train.accumulate=1": config.reinforce.train.accumulate == 1,
    "reinforce.train.held_out=0": config.reinforce.train.held_out <= 0,
    "reinforce.updates=1, or config.reinforce.temperature=1": (
      config.reinforce.updates == 1 or config.reinforce.temperature == 1
    ),
    "remote.url=''": not (first and config.remote.url),
    "policy.prompt='trained', or give a round of 'sft' before": not (
      first and config.policy.prompt == "few_shot" and not spec.policy
    ),
  }
  for rule, holds in rules.items():
    _check(holds, f"{why} trains on what our engine writes: set config.{rule}")


def _check_pattern(name: str, pattern: str) -> None:
  try:
    re.compile(pattern)
  except re.error as error:
    raise ValueError(
      f"config.{name}.answer_pattern={pattern!r} is no regular expression: "
      f"{error}"
    ) from error


def _check_where(name: str, data: config_lib.DataConfig) -> None:
  for index, each in enumerate(data.where):
    field, equals, values = each.partition("=")
    _check(
      bool(field and equals and all(values.split(","))),
      f"config.{name}.where[{index}]={each!r} must be FIELD=VALUE,VALUE as in "
      "'source=olympiads,amc_aime'",
    )
  _check(
    not data.where or not data.source.startswith("synthetic:"),
    f"config.{name}.where is for rows that have fields: {data.source} has none",
  )


def _check_test_time(config: config_lib.Config) -> None:
  # A reward of the user's own may need no gold answer.
  _check(
    config.eval.search.terminal_reward == "ppm"
    or plugins.names_one(config.task),
    "config.eval.search.terminal_reward='truth' would show gold answers to the "
    "search at test time: set config.eval.search.terminal_reward='ppm' and, so "
    "that the PPM guides each step, config.eval.search.annotation='ppm'",
  )


def _check_rewards(config: config_lib.Config) -> None:
  """Checks that reward models have what they learn from."""
  for name, kinds in (
    ("reward", (config.reward,)),
    ("study.rewards", config.study.rewards),
  ):
    for kind in ("pqm", "orm"):
      _check(
        config.extract.needs_trees or kind not in kinds,
        f"config.{name}: {kind!r} learns from trees, and none are searched: "
        "leave config.extract.sft_source or config.extract.pairs_source "
        "empty, or give 'ppm'",
      )


def _check_study(study: config_lib.StudyConfig) -> None:
  _check(
    study.beam_width % study.beam_groups == 0,
    f"config.study.beam_groups={study.beam_groups} must divide "
    f"config.study.beam_width={study.beam_width}",
  )
  for name in ("methods", "rewards"):
    values = getattr(study, name)
    _check(
      len(set(values)) == len(values),
      f"config.study.{name}={values} names one twice",
    )


def _check_remote(remote: config_lib.RemoteConfig) -> None:
  try:
    extra = outside.parse(remote.extra or "{}")
  except outside.Bad:
    extra = None
  _check(
    isinstance(extra, dict),
    f"config.remote.extra={remote.extra!r} must be a JSON object",
  )
  if not remote.url:
    return
  _check_urls("config.remote.url", remote.url)
  _check(
    remote.model != "",
    "config.remote.model is empty: name one that "
    f"{config_lib.urls_of(remote.url)[0]}/models lists",
  )


def _check_servers(config: config_lib.Config) -> None:
  servers = config.servers
  for role in ("policy", "ppm", "reward"):
    if given := getattr(servers, role):
      _check_urls(f"config.servers.{role}", given)
  _check(
    not (servers.policy and config.policy.backend),
    f"config.servers.policy={servers.policy!r} and config.policy.backend="
    f"{config.policy.backend!r} would both write the steps: give one",
  )
  _check(
    not servers.load or bool(servers.policy or servers.ppm),
    f"config.servers.load={servers.load!r} has no server to load a model: "
    "give config.servers.policy or config.servers.ppm",
  )


def _check_urls(name: str, text: str) -> None:
  urls = config_lib.urls_of(text)
  _check(
    all(map(_is_server, urls)),
    f"{name}={text!r} must be a server in ASCII, http://HOST:PORT/... or "
    "https://HOST:PORT/..., or several with commas",
  )
  _check(len(set(urls)) == len(urls), f"{name}={text!r} names a server twice")


def _is_server(url: str) -> bool:
  """Returns whether requests can be sent below a URL."""
  if not re.fullmatch(r"https?://[^/?#@]+(/[^?#]*)?", url):
    return False
  try:
    parts = urllib.parse.urlsplit(url)
    well_formed = bool(parts.hostname) and parts.port != 0
  except ValueError:  # The port is none, or a bracket is open.
    return False
  # The standard library sends these characters alone.
  return well_formed and all("!" <= each <= "~" for each in url)


def _check_ray(ray: config_lib.RayConfig) -> None:
  for each in ray.needs:
    _check(
      bool(re.fullmatch(r"[^=\s]+=\d+(\.\d+)?", each)),
      f"config.ray.needs={ray.needs}: {each!r} must be a name and an amount, "
      "such as 'TPU=4'",
    )


def _check(condition: bool, message: str) -> None:
  if not condition:
    raise ValueError(message)
