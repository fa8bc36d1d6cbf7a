"""Ways to run steps: what they print, and their figures by hand."""

from unittest import mock

from absl.testing import absltest, flagsaver

from benchmarks import verification


def _step(tree: int, depth: int, candidate: int) -> str:
  return f"print({tree}, {depth}, {candidate})"


class VerificationTest(absltest.TestCase):
  def test_only_the_last_step_is_printed(self):
    steps = ["x = 2\nprint('before')", "print(3 * x)"]
    self.assertEqual(verification.in_pool(steps), "6\n")
    self.assertEqual(verification.in_fresh(steps), "before\n6\n")
    self.assertEqual(verification._before(steps), ["before\n"])

  @flagsaver.flagsaver(candidates=2, trees=2)
  def test_the_first_candidate_is_the_next_prefix(self):
    asked = []

    def run(programs):
      asked.append(programs)
      return [verification.in_pool(each) for each in programs]

    _, printed = verification.grow(run, _step, 2, salt=7)
    self.assertEqual(
      asked[1],
      [[_step(t, 0, 0), _step(t, 1, c)] for t in (7, 8) for c in (0, 1)],
    )
    self.assertEqual(printed[-2:], ["8 1 0\n", "8 1 1\n"])

  @flagsaver.flagsaver(candidates=2, trees=1, turns=3)
  def test_figures(self):
    now = [0.0]

    def way(*seconds, wrong=False):
      """Takes so many seconds at each depth, in each turn."""
      calls = [each for each in seconds for _ in range(2)]

      def run(programs):
        now[0] += calls.pop(0)
        return ["?" if wrong else each[-1] for each in programs]

      return run

    ways = {
      "tree": way(1, 2, 3),
      "replay": way(4, 4, 4),
      "pool": way(1, 1, 1),
      "fresh": way(8, wrong=True),
    }
    with mock.patch.object(verification.time, "perf_counter", lambda: now[0]):
      found = verification.measure(ways, _step, 2)
    # Four candidates, in twice the seconds: in turns 2, 1 and 2/3 a second.
    self.assertEqual(
      found["tree"], {"steps_per_second": 1.0, "ratio": 1.0, "agree": True}
    )
    # Of these 1/4, 1/2 and 3/4.
    self.assertEqual(
      found["replay"], {"steps_per_second": 0.5, "ratio": 0.5, "agree": True}
    )
    # In the first turn alone.
    self.assertEqual(
      found["fresh"], {"steps_per_second": 0.2, "ratio": 0.125, "agree": False}
    )


if __name__ == "__main__":
  absltest.main()
