"""A model that was never trained on the step grammar as the search's `Expand`.

It is shown the grammar by examples (`prompts.bootstrap_prompt`). The markers
are plain text to it, of several tokens, so that where a step ends is found in
the text and not by an id.
"""

import contextlib
import math
import re
import threading
from collections.abc import Collection, Sequence

import numpy as np

from rstar_jax.generate.engine import Engine, Generated
from rstar_jax.text import prompts, steps
from rstar_jax.text.tokenizer import Tokenizer
from rstar_jax.types import Candidate, Prefix


class FewShot:
  """Samples next steps; threads may share it.

  The engine goes on to the end of text or to its limit, since it knows no
  marker: what comes after the first one is cut off, and was computed in vain.

  Attributes:
    engine: counts time and tokens; see `Engine`.
    lock: held during device calls.
  """

  def __init__(
    self,
    engine: Engine,
    tokenizer: Tokenizer,
    markers: Collection[str],
    *,
    lock: contextlib.AbstractContextManager | None = None,
  ):
    """Makes the callable.

    Args:
      engine: stops at the end of text.
      tokenizer: to which the markers are plain text.
      markers: the closing markers at which a step ends, of `steps.FINISHES`.
      lock: None makes one.
    """
    self.engine = engine
    self.lock = lock or threading.Lock()
    self._tokenizer = tokenizer
    self._closing = re.compile("|".join(map(re.escape, markers)))

  def __call__(
    self,
    questions: Sequence[str],
    prefixes: Sequence[Prefix],
    seeds: np.ndarray,
  ) -> list[list[Candidate]]:
    """Samples C next steps after each prefix; see `types.Expand`.

    Args:
      questions: B questions.
      prefixes: B prefixes.
      seeds: uint32 [B, C].

    Returns:
      B lists of C candidates, in order. Of one that was cut the `logprob` is
      nan: the engine knows that of the whole only.
    """
    ids = [
      np.array(
        self._tokenizer.encode(
          prompts.bootstrap_prompt(question) + "".join(prefix)
        ),
        np.int32,
      )
      for question, prefix in zip(questions, prefixes, strict=True)
    ]
    with self.lock:
      rows = self.engine.expand(ids, seeds)
    return [[self._candidate(each) for each in row] for row in rows]

  def _candidate(self, generated: Generated) -> Candidate:
    ids = generated.token_ids
    text = self._tokenizer.decode(ids)
    marker = self._closing.search(text)
    if marker is None:
      finish = "length" if generated.stopped < 0 else "eos"
      return Candidate(text, ids, generated.logprob, finish)
    text = text[: marker.end()]
    # The fewest tokens that hold the marker; the last may hold more.
    size = next(
      n
      for n in range(1, len(ids) + 1)
      if self._closing.search(self._tokenizer.decode(ids[:n]))
    )
    return Candidate(
      text=steps.without_margin(text),
      token_ids=ids[:size],
      logprob=generated.logprob if size == len(ids) else math.nan,
      finish=steps.FINISHES[marker.group()],
    )
