"""A model that was never trained on the step grammar as the search's `Expand`.

It is shown the grammar by examples (`prompts.bootstrap_prompt`). The markers
are plain text to it, of several tokens, so that where a step ends is found in
the text and not by an id.
"""

import functools
import math
import re
from collections.abc import Collection, Sequence

import numpy as np

from rstar_jax.inference.engine import Engine, Generated
from rstar_jax.steps import grammar, prompts
from rstar_jax.steps.tokenizer import Tokenizer
from rstar_jax.types import Candidate, Expand, Finish, Prefix


def stop_words(
  tokenizer: Tokenizer, markers: Collection[str]
) -> list[tuple[int, ...]]:
  """Returns what the engine can know of the markers: the ids of their insides.

  The first and the last character of a marker may be one token with what is
  beside it, and are left out. So the engine stops where a marker is likely, and
  `FewShot` finds out whether it is there.
  """
  words = [tuple(tokenizer.encode(marker)[1:-1]) for marker in markers]
  # Fewer ids than that may well be a word of its own.
  return [word for word in words if len(word) > 1]


class FewShot:
  """Samples next steps; threads may share it, each with a lane of its own.

  What follows the first closing marker is cut off. A model that says what its
  code prints before it has closed the code has closed it by that.

  Attributes:
    engine: counts time and tokens; see `Engine`.
  """

  def __init__(
    self,
    engine: Engine,
    tokenizer: Tokenizer,
    markers: Collection[str],
  ):
    """Makes the callable.

    Args:
      engine: stops at the end of text, and early by `stop_words`.
      tokenizer: to which the markers are plain text.
      markers: the closing markers at which a step ends, of `steps.FINISHES`.
    """
    self.engine = engine
    self._tokenizer = tokenizer
    self._closing = re.compile("|".join(map(re.escape, markers)))

  def begin(self, lane: int) -> Expand:
    """Returns this with a lane of its own, which holds nothing yet."""
    self.engine.forget(lane)
    return functools.partial(self, lane=lane)

  def __call__(
    self,
    questions: Sequence[str],
    prefixes: Sequence[Prefix],
    seeds: np.ndarray,
    *,
    lane: int = 0,
  ) -> list[list[Candidate]]:
    """Samples C next steps after each prefix; see `types.Expand`.

    Args:
      questions: B questions.
      prefixes: B prefixes.
      seeds: uint32 [B, C].
      lane: whose paths to go on from; see `Engine`.

    Returns:
      B lists of C candidates, in order. Of one that was cut the `logprob` is
      nan: the engine knows that of the whole only.
    """
    ids = [
      np.array(
        [
          *self._tokenizer.bos_ids,
          *self._tokenizer.encode(
            prompts.bootstrap_prompt(question) + "".join(prefix)
          ),
        ],
        np.int32,
      )
      for question, prefix in zip(questions, prefixes, strict=True)
    ]
    rows = self.engine.expand(ids, seeds, lane=lane)
    return [[self._candidate(each) for each in row] for row in rows]

  def _candidate(self, generated: Generated) -> Candidate:
    ids = generated.token_ids
    text = self._tokenizer.decode(ids)
    end, finish = self._end(text)
    if finish is None:
      finish = "length" if generated.stopped < 0 else "eos"
      return Candidate(text, ids, generated.logprob, finish)
    # The fewest tokens that hold the step; the last may hold more.
    size = next(
      n
      for n in range(1, len(ids) + 1)
      if len(self._tokenizer.decode(ids[:n])) >= end
    )
    text = text[:end]
    if finish == "code" and not text.endswith(grammar.END_OF_CODE):
      text = f"{text.rstrip()}\n{grammar.END_OF_CODE}"
    return Candidate(
      text=grammar.without_margin(text),
      token_ids=ids[:size],
      logprob=generated.logprob if size == len(ids) else math.nan,
      finish=finish,
    )

  def _end(self, text: str) -> tuple[int, Finish | None]:
    """Returns where a step ends in a text, and what finished it."""
    marker = self._closing.search(text)
    output = text.find(grammar.OUTPUT)
    if output > 0 and (marker is None or output < marker.start()):
      return output, "code"
    if marker is None:
      return len(text), None
    return marker.end(), grammar.FINISHES[marker.group()]
