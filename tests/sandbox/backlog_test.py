"""Which slot gets which programs, by hand."""

from absl.testing import absltest

from rstar_jax.sandbox import backlog
from rstar_jax.sandbox.backlog import Backlog, Call, Job
from rstar_jax.types import ExecResult

OK = ExecResult("ok")


def steps_of(jobs):
  return ["".join(job.steps) for job in jobs]


class BacklogTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.call = Call(99)

  def make(self, *programs, slots=2, size=100):
    made = Backlog(slots, size)
    self.add(made, *programs)
    return made

  def add(self, to, *programs):
    for index, steps in enumerate(programs):
      to.add(Job(self.call, index, tuple(steps)))

  def test_a_longer_program_waits_where_its_prefix_ran(self):
    made = self.make("a", "b", slots=2)
    # A quarter of the two, but at least one.
    self.assertEqual(steps_of(made.take(0)), ["a"])
    self.assertEqual(steps_of(made.take(1)), ["b"])
    self.assertFalse(made)
    self.add(made, "ax", "bx", "ay", "abx", "c")
    self.assertTrue(made)
    self.assertEqual(steps_of(made.take(1)), ["bx"])
    # Its own queue is empty: what no slot knows comes before another's.
    self.assertEqual(steps_of(made.take(1)), ["abx"])
    self.assertEqual(steps_of(made.take(0)), ["ax", "ay"])
    self.assertEqual(steps_of(made.take(0)), ["c"])
    self.assertFalse(made)

  def test_an_idle_slot_steals_a_part_of_the_longest_queue(self):
    made = self.make("a", "b", slots=3)
    made.take(0), made.take(1)
    self.add(made, "b0", *(("a", str(n)) for n in range(13)))
    # 13 // (2 * 3) of the thirteen, oldest first.
    self.assertEqual(steps_of(made.take(2)), ["a0", "a1"])
    # What follows what was stolen waits at the thief.
    self.add(made, ["a", "0", "x"])
    self.assertEqual(steps_of(made.take(2)), ["a0x"])
    self.assertLen(made.take(0), 11)
    self.assertEqual(steps_of(made.take(1)), ["b0"])

  def test_a_batch_is_limited(self):
    made = self.make("a", slots=1)
    made.take(0)
    self.add(made, *(("a", str(n)) for n in range(backlog.BATCH + 5)))
    self.assertLen(made.take(0), backlog.BATCH)
    self.assertLen(made.take(0), 5)
    # As is one of programs that no slot knows.
    self.add(made, *(("b", str(n), "x") for n in range(100)))
    self.assertLen(made.take(0), backlog.BATCH)

  def test_old_prefixes_are_forgotten(self):
    made = self.make("a", "b", size=1)
    made.take(0), made.take(0)
    self.add(made, "ax", "bx")
    self.assertEqual(steps_of(made.take(0)), ["bx"])
    self.assertEqual(steps_of(made.take(0)), ["ax"])

  def test_a_dropped_call_leaves_the_others(self):
    made, other = self.make("a", "b"), Call(1)
    made.add(Job(other, 0, ("c",)))
    made.drop(self.call)
    self.assertEqual(steps_of(made.take(0)), ["c"])
    self.assertFalse(made)

  def test_a_call_is_done_with_its_last_result(self):
    call = Call(2)
    Job(call, 1, ("b",)).finish(OK)
    self.assertEqual((call.results, call.done.is_set()), ([None, OK], False))
    call.finish(0, OK)
    self.assertEqual((call.results, call.done.is_set()), ([OK, OK], True))
    self.assertIsNone(call.error)

  def test_what_waits_fails(self):
    made, gone = self.make("a"), Call(1)
    error = RuntimeError("closed")
    made.fail(error)
    self.assertIs(self.call.error, error)
    self.assertTrue(self.call.done.is_set())
    self.assertFalse(gone.done.is_set())


if __name__ == "__main__":
  absltest.main()
