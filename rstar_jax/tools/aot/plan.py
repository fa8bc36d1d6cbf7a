"""Prices a reproduction of the paper: tokens of each stage, and chip-hours.

Tokens follow from a config's rounds, the paper's sizes (arXiv 2501.04519) and
guesses, all in `Assumptions`. Rates are those of the programs' lower bounds at
the published peaks. The result is an estimate, not a measurement.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rstar_jax.config.schema import Config, RoundConfig
from rstar_jax.models import sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot import lower_bound, programs, report, shapes
from rstar_jax.tools.aot.chips import Slice

# The paper's hours by round (appendix A.1): days of wall clock times GPUs, with
# 14 days for "about two weeks". Training is not told apart.
PAPER_GPU_HOURS = (
  ("14 days x 80 H100-80G, a 236B model", 14 * 24 * 80),
  ("3 days x 60 A100-40G", 3 * 24 * 60),
  ("3 days x 60 A100-40G", 3 * 24 * 60),
  ("7 days x 60 A100-40G", 7 * 24 * 60),
)

# Problems, and tokens generated for a trajectory (table 9), of MATH-500, AIME
# 2024, AMC 2023, OlympiadBench, College Math, GSM8K and Gaokao 2023.
TEST_SETS = (
  (500, 5453),
  (30, 15693),
  (40, 14544),
  (675, 7889),
  (2818, 4503),
  (1319, 3299),
  (385, 6375),
)


@dataclasses.dataclass(frozen=True)
class Assumptions:
  """What the plan assumes: the paper's numbers where it is cited, and guesses.

  Attributes:
    problems: training problems (section 3.4.1).
    prompt_tokens: tokens of a question and its prompt.
    steps: steps of a solution, with the answer.
    step_tokens: tokens of a step, with its marker.
    calls_terminal: expansions per rollout under terminal-guided Q-values: 28
      for 16 rollouts, in the released code's tree with solutions of 6 steps.
    calls_ppm: expansions per rollout under the PPM's Q-values: 71 for 16.
    unsolved: share of the problems unsolved after the first rollouts of each
      round; what the round before left unsolved (table 2), none for round 1.
    later: share of those still unsolved after each attempt at extra rollouts.
    kept: solutions per solved problem in the SFT data (section 3.4.1).
    solved: share of the problems solved after each round (table 2).
    sft_epochs: epochs of SFT (appendix A.1).
    mixed: share of problems with right and wrong solutions, so with pairs.
    paired_steps: steps of such a problem that have pairs.
    pairs_per_step: pairs of each: 2 preferred x 2 others (section 3.3).
    ppm_epochs: epochs of the PPM's training (appendix A.1).
    test_trajectories: solutions per test problem after each round (table 6).
    efficiency: share of the bound's speed that programs reach, in (0, 1].
    waste: tokens decoded per token kept, at least 1: rows that have ended wait
      for the longest of their call.
  """

  problems: int = 747_000
  prompt_tokens: int = 150
  steps: int = 6
  step_tokens: int = 58
  calls_terminal: float = 28 / 16
  calls_ppm: float = 71 / 16
  unsolved: tuple[float, ...] = (0.0, 0.3983, 0.3340, 0.2214)
  later: float = 0.7
  kept: int = 2
  solved: tuple[float, ...] = (0.6017, 0.6660, 0.7786, 0.9025)
  sft_epochs: int = 2
  mixed: float = 0.5
  paired_steps: int = 3
  pairs_per_step: int = 4
  ppm_epochs: int = 1
  test_trajectories: int = 8
  efficiency: float = 0.4
  waste: float = 1.5


@dataclasses.dataclass(frozen=True)
class Stage:
  """The tokens of one stage of a round.

  Attributes:
    stage: "search", "sft", "ppm" or "test".
    round: from 1.
    generated: tokens that the policy samples.
    prefilled: tokens of paths that the policy and the PPM read besides.
    scored: tokens that the PPM scores.
    trained: tokens of the training batches, all epochs.
  """

  stage: str
  round: int
  generated: float = 0
  prefilled: float = 0
  scored: float = 0
  trained: float = 0


def stages(rounds: Sequence[RoundConfig], a: Assumptions) -> list[Stage]:
  """Counts the tokens of every stage.

  Args:
    rounds: of a config. Rounds beyond those of `a.unsolved` and `a.solved`
      repeat their last values.
    a: assumptions.
  """
  result = []
  for number, one in enumerate(rounds, 1):
    rollouts = a.problems * _rollouts(one, _of_round(a.unsolved, number), a)
    guided = one.annotation == "ppm"
    calls = rollouts * (a.calls_ppm if guided else a.calls_terminal)
    generated = calls * one.candidates * a.step_tokens
    # Each tree reads its prompt once. Each rollout turns once to another
    # branch, and reads half a solution again.
    tails = rollouts * a.steps / 2 * a.step_tokens
    prefilled = a.problems * one.trees * a.prompt_tokens + tails
    scored = (generated + prefilled) * guided
    # The PPM has a cache of its own, so it reads the paths as well.
    prefilled *= 1 + guided
    rows = a.problems * _of_round(a.solved, number) * a.kept * a.sft_epochs
    sft = rows * (a.prompt_tokens + a.steps * a.step_tokens)
    pairs = a.problems * a.mixed * a.paired_steps * a.pairs_per_step
    # A pair is its path, half a solution on average, and two steps.
    pair = a.prompt_tokens + (a.steps / 2 + 2) * a.step_tokens
    ppm = pairs * pair * a.ppm_epochs
    test = a.test_trajectories * sum(count * each for count, each in TEST_SETS)
    result += [
      Stage("search", number, generated, prefilled, scored),
      Stage("sft", number, trained=sft),
      Stage("ppm", number, trained=ppm),
      Stage("test", number, generated=test, scored=test),
    ]
  return result


def chip_hours(
  stage: Stage, rates: Mapping[str, float], a: Assumptions
) -> float:
  """Returns the chip-hours of a stage.

  Args:
    stage: of `stages`.
    rates: of `rates`.
    a: assumptions.
  """
  seconds = stage.generated * a.waste / rates["expand"]
  seconds += stage.prefilled / rates["advance"]
  seconds += stage.scored / rates["score"]
  if stage.trained:
    seconds += stage.trained / rates[stage.stage]
  return seconds / a.efficiency / 3600


def rates(
  config: Config, model: ModelConfig, where: Slice, path: int | None = None
) -> dict[str, float]:
  """Returns tokens per second and chip of each program's lower bound.

  Args:
    config: of the run; programs of the search are those of its rounds.
    model: of the policy and the PPM.
    where: the slice.
    path: tokens of the search's paths; None is the largest bucket.

  Returns:
    The rates of "expand", "advance", "score", "sft" and "ppm".

  Raises:
    ValueError: a path beyond the buckets, or a mesh that a host does not make.
  """
  host = where.host
  mesh = report.abstract_mesh(config.search_mesh, host)
  sizes = shapes.of_config(config, model, mesh, "rollout", path)
  tokens = {
    "expand": sizes.leaves * sizes.candidates * sizes.step,
    "advance": sizes.moved * sizes.tail,
    "score": sizes.scored * sizes.columns * sizes.scored_step,
  }
  result = {}
  for name, count in tokens.items():
    bound = lower_bound.search(name, model, sizes, sharding.row_shards(mesh))
    result[name] = count / bound.seconds(host) / host.chips
  for name in programs.TRAINING:
    training = getattr(config, name)
    rows, length = training.batch_size, training.length
    bound = lower_bound.training(
      model, rows=rows, length=length, head=name == "sft"
    )
    result[name] = rows * length / bound.seconds(where) / where.chips
  return result


def table(
  rounds: Sequence[RoundConfig],
  rates: Mapping[str, Mapping[str, float]],
  a: Assumptions,
) -> dict[str, Any]:
  """Makes the whole plan, fit for JSON.

  Args:
    rounds: of a config.
    rates: by topology, those of `rates`.
    a: assumptions.
  """
  found = stages(rounds, a)
  hours = [
    {name: chip_hours(stage, each, a) for name, each in rates.items()}
    for stage in found
  ]
  return {
    "assumptions": dataclasses.asdict(a),
    "tokens_per_second_per_chip": {
      name: _rounded(each) for name, each in rates.items()
    },
    "stages": [
      _rounded(dataclasses.asdict(stage)) | {"chip_hours": _rounded(each)}
      for stage, each in zip(found, hours, strict=True)
    ],
    "chip_hours": _rounded(
      {name: sum(each[name] for each in hours) for name in rates}
    ),
    "paper_gpu_hours": [
      {"round": number, "hardware": hardware, "gpu_hours": total}
      for number, (hardware, total) in enumerate(PAPER_GPU_HOURS, 1)
    ],
  }


def _rollouts(one: RoundConfig, unsolved: float, a: Assumptions) -> float:
  """Returns a problem's rollouts in a round, on average."""
  total = one.rollouts * one.trees
  for extra in one.extra_rollouts:
    total += unsolved * extra
    unsolved *= a.later
  return total


def _of_round(values: Sequence[float], number: int) -> float:
  return values[min(number, len(values)) - 1]


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
  """Keeps four significant digits of the floats."""
  return {
    name: report.significant(value) if isinstance(value, float) else value
    for name, value in values.items()
  }
