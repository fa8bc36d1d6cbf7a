"""The process preference model as the search's `Score`: text in, values out."""

import concurrent.futures
from collections.abc import Sequence

import numpy as np

from rstar_jax.inference import futures
from rstar_jax.inference.engine_client import ServedScores
from rstar_jax.inference.scoring import ScoringEngine
from rstar_jax.steps.tokenizer import Tokenizer, encode_piece, encode_solution
from rstar_jax.types import Prefix


class Scorer(futures.OfRows):
  """Scores next steps; any thread may ask.

  A prefix is computed once for all its candidate steps, and only the part of it
  that is not in pages: mostly none, since it ends in a step that was scored.

  Attributes:
    engine: values ids.
  """

  def __init__(
    self, engine: ScoringEngine | ServedScores, tokenizer: Tokenizer
  ):
    """Makes the callable.

    Args:
      engine: of a model with a scalar head.
      tokenizer: the one that the model was trained with.
    """
    self.engine = engine
    self._tokenizer = tokenizer

  def submit(
    self, question: str, prefix: Prefix, steps: Sequence[str]
  ) -> concurrent.futures.Future[np.ndarray]:
    """Asks for the values of prefix + step, for each of C steps.

    Args:
      question: plain text.
      prefix: node texts.
      steps: node texts, of any length; no text is empty.

    Returns:
      float32 [C] in [-1, 1], the value at each step's last token.
    """
    tokenizer = self._tokenizer
    before = encode_solution(tokenizer, tokenizer.prompt(question), prefix)
    after = [encode_piece(tokenizer, step) for step in steps]
    if not all(after):
      raise ValueError("a step has no tokens: nothing to score")
    paths = [[*before, *each] for each in after]
    return self.engine.submit(paths, tree=question)
