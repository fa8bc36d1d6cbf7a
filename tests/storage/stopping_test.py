"""Processes that are told to end, at moments that they choose themselves."""

import os
import signal
import subprocess
import sys
import threading

from absl.testing import absltest, parameterized

from rstar_jax.storage import stopping

HEAD = """
import os, signal, sys, threading, time
from rstar_jax.storage import stopping

def tell(number=signal.SIGTERM):
  os.kill(os.getpid(), number)

def wait():
  end = time.monotonic() + 60
  while time.monotonic() < end:
    time.sleep(0.01)
  print("nobody came")

BOTH = (signal.SIGTERM, signal.SIGINT)
"""


def run(text: str) -> tuple[int, str, str]:
  """Runs a program; returns (exit code, what it printed, what it said)."""
  done = subprocess.run(
    [sys.executable, "-c", HEAD + text],
    capture_output=True,
    text=True,
    check=False,
    timeout=100,
  )
  return done.returncode, done.stdout, done.stderr


class ProgramTest(parameterized.TestCase):
  @parameterized.parameters("SIGTERM", "SIGINT")
  def test_ends_at_once_and_cleans_up(self, name):
    code, out, err = run(
      f"""
with stopping.listening(50.0, BOTH):
  try:
    tell(signal.{name})
    wait()
  finally:
    print("cleaned up")
print("went on")
"""
    )
    self.assertEqual((code, out), (0, "cleaned up\n"))
    self.assertIn(f"rstar_jax: {name}: stopping; a second signal ends", err)
    self.assertNotIn("Traceback", err)

  def test_a_deferred_block_is_finished(self):
    code, out, _ = run(
      """
with stopping.listening(50.0):
  with stopping.deferred():
    with stopping.deferred():
      tell()
      print("inner", stopping.asked())
    print("outer")
  print("went on")
"""
    )
    self.assertEqual((code, out), (0, "inner True\nouter\n"))

  def test_a_part_of_a_deferred_block_that_may_be_left(self):
    code, out, _ = run(
      """
with stopping.listening(50.0):
  with stopping.deferred():
    with stopping.interruptible():
      print("a")
    with stopping.interruptible():
      with stopping.deferred():
        tell()
        print("b")
      print("never")
    print("never")
"""
    )
    self.assertEqual((code, out), (0, "a\nb\n"))
    code, out, _ = run(
      """
with stopping.listening(50.0):
  with stopping.deferred():
    tell()
    print("c")
    with stopping.interruptible():
      print("never")
"""
    )
    self.assertEqual((code, out), (0, "c\n"))

  def test_what_is_lost_is_said_at_the_deadline(self):
    program = """
with stopping.listening(0.2), stopping.deferred():
  with stopping.losing(lambda: "two updates"):
    if {inside}:
      tell()
      wait()
  tell()
  wait()
"""
    for inside, said in ((True, "ending now; two updates\n"), (False, "now\n")):
      code, out, err = run(program.format(inside=inside))
      self.assertEqual((code, out), (0, ""))
      self.assertEndsWith(err, said)

  def test_the_deadline_holds_where_no_signal_is_heard(self):
    # A thread is waited for at the end of a program, and hears nothing.
    code, out, err = run(
      """
threading.Thread(target=wait).start()
with stopping.listening(0.3):
  tell()
  wait()
"""
    )
    self.assertEqual((code, out), (0, ""))
    self.assertIn("not done 0.3 s after SIGTERM", err)

  @parameterized.parameters(("SIGTERM", 143), ("SIGINT", 130))
  def test_a_second_one_ends_it_there(self, name, expected):
    code, out, _ = run(
      f"""
with stopping.listening(50.0, BOTH):
  with stopping.deferred():
    tell()
    # The two would be one if they came together.
    time.sleep(0.5)
    tell(signal.{name})
    wait()
"""
    )
    self.assertEqual((code, out), (expected, ""))

  def test_other_signals_are_none_of_ours(self):
    code, out, _ = run(
      """
signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
with stopping.listening(50.0):
  with stopping.deferred():
    tell()
    tell(signal.SIGUSR1)
    time.sleep(0.5)
    print("here")
"""
    )
    self.assertEqual((code, out), (0, "heard\nhere\n"))

  def test_a_handler_that_was_taken_is_taken_back(self):
    code, out, _ = run(
      """
with stopping.listening(50.0):
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  stopping.listen_again()
  tell()
  wait()
"""
    )
    self.assertEqual((code, out), (0, ""))


class WithinJaxTest(absltest.TestCase):
  """Nothing is raised in jax, and the next line of its caller does not run."""

  def test_a_program_that_is_lowered_is_lowered_first(self):
    code, out, err = run(
      """
import jax
from jax.extend.core import Primitive
from jax.interpreters import mlir

same = Primitive("same")
same.def_abstract_eval(lambda x: x)

def lower(context, x):
  tell()
  time.sleep(0.01)
  print("lowered")
  return [x]

mlir.register_lowering(same, lower)

def call():
  jax.jit(lambda x: same.bind(x) + 1)(1.0)
  print("went on")

with stopping.listening(50.0):
  try:
    call()
    print("went on")
  finally:
    print("cleaned up", sys.gettrace())
"""
    )
    # Not -11, a segmentation fault.
    self.assertEqual((code, out), (0, "lowered\ncleaned up None\n"), err)

  def test_a_callback_does_not_swallow_it(self):
    code, out, err = run(
      """
import gc
scope = {"__name__": "jax._src.lib", "tell": tell, "time": time}
code = "def callback(at, _): at == 'start' and [tell(), time.sleep(0.01)]"
exec(code, scope)
with stopping.listening(50.0):
  gc.disable()
  gc.callbacks.append(scope["callback"])
  gc.collect()
  gc.callbacks.clear()
  print("went on")
"""
    )
    self.assertEqual((code, out), (0, ""))
    self.assertNotIn("Exception ignored", err)

  def test_a_deferred_block_that_calls_jax_is_finished(self):
    code, out, _ = run(
      """
scope = {"__name__": "jax", "tell": tell, "time": time}
exec("def call(): tell(), time.sleep(0.01)", scope)
with stopping.listening(50.0):
  with stopping.deferred():
    scope["call"]()
    print("inside")
  print("went on")
"""
    )
    self.assertEqual((code, out), (0, "inside\n"))


class InProcessTest(absltest.TestCase):
  def test_all_is_as_before(self):
    before = signal.getsignal(signal.SIGTERM)
    with stopping.listening(50.0):
      self.assertIsNot(signal.getsignal(signal.SIGTERM), before)
      self.assertFalse(stopping.asked())
      stopping.check()
    self.assertEqual(signal.getsignal(signal.SIGTERM), before)
    self.assertEqual(signal.set_wakeup_fd(-1), -1)
    self.assertLen(threading.enumerate(), 1)

  def test_a_block_within_a_block_changes_nothing(self):
    with self.assertRaises(stopping.Stopped) as caught:
      with stopping.listening():
        with stopping.listening(50.0):
          pass
        os.kill(os.getpid(), signal.SIGTERM)
        self.fail("went on")
    self.assertEqual(caught.exception.code, 0)
    self.assertFalse(stopping.asked())

  def test_a_stop_that_was_lost_is_found_at_the_next_check(self):
    found = []
    with stopping.listening():
      try:
        os.kill(os.getpid(), signal.SIGTERM)
      except stopping.Stopped:
        found.append("once")
      with self.assertRaises(stopping.Stopped):
        stopping.check()
    self.assertEqual(found, ["once"])

  def test_a_deferred_block_that_fails_defers_no_longer(self):
    with stopping.listening():
      with self.assertRaisesRegex(ValueError, "broken"):
        with stopping.deferred():
          os.kill(os.getpid(), signal.SIGTERM)
          self.assertTrue(stopping.asked())
          raise ValueError("broken")
      self.assertEqual(stopping._deferred, 0)
      with self.assertRaises(stopping.Stopped):
        stopping.check()
      with self.assertRaises(stopping.Stopped):
        os.kill(os.getpid(), signal.SIGTERM)
        self.fail("a signal after the block is deferred")

  def test_a_generator_that_is_left_open_defers_no_longer(self):
    with stopping.listening():
      context = stopping.deferred()
      context.__enter__()
      self.assertEqual(stopping._deferred, 1)
      context.gen.close()
      self.assertEqual(stopping._deferred, 0)

  def test_other_threads_hold_nothing_and_need_not(self):
    @stopping.deferred()
    def work():
      done.append(stopping._deferred)

    done = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    self.assertEqual(done, [0])


if __name__ == "__main__":
  absltest.main()
