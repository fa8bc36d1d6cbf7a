"""The device programs of a run, on abstract arrays of the run's shapes.

Each is the function that an engine or a trainer jits, with all its layers; a
training's is jitted by `training/loop.py` itself.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from rstar_jax.config import plugins
from rstar_jax.config.schema import Config, TrainConfig
from rstar_jax.hf import model_config as hf_config
from rstar_jax.hf import published
from rstar_jax.hf.fields import read_json
from rstar_jax.inference import programs as engine
from rstar_jax.inference import sampler
from rstar_jax.inference.sizes import Sizes
from rstar_jax.models import int8, sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.paged_attention import PagedAttention, kind_for
from rstar_jax.models.step import one_period
from rstar_jax.models.transformer import abstract
from rstar_jax.training import loop, ppm, reinforce, sft, state

# Programs of a search: the policy samples, in all slots or in a few, and
# prefills; the PPM scores.
SEARCH = ("decode", "few", "prefill", "score")
TRAINING = ("sft", "ppm", "reinforce")
# Assumed micro-batches of an update by reinforcement, which vary in a run.
_PARTS = 4
NAMES = (*SEARCH, *TRAINING)


def model_config(path: str, dtype: str) -> ModelConfig:
  """Returns a model's sizes, from its config.json or its published name.

  Args:
    path: `policy.path` of a config.
    dtype: of parameters and activations.

  Raises:
    ValueError: there is neither, or the file is damaged.
  """
  file = pathlib.Path(path) / "config.json"
  if file.is_file():
    fields = read_json(file)
  elif path in published.MODELS:
    fields = published.MODELS[path]
  else:
    raise ValueError(
      f"policy.path={path!r} is no folder with a config.json, and its sizes "
      f"are not in hf/published.py: known are {sorted(published.MODELS)}"
    )
  found = hf_config.from_fields(fields, path)
  return dataclasses.replace(found, dtype=dtype, param_dtype=dtype)


def loaded(config: Config) -> tuple[bool, bool]:
  """Returns whether a search loads its policy, and any reward model, itself.

  Plugins load their own, and servers have theirs.
  """
  servers = config.servers
  names = {each.ppm for each in config.rounds if each.annotation == "ppm"}
  rewards = [
    not plugins.names_one(name)
    # Other names may be of published models.
    and not (servers.ppm if _is_own(name) else servers.reward)
    for name in (config.eval.reward_model, *names)
  ]
  return not (config.policy.backend or servers.policy), any(rewards)


def _is_own(name: str) -> bool:
  """Returns whether a name is surely of a PPM that this package trained."""
  return not name or name.startswith("ppm:")


def sizes_of(config: Config, shards: int) -> tuple[Sizes, Sizes]:
  """Returns the sizes of the policy's and the PPM's engine on a TPU host.

  Args:
    config: of the run.
    shards: data shards of the search's mesh.

  Raises:
    ValueError: the number of pages is left to the engines.
  """
  given = config.engine
  if not given.pages:
    raise ValueError("config.engine.pages is 0: say how many for a TPU")
  return (
    Sizes.of(given, shards, given.max_new_tokens),
    Sizes.of(given, shards, given.max_step_tokens),
  )


@dataclasses.dataclass(frozen=True)
class DeviceProgram:
  """A program, ready to be lowered.

  Attributes:
    name: one of `NAMES`.
    run: a jitted function.
    arguments: trees of ShapeDtypeStructs with shardings.
    mesh: mesh to trace in; the search has none.
  """

  name: str
  run: Callable[..., Any]
  arguments: tuple[Any, ...]
  mesh: Mesh | None = None

  def lower(self) -> jax.stages.Lowered:
    """Lowers the program for the devices of its arguments."""
    with sharding.on(self.mesh):
      return self.run.lower(*self.arguments)


def search_program(
  name: str, model: ModelConfig, config: Config, mesh: Mesh
) -> DeviceProgram:
  """Returns a program of the search.

  Args:
    name: of `SEARCH`.
    model: with the dtypes of the search.
    config: of the run.
    mesh: of one host's chips.
  """
  policy, ppm_sizes = sizes_of(config, sharding.row_shards(mesh))
  sizes = ppm_sizes if name == "score" else policy
  head = config.ppm_head if name == "score" else "lm"
  graphdef, params = stacked_shapes(model, head, mesh, config.engine.weights)
  kind = kind_for(config.engine.kernels, model, mesh, "tpu")
  attention = PagedAttention(kind, mesh if mesh.size > 1 else None)
  options = engine.Options(layers=model.num_layers, attention=attention)
  pages = pages_shapes(model, config, mesh)
  ids = functools.partial(array, mesh)
  if name in ("decode", "few"):
    rows = sizes.rows if name == "decode" else sizes.few
    steps = config.engine.inner_steps
    options = dataclasses.replace(
      options, method=sampler.method_of(config.engine), steps=steps
    )
    plan = engine.DecodePlan(rows, steps, sizes.path_pages, sizes.shard_pages)
    arrays = [ids(plan.array.shape, jnp.int32, None, sharding.RULES.batch)]
    run = engine.decode
  else:
    plan = engine.PrefillPlan(
      sizes.prefill_tokens,
      sizes.prefill_paths,
      sizes.path_pages,
      policy.shard_pages,
      sizes.shards,
    )
    arrays = [
      ids(plan.array.shape, jnp.int32, None, sharding.RULES.batch),
      ids(plan.by_path.shape, jnp.int32, sharding.RULES.batch),
    ]
    run = engine.prefill

  @functools.partial(jax.jit, donate_argnums=1)
  def of_params(params, pages, *arrays):
    return run(nnx.merge(graphdef, params), pages, *arrays, options)

  return DeviceProgram(name, of_params, (params, pages, *arrays))


def training_program(
  name: str, model: ModelConfig, config: Config, mesh: Mesh
) -> DeviceProgram:
  """Returns the update of a training.

  Args:
    name: of `TRAINING`.
    model: its dtype is that of the activations; masters are float32.
    config: of the run.
    mesh: of all chips.

  Raises:
    ValueError: the rows do not divide into the mesh and the micro-batches.
  """
  parts = sharding.row_shards(mesh)
  training = training_of(name, config, parts)
  sharding.check_rows(
    f"config.{field_of(name)}", training.batch_size, training.accumulate, mesh
  )
  tpu = mesh.devices.flat[0].platform == "tpu"
  model = dataclasses.replace(
    model,
    param_dtype="float32",
    scan=tpu,
    attention="pallas" if tpu else "xla",
    **training.of_model,
  )
  head = head_of(name, config)
  loss = {
    "sft": sft.sft_loss,
    "ppm": ppm.ppm_loss,
    "reinforce": reinforce.Loss(config.reinforce),
  }[name]
  graphdef, _ = abstract(model, head)
  tx = state.optimizer(training, num_steps=1000)
  begun, frozen = training_state(model, head, training, tx, mesh)
  step = jax.tree_util.Partial(
    loop.step_of(loop.losses(loss, training, graphdef), training),
    array(mesh, ()),
    frozen,
  )
  rows, length = training.batch_size, training.length
  ints = dict.fromkeys(("tokens", "positions", "ends"), (length,))
  if head == "lm":
    ints |= {"parents": (length,)}
    floats = {"weights": (length,)}
    if name == "reinforce":
      floats |= dict.fromkeys(("gain", "cost", "old"), (length,))
    if name == "reinforce" and config.reinforce.kl:
      floats |= {"reference": (length,)}
  else:
    # Pairs without shared prefixes, which need the most rows.
    ints |= {"last": (1, 2)}
    floats = {"weight": (1,), "target": (1,)}
  batch = {
    key: array(mesh, (rows, *shape), dtype, sharding.RULES.batch)
    for shapes, dtype in ((ints, jnp.int32), (floats, jnp.float32))
    for key, shape in shapes.items()
  }
  # One device has none, as in a run.
  spanned = mesh if mesh.size > 1 else None
  run = loop.jitted(loop.apply, begun, spanned)
  return DeviceProgram(name, run, (begun, batch, step), spanned)


def head_of(name: str, config: Config) -> str:
  """Returns the head of a training's model."""
  return config.ppm_head if name == "ppm" else "lm"


def training_state(
  model: ModelConfig,
  head: str,
  training: TrainConfig,
  tx: optax.GradientTransformation,
  mesh: Mesh | AbstractMesh,
) -> tuple[state.TrainState, Any]:
  """Returns the abstract state of a training, and the frozen parameters.

  Args:
    model: the dtype of its parameters is the master weights'.
    head: of the model.
    training: its LoRA and averaging are used.
    tx: the optimiser.
    mesh: of all chips.
  """
  _, params = abstract(model, head)
  params, frozen = jax.eval_shape(
    lambda params: loop.divided(params, training, model.dtype, seed=0), params
  )
  params, frozen = _placed(params, mesh), _placed(frozen, mesh)
  begun = state.TrainState(
    array(mesh, ()),
    params,
    _optimizer_state(tx, params, mesh),
    params if training.ema else None,
  )
  return begun, frozen


def field_of(name: str) -> str:
  """Returns the field of a training, of `TRAINING`, in the config."""
  return "reinforce.train" if name == "reinforce" else name


def training_of(name: str, config: Config, shards: int) -> TrainConfig:
  """Returns the config of a training.

  In reinforcement a micro-batch has `batch_size` rows, and the number of
  micro-batches depends on the tokens: here it is four.

  Args:
    name: of `TRAINING`.
    config: of the run.
    shards: data shards of the training's mesh.
  """
  if name != "reinforce":
    return getattr(config, name)
  training = config.reinforce.train
  rows = reinforce.rows_of_update(0, training.batch_size, shards)
  return dataclasses.replace(
    training, batch_size=_PARTS * rows, accumulate=_PARTS
  )


def array(
  mesh: Mesh | AbstractMesh,
  shape: tuple[int, ...],
  dtype: Any = jnp.int32,
  *axes: Any,
) -> jax.ShapeDtypeStruct:
  """Returns an abstract array; without axes it is replicated."""
  place = NamedSharding(mesh, PartitionSpec(*axes))
  return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def placed(of: Any, place: NamedSharding) -> jax.ShapeDtypeStruct:
  """Returns an abstract array like another, with a sharding."""
  return jax.ShapeDtypeStruct(of.shape, of.dtype, sharding=place)


def stacked_shapes(
  model: ModelConfig, head: str, mesh: Mesh, weights: str = "float"
) -> tuple[nnx.GraphDef, Any]:
  """Returns the graph definition and shapes of the model of `step.stacked`."""
  # `stacked` itself needs arrays, to place them on a mesh.
  one, turns = one_period(model)
  scanned = {
    f"['layers'][{i}]" for i in range(model.period if turns > 1 else 0)
  }
  graphdef, params = abstract(one, head)
  places = sharding.shardings(params, mesh)
  if weights == "int8":
    params = jax.eval_shape(int8.quantized, params)

  def stack(path: Any, place: NamedSharding, weight: Any) -> Any:
    lead = jax.tree_util.keystr(path[:2]) in scanned

    def shape_of(of: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
      # Scales have the first axes of their weight.
      shape, spec = of.shape, place.spec[: len(of.shape)]
      if lead:
        shape, spec = (turns, *shape), (None, *spec)
      return array(mesh, shape, of.dtype, *spec)

    return jax.tree.map(shape_of, weight)

  return graphdef, jax.tree_util.tree_map_with_path(stack, places, params)


def bytes_of(tree: Any) -> float:
  """Returns the bytes of abstract arrays on one device, without padding."""

  def size(one: jax.ShapeDtypeStruct) -> int:
    shape = one.sharding.shard_shape(one.shape)
    return math.prod(shape) * one.dtype.itemsize

  return float(sum(map(size, jax.tree.leaves(tree))))


def pages_shapes(model: ModelConfig, config: Config, mesh: Mesh) -> Any:
  """Returns the abstract pages of a model, sharded as in the engine."""
  policy, _ = sizes_of(config, sharding.row_shards(mesh))
  kind = kind_for(config.engine.kernels, model, mesh, "tpu")
  attention = PagedAttention(kind, mesh)
  return attention.abstract(model, model.num_layers, policy.shard_pages)


def _placed(params: Any, mesh: Mesh | AbstractMesh) -> Any:
  """Returns abstract parameters with their shardings."""
  return jax.tree.map(placed, params, sharding.shardings(params, mesh))


def _optimizer_state(
  tx: optax.GradientTransformation, params: Any, mesh: Mesh | AbstractMesh
) -> Any:
  """Returns an abstract optimiser state, sharded as its parameters are."""
  named = [
    (jax.tree_util.keystr(path), param)
    for path, param in jax.tree_util.tree_flatten_with_path(params)[0]
  ]

  def place(path, one):
    name = jax.tree_util.keystr(path)
    for of_param, param in named:
      if of_param in name and param.shape == one.shape:
        return placed(one, param.sharding)
    return array(mesh, one.shape, one.dtype)

  return jax.tree_util.tree_map_with_path(
    place, jax.eval_shape(tx.init, params)
  )
