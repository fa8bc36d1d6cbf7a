"""The methods that a round is evaluated by (paper section 4.1).

"policy" is the greedy solution; "pass@k" says whether any of k samples is
right, the ceiling of "majority" and "best_of_n", which choose among the same k
samples by vote and by the PPM; "mcts" chooses among the trajectories of the
search, by `config.eval.answer_select`.
"""

from collections.abc import Iterable, Sequence

from rstar_jax.evaluation import choices
from rstar_jax.evaluation.choices import Normalise, Outcome, Record
from rstar_jax.grading.choose import Select
from rstar_jax.grading.voting import vote_key

# Method -> the source of its records, and its choice among them; None is
# `answer_select`.
METHODS = {
  "policy": ("greedy", "first"),
  "pass@k": ("samples", "pass"),
  "majority": ("samples", "majority"),
  "best_of_n": ("samples", "best"),
  "mcts": ("mcts", None),
}
_SOURCES = tuple(sorted({source for source, _ in METHODS.values()}))


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
    if record["source"] not in _SOURCES:
      raise ValueError(
        f"record of {key[0]!r} has source {key[2]!r}, not one of "
        f"{', '.join(_SOURCES)}"
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
  return [
    choices.choose(
      record,
      choice or select,
      samples if source == "samples" else None,
      k=k,
      normalise=normalise,
    )
    for record in records
  ]
