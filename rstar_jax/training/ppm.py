"""Training of reward models: the PPM, and the ORM and PQM as baselines.

The PPM learns from pairs (paper section 3.3, Eq. 4), the ORM from outcomes and
the PQM from Q-values (paper Table 8). All read the value at the last token of a
step, and share the training loop and the form of batches.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx

from rstar_jax.config.schema import TrainConfig
from rstar_jax.data import batches
from rstar_jax.models import losses, sharding
from rstar_jax.models.transformer import Transformer
from rstar_jax.steps.tokenizer import Tokenizer
from rstar_jax.training import loop
from rstar_jax.types import PreferencePair, Prefix, Trajectory

Kind = Literal["ppm", "orm", "pqm"]
# (question, node texts, target): an item of the ORM and the PQM.
Scored = tuple[str, Prefix, float]


def train_ppm(
  model: Transformer,
  items: Sequence[PreferencePair] | Sequence[Scored],
  config: TrainConfig,
  *,
  seed: int,
  tokenizer: Tokenizer,
  kind: Kind = "ppm",
  balanced: bool = False,
  held_out: Sequence[PreferencePair] | Sequence[Scored] = (),
  name: str = "",
  **options: Any,
) -> Transformer:
  """Trains a reward model.

  Args:
    model: with a scalar head (`ppm_from_policy`); trained in place.
    items: preference pairs ("ppm"), or scored prefixes ("orm", "pqm": see
      `outcomes` and `q_values`). Items longer than `config.length` tokens are
      dropped, and counted in a log line.
    config: optimiser, and epochs or updates; the batch size counts items (pairs
      in the paper).
    seed: decides the order of the items, and what LoRA starts from.
    tokenizer: encodes the texts.
    kind: the loss: Bradley-Terry on values ("ppm"), cross entropy on raw values
      ("orm"), or squared error on values ("pqm").
    balanced: whether scored items are weighed by `batches.balanced`.
    held_out: items that the loss is measured on, not weighed so; see
      `loop.fit_model`.
    name: names the training in metrics and messages; "" is the kind.
    **options: mesh, folder, writer, progress, adapter; see `loop.fit_model`.

  Returns:
    The same model, trained.

  Raises:
    ValueError: an LM head, an unknown kind, or no item that fits.
  """
  name = name or kind
  if kind not in _LOSSES:
    raise ValueError(f"kind={kind!r} must be one of {sorted(_LOSSES)}")
  if model.head == "lm":
    raise ValueError(
      f"{name}: the model has an LM head; make a PPM of it with ppm_from_policy"
    )
  encode = batches.encode_pairs if kind == "ppm" else batches.encode_scored
  sides = encode(tokenizer, items, config.length)
  _check_some(name, sides, config.length)
  if balanced and kind != "ppm":
    sides = batches.balanced(sides)
  logging.info(
    "%s: %d items, %d dropped as too long", name, len(sides.ids), sides.dropped
  )
  parts = sharding.row_shards(options.get("mesh"))
  batch_at, num_steps = batches.side_batches(
    sides,
    config.batch_size,
    config.passes(len(sides.ids)),
    seed,
    length=config.length,
    parts=config.accumulate * parts,
  )
  kept, measured = encode(tokenizer, held_out, config.length), None
  if kept.ids:
    measured = batches.side_batches(
      kept,
      config.batch_size // config.accumulate,
      *(1, None),
      length=config.length,
      parts=parts,
    )
  return loop.fit_model(
    model,
    _LOSSES[kind],
    batch_at,
    config.updates or num_steps,
    config,
    name=name,
    seed=seed,
    held_out=measured,
    **options,
  )


def pair_accuracy(
  model: Transformer,
  pairs: Sequence[PreferencePair],
  *,
  tokenizer: Tokenizer,
  length: int,
  batch_size: int = 32,
  mesh: jax.sharding.Mesh | None = None,
) -> dict[str, float]:
  """Measures how often the preferred side has the higher value.

  Args:
    model: a PPM.
    pairs: held-out pairs; those with a side over `length` are left out.
    tokenizer: encodes the texts.
    length: longest side, in tokens.
    batch_size: pairs of a device call.
    mesh: the mesh of the model; all its processes call this.

  Returns:
    "accuracy" in [0, 1], over pairs, with a tie as half; "margin", the mean of
    chosen minus rejected value; "pairs", their number.

  Raises:
    ValueError: no pair fits.
  """
  sides = batches.encode_pairs(tokenizer, pairs, length)
  _check_some("pair_accuracy", sides, length)
  parts = sharding.row_shards(mesh)
  batch_at, num_batches = batches.side_batches(
    sides, batch_size, 1, None, length=length, parts=parts
  )
  graphdef, params = nnx.split(model)

  @jax.jit
  def margins(params, batch):
    values = side_values(nnx.merge(graphdef, params), batch)[1]
    return values[..., 0] - values[..., 1]

  found, pairs = [], []
  for k in range(num_batches):
    batch = batch_at(k)
    pairs.append(batch["weight"] > 0)
    if mesh is not None:
      batch = sharding.to_global(batch, mesh)
    with sharding.on(mesh):
      found.append(margins(params, batch))
  found = sharding.to_host(found)
  margin = np.concatenate(
    [each[real] for each, real in zip(found, pairs, strict=True)]
  )
  wins = np.mean(margin > 0) + 0.5 * np.mean(margin == 0)
  return {
    "accuracy": float(wins),
    "margin": float(margin.mean()),
    "pairs": float(len(margin)),
  }


def outcomes(trajectories: Sequence[Trajectory]) -> list[Scored]:
  """Makes ORM items: whole trajectories, with 1 if correct and 0 if not."""
  return [(t.question, t.steps, float(t.correct)) for t in trajectories]


def q_values(trajectories: Sequence[Trajectory]) -> list[Scored]:
  """Makes PQM items: each prefix once, with the Q-value of its last node."""
  found: dict[tuple[str, Prefix], float] = {}
  for each in trajectories:
    for depth, q in enumerate(each.q_values, 1):
      found.setdefault((each.question, each.steps[:depth]), q)
  return [(question, nodes, q) for (question, nodes), q in found.items()]


def side_values(
  model: Transformer, batch: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
  """Reads the value at the last token of each side.

  Args:
    model: with a scalar head.
    batch: `tokens`, `positions` and `ends` int32 [N, T], `last` int32
      [N, M, G]; see `batches.side_batches`.

  Returns:
    Raw values and values in [-1, 1], float32 [N, M, G] each.
  """
  hidden = model.hidden(
    batch["tokens"], positions=batch["positions"], ends=batch["ends"]
  )
  # Several pairs may read one token.
  last = batch["last"].reshape(len(hidden), -1)
  hidden = jnp.take_along_axis(hidden, last[..., None], axis=1)
  hidden = hidden.reshape(*batch["last"].shape, -1)
  return model.raw_values(hidden), model.values(hidden)


def ppm_loss(
  model: Transformer, batch: dict[str, jax.Array]
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Sums the Bradley-Terry loss (paper Eq. 4) over preference pairs.

  A "tanh" head is trained on tanh(raw), as in the paper; a "logit" head on raw
  values, as in the released code (microsoft/rStar).

  Args:
    model: a PPM.
    batch: from `batches.side_batches`, with G = 2 and the preferred side first.

  Returns:
    The weighted sum, in nats, and the sums "count" (pairs), "accuracy" and
    "margin" (of values in [-1, 1]).
  """
  raw, values = side_values(model, batch)
  trained = raw if model.head == "logit" else values
  total, count = losses.bradley_terry(
    trained[..., 0], trained[..., 1], batch["weight"]
  )
  real = batch["weight"] > 0
  margin = jnp.where(real, values[..., 0] - values[..., 1], 0.0)
  return total, {
    "count": count,
    "accuracy": jnp.sum(margin > 0, dtype=jnp.float32),
    "margin": jnp.sum(margin),
  }


def orm_loss(
  model: Transformer, batch: dict[str, jax.Array]
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Sums the cross entropy of outcomes; "accuracy" is at the threshold 0."""
  raw = side_values(model, batch)[0][..., 0]
  total, count = losses.orm(raw, batch["target"], batch["weight"])
  hit = (raw > 0) == (batch["target"] > 0.5)
  hits = jnp.where(batch["weight"] > 0, hit, False)
  return total, {"count": count, "accuracy": jnp.sum(hits, dtype=jnp.float32)}


def pqm_loss(
  model: Transformer, batch: dict[str, jax.Array]
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Sums the squared error of values against Q-values."""
  values = side_values(model, batch)[1][..., 0]
  total, count = losses.pqm(values, batch["target"], batch["weight"])
  return total, {"count": count}


_LOSSES: dict[str, Callable] = {
  "ppm": ppm_loss,
  "orm": orm_loss,
  "pqm": pqm_loss,
}


def _check_some(name: str, sides: batches.Sides, length: int) -> None:
  if not sides.ids:
    raise ValueError(
      f"{name}: none of {sides.dropped} items fits into "
      f"{length} tokens; give items, or a larger length in another --workdir"
    )
