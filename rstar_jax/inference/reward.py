"""A published reward model as the search's `Score`: a baseline for the PPM."""

import concurrent.futures
from collections.abc import Sequence

import numpy as np

from rstar_jax.inference import futures
from rstar_jax.inference.scoring import ScoringEngine
from rstar_jax.steps import grammar as steps_lib
from rstar_jax.steps.tokenizer import HfTokenizer
from rstar_jax.types import Prefix


class RewardModel:
  """Scores partial solutions, each as a dialogue; any thread may ask.

  The model sees a dialogue in its own chat template: the question, and the
  solution so far without the markers. (Without a template it sees the two with
  a blank line between them.) A template may add text at the end, so that a step
  shares only the dialogue before it with the next one.

  Attributes:
    engine: values ids.
  """

  def __init__(
    self,
    engine: ScoringEngine,
    tokenizer: HfTokenizer,
    *,
    unread_id: int | None = None,
  ):
    """Makes the callable.

    Args:
      engine: of a model with a scalar head.
      tokenizer: the model's own, without added markers.
      unread_id: the pad_token_id of the model's config.json, if it has one.
        `transformers` takes the value at the last token that is another, even
        where the template ends with that id.
    """
    self.engine = engine
    self._tokenizer = tokenizer
    self._unread_id = unread_id

  def submit(
    self, question: str, prefix: Prefix, steps: Sequence[str]
  ) -> concurrent.futures.Future[np.ndarray]:
    """Asks for the values of prefix + step, for each of C steps.

    Args:
      question: plain text.
      prefix: node texts.
      steps: node texts, of any length.

    Returns:
      float32 [C] in [-1, 1], the value at the dialogue's last token.
    """
    return self.engine.submit(
      [self._read(self._dialogue(question, (*prefix, step))) for step in steps]
    )

  def __call__(
    self,
    questions: Sequence[str],
    prefixes: Sequence[Prefix],
    steps: Sequence[Sequence[str]],
  ) -> list[np.ndarray]:
    """Scores prefix + step for each step; see `types.Score`."""
    return futures.all_of(self.submit, questions, prefixes, steps)

  def _dialogue(self, question: str, nodes: Prefix) -> str:
    solution = steps_lib.MARKER.sub("", "".join(nodes)).strip()
    chat = self._tokenizer.chat(question, solution)
    return chat or f"{question}\n\n{solution}"

  def _read(self, dialogue: str) -> list[int]:
    """Returns the ids up to the token whose value is read."""
    ids = list(self._tokenizer.encode(dialogue))
    while ids and ids[-1] == self._unread_id:
      ids.pop()
    return ids
