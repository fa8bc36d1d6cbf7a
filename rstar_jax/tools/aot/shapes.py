"""Sizes of a search's programs, by the rules of the engine that runs them."""

import dataclasses
from typing import Literal, get_args

from jax.sharding import AbstractMesh, Mesh

from rstar_jax.config.schema import Config
from rstar_jax.inference import buckets
from rstar_jax.inference.prefix_cache import Spec, spec_of
from rstar_jax.models.config import ModelConfig

# The search over training problems, that of evaluation, and whole code blocks,
# which evaluation samples as well.
Stage = Literal["rollout", "evaluation", "blocks"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclasses.dataclass(frozen=True)
class Shapes:
  """Sizes of the search's programs on one host.

  Attributes:
    slots: paths of a lane.
    room: capacity of a slot, tokens.
    path: tokens of a path that a call reads.
    tail: tokens of a path that one call prefills.
    moved: rows of a call of advance, fork or commit.
    leaves: leaves of a call that samples.
    candidates: candidates of each of these.
    step: tokens of a candidate.
    keep: whether a lane caches the candidates that it samples.
    scored: leaves of a call that scores.
    columns: candidates of each of these.
    scored_step: tokens of one.
    keep_scored: whether a lane caches the candidates that it scores.
    lanes: groups of trees that take turns, each with slots of its own.
    value_room: capacity of the PPM's slots, tokens, in a lane for each group; 0
      without a PPM.
    others: capacity of a slot, tokens, in each further lane of the policy.
    attention: what computes attention while tokens are sampled.
  """

  slots: int = 16
  room: int = 4096
  path: int = 1024
  tail: int = 256
  moved: int = 16
  leaves: int = 16
  candidates: int = 32
  step: int = 256
  keep: bool = True
  scored: int = 8
  columns: int = 32
  scored_step: int = 256
  keep_scored: bool = True
  lanes: int = 2
  value_room: int = 4096
  others: tuple[int, ...] = ()
  attention: Literal["xla", "pallas"] = "xla"


def of_config(
  config: Config,
  model: ModelConfig,
  mesh: Mesh | AbstractMesh,
  stage: Stage,
  path: int | None = None,
) -> Shapes:
  """Returns the sizes of the largest calls that a stage makes.

  Args:
    config: of the run.
    model: of the policy and the PPM.
    mesh: of one host's devices.
    stage: of `STAGES`.
    path: tokens of the paths; None is the largest bucket.

  Raises:
    ValueError: a stage that there is none of, or a path beyond the buckets.
  """
  engine = config.engine
  longest = engine.prefix_buckets[-1]
  if path is not None and not 0 < path <= longest:
    raise ValueError(
      f"a path of {path} tokens is none of the run's: 1 to {longest}, the last "
      "of config.engine.prefix_buckets"
    )
  match stage:
    case "rollout":
      # A server makes round 1 where there is one.
      rounds = config.rounds[bool(config.remote.url) :] or config.rounds
      candidates = max(each.candidates for each in rounds)
      value = any(each.annotation == "ppm" for each in config.rounds)
    case "evaluation":
      candidates, value = config.eval.search.candidates, True
    case "blocks":
      candidates, value = config.eval.samples, True
    case _:
      raise ValueError(f"{stage!r} is no stage of a search: {STAGES}")

  def spec(room: int) -> Spec:
    return spec_of(model, engine, slots=config.slots, room=room, mesh=mesh)

  def length(spec: Spec) -> int:
    return longest + spec.room

  steps, blocks = spec(engine.max_step_tokens), spec(engine.max_block_tokens)
  scores = spec(engine.step_buckets[-1])
  sampled = blocks if stage == "blocks" else steps
  size = (
    engine.max_block_tokens if stage == "blocks" else engine.max_step_tokens
  )
  # Greedy and sampled solutions have an engine each, with one lane.
  others = [length(steps)]
  if stage != "rollout":
    others += [length(blocks)] * 2
  others.remove(length(sampled))
  columns = buckets.bucket_of(candidates, engine.score_buckets)
  data_shards = sampled.data_shards
  most = sampled.sizes_up_to(sampled.most_sampled(candidates, size))[-1]
  return Shapes(
    slots=sampled.count,
    room=length(sampled),
    path=buckets.bucket_of(path or longest, engine.prefix_buckets),
    tail=engine.tail_buckets[-1],
    moved=sampled.sizes[-1] * data_shards,
    leaves=most * data_shards,
    candidates=candidates,
    step=size,
    keep=sampled.keeps(candidates, size),
    scored=scores.sizes_up_to(scores.most_scored(columns))[-1] * data_shards,
    columns=columns,
    scored_step=engine.step_buckets[-1],
    keep_scored=scores.keeps(columns, engine.step_buckets[-1]),
    lanes=1,
    value_room=length(scores) if value else 0,
    others=tuple(others),
    attention=engine.attention,
  )
