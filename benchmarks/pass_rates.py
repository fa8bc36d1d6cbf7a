"""How often a policy solves problems, by their level.

  python -m benchmarks.pass_rates --config=configs/smollm2_gsm8k.py:cold \\
    --data=cold/validation.jsonl

Prints a JSON line for each level and for all: "greedy", the share solved at
temperature 0; "pass@1", the mean over --samples that are drawn as the config
says, and "pass@k", whether any of them is right; "majority", of their vote;
"tokens" of a sample; "steps", by the number of steps of a sample that answers:
the share of these samples, and of them the share that is right; and what
becomes of samples, by their status. "low" and "high" are the 95% bootstrap
interval of pass@1 over problems.

With --out=FILE each problem's rates go there, as a row {"id", "pass@1",
"greedy"}; with --less=FILE "less" is the mean difference of pass@1 to those of
an earlier run, paired by problem, with its interval.
"""

import collections
import json
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import app, flags

import rstar_jax as rj
from benchmarks import lines
from rstar_jax.data import problems as problems_lib
from rstar_jax.evaluation import intervals
from rstar_jax.grading import choose
from rstar_jax.pipeline import backends
from rstar_jax.search import sampling

_CONFIG = flags.DEFINE_string(
  "config", "configs/tiny.py", "Config file of the run."
)
_POLICY = flags.DEFINE_string(
  "policy", "", "Folder of the policy; default the config's."
)
_DATA = flags.DEFINE_string("data", "", "Problems; default the evaluation's.")
_PROBLEMS = flags.DEFINE_integer("problems", 60, "Problems per level.", 1)
_LEVELS = flags.DEFINE_list("levels", [], "Levels of problems; default all.")
_SAMPLES = flags.DEFINE_integer("samples", 8, "Samples per problem.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of sampling.")
_OUT = flags.DEFINE_string("out", "", "File for each problem's rates.")
_LESS = flags.DEFINE_string("less", "", "File of rates to compare with.")

Found = tuple[sampling.Sample, list[sampling.Sample]]


def rates(problem_id: str, found: Found) -> dict[str, Any]:
  """Returns the row of a problem."""
  greedy, samples = found
  return {
    "id": problem_id,
    "pass@1": float(np.mean([each.verdict == "equal" for each in samples])),
    "greedy": greedy.verdict == "equal",
  }


def less(
  rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
  """Returns how much more often problems are solved than they were.

  Args:
    rows: of `rates`.
    others: likewise, of the same problems and perhaps more.

  Raises:
    ValueError: a problem is not among the others.
  """
  before = {each["id"]: each["pass@1"] for each in others}
  missing = [each["id"] for each in rows if each["id"] not in before]
  if missing:
    raise ValueError(f"--less: there are no rates of {missing[0]}")
  apart = np.array([each["pass@1"] - before[each["id"]] for each in rows])
  low, high = intervals.bootstrap(apart, 0)
  return {"less": [float(apart.mean()), low, high]}


def describe(found: Sequence[Found]):
  """Returns the figures of problems: each one's greedy solution and samples."""
  greedy = [one.verdict == "equal" for one, _ in found]
  right = np.array(
    [[each.verdict == "equal" for each in samples] for _, samples in found]
  )
  voted = []
  for row, (_, samples) in zip(right, found, strict=True):
    chosen = choose.majority([each.answer for each in samples])
    voted.append(chosen is not None and bool(row[chosen]))
  every = [each for _, samples in found for each in samples]
  low, high = intervals.bootstrap(right.mean(axis=1), 0)
  statuses = collections.Counter(each.status for each in every)
  lengths = collections.defaultdict(list)
  for each in every:
    if each.answer is not None:
      lengths[len(each.steps)].append(each.verdict == "equal")
  answered = sum(map(len, lengths.values()))
  return {
    "greedy": float(np.mean(greedy)),
    "pass@1": float(right.mean()),
    "low": low,
    "high": high,
    "majority": float(np.mean(voted)),
    f"pass@{right.shape[1]}": float(right.any(axis=1).mean()),
    "tokens": float(np.mean([each.tokens for each in every])),
    "steps": {
      length: [round(len(part) / answered, 3), round(float(np.mean(part)), 3)]
      for length, part in sorted(lengths.items())
    },
    "statuses": {
      name: round(count / len(every), 3)
      for name, count in statuses.most_common()
    },
  }


def main(_):
  before = []
  if _LESS.value:
    kept = pathlib.Path(_LESS.value).read_text().splitlines()
    before = [json.loads(line) for line in kept]
  config = rj.load_config(_CONFIG.value)
  config.policy.path = _POLICY.value or config.policy.path
  if _DATA.value:
    config.eval.data = rj.DataConfig(source=_DATA.value)
  groups: dict[str, list] = {}
  for problem in problems_lib.load_problems(config.eval.data):
    level = str(problem.level)
    if not _LEVELS.value or level in _LEVELS.value:
      groups.setdefault(level, []).append(problem)
  groups = {
    level: group[: _PROBLEMS.value] for level, group in sorted(groups.items())
  }
  asked = [problem for group in groups.values() for problem in group]
  with (
    tempfile.TemporaryDirectory() as folder,
    rj.open_run(config, pathlib.Path(folder)) as context,
  ):
    backend = backends.ModelBackend(context, 0)

    def solve(
      count: int, temperature: float | None = None
    ) -> list[list[sampling.Sample]]:
      # So many problems that one sample of each fills the engine.
      return sampling.sample(
        asked,
        count,
        backend.blocks(temperature),
        _SEED.value,
        in_flight=config.engine.rows,
        name=("pass_rates",),
      )

    greedy = [one for (one,) in solve(1, 0.0)]
    samples = solve(_SAMPLES.value)
  found = list(zip(greedy, samples, strict=True))
  rows = [
    rates(problem.id, one) for problem, one in zip(asked, found, strict=True)
  ]
  if _OUT.value:
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    pathlib.Path(_OUT.value).write_text(text)
  for level in [*groups, "all"]:
    here = [
      n
      for n, problem in enumerate(asked)
      if level in (str(problem.level), "all")
    ]
    figures = describe([found[n] for n in here])
    if before:
      figures |= less([rows[n] for n in here], before)
    lines.show("pass_rates", level=level, problems=len(here), **figures)


if __name__ == "__main__":
  app.run(main)
