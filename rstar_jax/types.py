"""Records that cross rooms, and the protocols of the search's callables.

A *prefix* is a partial solution: the texts of the nodes from the root's first
child to a leaf, oldest first. A node's text is what the policy wrote plus,
where the node closes a code block, the interpreter's output (see
`steps/grammar.py`).

The texts of a `Problem`, a `Candidate` and an `ExecResult` are always valid
Unicode: see `outside.valid`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from rstar_jax import outside

Prefix = tuple[str, ...]
Finish = Literal["step", "code", "answer", "eos", "length", "lost"]
Status = Literal[
  "ok", "error", "timeout", "memory", "blocked", "output_limit", "crashed"
]
Verdict = Literal["equal", "different", "undecided"]
PairKind = Literal["step", "across", "final"]


class _Texts:
  """A record that makes its texts valid Unicode."""

  def __post_init__(self):
    for name, value in vars(self).items():
      if isinstance(value, str) and (text := outside.valid(value)) != value:
        # As frozen dataclasses themselves do.
        object.__setattr__(self, name, text)


@dataclasses.dataclass(frozen=True)
class Problem(_Texts):
  """A question, and what its answers are judged by, if known.

  Attributes:
    id: unique within a data set; seeds and records are keyed by it.
    question: plain text.
    answer: gold answer (LaTeX or plain); None if there is none, as in `solve`.
    source: origin, e.g. "synthetic/orchard" or a file name.
    level: difficulty, 1 the easiest; None if unknown.
    alternatives: further right answers, any of which is accepted.
    tests: for a problem whose answer is a program, code that fails unless it
      runs after a right program; "" for a problem with a boxed answer.
  """

  id: str
  question: str
  answer: str | None = None
  source: str = ""
  level: int | None = None
  alternatives: tuple[str, ...] = ()
  tests: str = ""

  def __post_init__(self):
    super().__post_init__()
    # The letters of a text would be answers.
    if isinstance(self.alternatives, str) or not all(
      isinstance(each, str) for each in self.alternatives
    ):
      raise TypeError(
        f"alternatives={self.alternatives!r:.80}, want a tuple of texts"
      )
    if not isinstance(self.tests, str):
      # Written into a program, a list is a statement that always passes.
      raise TypeError(f"tests={self.tests!r:.80}, want a text")
    texts = (outside.valid(each) for each in self.alternatives)
    object.__setattr__(self, "alternatives", tuple(texts))

  @property
  def judged(self) -> bool:
    """Whether an answer can be judged, by a gold answer or by tests."""
    return self.answer is not None or bool(self.tests)

  def to_record(self) -> dict[str, Any]:
    """Returns plain JSON types; `alternatives` is the list "also" there."""
    record = dataclasses.asdict(self)
    if not self.tests:
      del record["tests"]
    return record | {"also": list(record.pop("alternatives"))}

  @classmethod
  def from_record(cls, record: Mapping[str, Any]) -> "Problem":
    """Builds a problem from `to_record`."""
    fields = dict(record)
    alternatives = tuple(fields.pop("also"))
    return cls(**fields, alternatives=alternatives)


@dataclasses.dataclass(frozen=True)
class Candidate(_Texts):
  """One sampled step.

  Attributes:
    text: the step with its closing marker; "" if nothing was written.
    token_ids: the sampled ids, closing marker included.
    logprob: sum of the sampled tokens' log-probabilities (nats) under the
      policy at temperature 1; nan if unknown.
    finish: the marker that closed the step; "length" at the token limit, "lost"
      if a server's response cannot be read.
    logprobs: log-probability of each token; () if unknown.
  """

  text: str
  token_ids: tuple[int, ...]
  logprob: float
  finish: Finish
  logprobs: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class ExecResult(_Texts):
  """The outcome of a program's last step in the sandbox.

  Attributes:
    status: the verdict; a step is kept only if it is "ok".
    stdout: what that step printed, truncated to the output limit.
    error: last line of the exception, "" if there was none.
    line: line of the step's code that raised, from 1; 0 if unknown.
    seconds: wall time; never recorded, since records are deterministic.
  """

  status: Status
  stdout: str = ""
  error: str = ""
  line: int = 0
  seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Trajectory:
  """A root-to-terminal path of a search tree.

  Attributes:
    steps: node texts, oldest first; the last one holds the boxed answer.
    q_values: Q of each node in [-1, 1], same length as `steps`.
    answer: the boxed answer.
    correct: whether the grader says "equal"; False if undecided.
    value: the PPM's score of the whole trajectory, None without a PPM.
  """

  problem_id: str
  question: str
  steps: Prefix
  q_values: tuple[float, ...]
  answer: str
  correct: bool
  value: float | None = None

  @property
  def mean_q(self) -> float:
    return sum(self.q_values) / len(self.q_values)


@dataclasses.dataclass(frozen=True)
class PreferencePair:
  """Two partial solutions of one question, the better one first.

  Attributes:
    chosen: node texts from the first step to the preferred step.
    rejected: the same for the other step.
    weight: 1 / (positives x negatives) of its group (paper Eq. 4).
    kind: "step": the two share all texts but the last; "across": steps after
      different prefixes; "final": full trajectories, which need not share any.
  """

  problem_id: str
  question: str
  chosen: Prefix
  rejected: Prefix
  weight: float
  kind: PairKind


class Expand(Protocol):
  """Samples next steps."""

  def __call__(
    self,
    questions: Sequence[str],
    prefixes: Sequence[Prefix],
    seeds: np.ndarray,
  ) -> list[list[Candidate]]:
    """Samples C candidates for each of B prefixes; seeds is uint32 [B, C]."""
    ...


class Score(Protocol):
  """Scores next steps with the PPM."""

  def __call__(
    self,
    questions: Sequence[str],
    prefixes: Sequence[Prefix],
    steps: Sequence[Sequence[str]],
  ) -> list[np.ndarray]:
    """Scores prefix + step for each step; float32 in [-1, 1], ragged [B][C]."""
    ...


class Verify(Protocol):
  """Runs programs, each a list of code steps, oldest first."""

  def __call__(self, programs: Sequence[Sequence[str]]) -> list[ExecResult]:
    """Returns the result of the LAST step of each program, in order."""
    ...


class Grade(Protocol):
  """Compares answers."""

  def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """Returns a verdict for each (gold, predicted) pair, in order."""
    ...
