"""Trains a policy or a PPM on the user's own data, outside a run."""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rstar_jax import rng
from rstar_jax.config import identity, validation
from rstar_jax.config.schema import Config, PolicyConfig, TrainConfig
from rstar_jax.data import held_out, sides
from rstar_jax.hf import folders, saving
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.models import host_memory, vocabulary
from rstar_jax.models.transformer import (
  Transformer,
  arrays_of,
  ppm_from_policy,
)
from rstar_jax.steps.tokenizer import HfTokenizer
from rstar_jax.storage import json_io, metrics, store
from rstar_jax.training import loop, lora, sft
from rstar_jax.training import ppm as ppm_lib
from rstar_jax.types import PreferencePair, Prefix

# Digests of what the checkpoints beside it were trained on.
_GIVEN = "given.json"


def train_policy(
  solutions: Iterable[Mapping[str, Any]],
  *,
  policy: str | store.Path = "",
  folder: str | store.Path | None = None,
  checkpoints: str | store.Path | None = None,
  config: TrainConfig | None = None,
  dtype: Literal["float32", "bfloat16"] = "float32",
  seed: int = 0,
) -> Transformer:
  """Fine-tunes a policy on solutions.

  Args:
    solutions: rows {"question": str, "steps": [str, ...]}; the steps are texts
      as in `Tree.texts`, markers included, from the first to the answer.
    policy: folder or name of the model to start from, or a GGUF file; "" is the
      package's base model.
    folder: gets the trained policy and its tokenizer; None saves nothing.
    checkpoints: folder for checkpoints and metrics, so that the same call
      resumes after a kill; None keeps none. Another call is refused.
    config: None is `Config().sft`, the paper's numbers. If a batch would be
      larger than the data, it has all of them, in micro-batches no larger than
      the config's. With `held_out`, progress shows the loss on held-out
      questions.
    dtype: dtype of activations, and of parameters that LoRA freezes; trained
      parameters are float32.
    seed: seed of the order of rows.

  Returns:
    The trained policy.

  Raises:
    ValueError: the config or a row is wrong, no row fits into `config.length`
      tokens, the trained model could not be saved, or `checkpoints` are of a
      training that was given something else.
  """
  rows = [
    (_text(row, "question", number), _steps(row, "steps", number))
    for number, row in enumerate(solutions)
  ]
  config = config or Config().sft
  _check_given("solutions", rows, config, folder, checkpoints)
  model, tokenizer, adapter = _prepared(policy, config, dtype, folder)
  if checkpoints is not None:
    bind(checkpoints, rows, config, model, dtype=dtype, seed=seed)
  training, kept = (
    sft.pack(part, tokenizer, config.length)
    for part in held_out.divide(rows, lambda row: row[0], seed, config.held_out)
  )
  with _session_fields(checkpoints) as kept_in:
    sft.train_packed(
      model,
      training,
      _fitted(config, len(training)),
      loop.Session("sft", seed, adapter=adapter, **kept_in),
      held_out=kept,
    )
  if folder is not None:
    saving.save_policy(model, folder, tokenizer=tokenizer)
  return model


def train_ppm(
  pairs: Iterable[Mapping[str, Any] | PreferencePair],
  *,
  policy: str | store.Path = "",
  folder: str | store.Path | None = None,
  checkpoints: str | store.Path | None = None,
  config: TrainConfig | None = None,
  head: Literal["tanh", "logit"] = "tanh",
  dtype: Literal["float32", "bfloat16"] = "float32",
  seed: int = 0,
) -> Transformer:
  """Trains a process preference model on pairs of solutions (paper Eq. 4).

  Args:
    pairs: rows {"question": str, "chosen": [str, ...], "rejected": [str, ...]}:
      the steps of two partial solutions, the better one first. They are texts
      as in `Tree.texts`, markers included. A row may have a "weight" above
      0 (1.0). Pairs of a run, as `read_pairs` returns them, will do too.
    policy: folder or name of the model to start from, or a GGUF file; "" is the
      package's base model.
    folder: gets the PPM and its tokenizer; None saves nothing.
    checkpoints: see `train_policy`.
    config: see `train_policy`; None is `Config().ppm`, the paper's numbers.
      With `held_out`, progress shows loss and accuracy on held-out questions.
    head: form of the scalar head; see `Config.ppm_head`.
    dtype: dtype of activations, and of parameters that LoRA freezes; trained
      parameters are float32.
    seed: seed of the head and of the order of pairs.

  Returns:
    The trained PPM, for `step_values`.

  Raises:
    ValueError: see `train_policy`.
  """
  items = [_pair(row, number) for number, row in enumerate(pairs)]
  config = config or Config().ppm
  _check_given("pairs", items, config, folder, checkpoints)
  model, tokenizer, adapter = _prepared(policy, config, dtype, folder)
  if checkpoints is not None:
    bind(checkpoints, items, config, model, dtype=dtype, seed=seed, head=head)
  model = ppm_from_policy(
    model, head, rngs=nnx.Rngs(rng.seed_for(seed, "ppm head"))
  )
  training, kept = (
    sides.encode_pairs(tokenizer, part, config.length)
    for part in held_out.divide(
      items, lambda pair: pair.question, seed, config.held_out
    )
  )
  with _session_fields(checkpoints) as kept_in:
    ppm_lib.train_sides(
      model,
      training,
      _fitted(config, int(training.counts.sum())),
      loop.Session("ppm", seed, adapter=adapter, **kept_in),
      held_out=kept,
    )
  if folder is not None:
    saving.save_ppm(model, folder, tokenizer=tokenizer)
  return model


@contextlib.contextmanager
def _session_fields(
  folder: str | store.Path | None,
) -> Iterator[dict[str, Any]]:
  """Yields a session's fields for a folder of checkpoints, if any."""
  if folder is None:
    yield {}
    return
  with metrics.MetricsWriter(folder) as writer:
    yield {"folder": folder, "writer": writer}


def _check_given(
  what: str,
  rows: Sequence[Any],
  config: TrainConfig,
  *folders_: str | store.Path | None,
) -> None:
  """Checks all that needs no model."""
  if not rows:
    raise ValueError(f"there are no {what} to train on")
  validation.check_training("config", config)
  for folder in folders_:
    if folder is not None:
      store.check(store.path(folder))


def _prepared(
  policy: str | store.Path,
  config: TrainConfig,
  dtype: str,
  folder: str | store.Path | None,
) -> tuple[Transformer, HfTokenizer, lora.Saver | None]:
  """Returns the model of `_load`, its tokenizer, and an adapter's saver.

  Raises:
    ValueError: the model cannot be loaded, or not be saved once it is trained.
  """
  policy = policy or folders.BASE_MODEL
  model, tokenizer = _load(policy, config, dtype)
  if folder is None:
    return model, tokenizer, None
  saving.check(model.config, tokenizer, str(policy))
  return model, tokenizer, lora.saver(folder, policy, config, tokenizer)


def bind(
  folder: str | store.Path,
  rows: Sequence[Any],
  config: TrainConfig,
  policy: Transformer,
  **others: Any,
) -> None:
  """Binds a folder of checkpoints to what a training is given.

  Checkpoints of an earlier version, which has bound none, are not checked, nor
  are those whose digests are damaged.

  Raises:
    ValueError: the folder has checkpoints of a training that was given
      something else; one line.
  """
  folder = store.path(folder)
  given = others | {
    "rows": json_io.digest([json_io.digest(row) for row in rows]),
    "config": json_io.digest(identity.changes(config)),
    "policy": json_io.digest(
      {"/".join(map(str, k)): _bits(v) for k, v in arrays_of(policy).items()}
    ),
  }
  if not any(name.isdigit() for name in store.children(folder)):
    json_io.write(folder / _GIVEN, given)
    return
  bound = json_io.read(folder / _GIVEN)
  if not isinstance(bound, dict):
    return
  other = [name for name in sorted(given) if bound.get(name) != given[name]]
  if other:
    raise ValueError(
      f"{folder} has checkpoints of a training with another "
      f"{', '.join(other)}: give another folder of checkpoints, or delete it "
      "to train anew"
    )


@jax.jit
def _sum_of_bits(array: jax.Array) -> jax.Array:
  kind = jnp.dtype(f"uint{8 * array.dtype.itemsize}")
  bits = jax.lax.bitcast_convert_type(array, kind)
  return jnp.sum(bits, dtype=jnp.uint32)


def _bits(array: jax.Array) -> list[int]:
  """Returns shape and sum of bits modulo 2^32, which no sharding alters."""
  return [*array.shape, int(_sum_of_bits(array))]


def _load(
  policy: str | store.Path, config: TrainConfig, dtype: str
) -> tuple[Transformer, HfTokenizer]:
  """Returns a model to train, with a row per token, and its tokenizer."""
  host_memory.keep_freed()
  tokenizer = load_tokenizer(policy)
  kept = jnp.dtype(dtype) if config.lora_rank else jnp.float32
  model = folders.load_policy(policy, kept, compute_dtype=jnp.dtype(dtype))
  model.config = dataclasses.replace(model.config, **config.of_model)
  model = vocabulary.resize(
    model,
    known=tokenizer.known_to(model.config.vocab_size),
    used=tokenizer.vocab_size,
    multiple=PolicyConfig().vocab_multiple,
  )
  return model, tokenizer


def _fitted(config: TrainConfig, count: int) -> TrainConfig:
  """Returns the config, with batches no larger than all `count` items.

  They are rounded up to equal micro-batches, whose number is at most the
  config's.
  """
  if not 0 < count < config.batch_size:
    return config
  size = -(-count // config.accumulate)
  parts = -(-count // size)
  return dataclasses.replace(config, batch_size=parts * size, accumulate=parts)


def _pair(
  row: Mapping[str, Any] | PreferencePair, number: int
) -> PreferencePair:
  if isinstance(row, PreferencePair):
    return row
  question = _text(row, "question", number)
  chosen, rejected = (_steps(row, s, number) for s in ("chosen", "rejected"))
  return PreferencePair(
    problem_id=question,
    question=question,
    chosen=chosen,
    rejected=rejected,
    weight=_weight(row, number),
    kind="step" if chosen[:-1] == rejected[:-1] else "final",
  )


def _weight(row: Mapping[str, Any], number: int) -> float:
  given = row.get("weight", 1.0)
  try:
    weight = float(given)
  except (OverflowError, TypeError, ValueError):
    weight = math.nan
  # Weights are float32, in which others would be infinite or 0.
  least, most = map(float, (np.finfo("f").tiny, np.finfo("f").max))
  if not least <= weight <= most:
    raise ValueError(
      f"row {number}: 'weight' must be a number above 0 that float32 holds, "
      f"from {least:.1e} to {most:.1e}, not {given!r:.40}"
    )
  return weight


def _text(row: Mapping[str, Any], field: str, number: int) -> str:
  if not isinstance(row.get(field), str):
    raise ValueError(f"row {number}: {field!r} must be a text")
  return row[field]


def _steps(row: Mapping[str, Any], field: str, number: int) -> Prefix:
  steps = row.get(field)
  listed = isinstance(steps, Sequence) and not isinstance(steps, str)
  if not (listed and steps and all(isinstance(s, str) and s for s in steps)):
    raise ValueError(
      f"row {number}: {field!r} must be a list of texts, not empty"
    )
  return tuple(steps)
