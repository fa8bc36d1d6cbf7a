"""Fine-tuning of the policy on solutions (paper section 3.4, appendix A.1)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from absl import logging

from rstar_jax.config.schema import TrainConfig
from rstar_jax.data import batches
from rstar_jax.models import losses, sharding
from rstar_jax.models.transformer import Transformer
from rstar_jax.steps.tokenizer import Tokenizer
from rstar_jax.training import balance, loop, next_token
from rstar_jax.types import Prefix


def train_packed(
  model: Transformer,
  packed: batches.Rows,
  config: TrainConfig,
  session: loop.Session,
  *,
  held_out: batches.Rows,
) -> Transformer:
  """Fine-tunes a policy on packed rows, which may be on the disk.

  Prefixes that solutions of a question share are computed once.

  Args:
    model: the base model with its LM head; trained in place.
    packed: rows of `config.length` tokens.
    config: of the training; the batch size counts packed rows.
    session: its seed decides the order of rows.
    held_out: rows for measuring the loss; see `loop.fit_model`.

  Returns:
    The same model, trained.

  Raises:
    ValueError: there are no rows: no solution fits into `config.length` tokens.
  """
  count = len(packed)
  if count == 0:
    raise ValueError(
      f"{session.name}: none of {packed.solutions} solutions fits into "
      f"{config.length} tokens; give solutions, or a larger length in another "
      "--workdir"
    )
  logging.info(
    "%s: %d solutions in %d rows of %d tokens, %d dropped as too long",
    session.name,
    packed.solutions - packed.dropped,
    count,
    config.length,
    packed.dropped,
  )
  batch_at, num_steps = batches.row_batches(
    packed, config.batch_size, config.passes(count), session.seed
  )
  measured = None
  if rows_kept := len(held_out):
    # As many as a micro-batch of the training.
    most = config.batch_size // config.accumulate
    parts = sharding.row_shards(session.mesh)
    size = min(most, -(-rows_kept // parts) * parts)
    measured = batches.row_batches(held_out, size, 1, session.seed)
  return loop.fit_model(
    model,
    sft_loss,
    batch_at,
    config.updates or num_steps,
    config,
    session,
    held_out=measured,
  )


def pack(
  rows: Sequence[tuple[str, Prefix]], tokenizer: Tokenizer, length: int
) -> batches.Packed:
  """Encodes and packs solutions, those of a question together.

  Args:
    rows: (question, node texts) of each solution; rows longer than `length`
      tokens are dropped, and counted in the log.
    tokenizer: encodes the texts.
    length: tokens of a packed row.
  """
  encoded = [batches.encode_row(tokenizer, q, nodes) for q, nodes in rows]
  groups = batches.by_question(question for question, _ in rows)
  return batches.pack(
    [[encoded[number] for number in group] for group in groups], length
  )


def sft_loss(
  model: Transformer, batch: dict[str, jax.Array]
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Sums the next-token loss over the tokens that the policy writes.

  Args:
    model: a policy.
    batch: int32 [B, T] `tokens`, `positions`, `parents` and `ends`, and float32
      `weights`; see `batches.Packed`.

  Returns:
    The weighted sum over tokens, in nats, and the sums "count" (of weights) and
    "token_accuracy" (of weights of greedy hits), with those of `balance.added`.
  """
  logprobs, hits, load = next_token.logprobs(model, batch)
  total, count = losses.masked_nll(logprobs, batch["weights"])
  hits = jnp.sum(hits * batch["weights"])
  sums = {"count": count, "token_accuracy": hits}
  return balance.added(total, sums, load, model.config)
