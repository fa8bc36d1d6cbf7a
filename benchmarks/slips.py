"""How often a policy slips: its next steps after right ones, by level.

  python -m benchmarks.slips --policy=FOLDER

Samples candidates of the next step after each right beginning of solutions of
the generator's problems, and judges them (`data/synthetic/oracle.py`). Prints a
JSON line for each level and for all, of means over beginnings: the shares of
candidates that are right, wrong and unclear (most of these do not run);
"slips", wrong among right and wrong; "some_right", how often any is right;
"mostly_wrong", how often as many are wrong as right, so that a vote does not
help; "distinct", different texts that are right or wrong. And of the problems,
whole: "greedy" and "pass@1" (of --samples).
"""

import pathlib
import tempfile

import numpy as np
from absl import app, flags

import rstar_jax as rj
from benchmarks import lines
from rstar_jax import rng
from rstar_jax.data.synthetic import generator, oracle
from rstar_jax.data.synthetic.solutions import SolvedProblem
from rstar_jax.pipeline import backends
from rstar_jax.search import sampling
from rstar_jax.search.tree import RIGHT, UNKNOWN, WRONG
from rstar_jax.types import Candidate

_CONFIG = flags.DEFINE_string(
  "config", "configs/tiny_long.py", "Config file of the run."
)
_POLICY = flags.DEFINE_string(
  "policy", "", "Folder of the policy; default the config's."
)
_SPLIT = flags.DEFINE_string(
  "split", "long_validation", "The generator's split."
)
_PROBLEMS = flags.DEFINE_integer("problems", 60, "Number of problems.", 1)
_CANDIDATES = flags.DEFINE_integer("candidates", 8, "Candidates per step.", 1)
_SAMPLES = flags.DEFINE_integer("samples", 8, "Whole solutions per problem.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of sampling.")


def judge(
  solved: SolvedProblem, depth: int, found: list[Candidate]
) -> dict[str, float]:
  """Returns what candidates of one step are."""
  state: oracle.State = oracle.START
  for text in solved.steps[:depth]:
    state, _ = oracle.judge(solved, state, text)
  verdicts = [
    oracle.judge(solved, state, each.text)[1]
    if each.finish == "step"
    else UNKNOWN
    for each in found
  ]
  right, wrong = verdicts.count(RIGHT), verdicts.count(WRONG)
  texts = {
    each.text
    for each, verdict in zip(found, verdicts, strict=True)
    if verdict != UNKNOWN
  }
  return {
    "right": right / len(found),
    "wrong": wrong / len(found),
    "unclear": 1 - (right + wrong) / len(found),
    "some_right": float(right > 0),
    "mostly_wrong": float(wrong >= right),
    "distinct": len(texts),
  }


def whole(
  solved: list[SolvedProblem], backend: backends.ModelBackend
) -> list[dict[str, float]]:
  """Returns how often each problem is solved."""
  rates: list[dict[str, float]] = [{} for _ in solved]
  for name, n in (("greedy", 1), ("pass@1", _SAMPLES.value)):
    calls = backend.blocks(0.0 if name == "greedy" else None)
    found = sampling.sample(
      [each.problem for each in solved], n, calls, _SEED.value, name=("slips",)
    )
    for rate, each in zip(rates, found, strict=True):
      rate[name] = float(np.mean([one.verdict == "equal" for one in each]))
  return rates


def show(level: str, steps: list[dict], problems: list[dict]) -> None:
  means = {
    name: float(np.mean([each[name] for each in group]))
    for group in (steps, problems)
    for name in group[0]
  }
  slips = means["wrong"] / max(means["right"] + means["wrong"], 1e-9)
  lines.show(
    "slips",
    level=level,
    problems=len(problems),
    steps=len(steps),
    slips=slips,
    **means,
  )


def main(_):
  config = rj.load_config(_CONFIG.value)
  config.policy.path = _POLICY.value or config.policy.path
  solved = [generator.generate(_SPLIT.value, i) for i in range(_PROBLEMS.value)]
  cases = [
    (each, depth) for each in solved for depth in range(each.problem.level)
  ]
  with (
    tempfile.TemporaryDirectory() as folder,
    rj.open_run(config, pathlib.Path(folder)) as context,
  ):
    backend = backends.ModelBackend(context, 0)
    expand = backend.steps().expand
    found = expand(
      [each.problem.question for each, _ in cases],
      [each.steps[:depth] for each, depth in cases],
      [
        [
          rng.seed_for(_SEED.value, "slips", each.problem.id, depth, k)
          for k in range(_CANDIDATES.value)
        ]
        for each, depth in cases
      ],
    )
    steps = [
      judge(*case, list(some)) for case, some in zip(cases, found, strict=True)
    ]
    problems = whole(solved, backend)
  levels = [each.problem.level for each in solved]
  of_steps = [each.problem.level for each, _ in cases]
  for level in sorted(set(levels)):
    show(
      str(level),
      [one for one, its in zip(steps, of_steps, strict=True) if its == level],
      [one for one, its in zip(problems, levels, strict=True) if its == level],
    )
  show("all", steps, problems)


if __name__ == "__main__":
  app.run(main)
