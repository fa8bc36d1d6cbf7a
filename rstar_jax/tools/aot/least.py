"""The least that each program of a run does, and rates if all did no more."""

from jax.sharding import AbstractMesh

from rstar_jax.config.schema import Config
from rstar_jax.models import sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot import analytic, chips, programs, report, shapes


def of_search(
  name: str, model: ModelConfig, sizes: shapes.Shapes, replicas: int
) -> analytic.Least:
  """Returns the least that a program of the search does.

  Args:
    name: of `programs.SEARCH`.
    model: whose program it is.
    sizes: of the programs.
    replicas: copies of the weights on the host.
  """
  if name == "expand":
    return analytic.decode(
      model,
      leaves=sizes.leaves,
      candidates=sizes.candidates,
      path=sizes.path,
      step=sizes.step,
      repeated=sizes.repeated,
      replicas=replicas,
    )
  if name in ("commit", "fork"):
    moved = sizes.step - 1 if name == "commit" else sizes.room
    return analytic.Least(
      0.0, 2 * sizes.moved * moved * analytic.cache_bytes(model)
    )
  tails = name == "advance"
  return analytic.forward(
    model,
    rows=sizes.moved if tails else sizes.scored * sizes.columns,
    length=sizes.tail if tails else sizes.scored_step,
    before=sizes.path,
    shared=1 if tails else sizes.columns,
    replicas=replicas,
  )


def of_training(
  config: Config, model: ModelConfig, name: str
) -> analytic.Least:
  """Returns the least that an update does."""
  training = getattr(config, name)
  return analytic.training(
    model, rows=training.batch_size, length=training.length, head=name == "sft"
  )


def rates(
  config: Config,
  model: ModelConfig,
  where: chips.Slice,
  path: int | None = None,
) -> dict[str, float]:
  """Returns tokens per second and chip if programs did the least there is.

  Those of the search are of the rounds.

  Args:
    config: of the run.
    model: of the policy and the PPM.
    where: the slice.
    path: tokens of the search's paths; None is the largest bucket.
  """
  host = where.host
  mesh = sizes_mesh(config, host)
  sizes = shapes.of_config(config, model, mesh, "rollout", path)
  tokens = {
    "advance": sizes.moved * sizes.tail,
    "expand": sizes.leaves * sizes.candidates * sizes.step,
    "score": sizes.scored * sizes.columns * sizes.scored_step,
  }
  result = {}
  for name, count in tokens.items():
    work = of_search(name, model, sizes, sharding.row_shards(mesh))
    bound = report.roofline(
      host, work.flops / host.chips, work.bytes / host.chips
    )
    result[name] = count / bound.seconds / host.chips
  for name in programs.TRAINING:
    training = getattr(config, name)
    work = of_training(config, model, name)
    bound = report.roofline(
      where, work.flops / where.chips, work.bytes / where.chips
    )
    count = training.batch_size * training.length
    result[name] = count / bound.seconds / where.chips
  return result


def sizes_mesh(config: Config, host: chips.Slice) -> AbstractMesh:
  """Returns the search's mesh, of no devices."""
  sizes = sharding.mesh_sizes(config.search_mesh, host.chips)
  return AbstractMesh(sizes, sharding.AXES)
