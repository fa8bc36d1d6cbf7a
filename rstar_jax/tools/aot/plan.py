"""Prices a reproduction of the paper: tokens of each stage, and chip-hours.

Tokens follow from the paper's sizes and from assumptions, all of them in
`Assumptions`; rates are those of compile reports, at the published peaks.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rstar_jax.config.schema import RoundConfig

# Of the paper, appendix A.1: what each round took, in GPU-hours. Days of wall
# clock times GPUs; for round 1 "about two weeks". Training is not told apart.
PAPER_GPU_HOURS = (
  ("14 days x 80 H100-80G, a 236B model", 14 * 24 * 80),
  ("3 days x 60 A100-40G", 3 * 24 * 60),
  ("3 days x 60 A100-40G", 3 * 24 * 60),
  ("7 days x 60 A100-40G", 7 * 24 * 60),
)

# Tokens that the paper's search writes for one trajectory (table 9), and
# problems of each set: MATH-500, AIME 2024, AMC 2023, OlympiadBench, College
# Math, GSM8K, Gaokao 2023.
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
  """What the plan takes for granted. (P) is the paper's; the rest are guesses.

  Attributes:
    problems: (P, section 3.4.1).
    prompt_tokens: of a question and what is around it.
    steps: of a solution, the answer included.
    step_tokens: of a step, its marker included.
    calls_terminal: expansions for each rollout where only terminals guide: 28
      for 16 rollouts, of the released code's tree with solutions of 6 steps.
    calls_ppm: the same where the PPM guides: 71 for 16 rollouts.
    unsolved: share of the problems that each round's first rollouts leave
      unsolved; what the round before left (P, table 2), none for round 1.
    later: of those, the share that is unsolved at each attempt after the next.
    kept: correct solutions of a solved problem that are trained on (P).
    solved: share of the problems that is solved after each round (P, table 2).
    sft_epochs: (P).
    mixed: share of problems that have right and wrong answers, and so pairs.
    paired_steps: steps of such a problem that give pairs.
    pairs_per_step: (P: 2 x 2).
    ppm_epochs: (P).
    test_trajectories: of each test problem, after each round (P, table 6).
    efficiency: share of the roofline's speed that programs reach.
    waste: tokens that decoding computes for each that is kept: rows that have
      ended and wait for the longest of their call.
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
  """One stage of a round.

  Attributes:
    round: from 1.
    name: "search", "sft", "ppm" or "test".
    generated: tokens that the policy writes.
    prefilled: tokens of paths that are run, beside those.
    scored: tokens that the PPM runs.
    trained: tokens of the training's batches, all epochs.
  """

  round: int
  name: str
  generated: float = 0.0
  prefilled: float = 0.0
  scored: float = 0.0
  trained: float = 0.0


def stages(rounds: Sequence[RoundConfig], a: Assumptions) -> list[Stage]:
  """Counts the tokens of every stage.

  Args:
    rounds: of a config; those of the paper by default.
    a: assumptions; as many of `solved` and `unsolved` as there are rounds.
  """
  found = []
  for number, one in enumerate(rounds, 1):
    rollouts = _rollouts(one, a.unsolved[number - 1], a) * a.problems
    guided = one.annotation == "ppm"
    calls = rollouts * (a.calls_ppm if guided else a.calls_terminal)
    generated = calls * one.candidates * a.step_tokens
    # A tree's prompt once; after that a rollout turns to another branch once,
    # and runs half a solution again.
    tails = rollouts * a.steps / 2 * a.step_tokens
    prefilled = a.problems * one.trees * a.prompt_tokens + tails
    scored = (generated + prefilled) * guided
    found.append(
      Stage(number, "search", generated, prefilled * (1 + guided), scored)
    )
    length = a.prompt_tokens + a.steps * a.step_tokens
    rows = a.problems * a.solved[number - 1] * a.kept
    found.append(Stage(number, "sft", trained=rows * length * a.sft_epochs))
    pairs = a.problems * a.mixed * a.paired_steps * a.pairs_per_step
    # A pair is its path, half a solution on the average, and two steps.
    length = a.prompt_tokens + (a.steps / 2 + 2) * a.step_tokens
    found.append(Stage(number, "ppm", trained=pairs * length * a.ppm_epochs))
    tokens = sum(count * each for count, each in TEST_SETS)
    tokens *= a.test_trajectories
    found.append(Stage(number, "test", generated=tokens, scored=tokens))
  return found


def chip_hours(
  stage: Stage, rates: Mapping[str, float], a: Assumptions
) -> float:
  """Returns the chip-hours of a stage.

  Args:
    stage: of `stages`.
    rates: tokens per second and chip at the roofline, of "expand", "advance",
      "score", "sft" and "ppm".
    a: assumptions.
  """
  seconds = stage.generated * a.waste / rates["expand"]
  seconds += stage.prefilled / rates["advance"]
  seconds += stage.scored / rates["score"]
  if stage.trained:
    seconds += stage.trained / rates[stage.name]
  return seconds / a.efficiency / 3600


def _rollouts(one: RoundConfig, unsolved: float, a: Assumptions) -> float:
  """Returns the rollouts of one problem in a round, on the average."""
  total, left = float(one.rollouts * one.trees), unsolved
  for extra in one.extra_rollouts:
    total += left * extra
    left *= a.later
  return total


def table(
  rounds: Sequence[RoundConfig],
  rates: Mapping[str, Mapping[str, float]],
  a: Assumptions,
) -> dict[str, Any]:
  """Makes the whole plan, fit for JSON.

  Args:
    rounds: of a config.
    rates: by topology; see `chip_hours`.
    a: assumptions.
  """
  found = stages(rounds, a)
  rows = []
  for stage in found:
    hours = {
      name: _round(chip_hours(stage, each, a)) for name, each in rates.items()
    }
    tokens = dataclasses.asdict(stage)
    tokens = {
      k: _round(v) if v else 0 for k, v in tokens.items() if k != "name"
    }
    rows.append({"stage": stage.name} | tokens | {"chip_hours": hours})
  return {
    "assumptions": dataclasses.asdict(a),
    "tokens_per_second_per_chip": {
      name: {program: _round(float(rate)) for program, rate in each.items()}
      for name, each in rates.items()
    },
    "stages": rows,
    "chip_hours": {
      name: _round(sum(chip_hours(stage, each, a) for stage in found))
      for name, each in rates.items()
    },
    "paper_gpu_hours": [
      {"round": number, "hardware": what, "gpu_hours": hours}
      for number, (what, hours) in enumerate(PAPER_GPU_HOURS, 1)
    ],
  }


def _round(value: float) -> float:
  return float(f"{value:.4g}") if isinstance(value, float) else value
