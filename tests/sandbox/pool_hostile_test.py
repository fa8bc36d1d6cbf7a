"""Hostile programs: the status of each; the sandbox must survive them."""

import dataclasses

from absl.testing import absltest, parameterized

from rstar_jax.sandbox.isolation import kernel
from rstar_jax.sandbox.pool import Limits, Sandbox
from tests.sandbox import hostile_inside, hostile_outside, hostile_text

CASES = (*hostile_inside.CASES, *hostile_outside.CASES, *hostile_text.CASES)
# Deadline of programs that must time out; others may be slow on a busy machine.
_LATE = Limits(wall_seconds=1.5, memory_bytes=1 << 28)
_LIMITS = dataclasses.replace(_LATE, wall_seconds=60.0)
# Runs after each case in the same worker.
_PROBE = ("import math", "print(math.pi, sum([1, 2]), abs(-4))")


def _times_out(case) -> bool:
  return "timeout" in case.statuses


class HostileTest(parameterized.TestCase):
  def test_there_are_many_of_each_kind(self):
    names = {(case.group, case.name) for case in CASES}
    self.assertLen(names, len(CASES))
    self.assertGreater(len(CASES), 120)

  def check(self, cases, limits, without=()):
    """Runs cases, and a harmless program after each."""
    programs = []
    for i, case in enumerate(cases):
      programs += [list(case.steps), [*_PROBE, f"print({i})"]]
    with Sandbox(workers=2, limits=limits, without=without) as sandbox:
      results = sandbox.run(programs)
    for i, case in enumerate(cases):
      with self.subTest(f"{case.group}/{case.name}"):
        result = results[2 * i]
        self.assertIn(result.status, case.statuses, result)
        if case.stdout is not None and result.status == "ok":
          self.assertEqual(result.stdout, case.stdout)
        self.assertEqual(results[2 * i + 1].stdout, f"{i}\n")

  @parameterized.named_parameters(("late", True), ("others", False))
  def test_verdicts(self, late):
    cases = [case for case in CASES if _times_out(case) == late]
    self.check(cases, _LATE if late else _LIMITS)

  @parameterized.parameters(
    "rlimits", "seccomp", "landlock", "credentials", "namespaces"
  )
  def test_what_reaches_outside_without_a_layer(self, layer):
    if not kernel.LINUX:
      self.skipTest("the layers need Linux")
    cases = [case for case in hostile_outside.CASES if not _times_out(case)]
    self.check(cases, _LIMITS, without=(layer,))

  def test_files_and_network_without_the_hook(self):
    """The hook gives the message; other layers enforce."""
    with Sandbox(workers=1, without=("hook",)) as sandbox:
      if sandbox.isolation["degraded"] != ["hook: switched off"]:
        self.skipTest(f"here {sandbox.isolation['degraded']}")
    cases = [
      dataclasses.replace(case, statuses=("blocked", "error"))
      for case in hostile_outside.CASES
      if case.group in ("files", "network")
    ]
    self.check(cases, _LIMITS, without=("hook",))


if __name__ == "__main__":
  absltest.main()
