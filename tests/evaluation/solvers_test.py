"""All ways to solve, on a scripted policy whose answers are known."""

import sys

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.config import schema as config_lib
from rstar_jax.evaluation import choices, solvers, sources
from rstar_jax.search import ab_mcts, beam, driver, mcts, rebase
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.requests import Calls
from tests.search.toys import PROBLEMS

POLICY = testing.ToySum()


def calls(expand=POLICY, score=testing.score_by_hash) -> Calls:
  return Calls(
    expand=expand,
    verify=testing.run_trusted,
    grade=testing.grade_equal,
    score=score,
  )


def setting() -> solvers.Setting:
  config = config_lib.Config()
  config.study.trajectories = config.study.samples = 5
  config.study.beam_width, config.study.beam_groups = 4, 2
  config.eval.search.candidates = 6
  return solvers.Setting("toys", config, ("study",))


def solve(method, given=None, own=None) -> list[dict]:
  given, own = given or setting(), own or calls()
  if method not in solvers.METHODS:
    return solvers.by_plugin(method, PROBLEMS, own, given)
  searches = [solvers.METHODS[method](each, given) for each in PROBLEMS]
  in_flight = solvers.in_flight(method, given.config)
  return driver.run_searches(searches, own, in_flight)


class SolversTest(parameterized.TestCase):
  @parameterized.parameters(*config_lib.METHODS)
  def test_records(self, method):
    sampled = method in ("greedy", "samples")
    own = calls(POLICY.block, None) if sampled else calls()
    records = solve(method, own=own)
    self.assertEqual(
      [r["problem_id"] for r in records], [p.id for p in PROBLEMS]
    )
    many = ("samples", "mcts", "puct", "searches", "ab_mcts")
    units = 5 if method in many else 1
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
    self.assertEqual(records, solve(method, own=own))

  @parameterized.parameters(("beam", 1), ("diverse_beam", 2))
  def test_only_finished_beams_of_the_run_s_seed_are_solutions(
    self, method, groups
  ):
    # More answers than beams: an answer may come out by one.
    own = calls(testing.ToySum(offsets=(0, 1, 2)))
    given = setting()
    given.config.seed = 11
    given.config.eval.search.trajectory_value = "min"
    found = solve(method, given, own)
    trees = beam.beam_search(
      *(PROBLEMS, 4, given.config.eval.search, own),
      **{"seed": 11, "name": ("study", "beam"), "groups": groups},
    )
    left_out = 0
    for record, tree in zip(found, trees, strict=True):
      expected = tree_lib.trajectories(tree, visited_only=True, how="min")
      self.assertEqual(
        [
          (tuple(t["steps"]), t["value"], t["unit"])
          for t in record["trajectories"]
        ],
        [(each.steps, each.value, 0) for each in expected],
      )
      self.assertEqual(record["spent"], [tree.tokens])
      left_out += len(tree_lib.trajectories(tree)) - len(expected)
    self.assertGreater(left_out, 0)

  def test_rebase_has_the_run_s_seed_budget_and_temperature(self):
    given = setting()
    given.config.seed = 11
    given.config.study.rebase_temperature = 0.3
    given.config.eval.search.trajectory_value = "min"
    found = solve("rebase", given)
    search = given.config.eval.search
    searches = [
      rebase.rebase(
        tree_lib.Tree(each), 5, 0.3, search, 11, ("study", "rebase")
      )
      for each in PROBLEMS
    ]
    trees = driver.run_searches(searches, calls(), 3)
    for record, tree in zip(found, trees, strict=True):
      expected = tree_lib.trajectories(tree, how="min")
      self.assertEqual(
        [(tuple(t["steps"]), t["value"]) for t in record["trajectories"]],
        [(each.steps, each.value) for each in expected],
      )
      self.assertEqual(record["spent"], [tree.tokens])

  def test_puct_differs_from_mcts_in_its_selection_alone(self):
    given = setting()
    given.config.eval.search.c = 0.0
    found, plain = (
      [each | {"source": ""} for each in solve(method, given)]
      for method in ("puct", "mcts")
    )
    self.assertEqual(found, plain)
    given.config.eval.search.c = 9.0
    found = solve("puct", given)
    self.assertNotEqual([each | {"source": ""} for each in found], plain)
    given.config.eval.search.selection = "puct"
    self.assertEqual(
      found, [each | {"source": "puct"} for each in solve("mcts", given)]
    )

  def test_a_unit_of_ab_mcts_is_the_rollout_that_found_it(self):
    given = setting()
    given.config.seed = 11
    given.config.study.trajectories = given.config.study.samples = 9
    found = solve("ab_mcts", given)
    searches = [
      ab_mcts.search_tree(
        *(tree_lib.Tree(each), given.config.eval.search, 11),
        *(("study", "ab_mcts"), 9),
      )
      for each in PROBLEMS
    ]
    trees = driver.run_searches(searches, calls(), 3)
    again = 0
    for record, tree in zip(found, trees, strict=True):
      self.assertEqual(record["spent"], [each for each, _, _ in tree.growth])
      ends = [tree.prefix(end) for _, _, end in tree.growth]
      firsts = list(dict.fromkeys(ends))
      again += len(ends) - len(firsts)
      self.assertEqual(
        [(tuple(t["steps"]), t["unit"]) for t in record["trajectories"]],
        [(each, ends.index(each)) for each in firsts],
      )
    self.assertGreater(again, 0)

  @parameterized.parameters(("mcts", ("study", "mcts")), ("searches", None))
  def test_searches_have_the_run_s_seed_and_a_name_each(self, method, name):
    given = setting()
    given.config.seed = 11
    given.config.eval.search.trajectory_value = "mean"
    given.config.study.rollouts_each = 3
    found = solve(method, given)
    rollouts = 5 if name else 3
    names = [name] if name else [("study", "search", i) for i in range(5)]
    forest = [
      mcts.search(
        *(PROBLEMS, given.config.eval.search, calls()),
        **{"seed": 11, "name": each, "rollouts": rollouts},
      )
      for each in names
    ]
    for record, *trees in zip(found, *forest, strict=True):
      expected = [
        (t.steps, t.value)
        for tree in trees
        for t in tree_lib.trajectories(tree, how="mean")
      ]
      self.assertEqual(
        [(tuple(t["steps"]), t["value"]) for t in record["trajectories"]],
        expected,
      )
      self.assertEqual(record["tokens"], sum(tree.tokens for tree in trees))

  def test_a_search_of_one_s_own(self):
    asked = []

    def own_search(problems, config, given, seed, name):
      asked.append((problems, config.rollouts, config.candidates, seed, name))
      return mcts.search(problems, config, given, seed, name=name)

    main = sys.modules["__main__"]
    main.own_search = own_search
    self.addCleanup(delattr, main, "own_search")
    own = "__main__:own_search"
    given = setting()
    given.config.seed = 11
    given.config.eval.search.trajectory_value = "min"
    found = solve(own, given)
    self.assertEqual(asked, [(PROBLEMS, 5, 6, 11, ("study", own))])
    for record, problem in zip(found, PROBLEMS, strict=True):
      self.assertEqual(record["problem_id"], problem.id)
      self.assertEqual((record["source"], record["split"]), (own, "toys"))
      self.assertLen(record["spent"], 5)
      for each in record["trajectories"]:
        nodes = each["steps"]
        path = [
          testing.score_by_hash([problem.question], [nodes[:i]], [[node]])[0][0]
          for i, node in enumerate(nodes)
        ]
        self.assertEqual(each["value"], min(path))

  @parameterized.parameters("samples", "searches")
  def test_a_majority_that_is_settled_ends_a_problem(self, method):
    own = calls(POLICY.block, None) if method == "samples" else calls()
    whole, early = setting(), setting()
    for each, stop in ((whole, False), (early, True)):
      each.config.study.trajectories = each.config.study.samples = 7
      each.config.study.early_stop = stop
    every, found = (solve(method, each, own) for each in (whole, early))
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

  @parameterized.parameters("weighted", "best")
  def test_searches_end_when_another_choice_is_settled(self, choice):
    # One answer in three has the highest value that there is.
    def score(questions, prefixes, rows):
      values = testing.score_by_hash(questions, prefixes, rows)
      return [np.where(each > 0.3, np.float32(1), each) for each in values]

    whole, early = setting(), setting()
    for each, stop in ((whole, False), (early, True)):
      each.config.study.trajectories = each.config.study.samples = 7
      each.config.study.early_stop = stop
      each.config.study.early_choice = choice
      each.config.study.confidence = 0.6
    every, found = (
      solve("searches", each, calls(score=score)) for each in (whole, early)
    )
    saved = 0
    for a, b in zip(every, found, strict=True):
      self.assertEqual((a["stop"], b["stop"]), (None, choice))
      self.assertLen(b["spent"], choices.settled(a, choice, 7))
      chosen = [choices.choose(each, choice, 7) for each in (a, b)]
      self.assertEqual(chosen[0].verdict, chosen[1].verdict)
      saved += 7 - len(b["spent"])
    self.assertGreater(saved, 0)
    # What a model will say of samples is not known: all are taken.
    for record in solve("samples", early, calls(POLICY.block, None)):
      self.assertIsNone(record["stop"])
      self.assertLen(record["spent"], 7)

  @parameterized.parameters("samples", "searches")
  def test_a_majority_that_is_likely_enough_ends_a_problem(self, method):
    own = calls(POLICY.block, None) if method == "samples" else calls()
    counts = []
    for confidence in (1.0, 0.8):
      given = setting()
      given.config.study.trajectories = given.config.study.samples = 9
      given.config.study.early_stop = True
      given.config.study.confidence = confidence
      records = solve(method, given, own)
      counts.append(sum(len(each["spent"]) for each in records))
      for each in records:
        needed = choices.settled(each, "majority", 9, confidence=confidence)
        self.assertLen(each["spent"], needed)
    self.assertGreater(*counts)

  def test_every_method_of_the_config_is_there(self):
    self.assertCountEqual(solvers.METHODS, config_lib.METHODS)
    self.assertCountEqual(solvers.METHODS, sources.SOURCES)

  def test_beams_and_diverse_beams_differ_by_groups_alone(self):
    plain, diverse = (solve(method) for method in ("beam", "diverse_beam"))
    for record in (*plain, *diverse):
      self.assertLen(record["trajectories"], 4)
    firsts = [
      len({each["steps"][0] for r in records for each in r["trajectories"]})
      for records in (plain, diverse)
    ]
    self.assertGreaterEqual(firsts[1], firsts[0])

  def test_searches_are_independent_and_samples_go_on(self):
    one, five = setting(), setting()
    one.config.study.trajectories = 2
    for method in ("searches", "mcts"):
      with self.subTest(method):
        short, long = (solve(method, each) for each in (one, five))
        for a, b in zip(short, long, strict=True):
          self.assertEqual(a["spent"], b["spent"][:2])
          self.assertEqual(
            choices.choose(a, "best", 2), choices.choose(b, "best", 2)
          )

  def test_samples_in_flight_are_as_many_as_candidates_of_searches(self):
    config = setting().config
    config.eval.search.in_flight = 2
    # Twelve candidates: five solutions each of two problems.
    found = {each: solvers.in_flight(each, config) for each in solvers.METHODS}
    self.assertEqual(found, dict.fromkeys(solvers.METHODS, 2) | {"greedy": 12})

  def test_samples_that_cost_what_the_rollouts_cost(self):
    given = setting()
    given.config.study.trajectories, given.config.study.samples = 2, 0
    # Two rollouts, each of six candidates a step.
    for record in solve("samples", given, calls(POLICY.block, None)):
      self.assertLen(record["trajectories"], 12)

  def test_what_has_no_answer_has_no_value(self):
    asked = []

    def score(questions, prefixes, rows):
      asked.extend(rows)
      return testing.score_by_hash(questions, prefixes, rows)

    made = {"steps": ["a", "b"], "answer": "4", "value": None}
    failed = {"steps": ["a"], "answer": None, "value": 0.5}
    (found,) = solvers.rescore(
      [{"trajectories": [failed, made]}], ["q"], score, "last"
    )
    self.assertEqual([list(each) for each in asked], [["b"]])
    self.assertEqual(found["trajectories"][0], failed | {"value": None})
    self.assertIsNotNone(found["trajectories"][1]["value"])

  @parameterized.parameters("last", "min", "mean")
  def test_values_that_are_given_later_are_those_of_sampling(self, how):
    records = solve("samples", own=calls(POLICY.block, None))
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
