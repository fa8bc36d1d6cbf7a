"""Whether a config can run: types, ranges, and rules between fields.

Everything here is found before any work is done, and said in one line that
names the field, its value and what would be right.
"""

import dataclasses
import json
import operator
import typing

from rstar_jax.config import schema as config_lib

_SEARCH = ("rollouts", "candidates", "max_depth", "slots", "groups")
_TRAIN = (
  "epochs",
  "batch_size",
  "accumulate",
  "length",
  "learning_rate",
  "checkpoint_every",
  "log_every",
)
_POSITIVE = (
  "shard_size",
  "policy.vocab_multiple",
  "sandbox.workers",
  "sandbox.wall_seconds",
  "sandbox.memory_bytes",
  "sandbox.output_bytes",
  "grader.workers",
  "grader.seconds",
  "engine.max_step_tokens",
  "engine.max_block_tokens",
  "engine.least_rows",
  "engine.most_tokens",
  "engine.score_rows",
  "remote.samples_per_request",
  "remote.in_flight",
  "remote.timeout_seconds",
  "remote.max_tokens",
  "extract.rounds",
  "extract.sft_per_problem",
  "extract.positives",
  "extract.negatives",
  "eval.samples",
  "eval.top_k",
  "study.trajectories",
  "study.beam_width",
  "study.beam_groups",
  "study.rollouts_each",
  "study.top_k",
  *(
    f"{name}.{field}" for name in ("search", "eval.search") for field in _SEARCH
  ),
  *(f"{name}.{field}" for name in ("sft", "ppm") for field in _TRAIN),
)
_NOT_NEGATIVE = (
  "search.c",
  "eval.search.c",
  "engine.temperature",
  "engine.top_k",
  "sandbox.live",
  "remote.patience_seconds",
  "remote.temperature",
  "extract.min_margin",
  "extract.max_pairs_per_problem",
  "decontaminate.ngram",
  "sft.attention_block",
  "ppm.attention_block",
)


def validate(config: config_lib.Config) -> None:
  """Checks everything that can be checked before a run.

  Args:
    config: a whole config, as a file and the command line made it.

  Raises:
    ValueError: one line, about the first field that cannot be right.
  """
  check_type("config", config, config_lib.Config)
  for name in _POSITIVE:
    value = operator.attrgetter(name)(config)
    _check(value > 0, f"config.{name}={value} must be above 0")
  for name in _NOT_NEGATIVE:
    value = operator.attrgetter(name)(config)
    _check(value >= 0, f"config.{name}={value} must not be below 0")
  _check_meshes(config)
  _check_rounds(config)
  _check_study(config.study)
  _check_engine(config.engine)
  _check_remote(config.remote)
  for name in ("sft", "ppm"):
    train = getattr(config, name)
    _check(
      train.batch_size % train.accumulate == 0,
      f"config.{name}.accumulate={train.accumulate} must divide "
      f"config.{name}.batch_size={train.batch_size}",
    )
    _check(
      0 <= train.warmup <= 1,
      f"config.{name}.warmup={train.warmup} is a share, from 0 to 1",
    )
  splits = {"eval.data": config.eval.data}
  if config.extract.needs_trees:
    splits["train"] = config.train
  for name in ("eval.more", "decontaminate.against"):
    for index, data in enumerate(operator.attrgetter(name)(config)):
      splits[f"{name}[{index}]"] = data
  sources = [data.source for data in (config.eval.data, *config.eval.more)]
  for source in sources:
    _check(
      sources.count(source) == 1,
      f"config.eval has {source} {sources.count(source)} times; splits are "
      "told apart by their source",
    )
  for name, data in splits.items():
    _check(data.count >= 0, f"config.{name}.count={data.count} is below 0")
    _check(
      data.count > 0 or not data.source.startswith("synthetic:"),
      f"config.{name}.count must be above 0: {data.source} has no end",
    )


def check_type(name: str, value, declared) -> None:
  """Compares a value, and all that it holds, with a declared type.

  Args:
    name: what to call the value in an error.
    value: anything.
    declared: bool, int, float, str, a Literal, a tuple[T, ...] of these, or a
      dataclass of these.

  Raises:
    ValueError: one line, about the first value of another type.
  """
  arguments = typing.get_args(declared)
  if typing.get_origin(declared) is typing.Literal:
    choices = ", ".join(map(repr, arguments))
    _check(value in arguments, f"{name}={value!r} must be one of {choices}")
  elif typing.get_origin(declared) is tuple:
    _check(isinstance(value, tuple), f"{name}={value!r} must be a tuple")
    for index, each in enumerate(value):
      check_type(f"{name}[{index}]", each, arguments[0])
  elif dataclasses.is_dataclass(declared) and isinstance(value, declared):
    for field, hint in typing.get_type_hints(declared).items():
      check_type(f"{name}.{field}", getattr(value, field), hint)
  else:
    # Python has bool under int, and an int is as good as a float.
    accepted = (int, float) if declared is float else declared
    fits = isinstance(value, accepted)
    if isinstance(value, bool):
      fits = declared is bool
    _check(fits, f"{name}={value!r} must be of type {declared.__name__}")


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
    return  # Not known before the devices are.
  for name in ("sft", "ppm"):
    train = getattr(config, name)
    rows, parts = train.batch_size // train.accumulate, mesh.data * mesh.fsdp
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
  for index, each in enumerate(config.rounds):
    name = f"config.rounds[{index}]"
    _check(
      not each.ppm or each.annotation == "ppm",
      f"{name}.ppm={each.ppm!r} would not be asked: {name}.annotation is "
      f"{each.annotation!r}, not 'ppm'",
    )
    for field in ("rollouts", "candidates", "trees"):
      value = getattr(each, field)
      _check(value > 0, f"{name}.{field}={value} must be above 0")
    _check(
      all(extra > 0 for extra in each.extra_rollouts),
      f"{name}.extra_rollouts={each.extra_rollouts} must all be above 0",
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


def _check_engine(engine: config_lib.EngineConfig) -> None:
  _check_top_p("engine", engine.top_p)
  _check(
    0 <= engine.min_p <= 1,
    f"config.engine.min_p={engine.min_p} must be from 0 to 1",
  )
  for name, buckets in vars(engine).items():
    if not name.endswith("_buckets"):
      continue
    _check(
      len(buckets) > 0
      and buckets[0] > 0
      and list(buckets) == sorted(set(buckets)),
      f"config.engine.{name}={buckets} must be above 0 and increase",
    )


def _check_remote(remote: config_lib.RemoteConfig) -> None:
  _check_top_p("remote", remote.top_p)
  try:
    extra = json.loads(remote.extra or "{}")
  except json.JSONDecodeError:
    extra = None
  _check(
    isinstance(extra, dict),
    f"config.remote.extra={remote.extra!r} must be a JSON object",
  )
  if not remote.url:
    return
  _check(
    remote.url.startswith(("http://", "https://")),
    f"config.remote.url={remote.url!r} must start with http:// or https://",
  )
  _check(
    remote.model != "",
    f"config.remote.model is empty: name one that {remote.url}/models lists",
  )


def _check_top_p(name: str, top_p: float) -> None:
  _check(
    0 < top_p <= 1,
    f"config.{name}.top_p={top_p} must be above 0 and at most 1",
  )


def _check(condition: bool, message: str) -> None:
  if not condition:
    raise ValueError(message)
