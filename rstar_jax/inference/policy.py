"""The policy as the search's `Expand`: text in, candidates out."""

import concurrent.futures
from collections.abc import Collection, Sequence

from rstar_jax.inference import futures
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.engine_client import ServedEngine
from rstar_jax.inference.generated import LOST, Generated, Stop
from rstar_jax.steps import grammar
from rstar_jax.steps.tokenizer import Tokenizer, encode_solution
from rstar_jax.types import Candidate, Finish, Prefix


def stop_finishes(tokenizer: Tokenizer) -> dict[int, Finish]:
  """Returns the finish of each stop id: a closing marker's, or "eos"."""
  finishes: dict[int, Finish] = {
    tokenizer.id_of(marker): finish
    for marker, finish in grammar.FINISHES.items()
  }
  return finishes | {tokenizer.eos_id: "eos"}


class Policy(futures.OfRows):
  """Samples next steps as text; any thread may ask.

  Attributes:
    engine: samples ids.
  """

  def __init__(
    self,
    engine: Engine | ServedEngine,
    tokenizer: Tokenizer,
    *,
    finishes: Collection[Finish] = ("step", "code", "answer"),
    limit: int | None = None,
    temperature: float | None = None,
  ):
    """Makes the callable.

    Args:
      engine: samples ids.
      tokenizer: the model's.
      finishes: the finishes whose markers end a step; the end of the text does
        always.
      limit: longest step, in tokens; None is the engine's longest.
      temperature: of samples; 0 takes the likeliest tokens, None is the
        engine's.
    """
    self.engine = engine
    self._tokenizer = tokenizer
    self._finishes = stop_finishes(tokenizer)
    self._stop = Stop(
      limit or engine.max_new_tokens,
      frozenset(
        stop
        for stop, finish in self._finishes.items()
        if finish == "eos" or finish in finishes
      ),
    )
    self._temperature = temperature

  def submit(
    self, question: str, prefix: Prefix, seeds: Sequence[int]
  ) -> concurrent.futures.Future[list[Candidate]]:
    """Asks for C next steps of a prefix.

    Args:
      question: plain text.
      prefix: node texts.
      seeds: C numbers below 2**32.
    """
    ids = encode_solution(
      self._tokenizer, self._tokenizer.prompt(question), prefix
    )
    steps = self.engine.submit(
      ids, seeds, self._stop, temperature=self._temperature, tree=question
    )
    return futures.then(steps, lambda row: list(map(self._candidate, row)))

  def _candidate(self, generated: Generated) -> Candidate:
    return Candidate(
      text=self._tokenizer.decode(generated.token_ids),
      token_ids=generated.token_ids,
      logprob=generated.logprob,
      finish=self._finish(generated.stopped),
      logprobs=generated.logprobs,
    )

  def _finish(self, stopped: int) -> Finish:
    if stopped == LOST:
      return "lost"
    return self._finishes.get(stopped, "length")
