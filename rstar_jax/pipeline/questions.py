"""Answers the questions of a file, to a file, or a person's, in turn.

A file of answers has one JSON object a line, in the order in which answers are
found:

  id, question: for a row that could not be read, its place and null
  answer: the boxed answer, null where no candidate reached one
  right: whether the answer equals the row's; null where the row has none, or
    the grader gave up
  steps: node texts
  outputs: what each step's program printed, null where none ran
  values: the reward model's value after each step, or null
  tokens: generated for the question
  seconds: wall time of the question, while others were in flight
  error: why there is no answer; left out where there is one
  round, method: which models answered, and how
  asked: a hash of all that an answer depends on except its question

Lines are written whole and flushed, so after a kill the same command goes on
with the questions that are left.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from rstar_jax import outside
from rstar_jax.config import identity
from rstar_jax.config.schema import DataConfig
from rstar_jax.data import files, shapes, sources
from rstar_jax.data.rows import ProblemError
from rstar_jax.grading import judging
from rstar_jax.pipeline import backends, models, solve
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.solve import Asked, Budget, Method, Solution, Solver
from rstar_jax.storage import json_io, manifests, metrics, stopping, store
from rstar_jax.tasks.task import MATH, Task
from rstar_jax.types import Problem

STANDARD = "-"  # In place of a file's name: standard input or output.
_GRADERS = 2
# Fields of `eval` that choose its problems, or that a budget replaces.
_OF_EVALUATION = ("data", "more", "early_problems", "samples")
_PROMPT = "question> "
_BEGINS = b'{"id": '  # The start of each line of answers.


@dataclasses.dataclass(frozen=True)
class Asking:
  """The models of a round, and the budget of a question.

  Attributes:
    solver: holds the models.
    budget: what is spent on each question.
  """

  context: Context
  round: int
  solver: Solver
  budget: Budget

  @classmethod
  def of(
    cls, context: Context, round_: int, method: Method | None = None
  ) -> "Asking":
    """Loads the models of a round; a method of None is the default one.

    Raises:
      ValueError: the round has no models, or the method needs a reward model.
    """
    solve.check(method, valued=backends.scores(context, round_))
    solver = Solver(context, round_)
    return cls(context, round_, solver, solver.budget(method))

  def asked(self, question: str) -> Asked:
    return Asked(question, self.budget, self.context.config.seed)

  def describe(self) -> str:
    """Returns one line that names the models and the method."""
    context, budget = self.context, self.budget
    who = "the base model"
    if self.round:
      who = f"round {self.round} of {context.workdir}"
    named = context.config.eval.reward_model
    ppm_round = models.ppm_round(context, self.round)
    reward = (
      named
      or (ppm_round and f"the PPM of round {ppm_round}")
      or "no reward model"
    )
    how = {
      "greedy": "its likeliest solution",
      "majority": f"the majority of at most {budget.samples} solutions",
      "best_of_n": f"the best of {budget.samples} solutions",
      "search": (
        f"a search of {budget.rollouts} rollouts x {budget.candidates} "
        "candidates"
      ),
    }
    policy = models.policy_of(context, self.round)
    return f"{who} answers by {how[budget.method]}; policy {policy}, {reward}"

  def identity(self) -> str:
    """Returns a hash of all that an answer depends on except its question."""
    context, config = self.context, self.context.config
    ppm_round = models.ppm_round(context, self.round)
    folders = [(self.round, "policy")] if self.round else []
    folders += [(ppm_round, "ppm")] if ppm_round else []
    fields = identity.of_answers(config)
    del fields["shard_size"]
    for name in _OF_EVALUATION:
      del fields["eval"][name]
    return json_io.digest(
      [
        fields,
        dataclasses.asdict(self.budget),
        *(manifests.read(context.folder(*each)) for each in folders),
      ]
    )[:16]


def answer_one(asking: Asking, question: str) -> str:
  """Returns the solution of a question as text.

  Raises:
    ValueError: no candidate reached an answer.
  """
  question = outside.valid(question)
  solution = asking.solver.one(asking.asked(question))
  if solution.answer is None:
    raise ValueError(asking.solver.why_none(question))
  return solution.render()


# The id of a row, and its problem or the reason why there is none.
Row = tuple[str, Problem | str]


def answer_file(asking: Asking, rows: Sequence[Row], target: str) -> str:
  """Answers the questions of a file that are not answered yet.

  Args:
    asking: the models and the budget.
    rows: see `read`.
    target: the file of answers, or "-" for standard output.

  Returns:
    One line: how many questions are answered, and how many of these are right.

  Raises:
    ValueError: the target is no file of answers, or its answers come from
      another model, method or config; one line.
  """
  with _Answers.opened(target, asking) as answers:
    left: list[Problem] = []
    for name, row in rows:
      question = row.question if isinstance(row, Problem) else None
      if (name, question) in answers.begun:
        continue
      answers.begun.add((name, question))
      if isinstance(row, Problem):
        left.append(row)
      else:
        answers.write({"id": name, "question": None, "error": row})
    _answer(asking, left, answers, len(rows))
    return answers.summary()


def _answer(
  asking: Asking, problems: list[Problem], answers: "_Answers", total: int
) -> None:
  """Answers questions, many in flight, and writes each answer as it comes."""
  done = total - len(problems)
  solver, context = asking.solver, asking.context
  with (
    metrics.Progress(total, "solving", start=done, unit="question") as bar,
    # The search goes on while an answer is graded.
    concurrent.futures.ThreadPoolExecutor(_GRADERS) as graders,
  ):
    graded: collections.deque[concurrent.futures.Future] = collections.deque()

    def grade(problem: Problem, solution: Solution) -> None:
      row = _row(problem, solution, _is_right(context, problem, solution))
      if solution.answer is None:
        row["error"] = solver.why_none(problem.question)
      answers.write(row)

    def found(index: int, solution: Solution) -> None:
      graded.append(graders.submit(grade, problems[index], solution))
      while graded and graded[0].done():
        graded.popleft().result()  # Raises what the grader raised.
      bar.update()

    solver.solve(
      [asking.asked(each.question) for each in problems],
      found,
      solver.in_flight(asking.budget),
    )
    for each in graded:
      each.result()


def _is_right(
  context: Context, problem: Problem, solution: Solution
) -> bool | None:
  """Returns whether a solution is right, None where that is unknown."""
  if not problem.judged:
    return None
  if solution.answer is None:
    return False
  given = judging.answer_of(problem, solution.steps)
  (judged,) = judging.judge(
    [(problem, given or solution.answer)],
    context.grader.grade,
    context.task.reward,
    context.sandbox.run,
  )
  verdict = judged[0] if judged else "undecided"
  return None if verdict == "undecided" else verdict == "equal"


def _row(
  problem: Problem, solution: Solution, right: bool | None
) -> dict[str, Any]:
  return {
    "id": problem.id,
    "question": problem.question,
    "right": right,
    **solution.to_record(),
    "seconds": solution.seconds and round(solution.seconds, 3),
  }


def read(source: str, config: DataConfig, task: Task = MATH) -> list[Row]:
  """Reads a file of questions.

  Args:
    source: any data source that ends (see `sources.FORMS`), whose rows may lack
      an answer; or "-" for lines of JSON on standard input.
    config: names the rows' fields.
    task: gives the problems of a source "task:SPLIT".

  Raises:
    ProblemError: nothing can be read.
  """
  if source == STANDARD:
    name, rows = "stdin", files.line_rows(sys.stdin.buffer, "stdin")
  else:
    name, rows = sources.open_source(source, task=task)
  own = DataConfig(
    question_field=config.question_field,
    answer_field=config.answer_field,
    answer_pattern=config.answer_pattern,
  )
  questions: list[Row] = []
  for row in rows:
    try:
      problem = shapes.problem_of(row, name, own, needs_answer=False)
    except (ProblemError, shapes.Ungraded) as error:
      questions.append((row.place, str(error)))
    else:
      questions.append((problem.id, problem))
  if not questions:
    raise ProblemError(f"{source} holds no questions")
  return questions


def check_target(target: str) -> None:
  """Checks the name of a file of answers.

  Raises:
    ValueError: it is a folder, or in a bucket.
  """
  if store.is_remote(target) or pathlib.Path(target).is_dir():
    raise ValueError(f"--out={target}: want the name of a file on the disk")


class _Answers:
  """A file of answers, or standard output.

  Attributes:
    begun: (id, question) of each line in the file.
  """

  def __init__(self, file: BinaryIO, name: str, asking: Asking):
    self.begun: set[tuple[str, str | None]] = set()
    self._file, self._name = file, name
    self._by = {
      "round": asking.round,
      "method": asking.budget.method,
      "asked": asking.identity(),
    }
    self._counts: collections.Counter[str] = collections.Counter()
    self._lock = threading.Lock()

  @classmethod
  @contextlib.contextmanager
  def opened(cls, target: str, asking: Asking) -> Iterator["_Answers"]:
    """Opens a file of answers, and reads the lines that it has.

    Raises:
      ValueError: see `answer_file`; or another process holds the file.
    """
    if target == STANDARD:
      yield cls(sys.stdout.buffer, target, asking)
      return
    check_target(target)
    path = pathlib.Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        raise ValueError(
          f"another process writes {path} now: wait for it, or give another "
          "--out"
        ) from None
      answers = cls(file, target, asking)
      answers._resume(target)
      yield answers

  def _resume(self, name: str) -> None:
    end = 0
    for number, line in enumerate(outside.lines(self._file), 1):
      cut = not line.endswith(b"\n")  # As by a kill during the write.
      try:
        row = outside.parse(line)
      except outside.Bad as error:
        if cut and line.startswith(_BEGINS):
          break
        raise ValueError(
          f"{name}:{number} {error}: give another --out"
        ) from None
      if not isinstance(row, dict) or "asked" not in row:
        raise ValueError(
          f"{name}:{number} is no answer of a question: give another --out"
        )
      if row["asked"] != self._by["asked"]:
        was, own = _round_and_method(row), _round_and_method(self._by)
        what = f"{was}, not {own}" if was != own else "another model or config"
        raise ValueError(f"{name}:{number} is of {what}: give another --out")
      if cut:
        break
      self.begun.add((row["id"], row["question"]))
      self._count(row)
      end += len(line)
    self._file.seek(end)
    self._file.truncate()

  def write(self, row: dict[str, Any]) -> None:
    """Appends a line; any thread may call this."""
    text = json.dumps(row | self._by, ensure_ascii=False, allow_nan=False)
    with (
      self._lock,
      store.writing(self._name),
      outside.to_reader(self._file),
    ):
      self._file.write(text.encode() + b"\n")
      self._file.flush()
      self._count(row)

  def _count(self, row: dict[str, Any]) -> None:
    self._counts["questions"] += 1
    self._counts["answered"] += row.get("answer") is not None
    self._counts["unread"] += row["question"] is None
    self._counts["right"] += row.get("right") is True
    self._counts["wrong"] += row.get("right") is False

  def summary(self) -> str:
    """Returns how many questions are answered, and how many of these right."""
    counts = self._counts
    text = f"{counts['answered']} of {counts['questions']} questions answered"
    if judged := counts["right"] + counts["wrong"]:
      share = 100 * counts["right"] / judged
      text += f"; {counts['right']} of {judged} right ({share:.1f}%)"
    if counts["unread"]:
      text += f"; {counts['unread']} rows could not be read"
    return text


def _round_and_method(row: dict[str, Any]) -> str:
  return f"round {row.get('round')} by {row.get('method')}"


def converse(asking: Asking) -> None:
  """Answers questions from the terminal in turn, until Ctrl-D.

  Ctrl-C stops the question that is being answered.
  """
  with contextlib.suppress(ImportError):
    # Gives `input` editing and a history.
    import readline  # noqa: F401
  outside.say("Ctrl-C stops a question, Ctrl-D ends")
  while True:
    with stopping.interrupted() as stopped:
      try:
        question = input(_PROMPT).strip()
      except EOFError:
        outside.say("")
        return
      if question:
        outside.say(_turn(asking, question))
    if stopped():
      outside.say("")


def _turn(asking: Asking, question: str) -> str:
  question = outside.valid(question)
  solution = asking.solver.one(asking.asked(question))
  if solution.answer is None:
    return asking.solver.why_none(question)
  took = f" in {solution.seconds:.1f} s" if solution.seconds else ""
  return f"{solution.render()} ({solution.tokens} tokens{took})"
