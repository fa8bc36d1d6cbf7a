"""Loads the task that `Config.task` names."""

import dataclasses

from rstar_jax.config import plugins
from rstar_jax.config.plugins import PluginError
from rstar_jax.steps import grammar, prompts
from rstar_jax.tasks import code, gym
from rstar_jax.tasks.task import MATH, Task


def load_task(name: str = "math") -> Task:
  """Returns a task.

  Args:
    name: "math", "code", "reasoning_gym:NAME", or "module:function" () -> Task.

  Raises:
    PluginError: there is no such task, or it is no `Task`. Its functions raise
      it too, when they fail or return another form.
  """
  if name == "math":
    return MATH
  if name == "code":
    return code.CODE
  if name.startswith(gym.PREFIX):
    task = gym.task(name.removeprefix(gym.PREFIX))
  else:
    plugin = plugins.load(name, "config.task", ())
    task = plugin()
    if not isinstance(task, Task):
      raise plugin.wrong("an rstar_jax.Task", plugins.shown(task))
    _check_shown(task, f"config.task={name!r}")
  return _guarded(task)


def _check_shown(task: Task, label: str) -> None:
  """Raises PluginError if the task's instruction or examples are malformed."""
  if not isinstance(task.instruction, str):
    raise PluginError(
      f"{label}: instruction must be a text, not "
      f"{plugins.shown(task.instruction)}"
    )
  if not isinstance(task.examples, list | tuple):
    raise PluginError(
      f"{label}: examples must be a tuple, not {plugins.shown(task.examples)}"
    )
  for number, each in enumerate(task.examples):
    match each:
      case (str(), (list() | tuple()) as nodes) if all(
        isinstance(node, str) for node in nodes
      ):
        reason = grammar.problem_with_solution(tuple(nodes))
      case _:
        reason = f"must be (question, (step, ...)), not {plugins.shown(each)}"
    if reason:
      raise PluginError(
        f"{label}: examples[{number}] {reason}; write it as those of rj.Task() "
        "are"
      )


def _guarded(task: Task) -> Task:
  """Returns a task whose functions raise errors of one line."""
  changes = {
    field: plugins.wrap(function, f"task.{field}")
    for field in ("problems", "reward")
    if (function := getattr(task, field)) is not None
  }
  if task.prompt is not prompts.prompt:
    changes["prompt"] = prompts.checked(
      plugins.wrap(task.prompt, "task.prompt")
    )
  return dataclasses.replace(task, **changes)
