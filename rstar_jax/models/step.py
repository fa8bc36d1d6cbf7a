"""One step of a decoder: a token of each slot, its keys and values in pages."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rstar_jax.models import rotary, sharding
from rstar_jax.models.paged_attention import PagedAttention
from rstar_jax.models.pages import Slots
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
  reads: Any = None,
) -> tuple[jax.Array, Any]:
  """Computes the tokens of a step, and caches their keys and values.

  Tokens of one path may be in one step: each attends to those before it.

  Args:
    model: any, or the result of `stacked`.
    pages: [layers * count, ...].
    slots: the tokens.
    layers: the number of layers.
    attention: over the pages.
    reads: of a plan of the same slots at positions that are not lower, so that
      not each step makes its own; see `PagedAttention.plan`.

  Returns:
    [T, D] after the final norm, of no meaning in empty slots; and the pages.
  """
  angles = rotary.rotary(
    jnp.maximum(slots.positions, 0), model.config, slots.spans
  )
  where = slots.tables, slots.rows, slots.positions
  window = model.config.sliding_window
  plan = attention.plan(pages, *where, window=window, reads=reads)
  count = pages.shape[0] // (layers * row_shards(attention.mesh))

  def run(block, state, layer):
    x, pages = state

    def mix(q, k, v):
      nonlocal pages
      mixed, pages = attention.attend(
        *(q, k, v, pages, *where),
        layer=layer,
        count=count,
        window=window,
        plan=plan,
      )
      return mixed

    x = block(x, angles, mix)
    return sharding.constrain(x, "batch"), pages

  state = model.embed(slots.tokens), pages
  if len(model.layers) == layers:
    for index, block in enumerate(model.layers):
      state = run(block, state, index)
  else:
    graphdef, params = nnx.split(model.layers[0])
    state, _ = jax.lax.scan(
      lambda state, each: (
        run(nnx.merge(graphdef, each[0]), state, each[1]),
        None,
      ),
      state,
      (params, jnp.arange(layers)),
    )
  return model.norm(state[0]), state[1]


def stacked(model: Transformer) -> Transformer:
  """Returns a model whose one layer has the parameters of all, [L, ...] each.

  A program scans over them: its code and the time to compile it do not grow
  with the number of layers. (XLA on a CPU copies each layer's part, so that
  there layers are better unrolled.)
  """
  if len(model.layers) == 1:
    return model
  one, parts = {}, {}
  for path, array in arrays_of(model).items():
    if path[0] == "layers":
      parts.setdefault(path[2:], []).append(array)
    else:
      one[path] = array
  for path, arrays in parts.items():
    # A weight may be of two arrays; see `int8.Int8`.
    one["layers", 0, *path] = jax.tree.map(_stack, *arrays)
  config = model.config
  config = type(config)(**vars(config) | {"num_layers": 1})
  return from_arrays(config, model.head, one)


def _stack(*arrays: jax.Array) -> jax.Array:
  place = getattr(arrays[0], "sharding", None)
  if not isinstance(place, jax.sharding.NamedSharding):
    return jnp.stack(arrays)
  spec = jax.P(None, *place.spec)
  place = jax.sharding.NamedSharding(place.mesh, spec)
  return jax.jit(lambda *each: jnp.stack(each), out_shardings=place)(*arrays)
