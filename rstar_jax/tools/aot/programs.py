"""The device programs of a run, on abstract arrays of the run's shapes.

Each is the function that the engine or a trainer jits, not a copy.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from rstar_jax.config.schema import Config, TrainConfig
from rstar_jax.inference import decoding, sampler
from rstar_jax.inference import programs as engine
from rstar_jax.models import sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot.arrays import (
  abstract,
  array,
  candidates_of,
  placed,
  pool_of,
)
from rstar_jax.tools.aot.shapes import Shapes
from rstar_jax.training import ppm, sft, state

SEARCH = ("advance", "fork", "expand", "commit", "score")
TRAINING = ("sft", "ppm")
NAMES = (*SEARCH, *TRAINING)
# Programs whose temporaries grow with the layers: candidates' keys and values;
# activations and gradients.
GROWING = ("expand", *TRAINING)


@dataclasses.dataclass(frozen=True)
class DeviceProgram:
  """One program, ready to be lowered.

  Attributes:
    name: of `NAMES`.
    run: a pure function.
    arguments: trees of ShapeDtypeStructs with shardings.
    donated: which arguments it may write into.
    loop_runs: runs of the body of each loop that the data ends.
    tokens: generated, read, copied or trained on by one run, in all.
    mesh: mesh to trace in; the search has none.
    results: shardings of its results; None leaves them to the compiler.
  """

  name: str
  run: Callable[..., Any]
  arguments: tuple[Any, ...]
  donated: tuple[int, ...]
  loop_runs: tuple[int, ...]
  tokens: int
  mesh: Mesh | None = None
  results: Any = None

  def lower(self) -> jax.stages.Lowered:
    """Traces it for the devices of its arguments."""
    places = {"out_shardings": self.results} if self.results else {}
    run = jax.jit(self.run, donate_argnums=self.donated, **places)
    with jax.set_mesh(self.mesh) if self.mesh else contextlib.nullcontext():
      return run.lower(*self.arguments)


def search_program(
  name: str, model: ModelConfig, shapes: Shapes, mesh: Mesh
) -> DeviceProgram:
  """Returns a program of the search.

  `expand` has its form with one loop, in which no row ends before the longest;
  see `decoding.halvings`.

  Args:
    name: of `SEARCH`.
    model: with the dtypes of the search.
    shapes: sizes.
    mesh: of one host's chips.
  """
  graphdef, params = abstract(model, "tanh" if name == "score" else "lm", mesh)
  paths, candidates = shapes.leaves, shapes.candidates
  room = shapes.value_room if name == "score" else shapes.room
  pool = pool_of(model, shapes.slots, room, mesh)
  ids = functools.partial(array, mesh)
  static = {"data_shards": sharding.row_shards(mesh)}
  moved = ids((shapes.moved,))

  def of_model(program, **options):
    return lambda params, pool, *arrays: program(
      nnx.merge(graphdef, params), pool, *arrays, **options, **static
    )

  match name:
    case "advance":
      tails = ids((shapes.moved, shapes.tail))
      return DeviceProgram(
        name,
        of_model(engine.prefill, path=shapes.path),
        (params, pool, moved, moved, tails, moved, moved),
        (1,),
        (),
        shapes.moved * shapes.tail,
      )
    case "fork":
      return DeviceProgram(
        name,
        functools.partial(engine.fork, **static),
        (pool, moved, moved),
        (0,),
        (),
        shapes.moved * shapes.room,
      )
    case "expand":
      options = decoding.Options(
        method=sampler.Temperature(),
        stop_ids=(0,),
        max_new_tokens=shapes.step,
        pad_id=0,
        least_rows=paths * candidates,
        keep=shapes.keep,
        attention=shapes.attention,
        mesh=mesh,
      )
      row = ids((paths,))
      seeds = ids((paths, candidates), jnp.uint32)
      return DeviceProgram(
        name,
        of_model(engine.expand, path=shapes.path, options=options),
        (params, pool, row, row, row, seeds, row),
        (),
        (shapes.step - 1,),
        paths * candidates * shapes.step,
      )
    case "commit":
      kept = candidates_of(model, (paths, candidates), shapes.step - 1, mesh)
      return DeviceProgram(
        name,
        functools.partial(engine.append, **static),
        (pool, kept, moved, moved, moved, moved),
        (0,),
        (),
        shapes.moved * (shapes.step - 1),
      )
    case "score":
      row = ids((shapes.scored,))
      lengths = ids((shapes.scored, shapes.columns))
      steps = ids((*lengths.shape, shapes.scored_step))
      return DeviceProgram(
        name,
        of_model(engine.score, path=shapes.path, keep=shapes.keep_scored),
        (params, pool, row, row, row, steps, lengths),
        (),
        (),
        shapes.scored * shapes.columns * shapes.scored_step,
      )
    case _:
      raise ValueError(f"{name!r} is no program of the search: {SEARCH}")


def training_program(
  name: str, model: ModelConfig, config: Config, mesh: Mesh
) -> DeviceProgram:
  """Returns the update of a training.

  Args:
    name: of `TRAINING`.
    model: its dtype is that of the activations; masters are float32.
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
    key: array(
      mesh,
      shape,
      jnp.int32 if len(shape) > 1 else jnp.float32,
      sharding.RULES.batch,
    )
    for key, shape in shapes.items()
  }
  begun = state.TrainState(
    array(mesh, ()), params, _optimizer_state(tx, params, mesh)
  )
  options: dict[str, Any] = {}
  if mesh.size > 1:
    # As `training/loop.py` has it: the state stays where it is.
    places = jax.tree.map(lambda one: one.sharding, begun)
    everywhere = jax.NamedSharding(mesh, jax.P())
    options = {"mesh": mesh, "results": (places, everywhere)}
  return DeviceProgram(
    name, step, (begun, batch), (0,), (), rows * length, **options
  )


def _optimizer_state(
  tx: optax.GradientTransformation, params: Any, mesh: Mesh
) -> Any:
  """Returns an abstract optimiser state, sharded as its parameters are."""
  return optax.tree_map_params(
    tx,
    lambda one, param: placed(one, param.sharding),
    jax.eval_shape(tx.init, params),
    params,
    transform_non_params=lambda one: array(mesh, one.shape, one.dtype),
  )
