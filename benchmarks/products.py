"""Products of few rows with a layer's weights: XLA's, turned, and a kernel's.

  python -m benchmarks.products

Prints JSON lines: GFLOP/s of 30 different matrices one after the other, in a
loop inside one program as decoding has it: with the rows on the left ("plain"),
as `rstar_jax.models.products.product` orders the sides ("turned"), and by the
kernel for CPUs ("kernel"), where there is a C++ compiler.
"""

import jax
import jax.numpy as jnp
from absl import app, flags

from benchmarks import lines, parts
from rstar_jax.models.kernels import build, cpu
from rstar_jax.models.products import product

_DTYPES = flags.DEFINE_list(
  "dtypes", ["float32", "bfloat16"], "Dtypes to measure."
)
_ROWS = flags.DEFINE_list("rows", ["8", "32", "128"], "Numbers of rows.")

# [out, in] of SmolLM2-135M: query and output, gate and up, down.
SHAPES = ((576, 576), (1536, 576), (576, 1536))
_LAYERS, _STEPS = 30, 4


def plain(x: jax.Array, weights: jax.Array) -> jax.Array:
  """Returns float32 [R, O] of rows [R, I] and weights [O, I]."""
  return jnp.einsum("ri,oi->ro", x, weights, preferred_element_type=jnp.float32)


def speed(product, dtype: str, rows: int, shape: tuple[int, int]) -> float:
  """Returns GFLOP/s."""
  keys = jax.random.split(jax.random.key(0), _LAYERS)
  weights = [jax.random.normal(key, shape, dtype) for key in keys]

  @jax.jit
  def run(x, weights):
    def step(_, x):
      for each in weights:
        # Something of each row goes on: no product can be left out.
        peak = jnp.max(product(x, each), axis=-1, keepdims=True)
        x += (1e-6 * peak).astype(x.dtype)
      return x

    return jax.lax.fori_loop(0, _STEPS, step, x)

  x = jax.random.normal(jax.random.key(1), (rows, shape[1]), dtype)
  seconds = parts.seconds_of(lambda: run(x, weights))
  return 2e-9 * rows * shape[0] * shape[1] * _LAYERS * _STEPS / seconds


def kernel(x: jax.Array, weights: jax.Array) -> jax.Array:
  """Returns the same by the kernel."""
  return cpu.products(x, [weights], "float32")[0]


def main(_):
  products = {"plain": plain, "turned": product}
  if build.compiler():
    build.load()
    products["kernel"] = kernel
  for dtype in _DTYPES.value:
    for rows in map(int, _ROWS.value):
      for shape in SHAPES:
        found = {
          name: speed(product, dtype, rows, shape)
          for name, product in products.items()
        }
        lines.show("product", dtype=dtype, rows=rows, shape=shape, **found)


if __name__ == "__main__":
  app.run(main)
