"""The ways to answer, on records made by hand."""

import itertools

from absl.testing import absltest, parameterized

from rstar_jax.evaluation import choices, methods


def trajectory(answer, verdict=None, value=None, tokens=10):
  """Makes a trajectory; without a verdict, "1" is right."""
  if verdict is None:
    verdict = "failed" if answer is None else "different"
    verdict = "equal" if answer == "1" else verdict
  return {
    "answer": answer,
    "verdict": verdict,
    "value": value,
    "tokens": tokens,
  }


def record(source, *trajectories, name="p", split="test", tokens=None, level=1):
  spent = list(itertools.accumulate(t["tokens"] for t in trajectories))
  spent = spent or [0]
  if tokens is not None:
    spent[-1] = tokens
  return {
    "problem_id": name,
    "split": split,
    "level": level,
    "gold": "1",
    "source": source,
    "trajectories": [
      each | {"unit": unit} for unit, each in enumerate(trajectories)
    ],
    "spent": spent,
    "tokens": spent[-1],
  }


class SolveTest(parameterized.TestCase):
  @parameterized.parameters(
    ("policy", "greedy", "best", "different", 90),
    ("pass@k", "samples", "best", "equal", 30),
    ("majority", "samples", "best", "different", 30),
    ("best_of_n", "samples", "best", "equal", 30),
    ("mcts", "mcts", "best", "different", 90),
    ("mcts", "mcts", "majority", "equal", 90),
    ("mcts", "mcts", "weighted", "equal", 90),
    ("mcts", "mcts", "top_k", "equal", 90),
  )
  def test_methods(self, method, source, select, verdict, tokens):
    trajectories = {
      "greedy": [trajectory("2")],
      "samples": [
        trajectory("2", value=0.1),
        trajectory("1", value=0.2),
        trajectory("2", value=0.1),
        # Beyond the third, which nobody sees:
        trajectory("1", value=0.1),
        trajectory("2", value=0.9),
        trajectory("1", value=0.1),
      ],
      "mcts": [
        trajectory("2", value=0.9),
        trajectory("1", value=0.8),
        trajectory("1", value=0.8),
        trajectory("1", value=0.8),
      ],
    }[source]
    records = [record(source, *trajectories, tokens=90)]
    self.assertEqual(
      methods.solve(records, method, 3, select),
      [choices.Outcome("p", 1, verdict, tokens)],
    )

  @parameterized.parameters("policy", "pass@k", "majority", "best_of_n", "mcts")
  def test_no_trajectory_is_a_failure(self, method):
    records = [record(methods.METHODS[method][0], tokens=7)]
    [outcome] = methods.solve(records, method, 3)
    self.assertEqual(outcome.verdict, "failed")

  def test_pass_at_k_prefers_right_then_undecided(self):
    for verdicts, expected in (
      (("failed", "different", "undecided", "equal"), "equal"),
      (("failed", "different", "undecided"), "undecided"),
      (("failed", "different"), "different"),
    ):
      each = [trajectory("x", v) for v in verdicts]
      [outcome] = methods.solve([record("samples", *each)], "pass@k", 9)
      self.assertEqual(outcome.verdict, expected)

  @parameterized.parameters("best", "top_k", "weighted")
  def test_without_any_value_every_way_is_a_vote(self, select):
    each = [trajectory("2"), trajectory("1"), trajectory("1")]
    [outcome] = methods.solve([record("mcts", *each)], "mcts", 1, select)
    self.assertEqual(outcome.verdict, "equal")

  @parameterized.parameters((1, "different"), (2, "different"), (3, "equal"))
  def test_so_many_of_highest_value_vote(self, k, verdict):
    each = [
      trajectory("1", value=0.1),
      trajectory("2", value=0.3),
      trajectory("1", value=0.2),
      trajectory("2", value=-0.9),
    ]
    [outcome] = methods.solve([record("mcts", *each)], "mcts", 1, "top_k", k)
    self.assertEqual(outcome.verdict, verdict)


class SplitTest(absltest.TestCase):
  def test_all_methods_that_there_are_records_for(self):
    sampled = [trajectory(each, tokens=10) for each in "221"]
    by_source = {
      "greedy": [record("greedy", trajectory("1"))],
      "samples": [record("samples", *sampled)],
      "mcts": [
        record(
          "mcts",
          *(trajectory("1", value=0.3), trajectory("2", value=0.2)),
          *(trajectory("2", value=0.1),),
          tokens=25,
        )
      ],
    }
    for k, verdict in ((1, "equal"), (3, "different")):
      count, found = methods.solve_split(by_source, "top_k", k)
      # A third sample would cost more than the search. The samples have no
      # values, so that none is the best.
      self.assertEqual(count, 2)
      self.assertEqual(
        {name: each.verdict for name, (each,) in found.items()},
        {
          "policy": "equal",
          "pass@k": "different",
          "majority": "different",
          "mcts": verdict,
        },
      )
    alone = {"greedy": by_source["greedy"]}
    self.assertEqual(list(methods.solve_split(alone)[1]), ["policy"])


class GroupTest(absltest.TestCase):
  def test_groups(self):
    a = record("greedy", split="x")
    b = record("mcts", split="x")
    c = record("greedy", split="y")
    self.assertEqual(
      methods.by_split([a, b, c]),
      {"x": {"greedy": [a], "mcts": [b]}, "y": {"greedy": [c]}},
    )

  def test_bad_records(self):
    for records, message in (
      ([record("greedy"), record("greedy")], "'p' .* has two greedy records"),
      ([record("beam")], "source 'beam', not one of greedy, mcts, samples"),
      ([record("mcts", trajectory("1", "yes"))], "verdict 'yes', not one of"),
    ):
      with self.assertRaisesRegex(ValueError, message):
        methods.by_split(records)


if __name__ == "__main__":
  absltest.main()
