"""What is read of compilers' answers; `live.py` compiles for a TPU."""

from unittest import mock

import jax
from absl.testing import absltest

from rstar_jax.tools.aot import compiler
from rstar_jax.tools.aot.compiler import Compiled


class NeededTest(absltest.TestCase):
  def test_forms_of_the_message(self):
    # As libtpu says it of temporaries alone, and of a whole program.
    message = (
      "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, "
      "the total memory required for HLO temporaries (256.00G) exceeds "
      "available HBM (15.75G)."
    )
    self.assertEqual(compiler.needed_bytes(message), 256 * 2**30)
    message = (
      "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory "
      "in memory space hbm. Used 21.20G of 15.75G hbm. HBM exceeded by 5.45G."
    )
    self.assertEqual(compiler.needed_bytes(message), 21.2 * 2**30)
    self.assertIsNone(compiler.needed_bytes("INTERNAL: RET_CHECK failure"))


class CompileTest(absltest.TestCase):
  def lowered(self):
    array = jax.ShapeDtypeStruct((3, 5), "float32")
    return jax.jit(lambda a, b: (a + b, a * b), donate_argnums=0).lower(
      array, array
    )

  def failing(self, message):
    error = jax.errors.JaxRuntimeError(message)
    return mock.patch.object(jax.stages.Lowered, "compile", side_effect=error)

  def test_counts(self):
    found = compiler.compile_program(self.lowered())
    # One of the results takes the place of the first argument; two pointers.
    self.assertEqual(found.arguments, 2 * 60)
    self.assertEqual(found.outputs, 60 + 2 * 8)
    self.assertEqual(found.own, found.outputs + found.temporaries)
    self.assertGreater(found.seconds, 0)

  def test_refused(self):
    message = "RESOURCE_EXHAUSTED: Used 21.20G of 15.75G hbm. HBM exceeded"
    with self.failing(message):
      found = compiler.compile_program(self.lowered())
    self.assertEqual((found.refused, found.own), (21.2 * 2**30, 0))
    self.assertEqual(Compiled(temporaries=3, outputs=4).own, 7)

  def test_scalar_memory(self):
    message = "RESOURCE_EXHAUSTED: Ran out of memory in memory space smem."
    with (
      self.failing(message),
      self.assertRaisesRegex(ValueError, "max_prefix_tokens"),
    ):
      compiler.compile_program(self.lowered())

  def test_other_errors(self):
    with self.failing("INTERNAL: RET_CHECK failure"):
      with self.assertRaisesRegex(jax.errors.JaxRuntimeError, "RET_CHECK"):
        compiler.compile_program(self.lowered())


if __name__ == "__main__":
  absltest.main()
