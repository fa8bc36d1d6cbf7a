"""An untrained model as the search's `Expand`: it sees the grammar in examples.

`prompts.few_shot` shows the model the step grammar. For the model a marker is
plain text of several tokens, so the end of a step is found in the text and not
by an id.
"""

import concurrent.futures
import re
from collections.abc import Collection, Sequence

from rstar_jax.inference import futures
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.engine_client import ServedEngine
from rstar_jax.inference.generated import BY_LENGTH, LOST, Generated, Stop
from rstar_jax.steps import grammar, prompts
from rstar_jax.steps.tokenizer import Tokenizer
from rstar_jax.types import Candidate, Finish, Prefix


def stop_words(
  tokenizer: Tokenizer, markers: Collection[str]
) -> list[tuple[int, ...]]:
  """Returns the ids within each marker, after which the engine stops.

  The first and the last character of a marker are left out, since a token may
  join them with the text beside them. So the engine stops where a marker is
  likely, and `FewShot` checks the text.
  """
  words = [tuple(tokenizer.encode(marker)[1:-1]) for marker in markers]
  # A single id may also be a word of the text.
  return [word for word in words if len(word) > 1]


class FewShot(futures.OfRows):
  """Samples next steps as text; any thread may ask.

  Text after the first closing marker is cut off. An output marker that comes
  before the end of the code ends the code.

  Attributes:
    engine: samples ids.
  """

  def __init__(
    self,
    engine: Engine | ServedEngine,
    tokenizer: Tokenizer,
    markers: Collection[str],
    *,
    limit: int | None = None,
    temperature: float | None = None,
    prompt: prompts.Prompt = prompts.few_shot,
  ):
    """Makes the callable.

    Args:
      engine: samples ids.
      tokenizer: one that has no ids for the markers.
      markers: the closing markers that end a step, of `grammar.FINISHES`.
      limit: longest step, in tokens; None is the engine's longest.
      temperature: of samples; 0 takes the likeliest tokens, None is the
        engine's.
      prompt: shows the grammar, and asks a question.
    """
    self.engine = engine
    self._tokenizer = tokenizer
    self._closing = re.compile("|".join(map(re.escape, markers)))
    self._stop = Stop(
      limit or engine.max_new_tokens,
      frozenset([tokenizer.eos_id]),
      tuple(stop_words(tokenizer, markers)),
      tuple(markers),
    )
    self._temperature = temperature
    self._prompt = prompt

  def submit(
    self, question: str, prefix: Prefix, seeds: Sequence[int]
  ) -> concurrent.futures.Future[list[Candidate]]:
    """Asks for C next steps of a prefix; see `Policy.submit`.

    The `logprob` of a candidate that is cut is that of the tokens it keeps.
    """
    text = self._prompt(question) + "".join(prefix)
    ids = [*self._tokenizer.bos_ids, *self._tokenizer.encode(text)]
    steps = self.engine.submit(
      ids, seeds, self._stop, temperature=self._temperature, tree=question
    )
    return futures.then(steps, lambda row: list(map(self._candidate, row)))

  def _candidate(self, generated: Generated) -> Candidate:
    ids = generated.token_ids
    text = self._tokenizer.decode(ids)
    end, finish = self._end(text)
    if finish is None:
      finish = {BY_LENGTH: "length", LOST: "lost"}.get(generated.stopped, "eos")
      return Candidate(text, ids, generated.logprob, finish, generated.logprobs)
    # The fewest tokens that cover the step; the last may reach beyond it.
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
      logprob=sum(generated.logprobs[:size]),
      finish=finish,
      logprobs=generated.logprobs[:size],
    )

  def _end(self, text: str) -> tuple[int, Finish | None]:
    """Returns the end of the step in a text, and what finished it."""
    marker = self._closing.search(text)
    output = text.find(grammar.OUTPUT)
    if output > 0 and (marker is None or output < marker.start()):
      return output, "code"
    if marker is None:
      return len(text), None
    return marker.end(), grammar.FINISHES[marker.group()]
