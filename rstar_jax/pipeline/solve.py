"""Questions answered with the models of a round."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from rstar_jax.config.schema import Config, EvalConfig
from rstar_jax.evaluation import cost
from rstar_jax.grading import choose
from rstar_jax.pipeline import backends
from rstar_jax.pipeline.context import Context
from rstar_jax.search import answer, named, sampling
from rstar_jax.search import tree as tree_lib
from rstar_jax.types import Prefix, Problem


@dataclasses.dataclass(frozen=True)
class Solution:
  """The chosen trajectory of one question.

  Attributes:
    steps: its node texts.
    answer: its boxed answer.
    values: the PPM's value after each step, None without a PPM.
  """

  steps: Prefix
  answer: str
  values: list[float] | None

  def render(self) -> str:
    """Returns the steps as text, each with its value."""
    lines = []
    for number, text in enumerate(self.steps, 1):
      value = f", PPM {self.values[number - 1]:+.2f}" if self.values else ""
      lines += [f"--- step {number}{value}", text.strip("\n")]
    return "\n".join([*lines, "", f"Answer: {self.answer}"])


def solve(context: Context, round_: int, question: str) -> Solution:
  """Searches one question with the models of a round; see `solve_all`.

  Raises:
    ValueError: no candidate of the search reached an answer.
  """
  (found,) = solve_all(context, round_, [question])
  if found is None:
    raise ValueError(
      "no candidate reached an answer: ask in the words of the training "
      "problems, or give the search more rollouts or candidates"
    )
  return found


def solve_all(
  context: Context, round_: int, questions: Sequence[str]
) -> list[Solution | None]:
  """Searches questions with the models of a round.

  Args:
    context: the run.
    round_: selects the policy and the PPM. Round 0 is the base model without a
      PPM: unless `eval.reward_model` is set, it samples solutions, and their
      majority answers. A few-shot base model (`policy.prompt`) seldom writes a
      whole solution that runs, so its steps are searched, and the majority of
      the answers found is given; a search of the user's does the same.
    questions: plain text. Equal questions get equal answers.

  Returns:
    For each question the chosen trajectory with the PPM's value after each
    step; None where no candidate reached an answer.
  """
  config = context.config
  problems = [Problem(id=each, question=each) for each in questions]
  backend = backends.trained(context, round_)
  options = {"seed": config.seed, "name": ("solve",)}
  calls, search = backend.steps(), config.eval.search
  if backend.score is None and _samples(config):
    count = cost.samples_of_evaluation(config)
    sampled = sampling.sample_until(
      problems,
      count,
      backend.blocks(),
      in_flight=sampling.in_flight_of(search, count),
      **options,
    )
    return list(map(_agreed, sampled))
  if search.terminal_reward == "ppm":
    # Nothing is known of the questions but their text.
    calls = calls.replace(reward=None)
  if backend.score is None:
    calls = calls.replace(score=_no_opinion)
    search = dataclasses.replace(search, annotation="terminal")
  trees = named.search(problems, search, calls, **options)
  valued = backend.score is not None
  return [_solution(tree, config.eval, valued) for tree in trees]


def _samples(config: Config) -> bool:
  """Says whether a policy without a reward model answers by samples."""
  own_search = config.eval.search.method != "mcts"
  return config.policy.prompt != "few_shot" and not own_search


def _agreed(samples: Sequence[sampling.Sample]) -> Solution | None:
  """Returns the first sample of the majority's answer."""
  chosen = choose.majority([each.answer for each in samples])
  if chosen is None:
    return None
  return Solution(samples[chosen].steps, samples[chosen].answer or "", None)


def _solution(
  tree: tree_lib.Tree, config: EvalConfig, valued: bool
) -> Solution | None:
  """Returns the trajectory that a search answers with.

  Args:
    tree: a finished search.
    config: says how the answer is chosen.
    valued: whether a reward model guided the search; else the majority answers.
  """
  select = config.answer_select if valued else "majority"
  how = config.search.trajectory_value
  node = answer.answer_node(tree, select, how, config.top_k)
  if node is None:
    return None
  values = [float(tree.ppm[each]) for each in tree.path(node)[1:]]
  return Solution(
    tree.prefix(node), tree.answers[node] or "", values if valued else None
  )


def _no_opinion(questions, prefixes, rows) -> list[np.ndarray]:
  """Scores every step 0, in the place of a missing reward model."""
  del questions, prefixes
  return [np.zeros(len(row), np.float32) for row in rows]
