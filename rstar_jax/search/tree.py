"""The search tree: one array per field, one entry per node.

One expansion adds all children of a node, so they are contiguous and formulas
over them use slices. A parent's index is lower than its children's, so loops
over indices visit parents first.

Record schema (`to_record`; `to_json` is its canonical text):

  schema: 3
  problem: {id, question, answer, source, level, also}
  growth: [[tokens, nodes, end]] after each rollout: size of the tree, and the
    answer node where the rollout ended, -1 if it failed
  failed_rollouts, expansions, tokens, undecided: int
  dropped: {reason: count} of candidates that did not become nodes
  nodes: one list per field, root first, all of equal length:
    parent (-1 at the root), kind, terminal, correct, visits: int
    value_sum: float; ppm, reward, logprob: float, null if there is none
    text, answer: str, answer null if there is none
  draws: [[parent, node, token ids, logprobs]], if the tree keeps them

Other fields are derived. Schema 2 had no ends; they are read as -1.
"""

import dataclasses
import json
import math
import operator
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from rstar_jax.types import Prefix, Problem, Trajectory

# How the PPM's values of steps are combined into the score of a trajectory.
TrajectoryValue = Literal["last", "mean", "min"]
SCHEMA = 3
_READABLE = 2, SCHEMA
ROOT_INDEX = 0
NO_PARENT = -1
NO_CHILD = -1
NO_END = -1
NO_NODE = -1

# `kind` of a node.
ROOT, STEP, CODE, ANSWER = 0, 1, 2, 3
KINDS = {"step": STEP, "code": CODE, "answer": ANSWER}

# `terminal`: whether a path ends at the node, and how.
OPEN, ANSWERED, DEAD = 0, 1, 2

# `correct`: the grader's verdict on an answer.
UNKNOWN, WRONG, RIGHT = -1, 0, 1
VERDICTS = {RIGHT: "equal", WRONG: "different", UNKNOWN: "undecided"}

# Stored columns: dtype and the root's value.
_STORED = {
  "parent": (np.int32, NO_PARENT),
  "kind": (np.int8, ROOT),
  "terminal": (np.int8, OPEN),
  "correct": (np.int8, UNKNOWN),
  "visits": (np.int32, 0),
  "value_sum": (np.float64, 0.0),
  "ppm": (np.float64, math.nan),
  "reward": (np.float64, math.nan),
  "logprob": (np.float64, 0.0),
}
_DERIVED = {
  "depth": (np.int32, 0),
  "first_child": (np.int32, NO_CHILD),
  "num_children": (np.int32, 0),
  "exhausted": (np.bool_, False),
}
_COLUMNS = _STORED | _DERIVED
# Stored columns that a `Child` has. They are read in one call: the loop is hot.
_FROM_CHILD = tuple(
  name for name in _STORED if name not in ("parent", "terminal")
)
_fields_of = operator.attrgetter(*_FROM_CHILD)
_COUNTERS = ("failed_rollouts", "expansions", "tokens", "undecided")
_FIRST_CAPACITY = 64


@dataclasses.dataclass(frozen=True)
class Child:
  """A node to add.

  Attributes:
    text: node text, with the interpreter's output if there is any.
    kind: STEP, CODE or ANSWER.
    logprob: log-probability of the policy's text, in nats; nan if unknown.
    ppm: the PPM's value of the path up to this node, nan without one.
    visits: initial visits (1 if the PPM's value counts as a visit).
    value_sum: sum of the values of these visits.
    answer: the boxed answer of an ANSWER.
    correct: UNKNOWN, WRONG or RIGHT.
    reward: the value that an ANSWER backs up when a rollout ends there.
  """

  text: str
  kind: int
  logprob: float = 0.0
  ppm: float = math.nan
  visits: int = 0
  value_sum: float = 0.0
  answer: str | None = None
  correct: int = UNKNOWN
  reward: float = math.nan


@dataclasses.dataclass(frozen=True)
class Draw:
  """One sample of the policy.

  Attributes:
    parent: the node that it follows.
    node: the last node that it became, which equal samples share; NO_NODE if it
      was dropped.
    token_ids: the sampled ids; () if the prefix was too long to go on from.
    logprobs: their log-probabilities at temperature 1, in nats, as float32.
  """

  parent: int
  node: int
  token_ids: tuple[int, ...]
  logprobs: tuple[float, ...]

  def to_record(self) -> list[Any]:
    """Returns plain JSON types, with the shortest text of each float32."""
    shortest = [float(str(np.float32(each))) for each in self.logprobs]
    return [self.parent, self.node, list(self.token_ids), shortest]


class Tree:
  """A tree of steps for one problem. Arrays have one entry per node, [N].

  Attributes:
    problem: the problem.
    parent, depth, kind, terminal, correct: see the constants above.
    visits, value_sum: N(s) and q(s) of paper Eq. 1 and 2.
    ppm: the PPM's value, nan if there is none.
    reward: the value that an answer backs up, nan for other nodes.
    logprob: log-probability of each node's own text, in nats; nan if unknown.
    first_child, num_children: children are at [first, first + num).
    exhausted: whether nothing is left to select at or below the node.
    texts, answers: lists of length N.
    growth: (tokens, nodes, end) after each rollout; NO_END if it failed.
    failed_rollouts: number of failed rollouts.
    expansions: number of expansions; identifies the seeds of the next one.
    tokens: number of tokens generated.
    undecided: number of answers without a verdict of the grader.
    dropped: candidates that did not become nodes, counted by reason.
    draws: all samples of the policy, oldest first; None if they are not kept.
  """

  parent: np.ndarray
  kind: np.ndarray
  terminal: np.ndarray
  correct: np.ndarray
  visits: np.ndarray
  value_sum: np.ndarray
  ppm: np.ndarray
  reward: np.ndarray
  logprob: np.ndarray
  depth: np.ndarray
  first_child: np.ndarray
  num_children: np.ndarray
  exhausted: np.ndarray

  def __init__(self, problem: Problem, *, keeps_draws: bool = False):
    self.problem = problem
    self.draws: list[Draw] | None = [] if keeps_draws else None
    self.texts = [""]
    self.answers: list[str | None] = [None]
    self.growth: list[tuple[int, int, int]] = []
    self.failed_rollouts = 0
    self.expansions = 0
    self.tokens = 0
    self.undecided = 0
    self.dropped: dict[str, int] = {}
    self._prefixes: list[Prefix] = [()]
    self._buffers = {
      name: np.full(_FIRST_CAPACITY, fill, dtype)
      for name, (dtype, fill) in _COLUMNS.items()
    }
    self._resize(1)

  def __len__(self) -> int:
    return len(self.texts)

  @property
  def rollouts(self) -> int:
    """Number of rollouts so far."""
    return len(self.growth)

  def end_rollout(self, end: int = NO_END) -> None:
    """Records the end of a rollout: the answer node, NO_END if it failed."""
    self.growth.append((self.tokens, len(self), end))

  def _resize(self, size: int) -> None:
    """Resizes every column to `size` entries; new ones get the fill value."""
    capacity = len(self._buffers["parent"])
    if size > capacity:
      capacity = max(size, 2 * capacity)
      for name, (dtype, fill) in _COLUMNS.items():
        grown = np.full(capacity, fill, dtype)
        grown[: len(self)] = self._buffers[name][: len(self)]
        self._buffers[name] = grown
    for name in _COLUMNS:
      setattr(self, name, self._buffers[name][:size])

  def add_children(self, node: int, children: Sequence[Child]) -> range:
    """Appends the children of an unexpanded node.

    Args:
      node: the parent.
      children: at least one child.

    Returns:
      The indices of the new nodes.

    Raises:
      ValueError: if the node has children, is terminal, or would get none.
    """
    if not children:
      raise ValueError(f"node {node} would get no children: give at least one")
    if self.num_children[node] or self.terminal[node] != OPEN:
      raise ValueError(
        f"node {node} cannot get children: it has "
        f"{self.num_children[node]} and terminal={self.terminal[node]}; "
        "children are added once, to an open node"
      )
    first, last = len(self), len(self) + len(children)
    self._resize(last)
    self.parent[first:] = node
    self.depth[first:] = self.depth[node] + 1
    columns = zip(*map(_fields_of, children), strict=True)
    for name, column in zip(_FROM_CHILD, columns, strict=True):
      getattr(self, name)[first:] = column
    answered = self.kind[first:] == ANSWER
    self.terminal[first:] = np.where(answered, ANSWERED, OPEN)
    self.first_child[node] = first
    self.num_children[node] = len(children)
    prefix = self._prefixes[node]
    self.texts += [each.text for each in children]
    self.answers += [each.answer for each in children]
    self._prefixes += [(*prefix, each.text) for each in children]
    return range(first, last)

  def children(self, node: int) -> range:
    """Returns the indices of a node's children, in order of sampling."""
    first = int(self.first_child[node])
    return range(first, first + int(self.num_children[node]))

  def leaves(self) -> list[int]:
    """Returns the nodes that can be expanded: open, and without children."""
    return np.flatnonzero(
      (self.terminal == OPEN) & (self.num_children == 0)
    ).tolist()

  def span(self, node: int) -> slice:
    """Returns the slice of a node's children in every column."""
    first = int(self.first_child[node])
    return slice(first, first + int(self.num_children[node]))

  def path(self, node: int) -> list[int]:
    """Returns the nodes from the root to a node, inclusive."""
    nodes = [node]
    while (node := int(self.parent[node])) != NO_PARENT:
      nodes.append(node)
    return nodes[::-1]

  def prefix(self, node: int) -> Prefix:
    """Returns the texts from the root's child to a node, oldest first."""
    return self._prefixes[node]

  def q(self, node: int) -> float:
    """Returns Q(s) = q(s) / N(s) (paper section 3.2).

    An unvisited node has the value that its first visit would add, if it is
    known: an answer's reward, else the PPM's value (Eq. 3), else 0 (Eq. 2).
    """
    if visits := int(self.visits[node]):
      return float(self.value_sum[node]) / visits
    for known in (float(self.reward[node]), float(self.ppm[node])):
      if not math.isnan(known):
        return known
    return 0.0

  def drop(self, reason: str) -> None:
    """Counts a candidate that does not become a node."""
    self.dropped[reason] = self.dropped.get(reason, 0) + 1

  def give_up(self, node: int) -> None:
    """Marks a leaf as dead: no candidate of it survives."""
    self.terminal[node] = DEAD
    self.close(node)

  def close(self, node: int) -> None:
    """Marks a node as exhausted, and each ancestor whose children all are.

    Visited answers and dead leaves are closed, since a second visit would
    waste a rollout (the released code skips terminal children too).
    """
    self.exhausted[node] = True
    while (node := int(self.parent[node])) != NO_PARENT:
      if not self.exhausted[self.span(node)].all():
        return
      self.exhausted[node] = True

  def to_record(self) -> dict[str, Any]:
    """Returns the tree as plain JSON types; see the module's schema."""
    nodes = {name: _plain(getattr(self, name)) for name in _STORED}
    nodes |= {"text": list(self.texts), "answer": list(self.answers)}
    record = {
      "schema": SCHEMA,
      "problem": self.problem.to_record(),
      "growth": [list(each) for each in self.growth],
      **{name: getattr(self, name) for name in _COUNTERS},
      "dropped": dict(self.dropped),
      "nodes": nodes,
    }
    if self.draws is not None:
      record["draws"] = [each.to_record() for each in self.draws]
    return record

  def to_json(self) -> str:
    """Returns one line of canonical JSON: equal trees give equal text."""
    return json.dumps(
      self.to_record(), sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def check_schema(record: dict[str, Any]) -> None:
  """Raises ValueError for a record that this code cannot read."""
  if (schema := record.get("schema")) not in _READABLE:
    raise ValueError(f"tree has schema {schema!r}, this code reads {_READABLE}")


def from_record(record: dict[str, Any], *, draws: bool = False) -> Tree:
  """Builds a tree from `Tree.to_record`.

  Args:
    record: the record.
    draws: whether the tree keeps the record's draws, if there are any.

  Raises:
    ValueError: for another schema, or columns that do not form a tree.
  """
  check_schema(record)
  tree = Tree(Problem.from_record(record["problem"]))
  for name in _COUNTERS:
    setattr(tree, name, record[name])
  tree.growth = [(*each, NO_END)[:3] for each in record["growth"]]
  tree.dropped = dict(record["dropped"])
  if draws and "draws" in record:
    tree.draws = [
      Draw(parent, node, tuple(ids), tuple(logprobs))
      for parent, node, ids, logprobs in record["draws"]
    ]
  nodes = record["nodes"]
  size = len(nodes["text"])
  for name in (*_STORED, "answer"):
    if len(nodes[name]) != size:
      raise ValueError(
        f"tree of {tree.problem.id}: nodes.{name} has {len(nodes[name])} "
        f"entries, nodes.text has {size}"
      )
  if not all(NO_END <= end < size for *_, end in tree.growth):
    raise ValueError(
      f"tree of {tree.problem.id}: growth has an end that is none of its "
      f"{size} nodes"
    )
  tree._resize(size)
  for name, (dtype, _) in _STORED.items():
    column = [math.nan if each is None else each for each in nodes[name]]
    try:
      getattr(tree, name)[:] = np.array(column, dtype)
    except (OverflowError, ValueError) as error:
      raise ValueError(
        f"tree of {tree.problem.id}: nodes.{name}: {error}"
      ) from error
  tree.texts, tree.answers = list(nodes["text"]), list(nodes["answer"])
  for node in range(1, size):
    parent = int(tree.parent[node])
    if not 0 <= parent < node or (
      tree.num_children[parent] and tree.span(parent).stop != node
    ):
      raise ValueError(
        f"tree of {tree.problem.id}: node {node} cannot have parent {parent}; "
        "parents come first and siblings lie side by side"
      )
    # The siblings lie just before the node.
    tree.first_child[parent] = node - tree.num_children[parent]
    tree.num_children[parent] += 1
    tree.depth[node] = tree.depth[parent] + 1
    tree._prefixes.append((*tree._prefixes[parent], tree.texts[node]))
  visited = (tree.terminal == ANSWERED) & (tree.visits > 0)
  for node in np.flatnonzero(visited | (tree.terminal == DEAD)):
    tree.close(int(node))
  return tree


def trajectory_value(values: Sequence[float], how: TrajectoryValue) -> float:
  """Combines the PPM's values of all steps to the score of a trajectory.

  Args:
    values: at least one, oldest first; nan for steps without a value.
    how: "last" (paper section 4.1), "mean" or "min".

  Returns:
    The score; nan if a value that it depends on is nan.
  """
  match how:
    case "last":
      return float(values[-1])
    case "mean":
      return float(np.mean(values))
    case "min":
      return float(np.min(values))
  raise ValueError(f"trajectory_value={how!r}: must be last, mean or min")


def answers_of(tree: Tree, visited_only: bool = False) -> list[int]:
  """Returns the nodes of all answers, in order of their creation.

  Args:
    tree: a searched tree.
    visited_only: whether to leave out answers at which no rollout ended.
  """
  found = tree.terminal == ANSWERED
  if visited_only:
    found &= tree.visits > 0
  return np.flatnonzero(found).tolist()


def trajectories(
  tree: Tree,
  visited_only: bool = False,
  how: TrajectoryValue = "last",
) -> list[Trajectory]:
  """Returns the paths to `answers_of` a tree.

  Args:
    tree: a searched tree.
    visited_only: see `answers_of`.
    how: combines the values of steps; see `trajectory_value`.
  """
  found = []
  for node in answers_of(tree, visited_only):
    path = tree.path(node)[1:]
    value = trajectory_value(tree.ppm[path], how)
    found.append(
      Trajectory(
        problem_id=tree.problem.id,
        question=tree.problem.question,
        steps=tree.prefix(node),
        q_values=tuple(map(tree.q, path)),
        answer=tree.answers[node] or "",
        correct=bool(tree.correct[node] == RIGHT),
        value=None if math.isnan(value) else value,
      )
    )
  return found


def solved(tree: Tree) -> bool:
  """Returns whether any answer is right."""
  return bool((tree.correct == RIGHT).any())


def _plain(column: np.ndarray) -> list[Any]:
  """Returns Python scalars, None for nan: JSON has no nan."""
  values = column.tolist()
  if column.dtype.kind != "f":
    return values
  return [None if math.isnan(each) else each for each in values]
