"""The decoder, with an LM head (the policy) or a scalar head (the PPM)."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rstar_jax.models import (
  attention,
  experts,
  layers,
  products,
  rotary,
  sharding,
)
from rstar_jax.models.block import Block
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.int8 import Int8
from rstar_jax.models.kernels import tree_attention
from rstar_jax.models.moves import lookup

Head = Literal["lm", "tanh", "logit", "odds", "odds_mlp"]
# Divisors of raw values before the tanh; tanh(x / 2) of log-odds x is 2 p - 1.
SCALES: Mapping[str, float] = {"tanh": 1, "logit": 5, "odds": 2, "odds_mlp": 2}
# The path of a parameter in its model: ("layers", 0, "attention", "q").
Path = tuple[str | int, ...]

# What each kind of recomputation keeps, beside the inputs of a layer.
_OUTSIDE = layers.QKV, tree_attention.KEPT, layers.MIXED
_KEEP = jax.checkpoint_policies.save_only_these_names
_KEPT = {
  "elementwise": _KEEP(*_OUTSIDE, layers.GATED),
  "mlp": _KEEP(*_OUTSIDE),
  "layer": None,
}


def score_weight(config: ModelConfig, rngs: nnx.Rngs) -> nnx.Param:
  """Declares a scalar head [D], with raw values of about 0.1 at first."""
  dim = config.embed_dim
  return layers.weight(rngs, (dim,), ("embed",), config, scale=0.1 * dim**-0.5)


class Transformer(nnx.Module):
  """A causal decoder of one of the families, as its config says.

  Attributes:
    config: a copy of the given config.
    head: "lm" gives logits; "tanh" gives values tanh(raw) (paper section 3.3);
      "logit" gives values tanh(raw / 5) and is trained on raw values, as in the
      released code (microsoft/rStar); "odds" gives 2 p - 1 of a probability p
      whose log-odds is raw, "odds_mlp" after a hidden layer: the heads of
      others' reward models (`hf/reward_heads.py`), in float32 and not trained.
  """

  def __init__(self, config: ModelConfig, *, head: Head = "lm", rngs: nnx.Rngs):
    if config.num_heads % config.num_kv_heads:
      raise ValueError(
        f"num_kv_heads={config.num_kv_heads} must divide "
        f"num_heads={config.num_heads}"
      )
    if head not in get_args(Head):
      raise ValueError(f"head={head!r} must be one of {get_args(Head)}")
    # A copy, since the caller may change his config later, and this one is part
    # of the graph definition's hash.
    config = self.config = dataclasses.replace(config)
    self.head = head
    v, d = config.vocab_size, config.embed_dim
    self.embedding = layers.weight(rngs, (v, d), ("vocab", "embed"), config)
    self.layers = nnx.List(
      [Block(config.layer(i), rngs) for i in range(config.num_layers)]
    )
    self.norm = layers.RMSNorm(config, (d,), "embed")
    if head in ("odds", "odds_mlp"):
      wide = dataclasses.replace(config, param_dtype="float32")
      self.score = score_weight(wide, rngs)
      self.score_bias = layers.bias((), (), wide)
      if head == "odds_mlp":
        axes = ("mlp", "embed")
        self.score_hidden = layers.weight(rngs, (d, d), axes, wide)
        self.score_hidden_bias = layers.bias((d,), axes[:1], wide)
    elif head != "lm":
      self.score = score_weight(config, rngs)
    elif not config.tied_embeddings:
      self.lm_head = layers.weight(rngs, (v, d), ("vocab", "embed"), config)

  def embed(self, tokens: jax.Array) -> jax.Array:
    """Returns the embeddings [..., D] of int32 tokens [...]."""
    # On a mesh: gather whole columns first, then look up the rows.
    table = jax.tree.map(
      lambda table: sharding.constrain(table, "vocab"),
      self.embedding.get_value(),
    )
    if isinstance(table, Int8):
      x = lookup(table.values, tokens)
      x *= lookup(table.scales, tokens)[..., None]
    else:
      x = lookup(table, tokens)
    x = x.astype(self.config.dtype)
    if self.config.embedding_multiplier != 1:
      x *= self.config.embedding_multiplier
    return sharding.constrain(x, "batch")

  def trunk(
    self,
    tokens: jax.Array,
    positions: jax.Array,
    attend: Callable[[ModelConfig], attention.Attend],
    *,
    spans: jax.Array | None = None,
    counts: jax.Array | None = None,
  ) -> tuple[jax.Array, experts.Load | None]:
    """Runs the layers with the caller's attention.

    Args:
      tokens: int32 [...].
      positions: int32, broadcastable to tokens.
      attend: returns the attention of a layer by its config. It is called with
        q [..., N, H] and k and v [..., K, H], q and k rotated, and with the
        layer's sinks [N] if it has any; it returns [..., N, H].
      spans: length of each token's sequence; see `rotary.rotary`.
      counts: bool [...], the tokens that count in the load; None is all.

    Returns:
      [..., D] after the final norm, in config.dtype; and the load of the
      experts of all layers, None if there are no experts.
    """
    config, period = self.config, self.config.period
    x, load = self.embed(tokens), experts.no_load(config)
    if counts is None:
      counts = jnp.ones(tokens.shape, bool)
    parts = [nnx.split(block) for block in self.layers]
    angles = rotary.of_layers(positions, config, spans)
    # There may be fewer layers than kinds.
    runs = [
      _layer(graphdef, config, own, attend(layer), counts)
      for (graphdef, _), own, layer in zip(
        parts, angles, config.layers(), strict=False
      )
    ]
    # Whole periods are scanned, if there are several.
    scans = config.scan
    if scans is None:
      scans = jax.default_backend() == "tpu"
    turns = len(parts) // period
    scanned = turns * period if scans and turns > 1 else 0
    if scanned:
      looped = [_recomputed(run, config.remat, looped=True) for run in runs]
      params = [params for _, params in parts[:scanned]]
      x, load = _scan(looped, params, (x, load), config.dtype)
    runs = [_recomputed(run, config.remat, looped=False) for run in runs]
    for index, (_, params) in enumerate(parts[scanned:], scanned):
      x, load = runs[index % period](x, load, params)
    return self.norm(x), load

  def hidden(self, *args: Any, **options: Any) -> jax.Array:
    """Returns the first result of `hidden_and_load`."""
    return self.hidden_and_load(*args, **options)[0]

  def hidden_and_load(
    self,
    tokens: jax.Array,
    *,
    positions: jax.Array | None = None,
    ends: jax.Array | None = None,
  ) -> tuple[jax.Array, experts.Load | None]:
    """Runs whole sequences, or trees of sequences that share prefixes.

    Args:
      tokens: int32 [B, T].
      positions: int32 [B, T], in the sequences; None is 0 to T - 1.
      ends: int32 [B, T]; a token attends to itself and to the tokens before it
        whose end it does not reach (0 is padding). None is one sequence a row.
        See `data/prefix_trees.py`.

    Returns:
      [B, T, D] after the final norm, in config.dtype; and the load of the
      experts without padding, None if there are no experts.
    """
    if positions is None:
      positions = jnp.arange(tokens.shape[1])[None]
    return self.trunk(
      tokens,
      positions,
      lambda layer: _attention(layer, positions, ends),
      # As in `transformers`, the longest sequence of a row counts for all.
      spans=jnp.max(positions, axis=-1, keepdims=True) + 1,
      counts=None if ends is None else ends > 0,
    )

  def unembedding(self) -> jax.Array | Int8:
    """Returns the LM head [V, D]."""
    if self.head != "lm":
      raise ValueError(f"a model with head={self.head!r} has no LM head")
    tied = self.config.tied_embeddings
    return (self.embedding if tied else self.lm_head).get_value()

  def logits(
    self, hidden: jax.Array, kernel: jax.Array | Int8 | None = None
  ) -> jax.Array:
    """Returns float32 logits [..., V].

    Args:
      hidden: [..., D].
      kernel: [V, D], in the place of `unembedding`.
    """
    kernel = self.unembedding() if kernel is None else kernel
    rows = hidden.reshape(-1, hidden.shape[-1])
    kernel = products.matrix(kernel, rows.shape[-1], hidden.dtype)
    (out,) = products.products(rows, [kernel], self.config, "float32")
    out = out.reshape(*hidden.shape[:-1], -1)
    if self.config.logits_scaling != 1:
      out /= self.config.logits_scaling
    return attention.capped(out, self.config.logits_softcap)

  def raw_values(self, hidden: jax.Array) -> jax.Array:
    """Returns float32 values [...], before tanh, of hidden [..., D]."""
    if self.head == "lm":
      raise ValueError("a model with head='lm' has no scalar head")
    x = hidden.astype(jnp.float32)
    if self.head == "odds_mlp":
      x = jnp.einsum("...d,od->...o", x, self.score_hidden.get_value())
      x = jax.nn.relu(x + self.score_hidden_bias.get_value())
    raw = jnp.einsum(
      "...d,d->...", x, self.score.get_value().astype(jnp.float32)
    )
    return raw + self.score_bias.get_value() if "odds" in self.head else raw

  def values(self, hidden: jax.Array) -> jax.Array:
    """Returns float32 values [...] in [-1, 1] of hidden [..., D]."""
    return jnp.tanh(self.raw_values(hidden) / SCALES[self.head])

  def __call__(
    self,
    tokens: jax.Array,
    *,
    positions: jax.Array | None = None,
    ends: jax.Array | None = None,
  ) -> jax.Array:
    """Returns float32 logits [B, T, V], or values [B, T] of a scalar head.

    Args:
      tokens: int32 [B, T].
      positions: see `hidden`.
      ends: see `hidden`.
    """
    hidden = self.hidden(jnp.asarray(tokens), positions=positions, ends=ends)
    return self.logits(hidden) if self.head == "lm" else self.values(hidden)


# (x [..., D], load, parameters of a layer) -> (x, load).
_Layer = Callable[[jax.Array, Any, Any], tuple[jax.Array, Any]]


def _layer(
  graphdef: nnx.GraphDef,
  config: ModelConfig,
  angles: rotary.Angles,
  attend: attention.Attend,
  counts: jax.Array,
) -> _Layer:
  """Returns the function of all layers of a kind, which is traced once.

  Args:
    graphdef: of a block of the kind.
    config: of the model.
    angles: of the kind's positions.
    attend: the kind's attention.
    counts: see `Transformer.trunk`.
  """

  def run(x: jax.Array, load: Any, params: Any) -> tuple[jax.Array, Any]:
    block = nnx.merge(graphdef, params)
    x, logits = block(x, angles, attend)
    if logits is not None:
      if not config.balance:
        logits = jax.lax.stop_gradient(logits)
      more = experts.load(logits, counts, block.config.mixture)
      load = jax.tree.map(jnp.add, load, more)
    return sharding.constrain(x, "batch"), load

  return run


def _recomputed(run: _Layer, remat: str, *, looped: bool) -> _Layer:
  """Returns a layer that recomputes a part in its backward pass."""
  if remat == "none":
    return run
  # A loop needs no barrier against common-subexpression elimination.
  return jax.checkpoint(run, policy=_KEPT[remat], prevent_cse=not looped)


def _scan(
  runs: Sequence[_Layer],
  params: Sequence[Any],
  state: tuple[jax.Array, Any],
  dtype: str,
) -> tuple[jax.Array, Any]:
  """Runs whole periods of layers in a loop.

  Args:
    runs: the layers of a period.
    params: parameters of each layer, a multiple of the period.
    state: x and load.
    dtype: of the parameters in the loop.
  """
  stacked = [
    jax.tree.map(
      lambda *each: jnp.stack([x.astype(dtype) for x in each]),
      *params[kind :: len(runs)],
    )
    for kind in range(len(runs))
  ]

  def turn(state: Any, params: Sequence[Any]) -> tuple[Any, None]:
    for run, each in zip(runs, params, strict=True):
      state = run(*state, each)
    return state, None

  return jax.lax.scan(turn, state, stacked)[0]


def _attention(
  layer: ModelConfig, positions: jax.Array, ends: jax.Array | None
) -> attention.Attend:
  """Returns a layer's attention of whole rows; see `Transformer.hidden`."""
  window, softcap = layer.sliding_window, layer.attention_softcap
  kind = layer.attention
  grown = functools.partial(rotary.grown, positions=positions, rope=layer.rope)
  if kind == "auto":
    kind = "pallas" if jax.default_backend() == "tpu" else "xla"
  if kind == "pallas":
    trees, options = (ends, positions), tree_attention.Options(window, softcap)
    return lambda q, k, v, sinks=None: tree_attention.attend_on_mesh(
      *(grown(q), k, v, sinks, trees, options)
    )
  mask = attention.causal_mask(positions, window)
  if ends is not None:
    columns = jnp.arange(positions.shape[1])
    mask = mask & (columns[:, None] < ends[:, None, :])
  block = layer.attention_block
  return lambda q, k, v, sinks=None: attention.attend(
    grown(q), k, v, mask, block, softcap=softcap, sinks=sinks
  )


def arrays_of(model: Transformer) -> dict[Path, jax.Array]:
  """Returns a model's parameters by their paths."""
  return arrays_in(nnx.split(model)[1])


def arrays_in(params: Any) -> dict[Path, jax.Array]:
  """Returns the parameters of a state of `nnx.split` by their paths."""
  return {
    path: variable.get_value() for path, variable in nnx.to_flat_state(params)
  }


def abstract(config: ModelConfig, head: Head) -> tuple[nnx.GraphDef, nnx.State]:
  """Returns a model's structure, and its parameters without values.

  Args:
    config: the model's sizes.
    head: see `Transformer`.

  Returns:
    What `nnx.split` does, with a `jax.ShapeDtypeStruct` for each array; the
    caller may change it.
  """
  graphdef, params = _traced(config, head)
  return graphdef, jax.tree.map(lambda each: each, params)


@functools.lru_cache(maxsize=16)
def _traced(config: ModelConfig, head: Head) -> tuple[nnx.GraphDef, nnx.State]:
  """Traces the constructor, which takes seconds for a deep model."""
  return nnx.split(
    nnx.eval_shape(lambda: Transformer(config, head=head, rngs=nnx.Rngs(0)))
  )


def from_arrays(
  config: ModelConfig, head: Head, arrays: Mapping[Path, jax.Array]
) -> Transformer:
  """Makes a model of existing parameters; nothing is initialised.

  Args:
    config: the model's sizes.
    head: see `Transformer`.
    arrays: parameters by path, on any devices; others are ignored.

  Raises:
    KeyError: a parameter is missing.
  """
  graphdef, params = abstract(config, head)
  for path, variable in nnx.to_flat_state(params):
    variable.set_value(arrays[path])
  return nnx.merge(graphdef, params)


def reconfigured(model: Transformer, **changes: Any) -> Transformer:
  """Returns a model of the same arrays, with changed fields of its config."""
  config = dataclasses.replace(model.config, **changes)
  return from_arrays(config, model.head, arrays_of(model))


@functools.partial(jax.jit, static_argnames="graphdef")
def _outputs(params, tokens, positions, *, graphdef):
  return nnx.merge(graphdef, params)(tokens, positions=positions)


def outputs(
  model: Transformer, rows: Sequence[Sequence[int]], multiple: int
) -> jax.Array:
  """Returns a model's outputs at the tokens of rows of any lengths.

  Args:
    model: with any head.
    rows: B sequences of at least one id.
    multiple: T is one, so that few shapes are compiled.

  Returns:
    [B, T, ...]; those beyond a row's end mean nothing.
  """
  lengths = np.array([len(ids) for ids in rows])
  # Padding comes last, where no token attends to it.
  tokens = np.zeros((len(rows), -(-lengths.max() // multiple) * multiple), int)
  for row, ids in zip(tokens, rows, strict=True):
    row[: len(ids)] = ids
  # Nor does it make a row longer, by which LongRoPE chooses.
  positions = np.minimum(np.arange(tokens.shape[1]), lengths[:, None] - 1)
  graphdef, params = nnx.split(model)
  return _outputs(params, tokens, positions, graphdef=graphdef)


def ppm_from_policy(
  policy: Transformer,
  head: Literal["tanh", "logit"] = "tanh",
  *,
  rngs: nnx.Rngs,
) -> Transformer:
  """Makes a PPM of a policy's trunk and a new scalar head.

  Args:
    policy: unchanged; the trunk's arrays are copied.
    head: the form of the values; see `Transformer`.
    rngs: initialises the scalar head.

  Returns:
    A model of the same config.
  """
  arrays = {path: jnp.copy(array) for path, array in arrays_of(policy).items()}
  arrays["score",] = score_weight(policy.config, rngs).get_value()
  return from_arrays(policy.config, head, arrays)
