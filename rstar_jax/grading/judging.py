"""Judges answers: by the grader, by tests, or by the task's reward.

The problem decides: either the answer is boxed, and is compared with a gold
answer; or it is the program, which runs before the problem's tests.
"""

import hashlib
import numbers
import secrets
from collections.abc import Callable, Sequence

from rstar_jax.config import plugins
from rstar_jax.grading import answers, grader
from rstar_jax.steps import grammar
from rstar_jax.types import (
  ExecResult,
  Grade,
  Prefix,
  Problem,
  Verdict,
  Verify,
)

# Returns an answer's reward, from -1 to 1; above 0 it is right.
Reward = Callable[[Problem, str], float]

# Runs the tests after the program, in a namespace of their own. It has the
# program's names, except those that hide a builtin: `assert abs(...) < 1e-6`
# calls Python's `abs`. `import` is a statement, which cannot be hidden this
# way.
_TESTS = """\
import builtins
builtins.exec({text!r}, {{
  **{{k: v for k, v in builtins.globals().items()
     if k[:2] != "__" and not builtins.hasattr(builtins, k)}},
  "__name__": "__main__", "__builtins__": builtins,
}})
"""
_SECRET = secrets.token_bytes(16)


def answer_of(problem: Problem, steps: Prefix) -> str | None:
  """Returns the answer of a whole solution; None if it boxes none.

  Args:
    problem: if it has tests, the answer is the solution's program.
    steps: node texts, oldest first; the last one boxes an answer.
  """
  boxed = answers.final_answer(steps[-1])
  if boxed is None or not problem.tests:
    return boxed
  return "\n".join(each.strip("\n") for each in grammar.program(steps))


def judge(
  answered: Sequence[tuple[Problem, str]],
  grade: Grade,
  reward: Reward | None = None,
  verify: Verify | None = None,
) -> list[tuple[Verdict, float] | None]:
  """Judges answers; see `verdicts`, `passes` and `rewards`.

  Args:
    answered: (problem, answer) pairs.
    grade: compares two answers.
    reward: replaces the grader and tests, if given.
    verify: runs programs; needed if a problem has tests.

  Returns:
    The verdict and the reward of each pair; the reward is 1 or -1 by the grader
    or tests, and -1 for an undecided answer. None if the problem has nothing to
    judge by.
  """
  if reward is not None:
    return [
      ("equal" if worth > 0 else "different", worth)
      for worth in rewards(reward, answered)
    ]
  tested = [each for each in answered if each[0].tests]
  if tested and verify is None:
    raise ValueError(f"problem {tested[0][0].id} has tests, and nothing to run")
  ran = iter(passes(verify, tested) if tested else ())
  gold = [each for each in answered if each[0].judged and not each[0].tests]
  graded = iter(verdicts(grade, gold) if gold else ())
  judged: list[tuple[Verdict, float] | None] = []
  for problem, _ in answered:
    if not problem.judged:
      judged.append(None)
      continue
    verdict = next(ran if problem.tests else graded)
    judged.append((verdict, 1.0 if verdict == "equal" else -1.0))
  return judged


def passes(
  verify: Verify, answered: Sequence[tuple[Problem, str]]
) -> list[Verdict]:
  """Runs the tests of each problem after its answer, a program.

  The tests share the program's interpreter, so a report by the program that
  they passed proves nothing: they end by printing a key, which differs in each
  process of this package. Code can still cheat if it looks for the key in the
  interpreter, changes a module, or returns an object that equals everything
  (docs/security.md).

  Args:
    verify: runs programs.
    answered: (problem, program) pairs; each problem has tests.

  Returns:
    For each pair "equal" if the tests ran to their end, "undecided" if they
    timed out, since they might not on another machine, else "different".
  """
  keys, programs = [], []
  for problem, program in answered:
    # Equal pairs give equal programs, which a sandbox may run once.
    text = f"{program}\0{problem.tests}".encode()
    keys.append(hashlib.blake2b(text, digest_size=16, key=_SECRET).hexdigest())
    tests = f"{problem.tests}\nprint({keys[-1]!r})\n"
    programs.append([program, _TESTS.format(text=tests)])
  return [
    _passed(key, result)
    for key, result in zip(keys, verify(programs), strict=True)
  ]


def _passed(key: str, result: ExecResult) -> Verdict:
  if result.status == "timeout":
    return "undecided"
  ended = result.status == "ok" and result.stdout.rstrip().endswith(key)
  return "equal" if ended else "different"


def rewards(
  reward: Reward, answered: Sequence[tuple[Problem, str]]
) -> list[float]:
  """Returns the rewards of answers.

  Raises:
    PluginError: a reward is not a number from -1 to 1.
  """
  plugin = plugins.wrap(reward, "calls.reward")
  values = []
  for problem, answer in answered:
    worth = plugin(problem, answer)
    # A bool would make a wrong answer worth 0 instead of -1.
    number = isinstance(worth, numbers.Real) and not isinstance(worth, bool)
    if not (number and -1 <= worth <= 1):
      raise plugin.wrong("a number from -1 to 1", plugins.shown(worth))
    values.append(float(worth))
  return values


def verdicts(
  grade: Grade, answered: Sequence[tuple[Problem, str]]
) -> list[Verdict]:
  """Grades each answer against all right answers of its problem.

  Args:
    grade: compares two answers.
    answered: (problem, answer) pairs; each problem has a gold answer.

  Returns:
    A verdict for each pair: "equal" if any right answer is equal, else
    "undecided" if any comparison is, else "different".
  """
  pairs = [
    (gold, given)
    for problem, given in answered
    for gold in (problem.answer, *problem.alternatives)
  ]
  graded = iter(grade(pairs))
  return [
    grader.best([next(graded) for _ in (0, *problem.alternatives)])
    for problem, _ in answered
  ]
