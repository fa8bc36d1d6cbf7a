"""Tests of attention to pages: against a softmax a query, in numpy."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.experimental.pallas import tpu as pltpu

from rstar_jax.config.schema import MeshConfig
from rstar_jax.models import meshes
from rstar_jax.models.kernels import shared_pages, shared_plan
from rstar_jax.models.paged_attention import PagedAttention
from rstar_jax.models.paths import Layer
from tests.models.kernels import paths

jax.config.update("jax_num_cpu_devices", 8)

# Simulates a core's memory: what was not written is no number, and a copy that
# is read before it was waited for is a race.
SIMULATED = pltpu.InterpretParams(
  uninitialized_memory="nan", out_of_bounds_reads="raise", detect_races=True
)


@functools.partial(jax.jit, static_argnames=("window", "softcap", "interpret"))
def shared(args, reads=None, *, window=0, interpret=True, **more):
  """Runs the kernel on layer 1, with chunks of 8 tokens."""
  plan = functools.partial(shared_plan.plan, block=paths.BLOCK, chunk=8)
  attend = functools.partial(
    shared_pages.attend, block=paths.BLOCK, interpret=interpret
  )
  planned = paths.planned(plan, args, window=window, reads=reads)
  return paths.attended(attend, planned, args, **more)


class SharedPagesTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(heads=(1, 1)),
    dict(heads=(2, 4), more=8),
    dict(heads=(1, 7)),
  )
  def test_candidates_of_leaves(self, **options):
    args = paths.leaves(**options)
    paths.check(self, args, shared(args))

  def test_window(self):
    args = paths.leaves(1)
    paths.check(self, args, shared(args, window=13), window=13)

  def test_softcap_and_sinks(self):
    args = paths.leaves(1, heads=(2, 3))
    sinks = jnp.array([-3.0, 0.5, 2.0, 9.0, 0.0, -1.0])
    options = {"softcap": 0.7, "sinks": sinks}
    paths.check(self, args, shared(args, **options), **options)

  # Wider ones than a register are read in another way.
  @parameterized.parameters(dict(), dict(heads=(2, 1), dim=256))
  def test_bfloat16(self, **options):
    args = paths.leaves(2, dtype=jnp.bfloat16, **options)
    # Shares are rounded to 8 bits before they weigh values of about 1.
    paths.check(self, args, shared(args), atol=0.02)

  def test_reads_nothing_that_has_not_arrived(self):
    args = paths.leaves(3)
    got = shared(args, window=1, interpret=SIMULATED)
    paths.check(self, args, got, window=1)

  def test_prefills_beside_candidates(self):
    rng = np.random.default_rng(0)
    rows, positions = [], []
    for row in range(6):
      first, more = rng.integers(0, 40), rng.integers(1, 14)
      positions += list(range(first, first + more))
      rows += [row] * more
    args = paths.case(0, [*positions, -1, -1], rows=[*rows, 5, 5])
    paths.share(args, [2, 3, 4], 2)
    paths.check(self, args, shared(args, window=20), window=20)

  def test_nothing_but_empty_slots(self):
    args = paths.leaves()
    args["positions"][:] = -1
    paths.check(self, args, shared(args))

  def test_neighbours_change_no_bit(self):
    args = paths.leaves(4)
    want, _ = shared(args)
    rng = np.random.default_rng(0)
    for _ in range(4):
      # The same rows elsewhere, some of them gone.
      order = rng.permutation(len(args["rows"]))
      by_token = ("q", "k", "v", "positions", "tables")
      moved = args | {key: args[key][order] for key in by_token}
      moved["positions"][:3] = -1
      got, _ = shared(moved)
      np.testing.assert_array_equal(got[3:], np.asarray(want)[order][3:])

  def test_a_token_is_the_same_in_a_prefill(self):
    tokens = 21
    args = paths.case(5, range(tokens), rows=[0] * tokens)
    want, kept = shared(args)
    for at in (0, 3, 15, 16, 20):
      one = {
        key: args[key][at : at + 1] for key in ("q", "k", "v", "positions")
      }
      one |= dict(pages=kept, tables=args["tables"], rows=args["rows"][:1])
      np.testing.assert_array_equal(shared(one)[0][0], want[at])

  def test_reads_serve_lower_positions(self):
    args = paths.leaves(6)
    plan = functools.partial(shared_plan.plan, block=paths.BLOCK, chunk=8)
    _, reads = jax.jit(plan)(*paths.where(args))
    args["positions"] = args["positions"] - 5 * (args["positions"] >= 0)
    paths.check(self, args, shared(args, reads))

  def test_on_a_mesh(self):
    mesh = meshes.make(MeshConfig(data=2, fsdp=2, tensor=2))
    parts = [
      paths.case(seed, [9, 21, 30, -1], heads=(2, 2)) for seed in range(4)
    ]
    for part in parts:
      paths.share(part, [1, 2], 4)
    args = {
      key: jnp.concatenate([part[key] for part in parts]) for key in parts[0]
    }
    attention = PagedAttention("pallas", mesh)
    plan = functools.partial(shared_plan.plan, block=paths.BLOCK)
    attend = functools.partial(
      shared_pages.attend, block=paths.BLOCK, interpret=True
    )

    @jax.jit
    def run(args):
      planned = attention.plan(*paths.where(args))
      layer = Layer(jnp.int32(1), paths.count_of(parts[0]))
      arrays = (args[each] for each in ("q", "k", "v", "pages"))
      return attention.attend(*arrays, planned, layer)

    with (
      mock.patch.object(shared_plan, "plan", plan),
      mock.patch.object(shared_pages, "attend", attend),
    ):
      mixed, kept = run(args)
    each = [np.split(np.asarray(x), 4) for x in (mixed, kept)]
    for part, *got in zip(parts, *each, strict=True):
      paths.check(self, part, got)


if __name__ == "__main__":
  absltest.main()
