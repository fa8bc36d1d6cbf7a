"""Hostile programs: the verdict of each, and a sandbox that is alive after."""

import dataclasses

from absl.testing import absltest, parameterized

from rstar_jax.verify import Limits, Sandbox
from tests.verify import hostile_inside, hostile_outside, hostile_text

CASES = (*hostile_inside.CASES, *hostile_outside.CASES, *hostile_text.CASES)
# Those that are to time out wait so long; the others may take long where much
# else is going on.
_LATE = Limits(wall_seconds=1.5, memory_bytes=1 << 28)
_LIMITS = dataclasses.replace(_LATE, wall_seconds=60.0)
# After each case, in the same worker.
_PROBE = ("import math", "print(math.pi, sum([1, 2]), abs(-4))")


def _times_out(case) -> bool:
  return "timeout" in case.statuses


class HostileTest(parameterized.TestCase):
  def test_there_are_many_of_each_kind(self):
    names = {(case.group, case.name) for case in CASES}
    self.assertLen(names, len(CASES))
    self.assertGreater(len(CASES), 120)

  @parameterized.named_parameters(("late", True), ("others", False))
  def test_verdicts(self, late):
    limits = _LATE if late else _LIMITS
    cases = [case for case in CASES if _times_out(case) == late]
    programs = []
    for i, case in enumerate(cases):
      programs += [list(case.steps), [*_PROBE, f"print({i})"]]
    with Sandbox(workers=2, limits=limits) as sandbox:
      results = sandbox.run(programs)
      for i, case in enumerate(cases):
        with self.subTest(f"{case.group}/{case.name}"):
          result = results[2 * i]
          self.assertIn(result.status, case.statuses, result)
          if case.stdout is not None and result.status == "ok":
            self.assertEqual(result.stdout, case.stdout)
          self.assertEqual(results[2 * i + 1].stdout, f"{i}\n")


if __name__ == "__main__":
  absltest.main()
