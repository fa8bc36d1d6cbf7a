"""Tries the plugins that are quick, so that they fail before a run begins."""

from rstar_jax.config import plugins
from rstar_jax.config.schema import Config
from rstar_jax.grading import judging
from rstar_jax.grading.grader import Grader
from rstar_jax.steps import prompts
from rstar_jax.types import Problem


def try_plugins(config: Config, problem: Problem) -> None:
  """Asks the prompt, the grader and the reward about one problem.

  Args:
    config: of the run.
    problem: one of its problems; its own answer is graded, or "0".

  Raises:
    PluginError: one raises, or returns something of another form.
  """
  prompts.own(config.policy.prompt)(problem.question)
  answer = problem.answer or "0"
  function = plugins.optional(config.grader.function, "config.grader.function")
  if function:
    with Grader(workers=1, function=function) as grader:
      grader.grade([(answer, answer)])
  reward = plugins.optional(config.answer_reward, "config.answer_reward")
  if reward:
    judging.rewards(reward, [(problem, answer)])
