"""Self-evolution of a tiny transformer on two CPU cores.

  rstar_jax evolve --config=configs/tiny.py --workdir=runs/tiny

"demo" (the default) is short enough to watch; "full" has more problems, and is
the run of docs/results/tiny.md.

  rstar_jax evolve --config=configs/tiny.py:full --workdir=runs/full
"""

import rstar_jax as rj

# Numbers of training problems, of test problems, of test problems sampled and
# searched in early rounds, and the learning rate of SFT: fewer solutions make
# fewer updates, which need a higher rate.
_SIZES = {"demo": (200, 100, 20, 7e-4), "full": (400, 300, 20, 3.4e-4)}


def get_config(arg: str = "demo") -> rj.Config:
  """Returns the config of a run.

  Args:
    arg: "demo" or "full".
  """
  if arg not in _SIZES:
    raise ValueError(f"tiny.py:{arg}: must be one of {', '.join(_SIZES)}")
  train_problems, test_problems, early, sft_rate = _SIZES[arg]
  config = rj.Config(shard_size=50)
  config.train = rj.DataConfig(source="synthetic:train", count=train_problems)
  # The generator's splits share phrases, but no problems.
  config.decontaminate.ngram = 0
  # The generator's hardest problems are 10 nodes deep.
  config.search.max_depth = config.eval.search.max_depth = 12
  config.search.in_flight = config.eval.search.in_flight = 32
  # The longest step of the generator's solutions has 36 tokens. At temperature
  # 1 a model this small errs so often that right steps get low values.
  config.engine = rj.EngineConfig(
    temperature=0.7,
    max_step_tokens=40,
    max_block_tokens=192,
    max_prefix_tokens=384,
    rows=128,
  )
  # A round of so few problems gives some hundred pairs, so older ones help.
  config.extract.rounds = 4
  # Many small updates, since there are few solutions and pairs. More updates
  # would make the policy overconfident, and leave the search little to choose
  # from; see docs/results/tiny.md.
  config.sft = rj.TrainConfig(
    optimizer="muon",
    epochs=2,
    batch_size=4,
    length=384,
    learning_rate=sft_rate,
    warmup=0.1,
    weight_decay=0.0,
    checkpoint_every=50,
  )
  config.ppm = rj.TrainConfig(
    optimizer="muon",
    epochs=4,
    batch_size=4,
    length=512,
    learning_rate=1e-3,
    warmup=0.1,
    weight_decay=0.0,
    checkpoint_every=50,
  )
  config.eval.data = rj.DataConfig(source="synthetic:test", count=test_problems)
  config.eval.early_problems = early
  # Enough to cost at least what the search costs.
  config.eval.samples = 20
  # So that a study's samples take no longer than its other methods.
  config.study.samples = 16
  config.eval.search.rollouts = 5
  config.eval.search.candidates = 8
  # Minima choose better than last values; see docs/results/tiny.md.
  config.eval.search.trajectory_value = "min"
  config.eval.answer_select = "weighted"
  # The paper has 8 rollouts x 5 candidates, 16 x 8, 16 x 8, and 16 x 16 in two
  # trees. As there, rounds 1 and 2 are annotated by terminals alone.
  config.rounds = (
    rj.RoundConfig(rollouts=2, candidates=4),
    rj.RoundConfig(rollouts=4, candidates=4),
    rj.RoundConfig(rollouts=4, candidates=4, annotation="ppm"),
    rj.RoundConfig(
      rollouts=4, candidates=4, annotation="ppm", extra_rollouts=(4,)
    ),
  )
  return config
