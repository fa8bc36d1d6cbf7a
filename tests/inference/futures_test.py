"""Tests of results that are not there yet."""

import concurrent.futures
import threading

from absl.testing import absltest

from rstar_jax.inference import futures

Future = concurrent.futures.Future


class FuturesTest(absltest.TestCase):
  def test_a_result_is_changed(self):
    for early in (True, False):
      first = Future()
      if early:
        first.set_result(3)
      changed = futures.then(first, lambda x: x + 4)
      if not early:
        self.assertFalse(changed.done())
        first.set_result(3)
      self.assertEqual(changed.result(timeout=0), 7)
      self.assertFalse(first.cancelled())

  def test_errors_are_passed_on(self):
    first = Future()
    changed = futures.then(first, lambda x: x)
    first.set_exception(OSError("gone"))
    with self.assertRaisesRegex(OSError, "gone"):
      changed.result(timeout=0)
    second = Future()
    changed = futures.then(second, lambda x: 1 / x)
    second.set_result(0)
    self.assertIsInstance(changed.exception(timeout=0), ZeroDivisionError)

  def test_cancelling_goes_both_ways(self):
    first = Future()
    changed = futures.then(first, lambda x: x)
    self.assertTrue(changed.cancel())
    self.assertTrue(first.cancelled())
    first = Future()
    changed = futures.then(first, lambda x: x)
    first.cancel()
    self.assertTrue(changed.cancelled())
    # Too late: the result is there.
    first = Future()
    changed = futures.then(first, lambda x: x)
    first.set_result(1)
    self.assertFalse(changed.cancel())
    self.assertFalse(first.cancelled())

  def test_one_who_went_hears_of_no_result(self):
    first = Future()
    first.set_running_or_notify_cancel()
    changed = futures.then(first, lambda x: x)
    changed.cancel()
    first.set_result(1)
    self.assertTrue(changed.cancelled())

  def test_together(self):
    waiting = [Future() for _ in range(3)]
    joined = futures.together(waiting)
    for number in (2, 0, 1):
      self.assertFalse(joined.done())
      waiting[number].set_result(number)
    self.assertEqual(joined.result(timeout=0), [0, 1, 2])
    self.assertEqual(futures.together([]).result(timeout=0), [])

  def test_together_fails_with_the_first_error(self):
    waiting = [Future() for _ in range(3)]
    joined = futures.together(waiting)
    waiting[0].set_result(0)
    waiting[2].set_exception(OSError("gone"))
    with self.assertRaisesRegex(OSError, "gone"):
      joined.result(timeout=0)
    self.assertTrue(waiting[1].cancelled())

  def test_together_is_cancelled_with_all(self):
    waiting = [Future() for _ in range(2)]
    self.assertTrue(futures.together(waiting).cancel())
    self.assertTrue(all(each.cancelled() for each in waiting))
    waiting = [Future() for _ in range(2)]
    joined = futures.together(waiting)
    waiting[1].cancel()
    self.assertTrue(joined.cancelled())
    self.assertTrue(waiting[0].cancelled())

  def test_all_are_asked_before_any_is_waited_for(self):
    asked = []

    def submit(one, other):
      asked.append((one, other, Future()))
      if len(asked) == 3:
        for number, (*_, each) in reversed([*enumerate(asked)]):
          threading.Timer(0, each.set_result, [number]).start()
      return asked[-1][-1]

    self.assertEqual(futures.all_of(submit, "abc", [1, 2, 3]), [0, 1, 2])
    self.assertEqual([each[0] for each in asked], [*"abc"])
    self.assertEqual(futures.all_of(submit, [], []), [])

  def test_after_an_error_the_others_are_cancelled(self):
    made = [Future() for _ in range(3)]
    made[0].set_result(1)
    made[1].set_exception(OSError("gone"))
    with self.assertRaisesRegex(OSError, "gone"):
      futures.all_of(lambda index: made[index], range(3))
    self.assertTrue(made[2].cancelled())
    made = [Future(), Future()]
    with self.assertRaises(IndexError):
      futures.all_of(lambda index: made[index], range(3))
    self.assertTrue(all(each.cancelled() for each in made))
    with self.assertRaisesRegex(ValueError, "argument 2"):
      futures.all_of(lambda *_: Future(), [1, 2], [1])

  def test_rows_are_submitted_as_they_come(self):
    class Joined(futures.OfRows):
      def submit(self, *row):
        done = Future()
        done.set_result("".join(row))
        return done

    self.assertEqual(Joined()("ab", "cd"), ["ac", "bd"])


if __name__ == "__main__":
  absltest.main()
