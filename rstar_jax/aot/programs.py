"""The device programs of a run, with the shapes that they run in.

This is the one list of them. Each is the function that the engine or a trainer
jits, not a copy, with arrays that are only described: nothing is allocated.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rstar_jax.config import Config, TrainConfig
from rstar_jax.generate import decoding, sampler
from rstar_jax.generate import programs as engine
from rstar_jax.models import cache, sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.transformer import Transformer
from rstar_jax.train import ppm, sft, state

SEARCH = ("advance", "expand", "commit", "score")
TRAINING = ("sft", "ppm")
NAMES = (*SEARCH, *TRAINING)


@dataclasses.dataclass(frozen=True)
class Shapes:
  """Sizes of the search's programs on one host.

  Attributes:
    leaves: in one call that expands, and slots of a lane.
    candidates: of each leaf.
    path: tokens of a path that are read.
    room: tokens that a slot has room for.
    step: tokens of a candidate.
    tail: tokens of a path that are run at once.
    score_rows: most candidates in one call that scores.
    lanes: groups of trees that take turns, each with slots of its own.
    repeated: whether each candidate has a path of its own, as without sharing.
    attention: what computes it while tokens are sampled.
  """

  leaves: int = 16
  candidates: int = 32
  path: int = 1024
  room: int = 4096
  step: int = 256
  tail: int = 256
  score_rows: int = 256
  lanes: int = 2
  repeated: bool = False
  attention: Literal["xla", "pallas"] = "xla"

  @property
  def rows(self) -> tuple[int, int]:
    """Paths of a call that expands, and candidates of each path."""
    if self.repeated:
      return self.leaves * self.candidates, 1
    return self.leaves, self.candidates

  @property
  def scored(self) -> int:
    """Leaves of a call that scores."""
    return max(min(self.score_rows // self.candidates, self.leaves), 1)


@dataclasses.dataclass(frozen=True)
class DeviceProgram:
  """One program, ready to be lowered.

  Attributes:
    name: of `NAMES`.
    run: a pure function.
    arguments: trees of ShapeDtypeStructs with shardings.
    donated: which arguments it may write into.
    loop_runs: of loops that the data ends, how often the body of each runs.
    tokens: that one run generates, reads, copies or trains on, in all.
  """

  name: str
  run: Callable[..., Any]
  arguments: tuple[Any, ...]
  donated: tuple[int, ...]
  loop_runs: tuple[int, ...]
  tokens: int

  def lower(self) -> jax.stages.Lowered:
    """Traces it for the devices of its arguments."""
    return jax.jit(self.run, donate_argnums=self.donated).lower(*self.arguments)


def search_program(
  name: str, model: ModelConfig, shapes: Shapes, mesh: Mesh
) -> DeviceProgram:
  """Returns a program of the search.

  Of `expand` the form with one loop is taken, in which no row ends before the
  longest; see `decoding.halvings`.

  Args:
    name: of `SEARCH`.
    model: with the dtypes that it is searched with.
    shapes: sizes.
    mesh: of one host's chips.
  """
  graphdef, params = abstract(model, "tanh" if name == "score" else "lm", mesh)
  paths, candidates = shapes.rows
  pool = pool_of(model, paths, shapes.room, mesh)
  ids = functools.partial(_array, mesh)
  static = {"banks": sharding.row_shards(mesh)}
  match name:
    case "advance":

      def run(params, pool, *arrays):
        merged = nnx.merge(graphdef, params)
        return engine.advance(merged, pool, *arrays, path=shapes.path, **static)

      row = ids((paths,))
      tails = ids((paths, shapes.tail))
      arguments = (params, pool, row, row, tails, row, row)
      return DeviceProgram(name, run, arguments, (1,), (), paths * shapes.tail)
    case "expand":
      options = decoding.Options(
        method=sampler.Temperature(),
        stop_ids=(0,),
        max_new_tokens=shapes.step,
        pad_id=0,
        least_rows=paths * candidates,
        attention=shapes.attention,
        mesh=mesh,
      )

      def run(params, pool, *arrays):
        return engine.expand(
          nnx.merge(graphdef, params),
          pool,
          *arrays,
          path=shapes.path,
          options=options,
          **static,
        )

      row = ids((paths,))
      seeds = ids((paths, candidates), jnp.uint32)
      arguments = (params, pool, row, row, row, seeds, row)
      tokens = paths * candidates * shapes.step
      return DeviceProgram(name, run, arguments, (), (shapes.step - 1,), tokens)
    case "commit":
      kept = kept_of(model, (paths, candidates), shapes.step - 1, mesh)
      row = ids((paths,))
      return DeviceProgram(
        name,
        functools.partial(engine.commit, **static),
        (pool, kept, row, row, row, row),
        (0,),
        (),
        paths * (shapes.step - 1),
      )
    case "score":
      # As many leaves as a call takes; all have their slots.
      leaves = shapes.scored * (paths // shapes.leaves)

      def run(params, pool, *arrays):
        merged = nnx.merge(graphdef, params)
        return engine.score(merged, pool, *arrays, path=shapes.path, **static)

      row = ids((leaves,))
      steps = ids((leaves, candidates, shapes.step))
      lengths = ids((leaves, candidates))
      return DeviceProgram(
        name,
        run,
        (params, pool, row, row, row, steps, lengths),
        (),
        (),
        leaves * candidates * shapes.step,
      )
    case _:
      raise ValueError(f"{name!r} is no program of the search: {SEARCH}")


def beside(name: str, model: ModelConfig, shapes: Shapes, mesh: Mesh) -> float:
  """Returns what a chip of a search holds while a program runs.

  A host has a policy and a PPM, a pool for each of both in every lane, and of
  every other lane the candidates that its last calls made.

  Args:
    name: of `SEARCH`.
    model: of both, with the dtypes that they are searched with.
    shapes: sizes.
    mesh: of one host's chips.

  Returns:
    Bytes on one chip, the program's own arguments and results left out.
  """
  policy = bytes_of(abstract(model, "lm", mesh)[1])
  value = bytes_of(abstract(model, "tanh", mesh)[1])
  pool = bytes_of(pool_of(model, shapes.rows[0], shapes.room, mesh))
  sampled = bytes_of(kept_of(model, shapes.rows, shapes.step - 1, mesh))
  scored = bytes_of(kept_of(model, shapes.rows, shapes.step, mesh))
  total = policy + value + shapes.lanes * (2 * pool + sampled + scored)
  own = {
    "advance": policy + pool,
    "expand": policy + pool + sampled,
    "commit": pool + sampled,
    # A call scores a part of the leaves.
    "score": value + pool + scored * shapes.scored / shapes.leaves,
  }
  return total - own[name]


def training_program(
  name: str, model: ModelConfig, config: Config, mesh: Mesh
) -> DeviceProgram:
  """Returns the update of a training.

  Args:
    name: of `TRAINING`.
    model: whose dtype is that of the activations; masters are float32.
    config: of the run.
    mesh: of all chips.
  """
  training: TrainConfig = getattr(config, name)
  model = dataclasses.replace(model, param_dtype="float32")
  head = "lm" if name == "sft" else config.ppm_head
  loss = {"sft": sft.sft_loss, "ppm": ppm.ppm_loss}[name]
  graphdef, params = abstract(model, head, mesh)
  tx = state.optimizer(training, num_steps=1000)
  step = state.make_step(
    lambda params, batch: loss(nnx.merge(graphdef, params), batch),
    tx,
    training.accumulate,
  )
  rows, length = training.batch_size, training.length
  shapes = {"tokens": (rows, length), "segment_ids": (rows, length)}
  shapes["positions"] = (rows, length)
  if name == "sft":
    shapes |= {"targets": (rows, length), "mask": (rows, length)}
  else:
    shapes |= {"last": (rows, 2), "weight": (rows,), "target": (rows,)}
  batch = {
    key: _array(
      mesh,
      shape,
      jnp.int32 if len(shape) > 1 else jnp.float32,
      sharding.Rules().batch,
    )
    for key, shape in shapes.items()
  }
  begun = state.TrainState(
    _array(mesh, ()), params, _optimizer_state(tx, params, mesh)
  )
  return DeviceProgram(name, step, (begun, batch), (0,), (), rows * length)


def abstract(
  model: ModelConfig, head: str, mesh: Mesh
) -> tuple[nnx.GraphDef, Any]:
  """Returns a module's definition, and its parameters' shapes and places."""
  graphdef, params = nnx.split(
    nnx.eval_shape(lambda: Transformer(model, head=head, rngs=nnx.Rngs(0)))
  )
  places = sharding.shardings(params, mesh)
  return graphdef, jax.tree.map(_placed, params, places)


def pool_of(
  model: ModelConfig, slots: int, length: int, mesh: Mesh
) -> cache.Pool:
  """Describes the paths of a lane, placed as `generate/lane.py` places them."""
  shapes = jax.eval_shape(
    functools.partial(cache.empty_pool, model, slots, length)
  )
  return jax.tree.map(functools.partial(_cached, mesh), shapes)


def kept_of(
  model: ModelConfig, rows: tuple[int, ...], length: int, mesh: Mesh
) -> cache.KeyValues:
  """Describes the keys and values of a call's candidates."""
  shapes = jax.eval_shape(functools.partial(cache.empty, model, rows, length))
  return jax.tree.map(functools.partial(_cached, mesh), shapes)


def bytes_of(tree: Any) -> float:
  """Returns the bytes of described arrays that one device holds."""

  def size(array: jax.ShapeDtypeStruct) -> int:
    shape = array.sharding.shard_shape(array.shape)
    return math.prod(shape) * array.dtype.itemsize

  return float(sum(map(size, jax.tree.leaves(tree))))


def _cached(mesh: Mesh, array: Any) -> jax.ShapeDtypeStruct:
  return _placed(array, sharding.cache_sharding(mesh, array.shape))


def _placed(array: Any, place: NamedSharding) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place)


def _array(
  mesh: Mesh, shape: tuple[int, ...], dtype: Any = jnp.int32, *axes: Any
) -> jax.ShapeDtypeStruct:
  """Describes an array; without axes every device has all of it."""
  place = NamedSharding(mesh, PartitionSpec(*axes))
  return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def _optimizer_state(
  tx: optax.GradientTransformation, params: Any, mesh: Mesh
) -> Any:
  """Describes an optimiser's state, sharded as its parameters are."""
  return optax.tree_map_params(
    tx,
    lambda array, param: _placed(array, param.sharding),
    jax.eval_shape(tx.init, params),
    params,
    transform_non_params=lambda array: _array(mesh, array.shape, array.dtype),
  )
