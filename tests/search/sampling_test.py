"""Whole solutions: every possible status."""

import collections

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.grading import choose
from rstar_jax.search import driver, sampling
from rstar_jax.search.requests import Calls
from rstar_jax.steps import grammar
from rstar_jax.types import Candidate, Problem

PROBLEMS = [Problem(f"p{i}", f"make {i}", str(i)) for i in range(2, 9)]
BLOCK = "<code>\nx = 2\n<end_of_step>\nprint(x + 3)\n<end_of_code>"
ANSWER = "<answer>\\boxed{5}<end_of_answer>"


def calls_of(policy=None, **overrides) -> Calls:
  return Calls(
    **{
      "expand": (policy or testing.ToySum(offsets=(0, 1))).block,
      "verify": testing.run_trusted,
      "grade": testing.grade_equal,
    }
    | overrides
  )


def scripted(block, answer):
  """An expand that writes one (text, finish), by whether code came before."""

  def expand(questions, prefixes, seeds):
    return [
      [
        Candidate(text, (7,) * len(text), -1.0, finish)
        for _ in row
        for text, finish in [answer if prefix else block]
      ]
      for prefix, row in zip(prefixes, seeds, strict=True)
    ]

  return expand


def until_settled(n, calls, **options):
  """Samples each of `PROBLEMS` until its majority is settled."""
  searches = [sampling.solutions_until(each, n, **options) for each in PROBLEMS]
  return driver.run_searches(searches, calls, 32)


class SampleTest(parameterized.TestCase):
  def test_tests_judge_programs(self):
    policy = testing.ToySum()
    gold = sampling.sample(PROBLEMS, 5, calls_of(policy), seed=0)
    tested = [
      Problem(each.id, each.question, tests=f"assert x == {each.answer}")
      for each in PROBLEMS
    ]
    found = sampling.sample(tested, 5, calls_of(policy), seed=0)
    for row, same in zip(found, gold, strict=True):
      self.assertEqual([s.verdict for s in row], [s.verdict for s in same])
      self.assertEqual([s.reward for s in row], [s.reward for s in same])
      for each in row:
        scope = {"print": str}
        exec(each.answer, scope)
        self.assertIn(f"<output>{scope['x']}<end", each.steps[-2])

  def test_solutions_are_well_formed_run_and_graded(self):
    rows = sampling.sample(PROBLEMS, 11, calls_of(), seed=0)
    self.assertLen(rows, len(PROBLEMS))
    answers = collections.Counter()
    for problem, row in zip(PROBLEMS, rows, strict=True):
      self.assertLen(row, 11)
      for each in row:
        self.assertEqual(each.status, "ok")
        written = 0
        for i, text in enumerate(each.steps):
          for start, end in reversed(grammar.output_spans(text)):
            text = text[:start] + text[end:]
          finish = ("step", "code", "answer")[i]
          self.assertIsNone(grammar.problem_with(each.steps[:i], text, finish))
          written += len(text.encode())
        self.assertEqual(each.tokens, written)
        code, shown = grammar.program(each.steps), each.steps[1]
        (result,) = testing.run_trusted([code])
        self.assertIn(f"<output>{result.stdout}<end_of_output>", shown)
        self.assertIn(int(each.answer) - int(result.stdout), (0, 1))
        self.assertEqual(each.verdict == "equal", each.answer == problem.answer)
        self.assertIsNone(each.value)
        answers[each.answer] += 1
    self.assertEqual(set(answers), {"2", "3", "4", "5", "6", "7"})

  @parameterized.parameters(
    ((BLOCK, "code"), (ANSWER, "answer"), "ok", 3),
    ((BLOCK, "length"), (ANSWER, "answer"), "length", 0),
    ((BLOCK, "lost"), (ANSWER, "answer"), "lost", 0),
    ((BLOCK[6:], "code"), (ANSWER, "answer"), "malformed", 0),
    (("<code>\n1 / 0\n<end_of_code>", "code"), (ANSWER, "answer"), "error", 1),
    ((BLOCK, "code"), (ANSWER, "length"), "length", 2),
    ((BLOCK, "code"), (ANSWER, "lost"), "lost", 2),
    ((BLOCK, "code"), (ANSWER, "eos"), "malformed", 2),
    ((BLOCK, "code"), (BLOCK, "code"), "malformed", 2),
    ((BLOCK, "code"), (ANSWER[8:], "answer"), "malformed", 2),
    (
      (BLOCK, "code"),
      ("<answer>5<end_of_answer>", "answer"),
      "no_answer",
      2,
    ),
  )
  def test_status(self, block, answer, status, nodes):
    calls = calls_of(expand=scripted(block, answer))
    ((each,),) = sampling.sample(PROBLEMS[3:4], 1, calls, seed=0)
    self.assertEqual(each.status, status)
    self.assertLen(each.steps, nodes)
    answered = len(answer[0]) if nodes >= 2 else 0
    self.assertEqual(each.tokens, len(block[0]) + answered)
    if status == "ok":
      self.assertEqual((each.answer, each.verdict), ("5", "equal"))
      self.assertTrue(each.steps[1].endswith("<output>5<end_of_output>\n"))
    else:
      self.assertIsNone(each.answer)
      self.assertIsNone(each.verdict)

  def test_what_is_settled_is_sampled_no_further(self):
    whole = sampling.sample(PROBLEMS, 11, calls_of(), seed=0)
    found = until_settled(11, calls_of())
    counts = []
    for row, every in zip(found, whole, strict=True):
      answers = [each.answer for each in every]
      # No turn is so large that it may be too large.
      needed = next(
        n
        for n in range(1, 12)
        # Whatever the others say: here, all of them what is second.
        if all(
          choose.majority(answers[:n])
          == choose.majority([*answers[:n], *[other] * (11 - n)])
          for other in {*answers, "another"}
        )
      )
      self.assertEqual(row, every[:needed])
      counts.append(needed)
    self.assertGreater(len(set(counts)), 1)

  @parameterized.parameters(0.8, 0.95)
  def test_what_is_likely_enough_is_sampled_no_further(self, confidence):
    policy = testing.ToySum(("x += 1",) * 9 + ("x += 2",))
    whole = sampling.sample(PROBLEMS, 12, calls_of(policy), seed=0)
    found = until_settled(12, calls_of(policy), confidence=confidence)
    certain = until_settled(12, calls_of(policy))
    for row, every in zip(found, whole, strict=True):
      self.assertEqual(row, every[: len(row)])
      for n in range(1, len(row) + 1):
        self.assertEqual(
          choose.settled(
            [each.answer for each in row[:n]], 12 - n, confidence=confidence
          ),
          n == len(row),
        )
    self.assertLess(sum(map(len, found)), sum(map(len, certain)))

  def test_equal_solutions_have_their_own_numbers_of_tokens(self):
    """One text may be written in more tokens or in fewer."""

    def expand(questions, prefixes, seeds):
      text, finish = (ANSWER, "answer") if prefixes[0] else (BLOCK, "code")
      return [
        [Candidate(text, (7,) * (i + 3), -1.0, finish) for i in range(len(row))]
        for row in seeds
      ]

    ((*row,),) = sampling.sample(
      PROBLEMS[:1], 4, calls_of(expand=expand), seed=0
    )
    # The answer is written once, in 3 tokens.
    self.assertEqual([each.tokens for each in row], [6, 7, 8, 9])

  def test_without_gold_there_is_no_verdict(self):
    ((each,),) = sampling.sample([Problem("p", "q")], 1, calls_of(), seed=0)
    self.assertIsNotNone(each.answer)
    self.assertIsNone(each.verdict)

  @parameterized.parameters(
    ("last", lambda values: values[-1]), ("mean", np.mean), ("min", np.min)
  )
  def test_value_is_that_of_the_whole_trajectory(self, how, expected):
    calls = calls_of(score=testing.score_by_hash)
    ((*row,),) = sampling.sample(
      PROBLEMS[:1], 5, calls, seed=0, trajectory_value=how
    )
    for each in row:
      values = [
        testing.score_by_hash(["make 2"], [each.steps[:i]], [[step]])[0][0]
        for i, step in enumerate(each.steps)
      ]
      self.assertLen(values, 3)
      self.assertAlmostEqual(each.value, float(expected(values)), places=6)

  def test_what_solutions_share_is_scored_once(self):
    asked = []

    def score(questions, prefixes, nodes):
      for question, prefix, row in zip(questions, prefixes, nodes, strict=True):
        asked.extend((question, *prefix, step) for step in row)
      return testing.score_by_hash(questions, prefixes, nodes)

    rows = sampling.sample(
      PROBLEMS, 11, calls_of(score=score), seed=0, trajectory_value="mean"
    )
    expected = {
      (problem.question, *each.steps[: end + 1])
      for problem, row in zip(PROBLEMS, rows, strict=True)
      for each in row
      for end in range(len(each.steps))
    }
    self.assertCountEqual(asked, expected)

  def test_how_many_are_in_flight_does_not_matter(self):
    # So many options that no two blocks of a problem are equal.
    policy = testing.ToySum(tuple(f"x += {i}" for i in range(997)))
    sizes = []

    def expand(questions, prefixes, seeds):
      sizes.append((bool(prefixes[0]), *seeds.shape))
      self.assertEqual(seeds.dtype, np.uint32)
      return policy.block(questions, prefixes, seeds)

    rows = []
    for in_flight in (1, 5, 32):
      sizes.clear()
      rows.append(
        sampling.sample(
          PROBLEMS, 3, calls_of(expand=expand), seed=1, in_flight=in_flight
        )
      )
      self.assertEqual(rows[-1], rows[0])
      # All blocks of a problem are a row, and so is each answer; as many as
      # there are come in one call.
      self.assertEqual(sizes[0], (False, min(in_flight, 7), 3))
      self.assertEqual(sum(n for own, n, _ in sizes if not own), 7)
      self.assertEqual(sum(n for own, n, _ in sizes if own), 21)
      self.assertEqual({n for own, _, n in sizes if own}, {1})

  def test_seeds_are_named_by_problem_and_sample(self):
    few = sampling.sample(PROBLEMS[4:5], 2, calls_of(), seed=1)
    many = sampling.sample(PROBLEMS, 5, calls_of(), seed=1)
    self.assertEqual(few[0], many[4][:2])
    self.assertEqual(
      sampling.sample(PROBLEMS, 5, calls_of()),
      sampling.sample(PROBLEMS, 5, calls_of(), seed=0),
    )
    other = sampling.sample(PROBLEMS, 5, calls_of(), seed=1, name=("r", 2))
    self.assertNotEqual(many, other)

  def test_code_errors_do_not_reach_the_second_call(self):
    policy = testing.ToySum(("x += 1", "x += nope"), levels=1)
    rows = sampling.sample(PROBLEMS, 7, calls_of(policy), seed=0)
    statuses = {each.status for row in rows for each in row}
    self.assertEqual(statuses, {"ok", "error"})
    for each in (each for row in rows for each in row):
      self.assertEqual(each.status == "error", "nope" in "".join(each.steps))


if __name__ == "__main__":
  absltest.main()
