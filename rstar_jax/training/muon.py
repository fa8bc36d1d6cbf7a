"""Muon (Jordan et al. 2024): momentum whose matrices are orthogonalised.

It is `optax.contrib.muon`, state structure included, except for the products of
Newton-Schulz. Here they have two axes and no transposition, which XLA
multiplies fastest on a CPU (docs/results/training_cpu.md).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import optax
from optax import contrib

# Coefficients of the polynomial a x + b x^3 + c x^5 of singular values, and
# the number of iterations.
_FACTORS, _TURNS = (3.4445, -4.7750, 2.0315), 5


def muon(
  rate: optax.Schedule,
  axes_of: Callable[[Any], Any],
  *,
  b1: float,
  b2: float,
  weight_decay: float,
  rms: float,
) -> optax.GradientTransformation:
  """Returns Muon for matrices and AdamW with Nesterov's momentum for the rest.

  Args:
    rate: the learning rate of both.
    axes_of: maps parameters to `contrib.MuonDimensionNumbers` for matrices, and
      None for the rest. A side's axes are adjacent, after those of a batch of
      matrices.
    b1: AdamW's decay of the first moment.
    b2: AdamW's decay of the second moment.
    weight_decay: of matrices.
    rms: root mean square of an orthogonalised update.
  """

  def labels(params):
    return jax.tree.map(
      lambda axes: "adam" if axes is None else "muon",
      axes_of(params),
      is_leaf=lambda x: (
        x is None or isinstance(x, contrib.MuonDimensionNumbers)
      ),
    )

  def shaped(updates, _):
    return jax.tree.map(
      lambda x, axes: rms * max(_sides(x, axes)) ** 0.5 * orthogonal(x, axes),
      updates,
      axes_of(updates),
    )

  return optax.partition(
    {
      "muon": optax.chain(
        # With 0 iterations it only divides the momentum by its norm.
        contrib.scale_by_muon(
          _FACTORS, ns_steps=0, weight_dimension_numbers=axes_of
        ),
        optax.stateless(shaped),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(rate),
      ),
      "adam": optax.adamw(rate, b1=b1, b2=b2, weight_decay=0.0, nesterov=True),
    },
    labels,
  )


def orthogonal(x: jax.Array, axes: contrib.MuonDimensionNumbers) -> jax.Array:
  """Brings all singular values of matrices close to 1.

  Args:
    x: a matrix whose singular values are at most 1, or a batch of them.
    axes: of its sides; see `muon`.

  Returns:
    The same shape, with singular values from about 0.7 to 1.2; values near 0
    stay near 0.
  """
  rows, columns = _sides(x, axes)
  matrices = x.reshape(-1, rows, columns)
  if rows > columns:
    matrices = matrices.mT
  if len(matrices) == 1:
    result = _newton_schulz(matrices[0])[None]
  else:
    result = jax.vmap(_newton_schulz)(matrices)
  return (result.mT if rows > columns else result).reshape(x.shape)


def _newton_schulz(x: jax.Array) -> jax.Array:
  a, b, c = _FACTORS

  def turn(_, x):
    square = _dot(x, x, 1)
    return a * x + _dot(b * square + c * _dot(square, square, 1), x, 0)

  return jax.lax.fori_loop(0, _TURNS, turn, x)


def _dot(x: jax.Array, y: jax.Array, of_y: int) -> jax.Array:
  """Contracts the last axis of a matrix with an axis of another."""
  return jax.lax.dot_general(x, y, (((1,), (of_y,)), ((), ())))


def _sides(x: jax.Array, axes: contrib.MuonDimensionNumbers) -> list[int]:
  """Returns the numbers of rows and columns, in the array's order of axes."""
  sides = sorted((i,) if isinstance(i, int) else tuple(i) for i in axes)
  return [math.prod(x.shape[i] for i in side) for side in sides]
