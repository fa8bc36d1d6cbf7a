"""A task: its problems, the prompt, solved examples and the reward.

The step grammar is the same for all tasks (`steps/grammar.py`): code in steps,
its output, and a boxed answer. The problem defines what the answer is and how
it is judged: see `types.Problem`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rstar_jax.grading.judging import Reward
from rstar_jax.steps import prompts
from rstar_jax.types import Problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """A task. The defaults are those of mathematics.

  Attributes:
    problems: returns the problems of a split, or rows as dicts, always the same
      ones, for the source "task:SPLIT". None: the task has none of its own.
    prompt: returns the text before the first step, for training and inference;
      it contains the question unchanged.
    instruction: text of the few-shot prompt, before the examples, for models
      that were not trained on the grammar.
    examples: solved questions of the few-shot prompt.
    reward: returns an answer's reward, from -1 to 1, in place of gold answers
      and tests; above 0 the answer is right. None: gold answers and tests
      decide.
  """

  problems: Callable[[str], Iterable[Problem | Mapping[str, Any]]] | None = None
  prompt: prompts.Prompt = prompts.prompt
  instruction: str = prompts.INSTRUCTION
  examples: tuple[prompts.Example, ...] = prompts.DEMONSTRATIONS
  reward: Reward | None = None

  def few_shot(self, question: str) -> str:
    """Returns the prompt for a model that was not trained on the grammar."""
    return prompts.few_shot(question, self.instruction, self.examples)


MATH = Task()
