"""A task: its problems, the prompt, solved examples and the reward.

The step grammar is the same for all tasks (`steps/grammar.py`): code in steps,
its output, and an answer that boxes something. What the answer is, and what it
is judged by, the problem says: see `types.Problem`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rstar_jax.grading.judging import Reward
from rstar_jax.steps import prompts
from rstar_jax.types import Problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """A task. What is left out is as for mathematics.

  Attributes:
    problems: makes the problems of a split, or rows as dicts, the same ones
      each time; for the source "task:SPLIT". None: it has none of its own.
    prompt: makes the text before the first step, in training and in inference;
      it holds the question as it is.
    instruction: what a model that was not trained on the grammar is told first.
    examples: solved questions that it is shown then.
    reward: says what an answer is worth, from -1 to 1, in the place of gold
      answers and of tests; it is right above 0. None: these decide.
  """

  problems: Callable[[str], Iterable[Problem | Mapping[str, Any]]] | None = None
  prompt: prompts.Prompt = prompts.prompt
  instruction: str = prompts.INSTRUCTION
  examples: tuple[prompts.Example, ...] = prompts.DEMONSTRATIONS
  reward: Reward | None = None

  def few_shot(self, question: str) -> str:
    """Returns the prompt of a model that was not trained on the grammar."""
    return prompts.few_shot(question, self.instruction, self.examples)


MATH = Task()
