"""Self-evolution of a tiny model on a task of reasoning-gym: sums of numbers.

  pip install 'rstar_jax[reasoning_gym]'
  rstar_jax evolve --config=configs/tiny_gym.py:cold \
    --workdir=runs/gym_cold
  rstar_jax evolve --config=configs/tiny_gym.py --workdir=runs/gym

"cold" teaches the shipped base model, which knows other problems, to write a
sum in steps, from solutions made by a rule. "run" (the default) continues from
its policy, on problems without solutions, with the task's own scores.
"""

import itertools

import rstar_jax as rj

_TASK = "reasoning_gym:chain_sum"
# Number of solutions for the cold start, and their first problem.
_WORKED, _FIRST = 400, 500_000


def worked():
  """Yields solutions in the format of the authors' released data."""
  problems = rj.load_task(_TASK).problems("train")
  for problem in itertools.islice(problems, _FIRST, _FIRST + _WORKED):
    yield {"query": problem.question, "response": written(problem)}


def written(problem: rj.Problem) -> str:
  """Returns a solution that adds number by number: "4 - 1 - 7 ="."""
  _, _, sum_ = problem.question.partition(": ")
  first, *rest = sum_.removesuffix(" =").split(" ")
  lines = [f"total = {first}"]
  for sign, number in zip(rest[::2], rest[1::2], strict=True):
    lines.append(f"total = total {sign} {number}")
  steps = [f"{each}\n<end_of_step>" for each in lines]
  return (
    "<code>\n" + "\n\n".join(steps) + "\n\n"
    "print(total)\n<end_of_code>\n"
    f"<output>{problem.answer}<end_of_output>\n"
    f"<answer>The answer is \\boxed{{{problem.answer}}}.<end_of_answer>"
  )


def get_config(arg: str = "run") -> rj.Config:
  """Returns the config of a run.

  Args:
    arg: "cold" or "run".
  """
  if arg not in ("cold", "run"):
    raise ValueError(f"tiny_gym.py:{arg}: must be cold or run")
  config = rj.load_config("configs/tiny.py")
  config.task = _TASK
  config.train = rj.DataConfig(source="task:train", count=80)
  config.eval.data = rj.DataConfig(source="task:test", count=60)
  if arg == "cold":
    config.extract.sft_source = "configs.tiny_gym:worked"
    # Few, since the base model's search solves nothing, and gives no pairs.
    config.train.count = config.eval.early_problems = 4
    config.rounds = (rj.RoundConfig(rollouts=1, candidates=2),)
    config.sft.epochs, config.sft.learning_rate = 2, 2e-3
  else:
    config.policy.path = "runs/gym_cold/round_1/policy"
    config.rounds = (
      rj.RoundConfig(rollouts=4, candidates=4),
      rj.RoundConfig(rollouts=4, candidates=4, annotation="ppm"),
    )
  return config
