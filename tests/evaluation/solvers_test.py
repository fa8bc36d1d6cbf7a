"""All ways to solve, on a scripted policy whose answers are known."""

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.config import schema as config_lib
from rstar_jax.evaluation import choices, solvers
from rstar_jax.search.expansion import Calls
from tests.search.toys import PROBLEMS

POLICY = testing.ToySum()


def calls(expand=POLICY, score=testing.score_by_hash) -> Calls:
  return Calls(
    expand=expand,
    verify=testing.run_trusted,
    grade=testing.grade_equal,
    score=score,
  )


def task(**given) -> solvers.Task:
  config = config_lib.Config()
  config.study.trajectories = 5
  config.study.beam_width, config.study.beam_groups = 4, 2
  config.eval.search.candidates = 6
  fields = {
    "problems": PROBLEMS,
    "split": "toys",
    "config": config,
    "calls": calls(),
    "name": ("study",),
  }
  return solvers.Task(**fields | given)


class SolversTest(parameterized.TestCase):
  @parameterized.parameters(*config_lib.StudyConfig().methods)
  def test_records(self, method):
    sampled = method in ("greedy", "samples")
    given = {"calls": calls(POLICY.block, None)} if sampled else {}
    records = solvers.solve(method, task(**given))
    self.assertEqual(
      [r["problem_id"] for r in records], [p.id for p in PROBLEMS]
    )
    units = {"samples": 5, "mcts": 5, "searches": 5}.get(method, 1)
    for record in records:
      self.assertEqual((record["source"], record["split"]), (method, "toys"))
      self.assertLen(record["spent"], units)
      self.assertEqual(record["spent"][-1], record["tokens"])
      self.assertNotEmpty(record["trajectories"])
      for each in record["trajectories"]:
        self.assertBetween(each["unit"], 0, units - 1)
        right = each["answer"] == record["gold"]
        self.assertEqual(each["verdict"], "equal" if right else "different")
        self.assertEqual(each["value"] is None, sampled)
    self.assertEqual(records, solvers.solve(method, task(**given)))

  @parameterized.parameters("samples", "searches")
  def test_a_majority_that_is_settled_ends_a_problem(self, method):
    given = {"calls": calls(POLICY.block, None)} if method == "samples" else {}
    whole = task(**given)
    early = task(**given)
    for each, stop in ((whole, False), (early, True)):
      each.config.study.trajectories = 7
      each.config.study.early_stop = stop
    every, found = (solvers.solve(method, each) for each in (whole, early))
    saved = 0
    for a, b in zip(every, found, strict=True):
      self.assertEqual((a["stop"], b["stop"]), (None, "majority"))
      count = len(b["spent"])
      self.assertEqual(b["spent"], a["spent"][:count])
      self.assertGreaterEqual(count, choices.settled(a, "majority", 7))
      chosen = [choices.choose(each, "majority", 7) for each in (a, b)]
      self.assertEqual(chosen[0].verdict, chosen[1].verdict)
      saved += 7 - count
    self.assertGreater(saved, 0)

  def test_every_method_of_the_config_is_there(self):
    self.assertCountEqual(solvers.METHODS, config_lib.StudyConfig().methods)

  def test_beams_and_diverse_beams_differ_by_groups_alone(self):
    plain, diverse = (
      solvers.solve(method, task()) for method in ("beam", "diverse_beam")
    )
    for record in (*plain, *diverse):
      self.assertLen(record["trajectories"], 4)
    firsts = [
      len({each["steps"][0] for r in records for each in r["trajectories"]})
      for records in (plain, diverse)
    ]
    self.assertGreaterEqual(firsts[1], firsts[0])

  def test_searches_are_independent_and_samples_go_on(self):
    one, five = task(), task()
    one.config.study.trajectories = 2
    for method in ("searches", "mcts"):
      with self.subTest(method):
        short, long = (solvers.solve(method, each) for each in (one, five))
        for a, b in zip(short, long, strict=True):
          self.assertEqual(a["spent"], b["spent"][:2])
          self.assertEqual(
            choices.choose(a, "best", 2), choices.choose(b, "best", 2)
          )

  @parameterized.parameters("last", "min", "mean")
  def test_values_that_are_given_later_are_those_of_sampling(self, how):
    records = solvers.solve("samples", task(calls=calls(POLICY.block, None)))
    questions = [each.question for each in PROBLEMS]
    found = solvers.rescore(records, questions, testing.score_by_hash, how)
    for record, question in zip(found, questions, strict=True):
      for each in record["trajectories"]:
        nodes = each["steps"]
        path = [
          testing.score_by_hash(
            [question], [tuple(nodes[: end - 1])], [nodes[end - 1 : end]]
          )[0][0]
          for end in range(1, len(nodes) + 1)
        ]
        expected = {"last": path[-1], "min": min(path), "mean": np.mean(path)}
        self.assertAlmostEqual(each["value"], expected[how], places=6)
    # The given records are left as they were.
    self.assertIsNone(records[0]["trajectories"][0]["value"])


if __name__ == "__main__":
  absltest.main()
