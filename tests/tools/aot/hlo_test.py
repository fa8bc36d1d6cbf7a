"""Reading of compiled programs' text: shapes, memories, operands."""

from absl.testing import absltest

from rstar_jax.tools.aot import hlo

# Lines as libtpu and XLA's CPU compiler write them.
_TEXT = r"""HloModule jit_f, is_scheduled=true, num_partitions=4

FileNames
1 "a.py"

%fused (p.1: bf16[3,5]) -> f32[3] {
  %p.1 = bf16[3,5]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  ROOT %r.2 = f32[3]{0} reduce(%p.1, %p.1), dimensions={1}, to_apply=%add
}

ENTRY %main.3_spmd (a.1: bf16[3,5], b.2: s32[]) -> (f32[3], s32[]) {
  %a.1 = bf16[3,5]{1,0} parameter(0), metadata={op_name="a (not) a shape"}
  %b.2 = s32[]{:T(128)} parameter(1)
  %s.3 = ((bf16[3,5]{1,0}), bf16[1,5]{1,0:S(1)}, u32[]{:S(2)}) slice-start(%a.1)
  %f.4 = f32[3]{0} fusion(%a.1), calls=%fused, backend_config={"x":"(\"y"}
  ROOT %t.5 = (f32[3]{0}, /*index=1*/s32[]) tuple(%f.4, %b.2)
}
"""


class ParseTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.program = hlo.parse(_TEXT)
    self.main = {
      each.name: each for each in self.program.computations["main.3_spmd"]
    }

  def test_program(self):
    self.assertEqual(self.program.entry, "main.3_spmd")
    self.assertEqual(self.program.partitions, 4)
    self.assertEqual(set(self.program.computations), {"fused", "main.3_spmd"})

  def test_array(self):
    found = self.main["a.1"]
    self.assertEqual(found.shape, hlo.Buffer("bf16", (3, 5)))
    self.assertEqual(found.buffers[0].bytes, 2 * 3 * 5)
    self.assertEqual(found.inside, "0")
    self.assertEqual(found.opcode, "parameter")

  def test_scalar(self):
    self.assertEqual(self.main["b.2"].buffers[0].bytes, 4)
    self.assertEqual(self.main["b.2"].buffers[0].elements, 1)

  def test_memory_space(self):
    inner = self.program.computations["fused"]
    self.assertEqual(inner[0].buffers[0].space, 1)
    self.assertEqual([b.space for b in self.main["s.3"].buffers], [0, 1, 2])

  def test_nested_tuple(self):
    shape = self.main["s.3"].shape
    self.assertLen(shape, 3)
    self.assertEqual(shape[0], (hlo.Buffer("bf16", (3, 5)),))

  def test_attributes(self):
    self.assertEqual(self.main["f.4"].called("calls"), "fused")
    self.assertIsNone(self.main["f.4"].called("body"))
    self.assertEqual(self.main["f.4"].operands, ("a.1",))

  def test_root_and_comments(self):
    self.assertTrue(self.main["t.5"].root)
    self.assertEqual(self.main["t.5"].operands, ("f.4", "b.2"))
    self.assertLen(self.main["t.5"].buffers, 2)

  def test_sizes_of_types(self):
    sizes = {"pred": 1, "s4": 0.5, "f8e4m3fn": 1, "bf16": 2, "f64": 8}
    for dtype, size in (sizes | {"token": 0}).items():
      self.assertEqual(hlo.Buffer(dtype, (1,)).bytes, size)

  def test_what_is_no_program(self):
    with self.assertRaisesRegex(ValueError, "no ENTRY"):
      hlo.parse("module @jit_f {}")
    with self.assertRaisesRegex(ValueError, "not an instruction"):
      hlo.parse("ENTRY %e (a: f32[1]) -> f32[1] {\n  what\n}\n")


if __name__ == "__main__":
  absltest.main()
