"""Layers by attempt, in processes of their own; and honest words."""

import os
import resource
import sys

from absl.testing import absltest, parameterized

from rstar_jax.verify import Limits, Sandbox, isolation

_FACTS = dict.fromkeys(
  ("die_with_parent", "adopt_orphans", "no_new_privs"), True
)


def _forked(action) -> str:
  """Runs an action in a fork; returns what it returned or raised."""
  reader, writer = os.pipe()
  pid = os.fork()
  if pid == 0:
    try:
      text = str(action())
    except BaseException as error:
      text = f"{type(error).__name__}: {error}"
    finally:
      os.write(writer, text.encode())
      os._exit(0)
  os.close(writer)
  text = os.read(reader, 65536).decode()
  os.close(reader)
  os.waitpid(pid, 0)
  return text


def _hooked(action):
  def run():
    sys.addaudithook(isolation.make_hook())
    return action()

  return run


class IsolationTest(parameterized.TestCase):
  def test_hook_lets_pass_what_programs_need(self):
    def action():
      import colorsys  # An import reads files.

      with open(os.devnull, "w") as file:
        file.write("x")
      os.kill(os.getpid(), 0)
      return colorsys.rgb_to_hsv(0, 0, 1)[2]

    self.assertEqual(_forked(_hooked(action)), "1")

  @parameterized.parameters("net", "read", "write", "exec", "fork", "kill")
  def test_hook_refuses(self, name):
    text = _forked(_hooked(isolation.PROBES[name]))
    self.assertStartsWith(text, "Blocked: ")

  def test_rlimits(self):
    def action():
      isolation.limit_worker(1 << 40)
      isolation.limit_program(5)
      kinds = ("AS", "FSIZE", "NOFILE", "CORE", "CPU")
      return [
        resource.getrlimit(getattr(resource, f"RLIMIT_{kind}"))
        for kind in kinds
      ]

    expected = [(1 << 40,) * 2, (0, 0), (64, 64), (0, 0), (5, 6)]
    self.assertEqual(_forked(action), str(expected))

  def test_written_file_stays_empty(self):
    def action():
      isolation.limit_worker(1 << 40)
      isolation.PROBES["write"]()

    self.assertStartsWith(_forked(action), "OSError: [Errno 27]")

  def test_words(self):
    none = dict.fromkeys(isolation.PROBES, False)
    all_ = dict.fromkeys(isolation.PROBES, True)
    report = isolation.describe(none, none, _FACTS)
    self.assertEqual(report["net"], "nothing")
    self.assertLen(report["degraded"], len(isolation.PROBES))
    report = isolation.describe(none, all_, _FACTS)
    self.assertEqual(report["net"], "audit hook (not a boundary)")
    self.assertIn("net: audit hook (not a boundary)", report["degraded"])
    report = isolation.describe(all_, all_, {**_FACTS, "adopt_orphans": False})
    self.assertEqual(report["memory"], "rlimit AS")
    self.assertEqual(
      report["degraded"], ["orphans: nothing collects a program's own children"]
    )

  def test_sandbox_reports_what_was_tried(self):
    with Sandbox(workers=1, limits=Limits(memory_bytes=1 << 28)) as sandbox:
      report = sandbox.isolation
    self.assertEqual(report["memory"], "rlimit AS")
    self.assertStartsWith(report["write"], "rlimit FSIZE")
    self.assertStartsWith(report["parent_death"], "PR_SET_PDEATHSIG")
    hook = "audit hook (not a boundary)"
    self.assertEqual(report["fork"] == hook, os.getuid() == 0)
    for name in ("net", "read", "exec", "kill", "ctypes"):
      self.assertEqual(report[name], hook)
      self.assertIn(f"{name}: {hook}", report["degraded"])


if __name__ == "__main__":
  absltest.main()
