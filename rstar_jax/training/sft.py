"""Fine-tuning of the policy on solutions (paper section 3.4, appendix A.1)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from rstar_jax.config.schema import TrainConfig
from rstar_jax.data import batches
from rstar_jax.models import losses
from rstar_jax.models.transformer import Transformer
from rstar_jax.steps.tokenizer import Tokenizer
from rstar_jax.training import loop
from rstar_jax.types import Prefix

# 0.5 GB of float32.
_MAX_LOGITS = 1 << 27


def train_sft(
  model: Transformer,
  rows: Sequence[tuple[str, Prefix]],
  config: TrainConfig,
  *,
  seed: int,
  tokenizer: Tokenizer,
  name: str = "sft",
  **options: Any,
) -> Transformer:
  """Fine-tunes a policy on solutions, packed.

  What solutions of a question have in common is computed once.

  Args:
    model: the base model with its LM head; trained in place.
    rows: (question, node texts) of each solution; rows longer than
      `config.length` tokens are dropped and counted in a log line.
    config: optimiser, batch size in packed rows, epochs.
    seed: decides the order of the rows.
    tokenizer: encodes the texts.
    name: names the training in metrics and messages.
    **options: mesh, folder, writer, progress; see `loop.fit_model`.

  Returns:
    The same model, trained.

  Raises:
    ValueError: no row fits into `config.length` tokens.
  """
  encoded = [batches.encode_row(tokenizer, q, nodes) for q, nodes in rows]
  groups = batches.by_question(question for question, _ in rows)
  packed = batches.pack(
    [[encoded[number] for number in group] for group in groups], config.length
  )
  count = len(packed.arrays["tokens"])
  if count == 0:
    raise ValueError(
      f"{name}: none of {len(rows)} solutions fits into {config.length} "
      "tokens; give solutions, or a larger length in another --workdir"
    )
  logging.info(
    "%s: %d solutions in %d rows of %d tokens, %d dropped as too long",
    name,
    len(rows) - packed.dropped,
    count,
    config.length,
    packed.dropped,
  )
  batch_at, num_steps = batches.row_batches(
    packed.arrays, config.batch_size, config.epochs, seed
  )
  return fit_policy(model, batch_at, num_steps, config, name=name, **options)


def fit_policy(
  model: Transformer,
  batch_at: batches.BatchAt,
  num_steps: int,
  config: TrainConfig,
  *,
  name: str = "sft",
  **options: Any,
) -> Transformer:
  """Fine-tunes a policy on batches from a function.

  Args:
    model: trained in place.
    batch_at: returns batch k, as a function of k alone: int32 arrays [B, T]
      `tokens`, `positions`, `parents` and `ends`, and float32 `weights` (see
      `batches.Packed`).
    num_steps: updates of the whole run.
    config: optimiser; its epochs, batch size and length are not used here.
    name: names the training in metrics and messages.
    **options: mesh, folder, writer, progress; see `loop.fit_model`.

  Returns:
    The same model, trained.
  """
  return loop.fit_model(
    model, sft_loss, batch_at, num_steps, config, name=name, **options
  )


def sft_loss(
  model: Transformer,
  batch: dict[str, jax.Array],
  max_logits: int = _MAX_LOGITS,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Sums the next-token loss over the tokens that the policy writes.

  Args:
    model: a policy.
    batch: see `fit_policy`.
    max_logits: most logits of a row in memory at once, T' x V. A longer row is
      split into T / T' equal parts, whose logits are recomputed in the backward
      pass: 4096 tokens of a 152k vocabulary would take 2.5 GB a row.

  Returns:
    The sum over the tokens by their weights, in nats, and the sums "count" (of
    weights) and "token_accuracy" (greedy hits among them).
  """
  hidden = model.hidden(
    batch["tokens"], positions=batch["positions"], ends=batch["ends"]
  )
  # A token that several tokens follow predicts each of them.
  before = jnp.take_along_axis(hidden, batch["parents"][..., None], axis=1)
  inputs = before, batch["tokens"], batch["weights"]

  def sums_of(hidden, targets, weights):
    logits = model.logits(hidden)
    total, count = losses.masked_nll(logits, targets, weights)
    hits = (jnp.argmax(logits, axis=-1) == targets) * weights
    return total, count, jnp.sum(hits, dtype=jnp.float32)

  parts = _parts(hidden.shape[1], model.config.vocab_size, max_logits)
  if parts == 1:
    total, count, hits = sums_of(*inputs)
  else:
    split = jax.tree.map(
      lambda x: jnp.stack(jnp.split(x, parts, axis=1)), inputs
    )
    add = lambda sums, part: (  # noqa: E731
      jax.tree.map(jnp.add, sums, jax.checkpoint(sums_of)(*part)),
      None,
    )
    total, count, hits = jax.lax.scan(add, (jnp.zeros(()),) * 3, split)[0]
  return total, {"count": count, "token_accuracy": hits}


def _parts(length: int, vocab_size: int, max_logits: int) -> int:
  """Returns the fewest equal parts that each fit into `max_logits`."""
  wanted = -(-length * vocab_size // max_logits)
  return next((n for n in range(wanted, length) if length % n == 0), length)
