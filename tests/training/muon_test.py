"""Muon, against optax's own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized
from optax import contrib

from rstar_jax.training import muon

_AXES = {
  # Wide, tall and square; sides of two axes; a batch of matrices.
  "up": ((7, 3), contrib.MuonDimensionNumbers(1, 0)),
  "down": ((3, 7), contrib.MuonDimensionNumbers(1, 0)),
  "even": ((5, 5), contrib.MuonDimensionNumbers(1, 0)),
  "q": ((2, 4, 3), contrib.MuonDimensionNumbers(2, (0, 1))),
  "o": ((3, 2, 4), contrib.MuonDimensionNumbers((1, 2), 0)),
  "experts": ((4, 3, 7), contrib.MuonDimensionNumbers(1, 2)),
  "one_expert": ((1, 7, 3), contrib.MuonDimensionNumbers(1, 2)),
  "norm": ((3,), None),
  "embedding": ((11, 3), None),
}


def _axes_of(params):
  return jax.tree_util.tree_map_with_path(
    lambda path, _: _AXES[path[0].key][1], params
  )


def _drawn(seed: int):
  rng = np.random.default_rng(seed)
  return {
    name: jnp.array(rng.normal(size=shape), jnp.float32)
    for name, (shape, _) in _AXES.items()
  }


def _rate(count):
  return 0.3 / (1 + count)


class MuonTest(parameterized.TestCase):
  def test_three_updates_are_those_of_optax(self):
    options = dict(b1=0.7, b2=0.9)
    ours = muon.muon(_rate, _axes_of, weight_decay=0.1, rms=0.2, **options)
    theirs = contrib.muon(
      _rate,
      weight_decay=0.1,
      consistent_rms=0.2,
      muon_weight_dimension_numbers=_axes_of,
      **{f"adam_{name}": value for name, value in options.items()},
    )
    params = [_drawn(0), _drawn(0)]
    states = [ours.init(params[0]), theirs.init(params[1])]
    for seed in range(1, 4):
      grads = _drawn(seed)
      for i, tx in enumerate((ours, theirs)):
        updates, states[i] = jax.jit(tx.update)(grads, states[i], params[i])
        params[i] = optax.apply_updates(params[i], updates)
      jax.tree.map(
        lambda one, other: np.testing.assert_allclose(
          one, other, rtol=1e-4, atol=1e-5
        ),
        *params,
      )
    # A checkpoint of the one is one of the other.
    jax.tree.map(
      lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6),
      *states,
    )

  @parameterized.parameters(
    name for name, (_, axes) in _AXES.items() if axes is not None
  )
  def test_singular_values(self, name):
    shape, axes = _AXES[name]
    x = np.asarray(_drawn(5)[name])
    x = x / np.linalg.norm(x)
    found = np.asarray(muon.orthogonal(jnp.asarray(x), axes))
    self.assertEqual(found.shape, shape)

    def as_matrices(array):
      one, other = (np.atleast_1d(each) for each in axes)
      rest = [i for i in range(len(shape)) if i not in {*one, *other}]
      size = int(np.prod([shape[i] for i in one]))
      turned = np.transpose(array, (*rest, *one, *other))
      batch = int(np.prod([shape[i] for i in rest]))
      return turned.reshape(batch, size, -1).astype(np.float64)

    for given, made in zip(as_matrices(x), as_matrices(found), strict=True):
      left, values, right = np.linalg.svd(given, full_matrices=False)
      for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
      np.testing.assert_allclose(made, (left * values) @ right, atol=1e-4)


if __name__ == "__main__":
  absltest.main()
