"""How a soak ends."""

import threading
from unittest import mock

from absl.testing import absltest, flagsaver

from benchmarks import soak


class SoakTest(absltest.TestCase):
  @flagsaver.flagsaver(programs=100)
  def test_an_interrupt_ends_the_thread_that_kills(self):
    made = []

    class Idle(soak.Soak):
      def __init__(self, sandbox):
        super().__init__(sandbox)
        made.append(self)

      def work(self, numbers):
        pass

    before = threading.active_count()
    with (
      mock.patch.object(soak, "Sandbox"),
      mock.patch.object(soak, "Soak", Idle),
      mock.patch.object(soak, "usage", side_effect=[{}, KeyboardInterrupt]),
      self.assertRaises(KeyboardInterrupt),
    ):
      soak.main([])
    (run,) = made
    self.addCleanup(run.done.set)
    self.assertEqual(threading.active_count(), before)


if __name__ == "__main__":
  absltest.main()
