"""No verdict depends on a hostile neighbour; see `neighbours.py`."""

from absl.testing import absltest, parameterized

from rstar_jax.sandbox.isolation import kernel
from tests.sandbox import neighbours


class NeighboursTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ("hook", ("hook",), ("",), 100),
    # Where other processes have pids.
    ("namespaces", ("hook", "namespaces"), ("stop", "kill", "limit"), 20),
  )
  def test_innocents_keep_their_verdicts_without(self, without, names, least):
    if not kernel.LINUX:
      self.skipTest("the layers need Linux")
    found = neighbours.run(without, names)
    self.assertGreater(found["attacks"], least)
    self.assertEqual(found["contained"], found["attacks"])
    self.assertGreater(found["innocents"], 5 * least)
    self.assertEmpty(found["examples"])
    self.assertEqual((found["changed"], found["loose"]), (0, 0))


if __name__ == "__main__":
  absltest.main()
