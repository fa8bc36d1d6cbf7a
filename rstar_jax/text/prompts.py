"""The one renderer of prompts, used by training and by inference."""

from rstar_jax.text.steps import ASSISTANT, USER


def prompt(question: str) -> str:
  """Returns the text that precedes the first step.

  The released code trains with this text and infers with one more line break
  (spec 1.3); here both sides call this function.
  """
  return (
    f"{USER}:\n{question}\n{ASSISTANT}: "
    "Let's think step by step and solve the problem with code."
  )
