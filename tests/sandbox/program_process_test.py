"""A program's process, asked by its messages alone."""

import functools
import os
import socket

from absl.testing import absltest, parameterized

from rstar_jax.sandbox import children, program_process, wire, zygote
from rstar_jax.sandbox.isolation import confinement
from tests.sandbox import forks

_THREAD = """
import threading, time
threading.Thread(target=time.sleep, args=(99,), daemon=True).start()
"""


class ProgramProcessTest(parameterized.TestCase):
  def start(self) -> children.Child:
    enter = functools.partial(zygote.enter, confinement.limit_program, 101, 9)
    action = functools.partial(program_process.live, enter=enter)
    child = forks.as_worker(lambda: children.fork(action))
    self.addCleanup(child.end)
    child.channel.settimeout(300)
    return child

  def ask(self, child, *order):
    child.send(order)
    return self.next(child)

  def next(self, child):
    """Returns a report without its time; or another message."""
    found = wire.receive(child.channel)
    if isinstance(found, list) and len(found) == 6:
      self.assertGreater(found.pop(4), 0)
    return found

  def test_each_step_has_a_report(self):
    child = self.start()
    steps = ["x = 1\nprint(x)", "print(x + 1)", "\n1 / 0", "print('never')"]
    self.assertEqual(
      self.ask(child, "run", steps, ""), ["ok", "1\n", "", 0, True]
    )
    self.assertEqual(self.next(child), ["ok", "2\n", "", 0, True])
    error = "ZeroDivisionError: division by zero"
    self.assertEqual(self.next(child), ["error", "", error, 2, True])
    # Nothing is left, and it goes on.
    found = self.ask(child, "run", ["print(x)"], "")
    self.assertEqual(found, ["ok", "1\n", "", 0, True])

  @parameterized.parameters(
    (["if 1:"], ""),
    (["x = 1"], "else:"),
    (["from __future__ import annotations"], ""),
  )
  def test_what_does_not_compile_alone_is_executed_as_one(self, steps, after):
    child = self.start()
    self.assertEqual(self.ask(child, "run", steps, after), "whole")
    whole = ["print(1)", "if 1:", "  print(2)"]
    self.assertEqual(self.ask(child, "whole", whole), ["before", 1])
    self.assertEqual(self.next(child), ["ok", "1\n2\n", "", 0, False])

  def test_what_does_not_compile_at_all(self):
    child = self.start()
    status, *_, line, more = self.ask(child, "whole", ["x = 1\ny =="])
    self.assertEqual((status, line, more), ("error", 2, False))

  @parameterized.parameters(
    ("x = 1", True),
    ("f = open('/dev/null')", False),
    ("f = open('/dev/null')\nf.close()", True),
    ("import signal; signal.setitimer(signal.ITIMER_REAL, 1000)", False),
    (_THREAD, False),
    ("import os; os.close(1)", False),
    ("import os; os.set_inheritable(0, False)", False),
  )
  def test_whether_a_fork_keeps_its_state(self, step, keeps):
    found = self.ask(self.start(), "run", [step], "")
    self.assertEqual((found[0], found[-1]), ("ok", keeps))

  def test_a_fork_goes_on_where_it_was(self):
    if not children.can_fork_sibling():
      self.skipTest("this machine forks no siblings")
    parent = self.start()
    self.ask(parent, "run", ["x = 1"], "")
    ours, theirs = children.pair()
    confinement.let_fork(parent.pid, True)
    parent.send(["fork"])
    descriptors = [theirs.fileno(), children.open_null()]
    socket.send_fds(parent.channel, [b"."], descriptors)
    theirs.close()
    os.close(descriptors[1])
    child = children.Child(children.pid_of(ours, 300), ours)
    self.addCleanup(child.end)
    for each, shown in ((child, "2\n"), (parent, "2\n"), (child, "3\n")):
      found = self.ask(each, "run", ["x += 1\nprint(x)"], "")
      self.assertEqual(found, ["ok", shown, "", 0, True])


if __name__ == "__main__":
  absltest.main()
