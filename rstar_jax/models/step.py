"""One step of a decoder: a token of each slot, its keys and values in pages."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rstar_jax.models import rotary, sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.paged_attention import PagedAttention
from rstar_jax.models.paths import Layer, Slots
from rstar_jax.models.sharding import row_shards
from rstar_jax.models.transformer import Transformer, arrays_of, from_arrays

_BY_XLA = PagedAttention()


def step(
  model: Transformer,
  pages: Any,
  slots: Slots,
  *,
  layers: int,
  attention: PagedAttention = _BY_XLA,
) -> tuple[jax.Array, Any]:
  """Computes the tokens of a step, and caches their keys and values.

  A step may have several tokens of one path; each attends to those before it.

  Args:
    model: any, or the result of `stacked`.
    pages: [layers * count, ...].
    slots: the tokens. Their paths may have the reads of a plan for later
      positions, which several steps share; see `PagedAttention.plan`.
    layers: the number of layers.
    attention: the implementation of attention over the pages.

  Returns:
    [T, D] after the final norm, undefined in empty slots; and the pages.
  """
  config, given = model.config, slots.paths
  angles = rotary.of_layers(
    jnp.maximum(given.positions, 0), config, slots.spans
  )
  paths = {
    window: attention.plan(
      pages,
      dataclasses.replace(
        given, window=window, reads=None if window else given.reads
      ),
    )
    for window in config.windows()
  }
  count = pages.shape[0] // (layers * row_shards(attention.mesh))

  def run(block, state, index, kind):
    x, pages = state
    own = block.config

    def mix(q, k, v, sinks=None):
      nonlocal pages
      # Pages have room for the most heads of any layer.
      more = config.num_kv_heads // k.shape[-2]
      k, v = (jnp.repeat(x, more, -2) if more > 1 else x for x in (k, v))
      q = rotary.grown(q, given.positions, own.rope)
      at = jnp.asarray(index, jnp.int32)
      layer = Layer(at, count, own.attention_softcap, sinks)
      mixed, pages = attention.attend(
        *(q, k, v, pages, paths[own.sliding_window], layer)
      )
      return mixed

    x, _ = block(x, angles[kind], mix, attention.mesh)
    return sharding.constrain(x, "batch"), pages

  state = model.embed(slots.tokens), pages
  blocks, period = list(model.layers), config.period
  scanned = layers // period * period if len(blocks) < layers else 0
  if scanned:
    parts = [nnx.split(block) for block in blocks[:period]]

    def turn(state, each):
      first, *params = each
      for kind, (graphdef, _) in enumerate(parts):
        block = nnx.merge(graphdef, params[kind])
        state = run(block, state, first + kind, kind)
      return state, None

    firsts = jnp.arange(0, scanned, period)
    state, _ = jax.lax.scan(turn, state, (firsts, *(p for _, p in parts)))
    blocks = blocks[period:]
  for index, block in enumerate(blocks, scanned):
    state = run(block, state, index, index % period)
  return model.norm(state[0]), state[1]


def one_period(config: ModelConfig) -> tuple[ModelConfig, int]:
  """Returns the config of a `stacked` model, and the number of its periods.

  The number is 1 for a model that is not stacked.
  """
  turns, rest = divmod(config.num_layers, config.period)
  if turns < 2:
    return config, 1
  return dataclasses.replace(config, num_layers=config.period + rest), turns


def stacked(model: Transformer) -> Transformer:
  """Returns a model of one period, whose layers have the parameters of all.

  Where P is the period, layer i has the parameters of layers i, i + P, i + 2 P
  and so on, stacked [L / P, ...]. The layers after the last whole period follow
  as they are. A program scans over periods, so that its code and the time to
  compile it do not grow with their number. (XLA on a CPU copies the part of
  each layer, so that layers are better unrolled there.) A model of fewer than
  two periods is returned as it is.
  """
  config, turns = one_period(model.config)
  if turns == 1:
    return model
  one, parts = {}, {}
  for path, array in arrays_of(model).items():
    if path[0] != "layers":
      one[path] = array
    elif path[1] < turns * config.period:
      place = "layers", path[1] % config.period, *path[2:]
      parts.setdefault(place, []).append(array)
    else:
      one["layers", path[1] - (turns - 1) * config.period, *path[2:]] = array
  for path, arrays in parts.items():
    # A weight may have two arrays; see `int8.Int8`.
    one[path] = jax.tree.map(_stack, *arrays)
  return from_arrays(config, model.head, one)


def _stack(*arrays: jax.Array) -> jax.Array:
  place = getattr(arrays[0], "sharding", None)
  if not isinstance(place, jax.sharding.NamedSharding):
    return jnp.stack(arrays)
  spec = jax.P(None, *place.spec)
  place = jax.sharding.NamedSharding(place.mesh, spec)
  # One function, so that arrays of one shape share a program.
  return jax.jit(_stacked, out_shardings=place)(*arrays)


def _stacked(*arrays: jax.Array) -> jax.Array:
  return jnp.stack(arrays)
