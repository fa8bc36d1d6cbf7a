"""Tests of rstar_jax.evaluation.methods."""

from absl.testing import absltest, parameterized

from rstar_jax.evaluation import methods


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
  return {
    "problem_id": name,
    "split": split,
    "level": level,
    "gold": "1",
    "source": source,
    "trajectories": list(trajectories),
    "tokens": sum(t["tokens"] for t in trajectories)
    if tokens is None
    else tokens,
  }


class ChoiceTest(parameterized.TestCase):
  @parameterized.parameters(
    ("1221 2", "different"),  # 2 has three votes.
    ("2121", "different"),  # A tie: the first to come wins,
    ("1212", "equal"),
    ("3122 1", "equal"),  # also where another answer came before both.
    ("", "failed"),
  )
  def test_majority(self, answers, expected):
    voters = [trajectory(a) for a in answers.replace(" ", "")]
    self.assertEqual(methods.vote(voters, str), expected)

  def test_those_that_failed_do_not_vote(self):
    voters = [
      trajectory(None),
      trajectory(None),
      trajectory("2", "failed"),
      trajectory("2", "failed"),
      trajectory("1"),
    ]
    self.assertEqual(methods.vote(voters, str), "equal")
    self.assertEqual(methods.vote(voters[:4], str), "failed")

  def test_answers_of_one_normal_form_vote_together(self):
    voters = [trajectory("2"), trajectory("1"), trajectory("1.0", "equal")]
    normalise = {"2": "2", "1": "1", "1.0": "1"}.__getitem__
    self.assertEqual(methods.vote(voters, normalise), "equal")
    self.assertEqual(methods.vote(voters, str), "different")

  def test_keys_decide_the_vote_by_default(self):
    voters = [trajectory(a) for a in ("2", "1", "0.5", "\\frac12", "2/4")]
    self.assertEqual(methods.vote(voters), "different")
    voters = [trajectory("2"), trajectory("1"), trajectory("1.0", "equal")]
    self.assertEqual(methods.vote(voters), "equal")

  def test_a_decided_verdict_stands_for_all(self):
    voters = [trajectory("7", "undecided"), trajectory("7", "equal")]
    self.assertEqual(methods.vote(voters, str), "equal")
    self.assertEqual(methods.vote(voters[:1], str), "undecided")

  def test_weighted_vote(self):
    # 0.95 against 0.2 + 0.2 + 0.5.
    voters = [
      trajectory("2", value=-0.6),
      trajectory("2", value=-0.6),
      trajectory("2", value=None),
      trajectory("1", value=0.9),
    ]
    self.assertEqual(methods.vote(voters, str, weighted=True), "equal")
    self.assertEqual(methods.vote(voters, str), "different")
    voters.append(trajectory("2", value=-0.8))  # 1.0 in all.
    self.assertEqual(methods.vote(voters, str, weighted=True), "different")

  def test_best_of_n(self):
    able = [
      trajectory("2", value=-0.5),
      trajectory("1", value=-0.25),
      trajectory("3", value=-0.25),
      trajectory("4", value=None),
      trajectory("5", "failed", value=0.9),
      trajectory(None, value=0.9),
    ]
    self.assertEqual(methods.best(able), "equal")
    self.assertEqual(methods.best(able[3:]), "failed")


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
      methods.solve(records, method, 3, select, str),
      [methods.Outcome("p", 1, verdict, tokens)],
    )

  @parameterized.parameters("policy", "pass@k", "majority", "best_of_n", "mcts")
  def test_no_trajectory_is_a_failure(self, method):
    records = [record(methods.METHODS[method], tokens=7)]
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

  def test_best_without_any_value_is_a_vote(self):
    each = [trajectory("2"), trajectory("1"), trajectory("1")]
    records = [record("mcts", *each)]
    self.assertEqual(methods.selection(records, "best"), "majority")
    [outcome] = methods.solve(records, "mcts", 1, "best", str)
    self.assertEqual(outcome.verdict, "equal")
    records.append(record("mcts", trajectory("1", value=0.0), name="q"))
    self.assertEqual(methods.selection(records, "best"), "best")
    self.assertEqual(methods.selection(records[:1], "weighted"), "weighted")
    self.assertEqual(methods.selection(records[:1], "top_k"), "majority")

  @parameterized.parameters((1, "different"), (2, "different"), (3, "equal"))
  def test_so_many_of_highest_value_vote(self, k, verdict):
    each = [
      trajectory("1", value=0.1),
      trajectory("2", value=0.3),
      trajectory("1", value=0.2),
      trajectory("2", value=-0.9),
    ]
    [outcome] = methods.solve(
      [record("mcts", *each)], "mcts", 1, "top_k", str, k
    )
    self.assertEqual(outcome.verdict, verdict)


class BudgetTest(parameterized.TestCase):
  @parameterized.parameters(
    # Means of the first 1, 2, 3 samples: 15, 35, 60.
    (14, 1),  # At least one, even above the budget.
    (15, 1),
    (34, 1),
    (35, 2),
    (59, 2),
    (60, 3),
    (1000, 3),
  )
  def test_largest_number_within_the_budget(self, mean, expected):
    def samples(name, *tokens):
      each = [trajectory("1", tokens=t) for t in tokens]
      return record("samples", *each, name=name)

    by_source = {
      "samples": [
        samples("p", 10, 20, 30),
        samples("q", 20, 20, 20),
        samples("alone", 10**6, 1, 1),
      ],
      "mcts": [
        record("mcts", name="q", tokens=mean - 3),
        record("mcts", name="p", tokens=mean + 3),
        record("mcts", name="other", tokens=10**6),
      ],
    }
    self.assertEqual(methods.match_budget(by_source), expected)

  def test_without_a_search_all_samples(self):
    each = [trajectory("1")] * 5
    by_source = {"samples": [record("samples", *each)]}
    self.assertEqual(methods.match_budget(by_source), 5)
    self.assertEqual(methods.match_budget({}), 1)


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
