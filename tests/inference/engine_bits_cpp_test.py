"""A step's bits depend on its prefix and seed, by the kernels for CPUs too."""

from absl.testing import absltest, parameterized

from tests.inference import engine_bits_test as bits
from tests.inference import small


@absltest.skipUnless(small.KINDS[2:], "no C++ compiler")
class BitsCppTest(parameterized.TestCase):
  @parameterized.product(
    kind=[("cpp", "float32"), ("cpp", "bfloat16")],
    sizes=[*range(len(bits.SIZES))],
  )
  def test_steps_are_those_of_an_engine_with_empty_pages(self, kind, sizes):
    bits.check(self, kind, sizes)


if __name__ == "__main__":
  absltest.main()
