"""The policy as the search's `Expand`: text in, candidates out."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference.engine import Engine, Generated
from rstar_jax.models.transformer import Transformer
from rstar_jax.steps import grammar
from rstar_jax.steps.tokenizer import Tokenizer, encode_solution
from rstar_jax.types import Candidate, Expand, Finish, Prefix


def stop_finishes(tokenizer: Tokenizer) -> dict[int, Finish]:
  """Returns what each stop id finishes: a closing marker's, or "eos"."""
  finishes: dict[int, Finish] = {
    tokenizer.id_of(marker): finish
    for marker, finish in grammar.FINISHES.items()
  }
  return finishes | {tokenizer.eos_id: "eos"}


class Policy:
  """Samples next steps; threads may share it, each with a group of its own.

  Attributes:
    engine: samples ids, and counts time and tokens.
  """

  def __init__(self, engine: Engine, tokenizer: Tokenizer):
    self.engine = engine
    self._tokenizer = tokenizer
    self._finishes = stop_finishes(tokenizer)

  @classmethod
  def of_model(
    cls,
    model: Transformer,
    tokenizer: Tokenizer,
    config: EngineConfig,
    **options: Any,
  ) -> "Policy":
    """Makes a policy and its engine, which stops at the tokenizer's markers."""
    engine = Engine(
      model,
      config,
      stop_ids=tuple(stop_finishes(tokenizer)),
      pad_id=tokenizer.pad_id,
      **options,
    )
    return cls(engine, tokenizer)

  def begin(self, group: int) -> Expand:
    """Returns a callable for one group, whose prefix cache it empties."""
    self.engine.forget(group)
    return functools.partial(self, group=group)

  def __call__(
    self,
    questions: Sequence[str],
    prefixes: Sequence[Prefix],
    seeds: np.ndarray,
    *,
    group: int = 0,
  ) -> list[list[Candidate]]:
    """Samples C next steps after each prefix; see `types.Expand`.

    Args:
      questions: B questions.
      prefixes: B prefixes.
      seeds: uint32 [B, C].
      group: selects the prefix cache; see `Engine.expand`.

    Returns:
      B lists of C candidates.
    """
    ids = [
      np.array(
        encode_solution(
          self._tokenizer, self._tokenizer.prompt(question), prefix
        ),
        np.int32,
      )
      for question, prefix in zip(questions, prefixes, strict=True)
    ]
    rows = self.engine.expand(ids, seeds, group=group)
    return [[self._candidate(each) for each in row] for row in rows]

  def _candidate(self, generated: Generated) -> Candidate:
    return Candidate(
      text=self._tokenizer.decode(generated.token_ids),
      token_ids=generated.token_ids,
      logprob=generated.logprob,
      finish=self._finishes.get(generated.stopped, "length"),
    )
