"""Records that cross stages, and the callables that the search is given.

A *prefix* is a partial solution: the texts of the nodes from the root's first
child to a leaf, oldest first. A node's text is what the policy wrote plus,
where the node closes a code block, the interpreter's output (see
`steps/grammar.py`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

Prefix = tuple[str, ...]
Finish = Literal["step", "code", "answer", "eos", "length"]
Status = Literal[
  "ok", "error", "timeout", "memory", "blocked", "output_limit", "crashed"
]
Verdict = Literal["equal", "different", "undecided"]


@dataclasses.dataclass(frozen=True)
class Problem:
  """A question and, where it is known, its gold answer.

  Attributes:
    id: unique within a data set; seeds and records are keyed by it.
    question: plain text.
    answer: gold answer (LaTeX or plain), None where only asking.
    source: where it came from, e.g. "synthetic/orchard" or a file name.
    level: difficulty, 1 the easiest; None where unknown.
    also: further right answers, any of which will do.
  """

  id: str
  question: str
  answer: str | None = None
  source: str = ""
  level: int | None = None
  also: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Candidate:
  """One sampled step.

  Attributes:
    text: the step with its closing marker; "" if nothing was written.
    token_ids: the sampled ids, the closing marker included.
    logprob: sum of the sampled tokens' log-probabilities (nats) under the
      untempered policy.
    finish: which marker closed it; "length" if the token limit did.
  """

  text: str
  token_ids: tuple[int, ...]
  logprob: float
  finish: Finish


@dataclasses.dataclass(frozen=True)
class ExecResult:
  """What the sandbox saw of a program's last step.

  Attributes:
    status: the verdict; only "ok" lets a step survive.
    stdout: what that step printed, truncated to the output limit.
    error: last line of the exception, "" where there was none.
    line: of the step's code at which that was, 0 where it is not known.
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
    problem_id: the problem's id.
    question: its text.
    steps: node texts, oldest first; the last one holds the boxed answer.
    q_values: Q of each node in [-1, 1], same length as `steps`.
    answer: the boxed answer.
    correct: verdict of the grader; False where undecided.
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
    problem_id: the problem's id.
    question: its text.
    chosen: node texts from the first step to the preferred step.
    rejected: the same for the other; the two share all but the last text where
      kind is "step", and nothing need be shared where it is "final".
    weight: 1 / (positives x negatives) of its group (paper Eq. 4).
    kind: "step" or "final".
  """

  problem_id: str
  question: str
  chosen: Prefix
  rejected: Prefix
  weight: float
  kind: Literal["step", "final"]


class Expand(Protocol):
  """Samples next steps."""

  def __call__(
    self,
    questions: Sequence[str],
    prefixes: Sequence[Prefix],
    seeds: np.ndarray,
  ) -> list[list[Candidate]]:
    """Args: B questions, B prefixes, seeds uint32 [B, C]. Returns B x C."""
    ...


class Score(Protocol):
  """Values of next steps under the PPM."""

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
    """Args: (gold, predicted) pairs. Returns a verdict for each, in order."""
    ...
