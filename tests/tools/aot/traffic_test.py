"""Bytes of programs, against those that their shapes say."""

import jax
import jax.numpy as jnp
from absl.testing import absltest
from jax.sharding import AxisType

from rstar_jax.tools.aot import traffic

jax.config.update("jax_num_cpu_devices", 4)

# As a TPU's compiler writes: a loop within a loop, a product with a part of an
# array, results in fast memory (S(1)), sums in two kinds, and one with another
# slice.
_TEXT = """
HloModule jit_step, is_scheduled=true

%part (given: f32[8,64], at: s32[]) -> f32[64] {
  %given = f32[8,64]{1,0:T(8,128)} parameter(0)
  %at = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %slice = f32[1,64]{1,0:T(8,128)} dynamic-slice(%given, %at, %zero)
  ROOT %out = f32[64]{0:T(128)} bitcast(%slice)
}

%put (into: f32[8,64], row: f32[1,64], where: s32[]) -> f32[8,64] {
  %into = f32[8,64]{1,0:T(8,128)} parameter(0)
  %row = f32[1,64]{1,0:T(8,128)} parameter(1)
  %where = s32[]{:T(128)} parameter(2)
  ROOT %set = f32[8,64]{1,0:T(8,128)} dynamic-update-slice(%into, %row, %where)
}

%all-reduce-scatter (whole: f32[256]) -> f32[64] {
  %whole = f32[256]{0:T(128)} parameter(0)
  %sum = f32[256]{0} all-reduce(%whole), replica_groups={{0,1,2,3}}
  ROOT %cut = f32[64]{0:T(128)} slice(%sum), slice={[0:64]}
}

%inner (state: (s32[], f32[8,64])) -> (s32[], f32[8,64]) {
  %state = (s32[], f32[8,64]) parameter(0)
  %turn = s32[]{:T(128)} get-tuple-element(%state), index=0
  %rows = f32[8,64]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %one = f32[64]{0:T(128)S(1)} fusion(%rows, %turn), kind=kLoop, calls=%part
  %wide = f32[256]{0:S(1)} all-gather(%one), channel_id=3, replica_groups=[4,4]
  %again = f32[256]{0:S(1)} all-gather(%one), channel_id=3, replica_groups=[4,4]
  %less = f32[64]{0:S(1)} fusion(%wide), kind=kCustom, calls=%all-reduce-scatter
  %new = f32[1,64]{1,0:T(8,128)S(1)} bitcast(%less)
  %next = f32[8,64]{1,0} fusion(%rows, %new, %turn), kind=kLoop, calls=%put
  ROOT %both = (s32[], f32[8,64]) tuple(%turn, %next)
}

%until (s: (s32[], f32[8,64])) -> pred[] {
  %s = (s32[], f32[8,64]) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%s), index=0
  %most = s32[]{:T(128)} constant(8)
  ROOT %less_than = pred[] compare(%i, %most), direction=LT
}

%outer (state: (s32[], f32[8,64])) -> (s32[], f32[8,64]) {
  %held = (s32[], f32[8,64]) parameter(0)
  %mine = f32[8,64]{1,0} get-tuple-element(%held), index=1
  %then = token[] after-all()
  %go = (f32[8,64], u32[], token[]) send(%mine, %then), is_host_transfer=true
  %gone = token[] send-done(%go), is_host_transfer=true
  %come = (f32[8,64], u32[], token[]) recv(%then), is_host_transfer=true
  %theirs = (f32[8,64]{1,0}, token[]) recv-done(%come), is_host_transfer=true
  ROOT %loop = (s32[], f32[8,64]) while(%held), condition=%until, body=%inner
}

%unknown (u: (s32[], f32[8,64])) -> pred[] {
  %u = (s32[], f32[8,64]) parameter(0)
  %v = s32[]{:T(128)} get-tuple-element(%u), index=0
  ROOT %w = pred[] compare(%v, %v), direction=LT
}

ENTRY %main (begin: (s32[], f32[8,64])) -> (s32[], f32[8,64]) {
  %begin = (s32[], f32[8,64]) parameter(0)
  %big = f32[8,64]{1,0} custom-call(), custom_call_target="AllocateBuffer"
  %some = ((f32[8,64]{1,0}), f32[2,64]{1,0:S(1)}, s32[]) slice-start(%big)
  %here = f32[2,64]{1,0:S(1)} slice-done(%some)
  %copy = (f32[2,64]{1,0}, f32[2,64]{1,0:S(1)}, u32[]) copy-start(%here)
  ROOT %end = (s32[], f32[8,64]) while(%begin), condition=%unknown, body=%outer
}
"""


class TrafficTest(absltest.TestCase):
  def test_by_hand(self):
    found = traffic.moved(_TEXT, turns=3)
    # In each of 3 x 8 turns a row of 64 numbers and its index are read, and a
    # row is written, at an index again. Before, two rows are fetched and put.
    # In each of 3 turns all rows go to another slice, and others come.
    rows = 8 * 64 * 4
    self.assertEqual(
      found.hbm, 24 * (256 + 4 + 256 + 4) + 2 * 512 + 3 * 2 * rows
    )
    self.assertEqual(found.between, 3 * rows)
    # 3 of 4 parts of 1024 bytes, gathered once, and summed and cut.
    self.assertEqual(found.wire, 24 * (768 + 768))

  def test_a_compiled_loop(self):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
    place = jax.NamedSharding(mesh, jax.P("x"))
    given = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=place)

    def run(x):
      def turn(_, x):
        y = jax.lax.with_sharding_constraint(jnp.sin(x), jax.P(None))
        return jax.lax.with_sharding_constraint(y @ y.T @ x, jax.P("x"))

      return jax.lax.fori_loop(0, 5, turn, x)

    with jax.set_mesh(mesh):
      text = jax.jit(run).lower(given).compile().as_text()
    found = traffic.moved(text, turns=1)
    # Five times at least the sines, 3 of 4 parts of them from elsewhere.
    self.assertGreaterEqual(found.wire, 5 * 64 * 32 * 4 * 3 / 4)
    self.assertGreater(found.hbm, found.wire)


if __name__ == "__main__":
  absltest.main()
