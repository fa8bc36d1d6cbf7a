"""The programs of the step engine, and the plans that they are given.

Letters: T slots, R rows of page tables, P pages of a path, K inner steps.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rstar_jax.inference import sampler
from rstar_jax.inference.runs import Run
from rstar_jax.models.paged_attention import PagedAttention
from rstar_jax.models.paths import Paths, Slots
from rstar_jax.models.products import in_blocks
from rstar_jax.models.sharding import row_shards
from rstar_jax.models.step import step
from rstar_jax.models.transformer import Transformer

# Rows of `DecodePlan.array` beside those of inner steps and of pages.
_FIXED = 5
# Columns of `PrefillPlan.tables` before the pages.
_COPY = 2


class Structure:
  """A model without its parameters; a static argument of programs.

  `structure_of` gives equal graphdefs one object: the hash of a graphdef takes
  milliseconds, and each call of a program needs it.
  """

  def __init__(self, graphdef: nnx.GraphDef):
    self._graphdef = graphdef

  def merge(self, params: Any) -> Transformer:
    """Returns the model with parameters."""
    return nnx.merge(self._graphdef, params)


@functools.cache
def structure_of(graphdef: nnx.GraphDef) -> Structure:
  """Returns the structure of a graphdef."""
  return Structure(graphdef)


class DecodePlan:
  """A plan of T slots for K inner steps, as views of one int32 array.

  Attributes:
    array: [3 K + 5 + P, T].
    tokens: [k, T], of the k steps that are used; -1 is the slot's last sample.
    positions: [k, T]; -1 is an empty slot.
    draws: [k, T], the number of tokens of its step that a slot sampled before.
    seeds: [T], uint32 bits.
    spans: [T].
    temperatures: [T], float32 bits; 0 takes the likeliest token.
    copies: [2, T], a page, and the page that becomes its copy before anything
      is computed; above the last page if there is none.
    tables: [P, T].
  """

  def __init__(
    self, slots: int, steps: int, width: int, count: int, used: int = 0
  ):
    """Makes a plan of empty slots.

    Args:
      slots: T.
      steps: K.
      width: P.
      count: pages of a layer.
      used: k, at most K; 0 is K. Other steps are not run.
    """
    self.array = np.zeros((3 * steps + _FIXED + width, slots), np.int32)
    self.array[: 2 * steps] = -1
    self.tokens, self.positions, self.draws = (
      self.array[i * steps : i * steps + (used or steps)] for i in range(3)
    )
    rest = self.array[3 * steps :]
    self.seeds, self.spans, bits = rest[:3]
    self.temperatures = bits.view(np.float32)
    self.copies, self.tables = rest[3:_FIXED], rest[_FIXED:]
    self.spans[:] = self.temperatures[:] = 1
    self.copies[1] = count

  @property
  def live(self) -> int:
    """Returns the number of steps that are run, up to the last with a slot."""
    (live,) = np.nonzero((self.positions >= 0).any(axis=1))
    return int(live[-1]) + 1 if len(live) else 0

  def put(self, slot: int, run: Run) -> None:
    """Gives a slot to a run; sets all but its tokens."""
    self.spans[slot] = run.span
    self.tables[: len(run.table), slot] = run.table
    if run.copy is not None:
      self.copies[:, slot] = run.copy
      run.copy = None


class PrefillPlan:
  """T tokens of at most R paths, as views of two int32 arrays.

  Attributes:
    array: [4, T].
    tokens, positions, spans, rows: [T]; see `Slots` and `Paths`.
    by_path: [R, 2 + P].
    copies: [R, 2]; see `DecodePlan`.
    tables: [R, P].
  """

  def __init__(
    self, slots: int, rows: int, width: int, count: int, shards: int = 1
  ):
    """Makes a plan of empty slots.

    Args:
      slots: T.
      rows: R.
      width: P.
      count: pages of a layer.
      shards: data shards; rows count from 0 in each.
    """
    self.array = np.zeros((4, slots), np.int32)
    self.tokens, self.positions, self.spans, self.rows = self.array
    self.by_path = np.zeros((rows, _COPY + width), np.int32)
    self.copies, self.tables = self.by_path[:, :_COPY], self.by_path[:, _COPY:]
    self.positions[:] = -1
    self.spans[:] = 1
    self.rows[:] = rows // shards - 1
    self.copies[:, 1] = count

  def put(self, slot: int, table: int, row: int, run: Run, count: int) -> None:
    """Gives slots to the next tokens of a run.

    Args:
      slot: the first slot.
      table: the run's row in `tables`.
      row: that row within its data shard.
      run: has pages for the tokens.
      count: number of tokens.
    """
    slots = slice(slot, slot + count)
    self.tokens[slots] = run.ids[run.next : run.next + count]
    self.positions[slots] = np.arange(run.next, run.next + count)
    self.spans[slots] = run.span
    self.rows[slots] = row
    self.tables[table, : len(run.table)] = run.table
    if run.copy is not None:
      self.copies[table] = run.copy
      run.copy = None


@dataclasses.dataclass(frozen=True)
class Options:
  """Static arguments of the programs; hashable.

  Attributes:
    layers: layers of the model.
    attention: over pages.
    method: draws tokens.
    steps: K.
  """

  layers: int
  attention: PagedAttention = PagedAttention()
  method: sampler.Method = sampler.Method()
  steps: int = 1


def decode(
  model: Transformer, pages: jax.Array, plan: jax.Array, options: Options
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Runs inner steps; each samples the next token of every slot.

  A slot that computes a prefix samples too, which the host ignores. Steps after
  the last one that has a slot are not run.

  Args:
    model: with an LM head.
    pages: [L * count, ...].
    plan: `DecodePlan.array`.
    options: see `Options`.

  Returns:
    The pages; int32 [K, T] tokens; and float32 [K, T], their log-probabilities
    (nats) under softmax(logits), for every sampling method. Both are 0 for
    steps that were not run.
  """
  steps = options.steps
  given, positions, draws = (
    plan[i * steps : (i + 1) * steps] for i in range(3)
  )
  seeds, spans, temperatures = plan[3 * steps : 3 * steps + 3]
  sources, targets = plan[3 * steps + 3 : 3 * steps + _FIXED]
  tables = plan[3 * steps + _FIXED :].T
  pages = options.attention.copy(
    pages, sources, targets, model.config, options.layers
  )
  # Rows are counted within their data shard.
  shards = row_shards(options.attention.mesh)
  rows = jnp.arange(plan.shape[1] // shards, dtype=jnp.int32)
  rows = jnp.tile(rows, shards)
  paths = Paths(tables, rows, positions)
  if 0 in model.config.windows():
    reads = options.attention.reads(pages, paths)
    paths = dataclasses.replace(paths, reads=reads)

  def inner(index, state):
    pages, last, drawn, logprobs = state
    tokens = jnp.where(given[index] < 0, last, given[index])
    hidden, pages = step(
      model,
      pages,
      Slots(
        tokens, spans, dataclasses.replace(paths, positions=positions[index])
      ),
      layers=options.layers,
      attention=options.attention,
    )
    last, logprob = in_blocks(
      functools.partial(_sample, options.method),
      model.config.row_block,
      *(model.logits(hidden), seeds, draws[index], temperatures),
    )
    drawn, logprobs = drawn.at[index].set(last), logprobs.at[index].set(logprob)
    return pages, last, drawn, logprobs

  live = jnp.any(positions >= 0, axis=1)
  count = jnp.max(jnp.where(live, jnp.arange(1, steps + 1), 0))
  found = jnp.zeros_like(given), jnp.zeros(given.shape, jnp.float32)
  pages, _, tokens, logprobs = jax.lax.fori_loop(
    0, count, inner, (pages, jnp.zeros_like(seeds), *found)
  )
  return pages, tokens, logprobs


def _sample(
  method: sampler.Method,
  logits: jax.Array,
  seeds: jax.Array,
  draws: jax.Array,
  temperatures: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Returns int32 [T] tokens of logits [T, V], and their log-probabilities."""
  drawn = method(
    logits,
    jax.lax.bitcast_convert_type(temperatures, jnp.float32),
    sampler.uniform_at(seeds, draws),
  )
  chosen = jnp.take_along_axis(logits, drawn[:, None], -1)[:, 0]
  return drawn, chosen - jax.nn.logsumexp(logits, axis=-1)


def prefill(
  model: Transformer,
  pages: jax.Array,
  plan: jax.Array,
  by_path: jax.Array,
  options: Options,
) -> tuple[jax.Array, jax.Array | None]:
  """Computes tokens of paths, and their values if the head is scalar.

  Args:
    model: with any head.
    pages: [L * count, ...].
    plan: `PrefillPlan.array`.
    by_path: `PrefillPlan.by_path`.
    options: see `Options`.

  Returns:
    The pages; and float32 [T] in [-1, 1], None for an LM head.
  """
  tokens, positions, spans, rows = plan
  sources, targets = by_path[:, 0], by_path[:, 1]
  pages = options.attention.copy(
    pages, sources, targets, model.config, options.layers
  )
  hidden, pages = step(
    model,
    pages,
    Slots(tokens, spans, Paths(by_path[:, _COPY:], rows, positions)),
    layers=options.layers,
    attention=options.attention,
  )
  if model.head == "lm":
    return pages, None
  return pages, in_blocks(model.values, model.config.row_block, hidden)
