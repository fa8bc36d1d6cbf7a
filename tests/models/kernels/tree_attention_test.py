"""Tests of a TPU's attention in training, interpreted, against dense masks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.config.schema import MeshConfig
from rstar_jax.data import prefix_trees
from rstar_jax.models import attention, meshes
from rstar_jax.models.kernels import tree_attention
from rstar_jax.models.kernels.tree_attention import Options

jax.config.update("jax_num_cpu_devices", 4)

# Tokens of a row, more than two blocks and no multiple of one.
_LENGTH = 300


def _rows():
  """Returns ends and positions [3, T]: one sequence, trees, and padding."""
  rng = np.random.default_rng(0)
  ends, positions = np.zeros((2, 3, _LENGTH), np.int32)
  ends[0], positions[0] = _LENGTH, np.arange(_LENGTH)
  at = 0
  for sizes in ((20, 50, 70), (3, 10), (1,)):
    # Branches of one trunk, and a branch of a branch.
    trunk = rng.integers(0, 9, 15)
    paths = [np.concatenate([trunk, rng.integers(0, 9, n)]) for n in sizes]
    paths.append(np.concatenate([paths[0][:-1], [9, 9]]))
    tree = prefix_trees.join(paths)
    here = slice(at, at + len(tree.tokens))
    ends[1, here], positions[1, here] = at + tree.ends, tree.positions
    at += len(tree.tokens)
  assert 128 < at < _LENGTH
  return ends, positions


def _arrays(heads, dim, dtype):
  """Returns q, k, v and the gradient of the result."""
  rng = np.random.default_rng(1)
  sizes = (*heads, heads[1], heads[0])
  return [
    jnp.asarray(rng.normal(size=(3, _LENGTH, count, dim)), dtype)
    for count in sizes
  ]


def _both(attend, arrays, real):
  """Returns the result at real tokens, and the gradients of q, k and v."""
  *given, grad = arrays

  def run(*given):
    out, back = jax.vjp(attend, *given)
    return out, *back(jnp.where(real, grad, 0).astype(out.dtype))

  out, *rest = jax.jit(run)(*given)
  return [np.asarray(x, np.float32) for x in (jnp.where(real, out, 0), *rest)]


class TreeAttentionTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(heads=(6, 2), dim=64, window=0),
    dict(heads=(2, 2), dim=96, window=37),
    dict(heads=(4, 1), dim=128, window=0, dtype="bfloat16"),
  )
  def test_equals_a_dense_mask(self, heads, dim, window, dtype="float32"):
    ends, positions = _rows()
    real = (ends > 0)[:, :, None, None]
    column = np.arange(_LENGTH)
    seen = (column <= column[:, None]) & (column[:, None] < ends[:, None])
    if window:
      seen &= positions[:, :, None] - positions[:, None] < window
    arrays = _arrays(heads, dim, dtype)
    wanted = _both(
      lambda q, k, v: attention.attend(q, k, v, jnp.asarray(seen)), arrays, real
    )
    got = _both(
      lambda q, k, v: tree_attention.attend(
        *(q, k, v, None, (jnp.asarray(ends), jnp.asarray(positions))),
        Options(window, block=128, interpret=True),
      ),
      arrays,
      real,
    )
    near = 1e-5 if dtype == "float32" else 0.03
    for one, other in zip(got, wanted, strict=True):
      self.assertGreater(np.abs(other).max(), 0.5)
      np.testing.assert_allclose(one, other, atol=near, rtol=near)

  @parameterized.parameters(dict(softcap=0.9), dict(sinks=True))
  def test_softcap_and_sinks(self, softcap=0.0, sinks=False):
    """Against XLA's, with the gradient of the sinks."""
    ends, positions = map(jnp.asarray, _rows())
    real = (ends > 0)[:, :, None, None]
    column = jnp.arange(_LENGTH)
    seen = (column <= column[:, None]) & (column[:, None] < ends[:, None])
    q, k, v, grad = _arrays((4, 2), 64, "float32")
    given = q, k, v, jnp.array([-2.0, 0.5, 1.0, 3.0])

    def dense(q, k, v, sink):
      sink = sink if sinks else None
      return attention.attend(q, k, v, seen, softcap=softcap, sinks=sink)

    def ours(q, k, v, sink):
      return tree_attention.attend(
        *(q, k, v, sink if sinks else None, (ends, positions)),
        Options(softcap=softcap, block=128, interpret=True),
      )

    wanted, got = (
      _both(attend, [*given, grad], real) for attend in (dense, ours)
    )
    for one, other in zip(got, wanted, strict=True):
      np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-5)
    self.assertEqual(bool(np.abs(wanted[-1]).max() > 0.5), sinks)

  def test_padding_is_zero(self):
    q, k, v, _ = _arrays((2, 1), 64, "float32")
    trees = tuple(map(jnp.asarray, _rows()))
    out = tree_attention.attend(
      *(q, k, v, None, trees, Options(interpret=True))
    )
    self.assertEqual(out.shape, q.shape)
    self.assertGreater(np.abs(out[1, :128]).min(), 0)
    np.testing.assert_array_equal(out[2], 0)

  @parameterized.parameters(
    # Heads that divide, key heads that do not, and rows and heads that do not.
    dict(heads=(4, 2), rows=2),
    dict(heads=(4, 1), rows=2),
    dict(heads=(3, 1), rows=1),
  )
  def test_on_a_mesh(self, heads, rows):
    mesh = meshes.make(MeshConfig(data=1, fsdp=2, tensor=2))
    trees = tuple(jnp.asarray(each[:rows]) for each in _rows())
    arrays = [each[:rows] for each in _arrays(heads, 32, "float32")]
    run = functools.partial(
      _both,
      lambda q, k, v: tree_attention.attend_on_mesh(
        *(q, k, v, None, trees, Options(interpret=True))
      ),
      arrays,
      jnp.ones((), bool),
    )
    alone = run()
    with jax.set_mesh(mesh):
      shared = run()
    for one, other in zip(shared, alone, strict=True):
      np.testing.assert_allclose(one, other, atol=1e-5)


if __name__ == "__main__":
  absltest.main()
