"""Log-probabilities of a batch's tokens, for the policy's losses."""

import jax
import jax.numpy as jnp

from rstar_jax.models import losses, sharding
from rstar_jax.models.experts import Load
from rstar_jax.models.transformer import Transformer

# Most logits of a row in memory at once, T' x V: 0.5 GB in float32. A longer
# row is split into T / T' equal parts, whose logits are recomputed in the
# backward pass: 4096 tokens of a 152k vocabulary would take 2.5 GB a row.
_MAX_LOGITS = 1 << 27


def logprobs(
  model: Transformer,
  batch: dict[str, jax.Array],
  temperature: float = 1.0,
) -> tuple[jax.Array, jax.Array, Load | None]:
  """Computes each token's log-probability, given the tokens before it.

  Args:
    model: a policy.
    batch: int32 [B, T] `tokens`, `positions`, `parents` and `ends`; see
      `batches.Packed`.
    temperature: divides the logits.

  Returns:
    float32 [B, T], in nats; bool [B, T], whether no other token is likelier
    (both are meaningless at first tokens and in padding); and the load of the
    experts, see `Transformer.hidden_and_load`.
  """
  hidden, load = model.hidden_and_load(
    batch["tokens"], positions=batch["positions"], ends=batch["ends"]
  )
  # In a prefix tree a token predicts each of its successors.
  before = jnp.take_along_axis(hidden, batch["parents"][..., None], axis=1)

  # On a mesh the kernel is gathered once, in the dtype of activations, and not
  # for each part; gradients of the parts are summed in the kernel's own dtype.
  kernel = model.unembedding()
  whole = sharding.constrain(kernel.astype(hidden.dtype), "vocab")
  whole = whole.astype(kernel.dtype)

  def of(hidden: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits = model.logits(hidden, whole)
    if temperature != 1:
      logits = logits / temperature
    values = losses.logprobs(logits, tokens)
    # Compares with the greatest logit; an argmax takes a CPU five times as long
    # as the softmax.
    picked = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return values, picked == jnp.max(logits, axis=-1)

  tokens = batch["tokens"]
  count = parts(tokens.shape[1], model.config.vocab_size)
  if count == 1:
    return *of(before, tokens), load
  split = [jnp.stack(jnp.split(x, count, axis=1)) for x in (before, tokens)]
  results = jax.lax.map(lambda each: jax.checkpoint(of)(*each), tuple(split))
  values, hits = (x.swapaxes(0, 1).reshape(tokens.shape) for x in results)
  return values, hits, load


def parts(length: int, vocab_size: int) -> int:
  """Returns the fewest equal parts of a row whose logits fit into memory."""
  wanted = -(-length * vocab_size // _MAX_LOGITS)
  return next((n for n in range(wanted, length) if length % n == 0), length)
