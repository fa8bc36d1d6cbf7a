"""A user's policy and reward model as the search's `Expand` and `Score`.

Both are checked, since what they return goes into trees and from there into
training data.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from rstar_jax import rng
from rstar_jax.config import plugins
from rstar_jax.config.schema import Config
from rstar_jax.types import Candidate, Finish, Prefix

_FINISHES = get_args(Finish)
# A block of more steps than this ends as too long, whatever its tokens are.
_MOST_STEPS = 64


class PluginPolicy:
  """Samples next steps with what `policy.backend` made.

  Attributes:
    generated_tokens: tokens of all candidates so far.
  """

  def __init__(self, config: Config, folder: str):
    """Makes the callable.

    Args:
      config: passed on to the function that `policy.backend` names.
      folder: the policy's, or its name.

    Raises:
      PluginError: what it made cannot be called.
    """
    self.generated_tokens = 0
    self._expand = _made(
      config.policy.backend,
      "config.policy.backend",
      "an Expand",
      config,
      folder,
    )

  def __call__(
    self,
    questions: Sequence[str],
    prefixes: Sequence[Prefix],
    seeds: np.ndarray,
  ) -> list[list[Candidate]]:
    """Samples C next steps after each prefix; see `types.Expand`.

    Raises:
      PluginError: there are not C candidates for each, or other objects.
    """
    rows = self._expand(questions, prefixes, seeds)
    wanted = f"{len(seeds)} lists of {seeds.shape[1]} Candidates"
    if not isinstance(rows, list | tuple) or len(rows) != len(seeds):
      raise self._expand.wrong(_from("an Expand", wanted), _counted(rows))
    for row in rows:
      if not isinstance(row, list | tuple) or len(row) != seeds.shape[1]:
        raise self._expand.wrong(
          _from("an Expand", wanted), f"a list of {_counted(row)}"
        )
      for each in row:
        if not _is_candidate(each):
          raise self._expand.wrong(
            _from("an Expand", f"{wanted} (text, token_ids, logprob, finish)"),
            plugins.shown(each),
          )
        self.generated_tokens += len(each.token_ids)
    return [list(row) for row in rows]


@dataclasses.dataclass
class _Block:
  """A block of code, or an answer, that is being written."""

  question: str
  prefix: Prefix
  seed: int
  written: list[Candidate] = dataclasses.field(default_factory=list)

  def joined(self, most: int) -> Candidate | None:
    """Returns all that was written, None if the block goes on."""
    ids = tuple(i for each in self.written for i in each.token_ids)
    finish = self.written[-1].finish
    if finish == "step":
      if len(ids) < most and len(self.written) < _MOST_STEPS:
        return None
      finish = "length"
    return Candidate(
      text="".join(each.text for each in self.written),
      token_ids=ids,
      logprob=sum(each.logprob for each in self.written),
      finish=finish,
    )


class Blocks:
  """Writes whole code blocks, or answers, with an `Expand` of single steps."""

  def __init__(self, expand: PluginPolicy, most: int):
    """Makes the callable.

    Args:
      expand: samples single steps.
      most: tokens at which a block that goes on is given up ("length").
    """
    self._expand = expand
    self._most = most

  def __call__(
    self,
    questions: Sequence[str],
    prefixes: Sequence[Prefix],
    seeds: np.ndarray,
  ) -> list[list[Candidate]]:
    """Samples C blocks after each prefix; see `types.Expand`."""
    blocks = [
      _Block(question, prefix, int(seed))
      for question, prefix, row in zip(questions, prefixes, seeds, strict=True)
      for seed in row
    ]
    going, step = blocks, 0
    while going:
      rows = self._expand(
        [each.question for each in going],
        [
          (*each.prefix, *(written.text for written in each.written))
          for each in going
        ],
        np.array(
          [[rng.seed_for(each.seed, "step", step)] for each in going], np.uint32
        ),
      )
      for each, (candidate,) in zip(going, rows, strict=True):
        each.written.append(candidate)
      going = [each for each in going if each.joined(self._most) is None]
      step += 1
    done = iter(blocks)
    return [[next(done).joined(self._most) for _ in row] for row in seeds]


class PluginScore:
  """Scores partial solutions with what a plugin made."""

  def __init__(self, config: Config, name: str, field: str):
    """Makes the callable.

    Args:
      config: passed on to the function.
      name: "module:function", which makes it.
      field: the config field that names it, for messages.

    Raises:
      PluginError: what it made cannot be called.
    """
    self._score = _made(name, field, "a Score", config)

  def __call__(
    self,
    questions: Sequence[str],
    prefixes: Sequence[Prefix],
    steps: Sequence[Sequence[str]],
  ) -> list[np.ndarray]:
    """Scores prefix + step for each step; see `types.Score`.

    Raises:
      PluginError: there is not a value in [-1, 1] for each.
    """
    rows = self._score(questions, prefixes, steps)
    if not isinstance(rows, list | tuple | np.ndarray) or len(rows) != len(
      steps
    ):
      wanted = _from("a Score", f"{len(steps)} arrays")
      raise self._score.wrong(wanted, _counted(rows))
    found = []
    for row, texts in zip(rows, steps, strict=True):
      wanted = _from("a Score", f"{len(texts)} values from -1 to 1")
      try:
        values = np.asarray(row, np.float32)
      except (TypeError, ValueError):
        raise self._score.wrong(wanted, plugins.shown(row)) from None
      inside = values.shape == (len(texts),) and (np.abs(values) <= 1).all()
      if not inside:
        raise self._score.wrong(wanted, plugins.shown(values.tolist()))
      found.append(values)
    return found


def _made(name: str, field: str, what: str, *args: Any) -> plugins.Plugin:
  """Returns the callable that a plugin makes, guarded as the plugin is."""
  maker = plugins.load(name, field)
  made = maker(*args)
  if not callable(made):
    raise maker.wrong(f"{what}, which can be called", plugins.shown(made))
  return plugins.Plugin(made, name, field)


def _from(what: str, wanted: str) -> str:
  return f"{what} that gives {wanted}"


def _counted(rows: Any) -> str:
  if isinstance(rows, list | tuple | np.ndarray):
    return f"{len(rows)}"
  return plugins.shown(rows)


def _is_candidate(each: Any) -> bool:
  return (
    isinstance(each, Candidate)
    and isinstance(each.text, str)
    and each.finish in _FINISHES
    and hasattr(each.token_ids, "__len__")
    and isinstance(each.logprob, int | float | np.floating)
    and not np.isinf(each.logprob)  # Trees are JSON, which has no infinity.
  )
