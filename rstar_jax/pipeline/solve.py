"""Answers questions with the models of a round.

`Solver` holds the models. The command line, a batch and a server all use it, so
that equal questions have equal answers.
"""

import concurrent.futures
import dataclasses
import functools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np

from rstar_jax.config.schema import Config, SearchConfig
from rstar_jax.evaluation import cost, methods, sources
from rstar_jax.grading import choose
from rstar_jax.pipeline import backends
from rstar_jax.pipeline.context import Context
from rstar_jax.search import answer, driver, mcts, named, requests, sampling
from rstar_jax.search.queues import Batched
from rstar_jax.search.requests import Calls, Search
from rstar_jax.search.tree import Tree
from rstar_jax.steps import grammar
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
      samples, and stops when the vote is settled; with "best_of_n" the reward
      model chooses among samples; "search" is `eval.search`.
    samples: most solutions that are sampled, at least 1.
    rollouts: rollouts of a search.
    candidates: candidates of each expansion in a search.
  """

  method: Method
  samples: int
  rollouts: int
  candidates: int

  @property
  def how(self) -> methods.Method:
    """The method's source of solutions and its choice."""
    return methods.ASKED[self.method]

  @property
  def source(self) -> sources.Source:
    """The source of the method's solutions."""
    return sources.of(self.how.source)

  @property
  def solutions(self) -> int:
    """The most solutions that are begun for a question."""
    if self.source.guided:
      return self.rollouts * self.candidates
    return self.source.count(self.samples)


@dataclasses.dataclass(frozen=True)
class Asked:
  """A question with its budget and seed.

  Attributes:
    question: plain text.
    budget: the most that is spent on it.
    seed: any integer; equal seeds give equal solutions.
    number: tells several solutions of one question, budget and seed apart.
    temperature: sampling temperature; None is the config's. The method "greedy"
      ignores it.
  """

  question: str
  budget: Budget
  seed: int
  number: int = 0
  temperature: float | None = None

  @property
  def name(self) -> tuple[int | str, ...]:
    """The identities that the solution's seeds derive from."""
    return ("solve", self.number) if self.number else ("solve",)

  @property
  def problem(self) -> Problem:
    """The question as a problem without an answer."""
    return Problem(id=self.question, question=self.question)


@dataclasses.dataclass(frozen=True)
class Solution:
  """The chosen trajectory of one question.

  Attributes:
    steps: node texts; () without an answer.
    answer: the boxed answer; None where no candidate reached one.
    values: the reward model's value after each step, -1 to 1, None for a step
      that was not valued; None without a reward model.
    tokens: all tokens generated for the question.
    tree: the searched tree; None for samples.
    node: index of the answer's node in the tree.
    seconds: wall time of the question, while others were in flight; None for a
      search plugin.
  """

  steps: Prefix
  answer: str | None
  values: list[float | None] | None
  tokens: int = 0
  tree: Tree | None = None
  node: int | None = None
  seconds: float | None = dataclasses.field(default=None, compare=False)

  @property
  def outputs(self) -> list[str | None]:
    """What each step's program printed, None where none ran."""
    return [grammar.output_of(each) for each in self.steps]

  def to_record(self) -> dict[str, Any]:
    """Returns the solution and its cost in tokens, as plain JSON types."""
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
    values = self.values or [None] * len(self.steps)
    for number, (text, value) in enumerate(
      zip(self.steps, values, strict=True), 1
    ):
      valued = "" if value is None else f", PPM {value:+.2f}"
      lines += [f"--- step {number}{valued}", text.strip("\n")]
    return "\n".join([*lines, "", f"Answer: {self.answer}"])


def check(method: Method | None, *, valued: bool) -> None:
  """Checks a method before models are loaded.

  Args:
    method: None is the default one.
    valued: whether the round has a reward model; see `backends.scores`.

  Raises:
    ValueError: the method needs a reward model, and there is none.
  """
  if method and methods.ASKED[method].needs_values and not valued:
    raise ValueError(
      f"method={method!r} needs a reward model, and there is none: take a "
      "round that has a PPM, or another method"
    )


def able(config: Config, round_: int, *, valued: bool) -> tuple[Method, ...]:
  """Returns the methods that a round's models can do, the default one first.

  Args:
    config: the run's.
    round_: 0 is the base model.
    valued: as in `check`.
  """
  found = [
    each for each in METHODS if valued or not methods.ASKED[each].needs_values
  ]
  # Without a reward model the default is the majority. A few-shot base model is
  # the exception, since it seldom writes a whole solution that runs; so is a
  # search plugin.
  searches = valued or _by_plugin(config) or _few_shot(config, round_)
  first: Method = "search" if searches else "majority"
  return tuple(sorted(found, key=lambda each: each != first))


def _by_plugin(config: Config) -> bool:
  return config.eval.search.method != "mcts"


def _few_shot(config: Config, round_: int) -> bool:
  return not round_ and config.policy.prompt == "few_shot"


def usual(config: Config, round_: int, *, valued: bool) -> Budget:
  """Returns the budget of a question that gives none; see `able`."""
  search = config.eval.search
  return Budget(
    method=able(config, round_, valued=valued)[0],
    samples=cost.samples_of_evaluation(config),
    rollouts=search.rollouts,
    candidates=search.candidates,
  )


def solve(context: Context, round_: int, question: str) -> Solution:
  """Answers one question with the models of a round; see `solve_all`.

  Raises:
    ValueError: no candidate of the search reached an answer; see
      `Solver.why_none`.
  """
  solver = Solver(context, round_)
  solution = solver.one(Asked(question, solver.budget(), context.config.seed))
  if solution.answer is None:
    raise ValueError(solver.why_none(question))
  return solution


def solve_all(
  context: Context, round_: int, questions: Sequence[str]
) -> list[Solution | None]:
  """Answers questions with the models of a round, by `Solver.budget`.

  Args:
    context: the run.
    round_: the round that trained the models; 0 is the base model.
    questions: plain text. Equal questions get equal answers.

  Returns:
    A solution for each question; None where no candidate reached an answer.
  """
  solver = Solver(context, round_)
  seed, budget = context.config.seed, solver.budget()
  requests_ = [Asked(each, budget, seed) for each in questions]
  solutions: list[Solution | None] = [None] * len(requests_)

  def done(index: int, solution: Solution) -> None:
    solutions[index] = solution if solution.answer is not None else None

  solver.solve(requests_, done, solver.in_flight(budget))
  return solutions


class Solver:
  """Answers questions with the models of a round; any thread may call it.

  Attributes:
    backend: the policy and the reward model.
  """

  def __init__(self, context: Context, round_: int):
    """Loads the models.

    Args:
      context: the run.
      round_: the round that trained the policy and the PPM. Round 0 is the base
        model, without a reward model unless `eval.reward_model` is set.
    """
    self._context, self._round = context, round_
    self._config: Config = context.config
    self.backend = backends.trained(context, round_)
    self._lock = threading.Lock()
    self._shared: dict[str, Calls] = {}

  @property
  def methods(self) -> tuple[Method, ...]:
    """The methods that these models can do, the default one first."""
    return able(self._config, self._round, valued=self._valued)

  @property
  def any_temperature(self) -> bool:
    """Whether a question may have a temperature of its own."""
    return self.backend.any_temperature

  @property
  def longest_prompt(self) -> int:
    """The most tokens of a prompt that can be answered."""
    return self._config.engine.max_prefix_tokens

  def prompt_tokens(self, question: str) -> int:
    """Returns the number of tokens of the policy's prompt for a question."""
    # Not `encode_solution`, which would keep questions that are then refused.
    tokenizer = self.backend.tokenizer
    few_shot = _few_shot(self._config, self._round)
    prompt = self._context.task.few_shot if few_shot else tokenizer.prompt
    return len(tokenizer.bos_ids) + len(tokenizer.encode(prompt(question)))

  def why_none(self, question: str) -> str:
    """Returns why no candidate for a question reached an answer."""
    tokens, most = self.prompt_tokens(question), self.longest_prompt
    # A plugin has limits of its own.
    if tokens <= most or self._config.policy.backend:
      return NO_ANSWER
    return (
      f"the question has {tokens} tokens with its prompt, beyond "
      f"config.engine.max_prefix_tokens={most}: shorten it"
    )

  def cut(self, text: str, tokens: int) -> int:
    """Returns the number of characters in the first tokens of a text."""
    tokenizer = self._context.tokenizer
    ids = tokenizer.encode(text)
    # Decoding drops special tokens, and may compose characters.
    whole = len(ids) <= tokens
    return len(text if whole else tokenizer.decode(ids[:tokens]))

  @property
  def _valued(self) -> bool:
    return self.backend.score is not None

  def budget(self, method: Method | None = None, **given: int) -> Budget:
    """Returns a budget.

    Args:
      method: None is the first of `methods`.
      **given: fields of `Budget`; the others are those of an evaluation.

    Raises:
      ValueError: the method needs a reward model, and there is none.
    """
    check(method, valued=self._valued)
    found = usual(self._config, self._round, valued=self._valued)
    return dataclasses.replace(found, method=method or found.method, **given)

  def in_flight(self, budget: Budget) -> int:
    """Returns how many questions of a budget to keep in flight."""
    return budget.source.in_flight(self._config.eval.search, budget.samples)

  def one(self, asked: Asked) -> Solution:
    """Answers one question; see `solve`."""
    solutions: list[Solution] = []
    self.solve([asked], lambda _, solution: solutions.append(solution), 1)
    return solutions[0]

  def solve(
    self,
    asked: Sequence[Asked],
    done: Callable[[int, Solution], None],
    in_flight: int,
    *,
    watch: Callable[[int, Tree], None] | None = None,
    stop: concurrent.futures.Future | None = None,
  ) -> None:
    """Answers questions; other threads may do so at the same time.

    A solution depends on its question alone, whatever else is in flight.

    Args:
      asked: the questions.
      done: called in this thread with a question's index and its solution, in
        the order in which solutions are found.
      in_flight: most questions at once.
      watch: called in this thread with a question's index and its tree,
        whenever the tree may have grown.
      stop: ends the call when it is done; see `driver.run`.
    """
    rest: list[int] = []
    # Places of each question that a search plugin gets in one call.
    together: dict[tuple, dict[str, list[int]]] = {}
    for index, each in enumerate(asked):
      if each.budget.source.guided and _by_plugin(self._config):
        key = each.budget, each.seed, each.number, each.temperature
        group = together.setdefault(key, {})
        group.setdefault(each.question, []).append(index)
      else:
        rest.append(index)

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
      firsts = [asked[places[0]] for places in group.values()]
      trees = named.search(
        [each.problem for each in firsts],
        self._search_config(budget),
        self._calls(budget.how.source, temperature),
        seed=seed,
        name=firsts[0].name,
      )
      for places, tree in zip(group.values(), trees, strict=True):
        for index in places:
          done(index, self._of_tree(tree))

  def _calls(self, source: str, temperature: float | None = None) -> Calls:
    """Returns the callables for a source of solutions.

    At another temperature than the config's, `expand` is not shared.
    """
    calls = self._common(source)
    if temperature is None or sources.of(source).greedy:
      return calls
    own = backends.calls_of(self.backend, source, temperature)
    return calls.replace(expand=_streamed(own.expand))

  def _common(self, source: str) -> Calls:
    """Returns the callables for a source, which all threads' searches share.

    Callables that take batches get the rows of all searches, in one thread.
    """
    with self._lock:
      if source not in self._shared:
        calls = backends.calls_of(self.backend, source)
        if not sources.of(source).guided or self._terminal_is_valued:
          # Without gold answers there is no reward.
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

  def _search_config(self, budget: Budget) -> SearchConfig:
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
    """Solves one question, by a search or by samples."""
    problem, budget = each.problem, each.budget
    if budget.source.guided:
      config, tree = self._search_config(budget), Tree(problem)
      mcts.check([problem], config, self._calls(budget.how.source))
      search = mcts.search_tree(tree, config, each.seed, each.name)
      if heard is not None:
        search = _notifying(search, functools.partial(heard, tree))
      return self._of_tree((yield from search))
    return (yield from self._sampled(problem, each))

  def _sampled(self, problem: Problem, each: Asked) -> Search[Solution]:
    """Samples solutions, and chooses one."""
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
    samples = yield from sample(problem, count, each.seed, **options)
    answers = [solution.answer for solution in samples]
    if budget.how.needs_values:
      chosen = choose.best([solution.value for solution in samples])
    else:
      chosen = choose.majority(answers)
    tokens = sum(solution.tokens for solution in samples)
    if chosen is None:
      return Solution((), None, None, tokens)
    steps, values = samples[chosen].steps, None
    if self._valued:
      valued = yield [
        requests.score(problem.question, steps[:at], [text])
        for at, text in enumerate(steps)
      ]
      values = [float(value) for (value,) in valued]
    return Solution(steps, answers[chosen], values, tokens)

  def _of_tree(self, tree: Tree) -> Solution:
    """Returns the trajectory that answers a search's question."""
    config = self._config.eval
    select = config.answer_select if self._valued else "majority"
    how = config.search.trajectory_value
    node = answer.answer_node(tree, select, how, config.top_k)
    if node is None:
      return Solution((), None, None, tree.tokens, tree)
    values = None
    if self._valued:
      # NaN stands for a node that was not valued.
      path = [float(tree.ppm[each]) for each in tree.path(node)[1:]]
      values = [None if math.isnan(value) else value for value in path]
    found = tree.prefix(node), tree.answers[node]
    return Solution(*found, values, tree.tokens, tree, node)


def _streamed(call: Any) -> Any:
  """Returns a callable that has `submit`, for rows of many searches."""
  return call if hasattr(call, "submit") else Batched(call)


def _timed(search: Search[Solution]) -> Search[Solution]:
  """Adds the search's wall time to its solution."""
  began = time.monotonic()
  solution = yield from search
  return dataclasses.replace(solution, seconds=time.monotonic() - began)


def _notifying(search: Search[Tree], heard: Callable[[], None]) -> Search[Tree]:
  """Runs a search, and calls `heard` whenever its tree may have grown."""
  results = None
  while True:
    try:
      asks = search.send(results)
    except StopIteration as end:
      heard()
      return end.value
    heard()
    results = yield asks


def _no_opinion(questions, prefixes, rows) -> list[np.ndarray]:
  """Scores every step 0, in place of a missing reward model."""
  del questions, prefixes
  return [np.zeros(len(row), np.float32) for row in rows]
