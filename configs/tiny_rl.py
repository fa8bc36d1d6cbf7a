"""Reinforcement of a tiny transformer on two CPU cores, some minutes.

  rstar_jax evolve --config=configs/tiny_rl.py --workdir=runs/tiny_rl

"grpo" (the default) trains on whole solutions, "tree" on the steps of an MCTS
of about as many tokens; see docs/reinforcement.md.

  rstar_jax evolve --config=configs/tiny_rl.py:tree --workdir=runs/tree
"""

import rstar_jax as rj

_ROUNDS = {
  "grpo": {"rollout": "samples", "rollouts": 16},
  "tree": {"rollout": "search", "rollouts": 4, "candidates": 4},
}


def get_config(arg: str = "grpo") -> rj.Config:
  """Returns the config of a run.

  Args:
    arg: "grpo" or "tree".
  """
  if arg not in _ROUNDS:
    raise ValueError(f"tiny_rl.py:{arg}: must be one of {', '.join(_ROUNDS)}")
  config = rj.load_config("configs/tiny.py")
  config.rounds = (rj.RoundConfig(algorithm=arg, **_ROUNDS[arg]),)
  config.reinforce.iterations = 40
  config.reinforce.problems = 16
  config.reinforce.train.batch_size = 8
  config.reinforce.train.length = 384
  config.reinforce.train.learning_rate = 1e-4
  return config
