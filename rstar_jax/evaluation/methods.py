"""Methods: a source of solutions, and the choice among them.

Rounds are evaluated by these methods (paper section 4.1), and questions are
answered by them, under the names of `ASKED`.

"policy" is the greedy solution; "pass@k" is right if any of k samples is, the
ceiling of "majority" and "best_of_n", which choose among the same k samples by
vote and by the PPM; "mcts" chooses among the trajectories of the search, by
`config.eval.answer_select`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rstar_jax.evaluation import choices, cost, sources
from rstar_jax.evaluation.choices import Outcome
from rstar_jax.evaluation.solutions import Record
from rstar_jax.grading.choose import Select


class Method(NamedTuple):
  """A source of solutions, and a choice among them.

  Attributes:
    source: one of `sources.SOURCES`.
    choice: one of `choices.CHOICES`; None is `answer_select`.
    column: head of its column in tables, as in the paper's.
    title: name in the report.
  """

  source: str
  choice: str | None
  column: str
  title: str

  @property
  def needs_values(self) -> bool:
    """Whether the choice needs a reward model; a search can choose by votes."""
    return self.choice in choices.VALUED


METHODS = {
  "policy": Method("greedy", "first", "Policy pass@1", "Policy alone"),
  "pass@k": Method("samples", "pass", "Pass@k", "Any sample right"),
  "majority": Method("samples", "majority", "Majority", "Majority vote"),
  "best_of_n": Method("samples", "best", "Best-of-N", "Best of N by PPM"),
  "mcts": Method("mcts", None, "MCTS+PPM", "Search with PPM"),
}
# Methods by the names that users of `solve` and the server give.
ASKED = {
  "greedy": METHODS["policy"],
  "majority": METHODS["majority"],
  "best_of_n": METHODS["best_of_n"],
  "search": METHODS["mcts"],
}
# Sources of an evaluation, in the order of its records.
OF_EVALUATION = tuple(dict.fromkeys(each.source for each in METHODS.values()))


def by_split(
  records: Iterable[Record],
) -> dict[str, dict[str, list[Record]]]:
  """Groups records: split -> source -> records.

  Raises:
    ValueError: a record is given twice, or has an unknown source or verdict.
  """
  splits: dict[str, dict[str, list[Record]]] = {}
  seen = set()
  for record in records:
    key = record["problem_id"], record["split"], record["source"]
    if record["source"] not in OF_EVALUATION:
      raise ValueError(
        f"record of {key[0]!r} has source {key[2]!r}, not one of "
        f"{', '.join(sorted(OF_EVALUATION))}"
      )
    for each in record["trajectories"]:
      if each["verdict"] not in choices.VERDICTS:
        raise ValueError(
          f"record of {key[0]!r} has verdict {each['verdict']!r}, not one of "
          f"{', '.join(choices.VERDICTS)}"
        )
    if key in seen:
      raise ValueError(
        f"problem {key[0]!r} of split {key[1]!r} has two {key[2]} records"
      )
    seen.add(key)
    splits.setdefault(key[1], {}).setdefault(key[2], []).append(record)
  return splits


def solve(
  records: Sequence[Record],
  method: str,
  samples: int,
  select: Select = "best",
  k: int = 4,
) -> list[Outcome]:
  """Returns a method's outcome on each problem, from records.

  Args:
    records: records of the method's source; see `solutions.py`.
    method: one of `METHODS`.
    samples: methods on samples take this many, from the first.
    select: the choice of "mcts".
    k: number of solutions that vote in "top_k", at least 1.
  """
  how = METHODS[method]
  units = samples_of(how.source, samples)
  return [
    choices.choose(each, how.choice or select, units, k=k) for each in records
  ]


def solve_split(
  by_source: Mapping[str, Sequence[Record]],
  select: Select = "best",
  k: int = 4,
) -> tuple[int, dict[str, list[Outcome]]]:
  """Returns the outcomes of all methods that a split has records for.

  Args:
    by_source: source -> records; see `by_split`.
    select, k: see `solve`.

  Returns:
    The number of samples that cost what the search costs, which methods on
    samples take; and method -> outcomes.
  """
  samples = cost.equal_samples(
    by_source.get("samples", ()), by_source.get("mcts", ())
  )
  by_method = {}
  for method, how in METHODS.items():
    group = by_source.get(how.source, ())
    if group and (not how.needs_values or choices.valued(group)):
      by_method[method] = solve(group, method, samples, select, k)
  return samples, by_method


def samples_of(source: str, samples: int) -> int | None:
  """Returns how many of a source's solutions count; None for searches: all."""
  kind = sources.of(source)
  return None if kind.guided else kind.count(samples)
