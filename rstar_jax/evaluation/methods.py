"""Methods: a source of solutions, and the choice among them.

A round is evaluated by some (paper section 4.1), and questions are answered by
the same, which are asked for by other names there.

"policy" is the greedy solution; "pass@k" says whether any of k samples is
right, the ceiling of "majority" and "best_of_n", which choose among the same k
samples by vote and by the PPM; "mcts" chooses among the trajectories of the
search, by `config.eval.answer_select`.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rstar_jax.evaluation import choices, sources
from rstar_jax.evaluation.choices import Normalise, Outcome, Record
from rstar_jax.grading.choose import Select
from rstar_jax.grading.voting import vote_key


class Method(NamedTuple):
  """What a method is.

  Attributes:
    source: of its records, one of `sources.SOURCES`.
    choice: among them, one of `choices.CHOICES`; None is `answer_select`.
  """

  source: str
  choice: str | None

  @property
  def needs_values(self) -> bool:
    """Whether it is nothing without a reward model; a search has its votes."""
    return self.choice in choices.VALUED


METHODS = {
  "policy": Method("greedy", "first"),
  "pass@k": Method("samples", "pass"),
  "majority": Method("samples", "majority"),
  "best_of_n": Method("samples", "best"),
  "mcts": Method("mcts", None),
}
# By the names that questions are asked with.
ASKED = {
  "greedy": METHODS["policy"],
  "majority": METHODS["majority"],
  "best_of_n": METHODS["best_of_n"],
  "search": METHODS["mcts"],
}
# Where an evaluation has solutions from, in the order of its records.
OF_EVALUATION = tuple(dict.fromkeys(each.source for each in METHODS.values()))


def by_split(
  records: Iterable[Record],
) -> dict[str, dict[str, list[Record]]]:
  """Groups records: split -> source -> records.

  Raises:
    ValueError: a record comes twice, or has an unknown source or verdict.
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
  normalise: Normalise = vote_key,
  k: int = 4,
) -> list[Outcome]:
  """Lets a method answer each problem from its records.

  Args:
    records: of the method's source; see `solutions.py`.
    method: one of `METHODS`.
    samples: how many samples the methods on samples take, the first ones.
    select: how "mcts" chooses.
    normalise: answers with the same normal form vote together.
    k: voters of "top_k".
  """
  source, choice = METHODS[method]
  units = samples_of(source, samples)
  return [
    choices.choose(
      record,
      choice or select,
      units,
      k=k,
      normalise=normalise,
    )
    for record in records
  ]


def samples_of(source: str, samples: int) -> int | None:
  """Returns how many solutions of a source count; None is all of a search."""
  found = sources.of(source)
  return None if found.guided else found.count(samples)
