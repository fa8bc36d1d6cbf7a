"""Prices a reproduction of the paper, in tokens and chip-hours per stage.

Tokens follow from a config's stages, the paper's sizes (arXiv 2501.04519) and
guesses, all in `Assumptions`. Seconds are those of `cost.py`, as in the
simulation of a fleet (benchmarks/fleet.py). The result is an estimate, not a
measurement.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rstar_jax.config.schema import Config, RoundConfig
from rstar_jax.inference.sizes import Sizes
from rstar_jax.models import meshes
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot import cost, programs
from rstar_jax.tools.aot.chips import Slice
from rstar_jax.tools.aot.cost import Work

# The paper's GPU-hours by round (appendix A.1): days of wall time times GPUs,
# with 14 days for "about two weeks". Training is not listed separately.
PAPER_GPU_HOURS = (
  ("14 days x 80 H100-80G, a 236B model", 14 * 24 * 80),
  ("3 days x 60 A100-40G", 3 * 24 * 60),
  ("3 days x 60 A100-40G", 3 * 24 * 60),
  ("7 days x 60 A100-40G", 7 * 24 * 60),
)

# Stages of a round, in order; a round has "sft" or "reinforce".
STAGES = ("search", "sft", "reinforce", "ppm", "test")

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
  """Assumptions of the plan: the paper's numbers where cited, and guesses.

  Attributes:
    problems: training problems (section 3.4.1).
    prompt_tokens: tokens of a question and its prompt.
    steps: steps of a solution, with the answer.
    step_tokens: tokens of a step, with its marker.
    calls_terminal: expansions per rollout under terminal-guided Q-values: 28
      for 16 rollouts, in the released code's tree with solutions of 6 steps.
    calls_ppm: expansions per rollout under the PPM's Q-values: 71 for 16.
    unsolved: share of the problems unsolved after the first rollouts of each
      round: what the last round left unsolved (table 2), none for round 1.
    later: share of these that is still unsolved after each attempt at extra
      rollouts.
    kept: solutions per solved problem in the SFT data (section 3.4.1).
    solved: share of the problems solved after each round (table 2).
    sft_epochs: epochs of SFT (appendix A.1).
    mixed: share of problems with right and wrong solutions, so with pairs.
    paired_steps: steps of such a problem that have pairs.
    pairs_per_step: pairs of each: 2 preferred x 2 others (section 3.3).
    ppm_epochs: epochs of the PPM's training (appendix A.1).
    test_trajectories: trajectories of a search per test problem after each
      round (table 6); samples for as many tokens are added.
    efficiency: share of the published peaks that programs reach.
    call_seconds: further seconds of the host per call of a program.
    useful: share of token slots whose result is needed.
    scored: share of the sampled tokens that the PPM scores; failed programs and
      repeated steps are not scored.
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
  efficiency: float = 0.5
  call_seconds: float = 0.005
  useful: float = 0.9
  scored: float = 0.75

  @property
  def path(self) -> float:
    """The mean number of tokens before a candidate."""
    return self.prompt_tokens + self.steps / 2 * self.step_tokens


@dataclasses.dataclass(frozen=True)
class Stage:
  """The tokens of a stage of a round.

  Attributes:
    stage: one of `STAGES`.
    round: from 1.
    generated: tokens that the policy samples.
    prefilled: tokens of prompts that the policy and the PPM prefill.
    scored: tokens that the PPM scores.
    trained: tokens of training batches, over all epochs.
  """

  stage: str
  round: int
  generated: float = 0
  prefilled: float = 0
  scored: float = 0
  trained: float = 0


def stages(config: Config, a: Assumptions) -> list[Stage]:
  """Counts the tokens of every stage that the run's chips compute.

  The larger model at `remote.url`, which may search in round 1, is not counted,
  and nor are models of servers and plugins; see `programs.loaded`.

  Args:
    config: of the run. Rounds beyond those of `a.unsolved` and `a.solved`
      repeat their last values.
    a: assumptions.
  """
  result = []
  samples, scores = programs.loaded(config)
  for number, one in enumerate(config.rounds, 1):
    problems = a.problems
    reinforces = one.algorithm != "sft"
    if reinforces:
      turns = config.reinforce
      problems = turns.iterations * min(turns.problems, a.problems)
    rollouts = problems * _rollouts(one, _of_round(a.unsolved, number), a)
    guided = one.annotation == "ppm"
    generated = rollouts * a.steps * a.step_tokens
    if one.rollout == "search":
      calls = rollouts * (a.calls_ppm if guided else a.calls_terminal)
      generated = calls * one.candidates * a.step_tokens
    # Sampled and scored tokens stay in pages, so only prompts are prefilled,
    # once per tree by each model.
    prompts = problems * one.trees * a.prompt_tokens
    remote = number == 1 and config.remote.url
    if config.extract.needs_trees and not remote:
      result.append(
        Stage(
          "search",
          number,
          generated * samples,
          prompts * (samples + guided * scores),
          generated * a.scored * guided * scores,
        )
      )
    if reinforces:
      # A group whose rewards are all equal is left out; others share a prompt.
      trained = a.mixed * (generated + prompts)
      result.append(Stage("reinforce", number, trained=trained))
    else:
      rows = a.problems * _of_round(a.solved, number) * a.kept * a.sft_epochs
      sft = rows * (a.prompt_tokens + a.steps * a.step_tokens)
      result.append(Stage("sft", number, trained=sft))
    of_pairs = min(problems, a.problems) * a.mixed
    pairs = of_pairs * a.paired_steps * a.pairs_per_step
    # A pair is its path, half a solution on average, and two steps.
    ppm = pairs * (a.path + 2 * a.step_tokens) * a.ppm_epochs
    test = sum(count * each for count, each in TEST_SETS)
    test *= 2 * a.test_trajectories
    result += [
      Stage("ppm", number, trained=ppm),
      Stage(
        "test",
        number,
        generated=test * samples,
        scored=a.scored * test * scores,
      ),
    ]
  return result


def step_of(
  name: str,
  model: ModelConfig,
  config: Config,
  shape: Mapping[str, int],
  a: Assumptions,
) -> tuple[int, Work]:
  """Returns the token slots of a step, and its work on one chip.

  Args:
    name: one of `programs.NAMES`; an update is one step.
    model: of the policy and the PPM.
    config: of the run; candidates are those of its largest round.
    shape: sizes of the program's mesh, by axis.
    a: assumptions on the lengths of paths.
  """
  tensor = shape["tensor"]
  shards = shape["data"] * shape["fsdp"]
  if name in programs.TRAINING:
    training = programs.training_of(name, config, shards)
    rows, length = training.batch_size, training.length
    work = cost.update(
      dataclasses.replace(model, **training.of_model),
      rows=rows,
      length=length,
      head=name != "ppm",
      chips=tensor * shards,
      tensor=tensor,
      accumulate=training.accumulate,
    )
    return rows * length, work
  sizes = Sizes.of(config.engine, shards, config.engine.max_new_tokens)
  candidates = max(each.candidates for each in config.rounds)
  own = a.step_tokens / 2
  samples = name in ("decode", "few")
  if samples:
    tokens = (sizes.rows if name == "decode" else sizes.few) // shards
    # A path is read once for all candidates of a leaf.
    read = tokens * (a.path / candidates + own)
  else:
    tokens = sizes.prefill_tokens // shards
    read = tokens / a.step_tokens * (a.path / candidates + a.step_tokens)
  work = cost.step(
    model,
    tokens=tokens,
    keys=tokens * (a.path + own),
    read=read,
    sampled=tokens if samples else 0,
    tensor=tensor,
    int8=config.engine.weights == "int8",
  )
  return tokens * shards, work


def rates(
  config: Config, model: ModelConfig, where: Slice, a: Assumptions
) -> dict[str, float]:
  """Returns useful tokens per second and chip of each program.

  Args:
    config: of the run.
    model: of the policy and the PPM.
    where: the slice.
    a: assumptions.

  Returns:
    Rates by program, a key of `programs.NAMES`.

  Raises:
    ValueError: the slice, or a host of it, cannot form the mesh.
  """
  result = {}
  for name in programs.NAMES:
    training = name in programs.TRAINING
    chips = where if training else where.host
    mesh = config.train_mesh if training else config.search_mesh
    shape = meshes.abstract(mesh, chips.chips).shape
    tokens, work = step_of(name, model, config, shape, a)
    samples = name in ("decode", "few")
    steps = config.engine.inner_steps if samples else 1
    useful = 1 if training else a.useful
    seconds = steps * work.seconds(chips) / a.efficiency + a.call_seconds
    result[name] = useful * steps * tokens / seconds / chips.chips
  return result


def chip_hours(stage: Stage, rates: Mapping[str, float]) -> float:
  """Returns the chip-hours of a stage at the rates of `rates`."""
  seconds = stage.generated / rates["decode"]
  seconds += stage.prefilled / rates["prefill"]
  seconds += stage.scored / rates["score"]
  if stage.trained:
    seconds += stage.trained / rates[stage.stage]
  return seconds / 3600


def table(
  config: Config,
  rates: Mapping[str, Mapping[str, float]],
  a: Assumptions,
) -> dict[str, Any]:
  """Makes the whole plan, JSON-able.

  Args:
    config: of the run.
    rates: topology -> `rates` of it.
    a: assumptions.
  """
  all_stages = stages(config, a)
  hours = [
    {name: chip_hours(stage, each) for name, each in rates.items()}
    for stage in all_stages
  ]
  return {
    "assumptions": dataclasses.asdict(a),
    "tokens_per_second_per_chip": {
      name: _rounded(each) for name, each in rates.items()
    },
    "stages": [
      _rounded(dataclasses.asdict(stage)) | {"chip_hours": _rounded(each)}
      for stage, each in zip(all_stages, hours, strict=True)
    ],
    "chip_hours": _rounded(
      {name: sum(each[name] for each in hours) for name in rates}
    ),
    "paper_gpu_hours": [
      {"round": number, "hardware": hardware, "gpu_hours": total}
      for number, (hardware, total) in enumerate(PAPER_GPU_HOURS, 1)
    ],
  }


def significant(value: float) -> float:
  """Rounds a number to four significant digits, for readable lines."""
  return float(f"{value:.4g}")


def _rollouts(one: RoundConfig, unsolved: float, a: Assumptions) -> float:
  """Returns the mean number of rollouts per problem in a round."""
  total = one.rollouts * one.trees
  for extra in one.extra_rollouts:
    total += unsolved * extra
    unsolved *= a.later
  return total


def _of_round(values: Sequence[float], number: int) -> float:
  return values[min(number, len(values)) - 1]


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
  """Rounds floats to four significant digits."""
  return {
    name: significant(value) if isinstance(value, float) else value
    for name, value in values.items()
  }
