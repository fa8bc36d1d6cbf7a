"""Verdicts never hang, from several threads, and if processes end."""

import concurrent.futures
import itertools
import os
import pathlib
import signal
import threading
import time
from unittest import mock

from absl.testing import absltest

from rstar_jax.grading import compare, grader, parsing
from rstar_jax.grading.grader import Grader
from rstar_jax.sandbox import process

_ROOT = (r"\sqrt{8}", r"2\sqrt{2}")
# Each would run forever or fill the memory.
_HANGS = ("9**9**9**9", r"10^{10^{10}}")


class GraderTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.grader = Grader(workers=1, seconds=100)

  @classmethod
  def tearDownClass(cls):
    cls.grader.close()
    super().tearDownClass()

  def test_order_and_counts(self):
    with Grader(workers=1, seconds=100) as grader:
      pairs = [("7", "7.0"), ("7", "8"), ("1/2", "0.5"), ("7", "8"), ("a", "")]
      self.assertEqual(
        grader.grade(pairs),
        ["equal", "different", "equal", "different", "different"],
      )
      self.assertEqual(
        grader.counts, {"equal": 2, "different": 3, "undecided": 0}
      )
      # Plain numbers need no process.
      self.assertEmpty(grader.pids)

  def test_no_answer_is_different_and_costs_the_others_nothing(self):
    pairs = [("7", None), ("7", "7"), (["7", "8"], None), _ROOT]
    self.assertEqual(
      self.grader.grade(pairs), ["different", "equal", "different", "equal"]
    )

  def test_takes_mathematics(self):
    pairs = [_ROOT, ("x+y", "y+x"), ("5", "6"), (r"\sqrt{2}", "1.41")]
    expected = ["equal", "equal", "different", "different"]
    self.assertEqual(self.grader.grade(pairs), expected)
    self.assertLen(self.grader.pids, 1)
    # Remembered: the process is not asked again.
    with mock.patch.object(process.Process, "send", side_effect=AssertionError):
      self.assertEqual(self.grader.grade(pairs), expected)

  def test_a_function_of_one_s_own(self):
    def grade(gold, predicted):
      if "?" in predicted:
        return "undecided"
      return gold.lower() == predicted.lower()

    with Grader(workers=1, function=grade) as grader:
      pairs = [("A", "a"), ("7", "7.0"), ("a", "a?"), ("", None), ("a", "")]
      expected = ["equal", "different", "undecided", "different", "different"]
      self.assertEqual(grader.grade(pairs), expected)
      self.assertEqual(grader.grade([(["x", "y"], "Y")]), ["equal"])
      self.assertEmpty(grader.pids)
    for wrong in (1, None, "right", 0.5):
      with Grader(workers=1, function=lambda *_, w=wrong: w) as grader:
        with self.assertRaisesRegex(
          ValueError, "must return True or False, or 'equal'.*, not"
        ):
          grader.grade([("a", "b")])

  def test_threads(self):
    def work(number):
      pairs = [(f"x+{i}", f"{i + (i % 2)}+x") for i in range(number, 11)]
      return self.grader.grade(pairs)

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
      for number, verdicts in enumerate(pool.map(work, range(1, 6)), 1):
        self.assertEqual(
          verdicts,
          ["different" if i % 2 else "equal" for i in range(number, 11)],
        )

  def test_killed_worker_is_replaced(self):
    self.assertEqual(self.grader.grade([_ROOT]), ["equal"])
    for pid in self.grader.pids:
      os.kill(pid, signal.SIGKILL)
    self.assertEqual(self.grader.grade([("x+31", "31+x")]), ["equal"])

  def test_a_worker_that_hangs_ends_undecided(self):
    with Grader(workers=1, seconds=2) as grader:
      grader.grade([_ROOT])  # Starts the worker.
      for pid in grader.pids:
        os.kill(pid, signal.SIGSTOP)
      before = grader.counts["undecided"]
      with self.assertLogs(level="WARNING") as logs:
        self.assertEqual(grader.grade([("x+41", "41+x")]), ["undecided"])
      self.assertLen(logs.output, 1)
      self.assertEqual(grader.counts["undecided"], before + 1)
      # Alive, and what can be decided at once still is.
      self.assertEqual(grader.grade([("7", "7.0")]), ["equal"])

  def test_answers_that_hang_the_library_are_not_equal(self):
    with Grader(workers=1, seconds=0.5) as grader:
      # The library may give up by itself, for want of memory.
      for verdict in grader.grade([("5", hang) for hang in _HANGS]):
        self.assertIn(verdict, ("different", "undecided"))
      self.assertEqual(grader.grade([("7", "7.0")]), ["equal"])

  def test_broken_library_is_refused(self):
    with Grader(workers=1) as grader:
      with mock.patch.object(process, "Process") as started:
        problem = "it calls 5 and 6 equal"
        started.return_value.greeting = {"problem": problem}
        with self.assertRaisesRegex(RuntimeError, "it calls 5 and 6 equal"):
          grader.grade([_ROOT])

  def test_what_confines_less_than_it_should_is_said(self):
    with (
      mock.patch.object(process.Process, "receive") as receive,
      self.assertLogs(level="WARNING") as said,
      Grader(workers=1) as grader,
    ):
      missing = ["landlock (not there)", "seccomp (no)"]
      receive.side_effect = [{"problem": "", "missing": missing}, "equal"]
      grader.grade([_ROOT])
    self.assertLen(said.output, 1)
    self.assertIn(
      "what compares answers is confined without landlock (not there); "
      "seccomp (no); docs/security.md",
      said.output[0],
    )

  def test_close_leaves_no_process(self):
    grader = Grader(workers=1, seconds=100)
    grader.grade([_ROOT])
    (pid,) = grader.pids
    grader.close()
    self.assertEmpty(grader.pids)
    with self.assertRaises(ProcessLookupError):
      os.kill(pid, 0)
    with self.assertRaisesRegex(RuntimeError, "the grader is closed"):
      grader.grade([("x+1", "1+x")])

  def test_close_fails_who_waits(self):
    grader = Grader(workers=1, seconds=100)
    grader.grade([_ROOT])
    for pid in grader.pids:
      os.kill(pid, signal.SIGSTOP)
    outcomes = []

    def wait(number):
      try:
        outcomes.append(grader.grade([(f"x+{number}", f"{number}+x")]))
      except RuntimeError as error:
        outcomes.append(str(error))

    # The first is with the worker, the others are in the queue.
    threads = [threading.Thread(target=wait, args=(i,)) for i in range(51, 55)]
    with mock.patch.object(
      grader, "_submit", wraps=grader._submit
    ) as submitted:
      for thread in threads:
        thread.start()
      while submitted.call_count < 4:
        time.sleep(0.01)
    grader.close()
    for thread in threads:
      thread.join()
    self.assertEqual(outcomes, ["the grader is closed"] * 4)

  def test_several_golds(self):
    pairs = [
      (("1", "2"), "2.0"),
      (["1", r"\sqrt{8}"], r"2\sqrt{2}"),
      (("1", "2"), "3"),
      ((), "3"),
    ]
    self.assertEqual(
      self.grader.grade(pairs), ["equal", "equal", "different", "different"]
    )

  def test_of_several_golds_one_that_hangs(self):
    with mock.patch.object(
      self.grader, "_judge", return_value=("undecided", True)
    ):
      pairs = [(("x+61", "5"), "5.0"), (("x+62", "5"), "61+x")]
      self.assertEqual(self.grader.grade(pairs), ["equal", "undecided"])

  def test_what_killed_a_worker_is_not_remembered(self):
    pair = ("x+71", "71+x")
    with mock.patch.object(
      self.grader, "_judge", return_value=("undecided", False)
    ):
      self.assertEqual(self.grader.grade([pair]), ["undecided"])
    self.assertEqual(self.grader.grade([pair]), ["equal"])

  def test_percent_is_a_ratio_only_if_asked(self):
    pairs = [
      ("1/4", "25%"),
      ("25%", "0.25"),
      ("25%", "25"),
      ("1/4", "25"),
      (r"\frac{\sqrt{8}}{100}", r"2\sqrt{2}\%"),  # In the worker.
      ("1/2, 1/4", "25%, 50%"),
      ("25%", "0.25%"),
    ]
    default = (
      "different different equal different different different different"
    )
    self.assertEqual(self.grader.grade(pairs), default.split())
    with Grader(workers=1, seconds=100, percent_is_ratio=True) as grader:
      asked = "equal equal equal different equal equal different"
      self.assertEqual(grader.grade(pairs), asked.split())

  def test_only_short_answers_are_read_in_this_process(self):
    long = "1" + "+1" * 60
    with (
      mock.patch.object(parsing, "read", side_effect=AssertionError),
      mock.patch.object(
        compare.Comparison, "equal", side_effect=AssertionError
      ),
    ):
      pairs = [
        (long, "61"),
        ("61", long),
        (long, f" {long}"),
        (long, "x" * 1001),
      ]
      expected = ["equal", "equal", "equal", "different"]
      self.assertEqual(self.grader.grade(pairs), expected)
      with self.assertRaises(AssertionError):
        self.grader.grade([("1+1+0", "2+0")])

  def test_workers_share_a_hash_seed(self):
    # sympy's sets, hence what is decided first, are in the order of hashes.
    self.grader.grade([_ROOT])
    for pid in self.grader.pids:
      environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
      self.assertIn(b"PYTHONHASHSEED=0", environment.split(b"\0"))

  def test_refuses_no_workers(self):
    with self.assertRaisesRegex(ValueError, "workers=0"):
      Grader(workers=0)


class BestTest(absltest.TestCase):
  def test_the_best_of_several(self):
    order = ["equal", "undecided", "different"]
    for given in itertools.product(order, repeat=3):
      ranked = [each for each in order if each in given]
      self.assertEqual(grader.best(given), ranked[0])
    self.assertEqual(grader.best([]), "different")


if __name__ == "__main__":
  absltest.main()
