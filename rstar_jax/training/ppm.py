"""Training of reward models: the PPM, and the ORM and PQM as baselines.

The PPM learns from pairs (paper section 3.3, Eq. 4), the ORM from outcomes and
the PQM from Q-values (paper Table 8). All read the value at the last token of a
step, and share the training loop and the format of batches.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx

from rstar_jax.config.schema import TrainConfig
from rstar_jax.data import sides as sides_lib
from rstar_jax.data.sides import Sides
from rstar_jax.models import losses, sharding
from rstar_jax.models.experts import Load
from rstar_jax.models.transformer import Transformer
from rstar_jax.training import balance, loop
from rstar_jax.types import Prefix, Trajectory

Kind = Literal["ppm", "orm", "pqm"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# (question, node texts, target): an item of the ORM and the PQM.
Scored = tuple[str, Prefix, float]


def train_sides(
  model: Transformer,
  sides: Sides,
  config: TrainConfig,
  session: loop.Session,
  *,
  held_out: Sides,
  kind: Kind = "ppm",
  balanced: bool = False,
  sizes: Sequence[tuple[int, int] | None] = (None, None),
) -> Transformer:
  """Trains a reward model on encoded items, which may be on the disk.

  Args:
    model: with a scalar head (`ppm_from_policy`); trained in place.
    sides: items of at most `config.length` tokens.
    config: of the training; the batch size counts items (pairs in the paper).
    session: its seed decides the order of items.
    held_out: items for measuring the loss, never weighted by `balanced`; see
      `loop.fit_model`.
    kind: the loss: Bradley-Terry on values ("ppm"), cross entropy on raw values
      ("orm"), or squared error on values ("pqm").
    balanced: whether scored items are weighted by `sides.balance`.
    sizes: see `largest`; None computes a size.

  Returns:
    The same model, trained.

  Raises:
    ValueError: there is no item.
  """
  _check_some(session.name, sides, config.length)
  logging.info(
    "%s: %d items, %d dropped as too long",
    session.name,
    sides.counts.sum(),
    sides.dropped,
  )
  parts = sharding.row_shards(session.mesh)
  batch_at, num_steps = sides_lib.make_batches(
    *_order(sides, config, session.seed),
    length=config.length,
    parts=config.accumulate * parts,
    balanced=balanced and kind != "ppm",
    size=sizes[0],
  )
  measured = None
  if len(held_out.counts):
    measured = sides_lib.make_batches(
      *_held_out_order(held_out, config),
      length=config.length,
      parts=parts,
      size=sizes[1],
    )
  return loop.fit_model(
    model,
    _LOSSES[kind],
    batch_at,
    config.updates or num_steps,
    config,
    session,
    held_out=measured,
  )


def largest(
  sides: Sides, held_out: Sides, config: TrainConfig, seed: int
) -> list[tuple[int, int] | None]:
  """Returns the largest sizes of the batches of a training.

  Args:
    sides: training items.
    held_out: held-out items.
    config: of the training.
    seed: of the training.

  Returns:
    `sides.largest` of training and of held-out batches; None without items.
  """

  length = config.length
  return [
    sides_lib.largest(*_order(sides, config, seed), length=length)
    if len(sides.counts)
    else None,
    sides_lib.largest(*_held_out_order(held_out, config), length=length)
    if len(held_out.counts)
    else None,
  ]


def _order(
  sides: Sides, config: TrainConfig, seed: int
) -> tuple[Sides, int, int, int]:
  """Returns what determines the batches; see `sides.make_batches`."""
  passes = config.passes(int(sides.counts.sum()))
  return sides, config.batch_size, passes, seed


def _held_out_order(
  sides: Sides, config: TrainConfig
) -> tuple[Sides, int, int, None]:
  """Does the same for held-out items: once, in micro-batches of a training."""
  return sides, config.batch_size // config.accumulate, 1, None


def pair_accuracy(
  model: Transformer,
  pairs: Sides,
  *,
  length: int,
  batch_size: int = 32,
  mesh: jax.sharding.Mesh | None = None,
) -> dict[str, float]:
  """Measures how often the preferred side has the higher value.

  Args:
    model: a PPM.
    pairs: held-out pairs.
    length: most tokens of a side.
    batch_size: pairs per device call.
    mesh: the model's mesh; all its processes call this.

  Returns:
    "accuracy" in [0, 1], where a tie counts half; "margin", the mean of chosen
    minus rejected value; "pairs", their number.

  Raises:
    ValueError: there are no pairs.
  """
  _check_some("pair_accuracy", pairs, length)
  parts = sharding.row_shards(mesh)
  batch_at, num_batches = sides_lib.make_batches(
    pairs, batch_size, 1, None, length=length, parts=parts
  )
  graphdef, params = nnx.split(model)

  @jax.jit
  def margins(params, batch):
    _, values, _ = side_values(nnx.merge(graphdef, params), batch)
    return values[..., 0] - values[..., 1]

  found, real = [], []
  for k in range(num_batches):
    batch = batch_at(k)
    real.append(batch["weight"] > 0)
    if mesh is not None:
      batch = sharding.to_global(batch, mesh)
    with sharding.on(mesh):
      found.append(margins(params, batch))
  found = sharding.to_host(found)
  margin = np.concatenate(
    [each[some] for each, some in zip(found, real, strict=True)]
  )
  wins = np.mean(margin > 0) + 0.5 * np.mean(margin == 0)
  return {
    "accuracy": float(wins),
    "margin": float(margin.mean()),
    "pairs": float(len(margin)),
  }


def outcomes(trajectories: Sequence[Trajectory]) -> list[Scored]:
  """Returns ORM items: whole trajectories, with target 1 if correct, else 0."""
  return [(t.question, t.steps, float(t.correct)) for t in trajectories]


def q_values(trajectories: Sequence[Trajectory]) -> list[Scored]:
  """Returns PQM items: each prefix once, with its last node's Q-value.

  Of a prefix that is in several trees the first trajectory's Q counts.
  """
  by_prefix: dict[tuple[str, Prefix], float] = {}
  for each in trajectories:
    for depth, q in enumerate(each.q_values, 1):
      by_prefix.setdefault((each.question, each.steps[:depth]), q)
  return [(question, nodes, q) for (question, nodes), q in by_prefix.items()]


def side_values(
  model: Transformer, batch: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array, Load | None]:
  """Reads the value at the last token of each side.

  Args:
    model: with a scalar head.
    batch: `tokens`, `positions` and `ends` int32 [N, T], `last` int32
      [N, M, G]; see `sides.make_batches`.

  Returns:
    Raw values and values in [-1, 1], float32 [N, M, G] each; and the load of
    the experts, see `Transformer.hidden_and_load`.
  """
  hidden, load = model.hidden_and_load(
    batch["tokens"], positions=batch["positions"], ends=batch["ends"]
  )
  # Several pairs may read the value at one token.
  last = batch["last"].reshape(len(hidden), -1)
  hidden = jnp.take_along_axis(hidden, last[..., None], axis=1)
  hidden = hidden.reshape(*batch["last"].shape, -1)
  return model.raw_values(hidden), model.values(hidden), load


def ppm_loss(
  model: Transformer, batch: dict[str, jax.Array]
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Sums the Bradley-Terry loss (paper Eq. 4) over preference pairs.

  A "tanh" head is trained on tanh(raw), as in the paper; a "logit" head on raw
  values, as in the released code (microsoft/rStar).

  Args:
    model: a PPM.
    batch: of `sides.make_batches`, with G = 2 and the preferred side first.

  Returns:
    The weighted sum, in nats, and the sums "count" (pairs), "accuracy" and
    "margin" (of values in [-1, 1]), with those of `balance.added`.
  """
  raw, values, load = side_values(model, batch)
  trained = raw if model.head == "logit" else values
  total, count = losses.bradley_terry(
    trained[..., 0], trained[..., 1], batch["weight"]
  )
  real = batch["weight"] > 0
  margin = jnp.where(real, values[..., 0] - values[..., 1], 0.0)
  sums = {
    "count": count,
    "accuracy": jnp.sum(margin > 0, dtype=jnp.float32),
    "margin": jnp.sum(margin),
  }
  return balance.added(total, sums, load, model.config)


def orm_loss(
  model: Transformer, batch: dict[str, jax.Array]
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Sums the cross entropy of outcomes; "accuracy" has the threshold 0."""
  raw, _, load = side_values(model, batch)
  raw = raw[..., 0]
  total, count = losses.orm(raw, batch["target"], batch["weight"])
  hit = (raw > 0) == (batch["target"] > 0.5)
  hits = jnp.where(batch["weight"] > 0, hit, False)
  sums = {"count": count, "accuracy": jnp.sum(hits, dtype=jnp.float32)}
  return balance.added(total, sums, load, model.config)


def pqm_loss(
  model: Transformer, batch: dict[str, jax.Array]
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Sums the squared error of values against Q-values."""
  _, values, load = side_values(model, batch)
  values = values[..., 0]
  total, count = losses.pqm(values, batch["target"], batch["weight"])
  return balance.added(total, {"count": count}, load, model.config)


_LOSSES: dict[Kind, Callable] = {
  "ppm": ppm_loss,
  "orm": orm_loss,
  "pqm": pqm_loss,
}


def _check_some(name: str, sides: Sides, length: int) -> None:
  if not len(sides.counts):
    raise ValueError(
      f"{name}: none of {sides.dropped} items fits into "
      f"{length} tokens; give items, or a larger length in another --workdir"
    )
