"""Where the time of an expansion goes: prefill, and the parts of a decode step.

A part is timed alone, in a loop inside one program as decode has it: the layers
without attention, the unembedding, the choice of a token. What remains of a
step is attention and its cache. So the parts of a step sum up to the step by
definition, and a part may be a little off where the compiler mixes them.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rstar_jax.inference import sampler
from rstar_jax.models.transformer import Transformer

_STEPS = 16
_REPEATS = 5


def seconds_of(run: Callable[[], Any], repeats: int = _REPEATS) -> float:
  """Returns the least wall time of a call, after one that compiles.

  The least, and not the median: it is what other programs disturb least.
  """
  jax.block_until_ready(run())
  found = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(run())
    found.append(time.perf_counter() - start)
  return min(found)


def of_step(model: Transformer, leaves: int, candidates: int, place: int):
  """Returns milliseconds of the parts of one decode step that stand alone.

  Args:
    model: with an LM head.
    leaves: B.
    candidates: C.
    place: of the token in its sequence.

  Returns:
    "layers", "unembed" and "sample".
  """
  graphdef, params = nnx.split(model)
  shape = leaves, candidates
  width = model.config.num_heads // model.config.num_kv_heads
  method = sampler.Method()
  warm, chances = jnp.ones(shape), jnp.full(shape, 0.5)

  def layers(model, tokens):
    # Keys and values take part, or their products would be left out.
    spread = lambda x: jnp.repeat(x, width, axis=-2)  # noqa: E731
    hidden, _ = model.trunk(
      tokens[..., None],
      jnp.full((*shape, 1), place),
      lambda _: lambda q, k, v: q + spread(k) + spread(v),
      spans=jnp.full((*shape, 1), place + 1),
    )
    return jnp.argmax(hidden[:, :, 0], axis=-1).astype(jnp.int32)

  def unembed(model, hidden):
    peak = jnp.max(model.logits(hidden), axis=-1, keepdims=True)
    return hidden + (1e-6 * peak).astype(hidden.dtype)

  def sampled(model, hidden):
    logits = model.logits(hidden)
    token = method(logits, warm, chances)
    logprob = jnp.take_along_axis(logits, token[..., None], -1)
    logprob -= jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    return hidden + (1e-6 * logprob).astype(hidden.dtype)

  def milliseconds(step, carry):
    @jax.jit
    def run(params, carry):
      model = nnx.merge(graphdef, params)
      body = lambda _, carry: step(model, carry)  # noqa: E731
      return jax.lax.fori_loop(0, _STEPS, body, carry)

    return 1e3 * seconds_of(lambda: run(params, carry)) / _STEPS

  hidden = jnp.ones((*shape, model.config.embed_dim), model.config.dtype)
  parts = {
    "layers": milliseconds(layers, jnp.zeros(shape, jnp.int32)),
    "unembed": milliseconds(unembed, hidden),
  }
  parts["sample"] = milliseconds(sampled, hidden) - parts["unembed"]
  return parts


def roofline(size: int = 2048) -> dict[str, float]:
  """Returns FLOP/s of large products by dtype, and bytes/s of a copy.

  A product is that of the better of two layouts, and has float32 results:
  XLA's CPU is several times slower without them.
  """
  found = {}
  for dtype in ("float32", "bfloat16"):
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    b = jax.random.normal(jax.random.key(1), (size, size), dtype)
    seconds = []
    for spec in ("ij,jk->ik", "ij,kj->ik"):
      product = jax.jit(
        functools.partial(jnp.einsum, spec, preferred_element_type=jnp.float32)
      )
      seconds.append(seconds_of(functools.partial(product, a, b)))
    found[dtype] = 2 * size**3 / min(seconds)
  source = np.zeros(1 << 26, np.float32)
  target = np.empty_like(source)
  seconds = seconds_of(lambda: np.copyto(target, source))
  found["copy"] = 2 * source.nbytes / seconds
  return found
