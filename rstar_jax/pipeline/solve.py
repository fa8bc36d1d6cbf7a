"""Questions answered with the models of a round.

`Solver` holds the models. Whoever asks (the command line, a batch, a server)
asks it, so that equal questions have equal answers.
"""

import concurrent.futures
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np

from rstar_jax.config.schema import Config
from rstar_jax.evaluation import cost, methods, sources
from rstar_jax.grading import choose
from rstar_jax.pipeline import backends
from rstar_jax.pipeline.context import Context
from rstar_jax.search import answer, driver, mcts, named, requests, sampling
from rstar_jax.search.queues import Batched
from rstar_jax.search.requests import Calls, Search
from rstar_jax.search.tree import Tree
from rstar_jax.steps import grammar
from rstar_jax.steps.tokenizer import encode_solution
from rstar_jax.types import Prefix, Problem

Method = Literal["greedy", "majority", "best_of_n", "search"]
METHODS: tuple[Method, ...] = get_args(Method)  # The keys of `methods.ASKED`.
NO_ANSWER = (
  "no candidate reached an answer: ask in the words of the training problems, "
  "or give the search more rollouts or candidates"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
  """The most that is spent on a question.

  Attributes:
    method: "greedy" takes the likeliest solution; "majority" votes among
      sampled ones, and ends when the vote is settled; of "best_of_n" the reward
      model chooses; "search" is `eval.search`.
    samples: most solutions that are sampled.
    rollouts: of a search.
    candidates: of each expansion of a search.
  """

  method: Method
  samples: int
  rollouts: int
  candidates: int

  @property
  def how(self) -> methods.Method:
    """Returns what the method is."""
    return methods.ASKED[self.method]

  @property
  def source(self) -> sources.Source:
    """Returns what it has solutions from."""
    return sources.of(self.how.source)


@dataclasses.dataclass(frozen=True)
class Asked:
  """A question.

  Attributes:
    question: plain text.
    budget: what is spent on it.
    seed: below 2**32; equal ones give equal solutions.
    number: tells solutions of one question, budget and seed apart.
    temperature: of samples, unless the method is "greedy"; None is the
      config's.
  """

  question: str
  budget: Budget
  seed: int
  number: int = 0
  temperature: float | None = None

  @property
  def name(self) -> tuple[int | str, ...]:
    """Returns the identities that seeds derive from."""
    return ("solve", self.number) if self.number else ("solve",)

  @property
  def problem(self) -> Problem:
    """Returns the question as a problem, of which nothing else is known."""
    return Problem(id=self.question, question=self.question)


@dataclasses.dataclass(frozen=True)
class Solution:
  """The chosen trajectory of one question.

  Attributes:
    steps: its node texts; () without an answer.
    answer: its boxed answer; None where no candidate reached one.
    values: the reward model's value after each step, None without one.
    tokens: all that was generated for the question.
    tree: what was searched, None of samples.
    node: of the answer in the tree.
    seconds: from the beginning to the end, while others were in flight; not
      known of a search of the user's.
  """

  steps: Prefix
  answer: str | None
  values: list[float] | None
  tokens: int = 0
  tree: Tree | None = None
  node: int | None = None
  seconds: float | None = dataclasses.field(default=None, compare=False)

  @property
  def outputs(self) -> list[str | None]:
    """Returns what each step's program printed, None where none ran."""
    return [grammar.output_of(each) for each in self.steps]

  def to_record(self) -> dict[str, Any]:
    """Returns what was found and its cost, as plain JSON types."""
    return {
      "answer": self.answer,
      "steps": list(self.steps),
      "outputs": self.outputs,
      "values": self.values,
      "tokens": self.tokens,
    }

  def render(self) -> str:
    """Returns the steps as text, each with its value."""
    lines = []
    for number, text in enumerate(self.steps, 1):
      value = f", PPM {self.values[number - 1]:+.2f}" if self.values else ""
      lines += [f"--- step {number}{value}", text.strip("\n")]
    return "\n".join([*lines, "", f"Answer: {self.answer}"])


def check(method: Method | None, *, valued: bool) -> None:
  """Checks a method, as can be done before models are loaded.

  Args:
    method: None is the usual one.
    valued: whether there is a reward model; see `backends.scores`.

  Raises:
    ValueError: there is none, and the method needs it.
  """
  if method and methods.ASKED[method].needs_values and not valued:
    raise ValueError(
      f"method={method!r} needs a reward model, and there is none: take a "
      "round that has a PPM, or another method"
    )


def solve(context: Context, round_: int, question: str) -> Solution:
  """Answers one question with the models of a round; see `solve_all`.

  Raises:
    ValueError: no candidate of the search reached an answer.
  """
  (found,) = solve_all(context, round_, [question])
  if found is None:
    raise ValueError(NO_ANSWER)
  return found


def solve_all(
  context: Context, round_: int, questions: Sequence[str]
) -> list[Solution | None]:
  """Answers questions with the models of a round, by `Solver.budget`.

  Args:
    context: the run.
    round_: selects the models; 0 is the base model.
    questions: plain text. Equal questions get equal answers.

  Returns:
    For each question its solution; None where no candidate reached an answer.
  """
  solver = Solver(context, round_)
  seed, budget = context.config.seed, solver.budget()
  asked = [Asked(each, budget, seed) for each in questions]
  found: list[Solution | None] = [None] * len(asked)

  def done(index: int, solution: Solution) -> None:
    found[index] = solution if solution.answer is not None else None

  solver.solve(asked, done, solver.in_flight(budget))
  return found


class Solver:
  """The models of a round, which answer questions; any thread may ask.

  Attributes:
    backend: the models.
  """

  def __init__(self, context: Context, round_: int):
    """Loads the models.

    Args:
      context: the run.
      round_: selects the policy and the PPM. Round 0 is the base model, without
        a PPM unless `eval.reward_model` is set.
    """
    self._context, self._round = context, round_
    self._config: Config = context.config
    self.backend = backends.trained(context, round_)
    self._lock = threading.Lock()
    self._shared: dict[str, Calls] = {}

  @property
  def methods(self) -> tuple[Method, ...]:
    """Returns the methods that can be asked for, the default one first."""
    able = [
      each
      for each in METHODS
      if self._valued or not methods.ASKED[each].needs_values
    ]
    # Without a reward model the majority answers. A few-shot base model seldom
    # writes a whole solution that runs, so its steps are searched; a search of
    # the user's does the same.
    samples = not (self._valued or self._own or self._few_shot)
    first: Method = "majority" if samples else "search"
    return tuple(sorted(able, key=lambda each: each != first))

  @property
  def any_temperature(self) -> bool:
    """Returns whether a question may have a temperature of its own."""
    return self.backend.any_temperature

  @property
  def longest_prompt(self) -> int:
    """Returns the most tokens of a question that can be answered."""
    return self._config.engine.max_prefix_tokens

  def prompt_tokens(self, question: str) -> int:
    """Returns the tokens of a question, as the policy is asked."""
    tokenizer = self._context.tokenizer
    few_shot = self._few_shot and not self._round
    prompt = self._context.task.few_shot if few_shot else tokenizer.prompt
    return len(encode_solution(tokenizer, prompt(question), ()))

  def cut(self, text: str, tokens: int) -> int:
    """Returns how many characters of a text have that many tokens."""
    tokenizer = self._context.tokenizer
    return len(tokenizer.decode(tokenizer.encode(text)[:tokens]))

  @property
  def counted(self) -> bool:
    """Returns whether the PPM's value counts as a node's first visit."""
    search = self._search_config(self.budget("search"))
    return search.annotation == "ppm" and search.ppm_counts_visit

  @property
  def _valued(self) -> bool:
    return self.backend.score is not None

  @property
  def _own(self) -> bool:
    return self._config.eval.search.method != "mcts"

  @property
  def _few_shot(self) -> bool:
    return self._config.policy.prompt == "few_shot"

  def budget(self, method: Method | None = None, **given: int) -> Budget:
    """Returns a budget.

    Args:
      method: None is the first of `methods`.
      **given: fields of `Budget`; others are as in an evaluation.

    Raises:
      ValueError: there is no reward model, which the method needs.
    """
    check(method, valued=self._valued)
    search = self._config.eval.search
    usual = {
      "samples": cost.samples_of_evaluation(self._config),
      "rollouts": search.rollouts,
      "candidates": search.candidates,
    }
    return Budget(method=method or self.methods[0], **usual | given)

  def in_flight(self, budget: Budget) -> int:
    """Returns how many questions of a budget are worth a batch."""
    return budget.source.in_flight(self._config.eval.search, budget.samples)

  def solve(
    self,
    asked: Sequence[Asked],
    done: Callable[[int, Solution], None],
    in_flight: int,
    *,
    watch: Callable[[int, Tree], None] | None = None,
    stop: concurrent.futures.Future | None = None,
  ) -> None:
    """Answers questions; others may do so at the same time.

    A solution depends on what is asked alone, whatever else is in flight.

    Args:
      asked: the questions.
      done: called with the number of a question and its solution, as each is
        there, in this thread.
      in_flight: most questions at once.
      watch: called with the number of a question and its tree as the tree
        grows, in this thread, which alone changes it.
      stop: ends this when it is done; see `driver.run`.
    """
    together: dict[tuple, list[int]] = {}
    for index, each in enumerate(asked):
      if each.budget.source.guided and self._own:
        key = each.budget, each.seed, each.number, each.temperature
        together.setdefault(key, []).append(index)
    own = {index for group in together.values() for index in group}
    rest = [index for index in range(len(asked)) if index not in own]

    def searches() -> Iterator[tuple[Search, Calls]]:
      for index in rest:
        each, heard = asked[index], None
        if watch is not None:
          heard = functools.partial(watch, index)
        search = _timed(self._search(each, heard))
        yield search, self._calls(each.budget.how.source, each.temperature)

    driver.run(
      searches(),
      in_flight,
      lambda number, solution: done(rest[number], solution),
      stop=stop,
    )
    for (budget, seed, _, temperature), group in together.items():
      trees = named.search(
        [asked[index].problem for index in group],
        self._search_config(budget),
        self._calls(budget.how.source, temperature),
        seed=seed,
        name=asked[group[0]].name,
      )
      for index, tree in zip(group, trees, strict=True):
        done(index, self._of_tree(tree))

  def _calls(self, source: str, temperature: float | None = None) -> Calls:
    """Returns the callables of a source of solutions.

    At another temperature than the config's, `expand` is a search's own.
    """
    calls = self._common(source)
    if temperature is None or sources.of(source).greedy:
      return calls
    own = backends.calls_of(self.backend, source, temperature)
    return calls.replace(expand=_streamed(own.expand))

  def _common(self, source: str) -> Calls:
    """Returns the callables of a source, which searches of all threads share.

    What takes batches gets rows of all of them, in one thread.
    """
    with self._lock:
      if source not in self._shared:
        calls = backends.calls_of(self.backend, source)
        if not sources.of(source).guided or self._terminal_is_valued:
          # Nothing is known of the questions but their text.
          calls = calls.replace(reward=None)
        if calls.score is None:
          calls = calls.replace(score=_no_opinion)
        self._shared[source] = calls.replace(
          expand=_streamed(calls.expand), score=_streamed(calls.score)
        )
      return self._shared[source]

  @property
  def _terminal_is_valued(self) -> bool:
    return self._config.eval.search.terminal_reward == "ppm"

  def _search_config(self, budget: Budget) -> Any:
    config = dataclasses.replace(
      self._config.eval.search,
      rollouts=budget.rollouts,
      candidates=budget.candidates,
    )
    if not self._valued:
      config = dataclasses.replace(config, annotation="terminal")
    return config

  def _search(
    self, each: Asked, heard: Callable[[Tree], None] | None
  ) -> Search[Solution]:
    """Searches for one question's solution."""
    problem, budget = each.problem, each.budget
    if budget.source.guided:
      config, tree = self._search_config(budget), Tree(problem)
      mcts.check([problem], config, self._calls(budget.how.source))
      search = mcts.search_tree(tree, config, each.seed, each.name)
      if heard is not None:
        search = _heard(search, functools.partial(heard, tree))
      return self._of_tree((yield from search))
    return (yield from self._sampled(problem, each))

  def _sampled(self, problem: Problem, each: Asked) -> Search[Solution]:
    """Chooses among sampled solutions."""
    budget = each.budget
    options: dict[str, Any] = {"name": each.name}
    sample = sampling.solutions
    if budget.how.choice == "majority":
      sample = sampling.solutions_until
    elif budget.how.needs_values:
      options["scored"] = True
      how = self._config.eval.search.trajectory_value
      options["trajectory_value"] = how
    count = budget.source.count(budget.samples)
    found = yield from sample(problem, count, each.seed, **options)
    answers = [one.answer for one in found]
    if budget.how.needs_values:
      chosen = choose.best([one.value for one in found])
    else:
      chosen = choose.majority(answers)
    tokens = sum(one.tokens for one in found)
    if chosen is None:
      return Solution((), None, None, tokens)
    steps, values = found[chosen].steps, None
    if self._valued:
      valued = yield [
        requests.score(problem.question, steps[:at], [text])
        for at, text in enumerate(steps)
      ]
      values = [float(value) for (value,) in valued]
    return Solution(steps, answers[chosen], values, tokens)

  def _of_tree(self, tree: Tree) -> Solution:
    """Returns the trajectory that a search answers with."""
    config = self._config.eval
    select = config.answer_select if self._valued else "majority"
    how = config.search.trajectory_value
    node = answer.answer_node(tree, select, how, config.top_k)
    if node is None:
      return Solution((), None, None, tree.tokens, tree)
    values = None
    if self._valued:
      values = [float(tree.ppm[each]) for each in tree.path(node)[1:]]
    found = tree.prefix(node), tree.answers[node]
    return Solution(*found, values, tree.tokens, tree, node)


def _streamed(call: Any) -> Any:
  """Returns a callable with `submit`."""
  return call if hasattr(call, "submit") else Batched(call)


def _timed(search: Search[Solution]) -> Search[Solution]:
  """Adds the seconds that it took."""
  began = time.monotonic()
  solution = yield from search
  return dataclasses.replace(solution, seconds=time.monotonic() - began)


def _heard(search: Search[Tree], heard: Callable[[], None]) -> Search[Tree]:
  """Searches, and calls `heard` whenever the tree may have grown."""
  found = None
  while True:
    try:
      asked = search.send(found)
    except StopIteration as end:
      heard()
      return end.value
    heard()
    found = yield asked


def _no_opinion(questions, prefixes, rows) -> list[np.ndarray]:
  """Scores every step 0, in the place of a missing reward model."""
  del questions, prefixes
  return [np.zeros(len(row), np.float32) for row in rows]
