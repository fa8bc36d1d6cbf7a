"""Self-evolution on problems of 6 to 14 steps, each of which may go wrong.

  rstar_jax evolve --config=configs/tiny_long.py --workdir=runs/long \
    --config.policy.path=FOLDER

The problems are the generator's "long" splits; the base model has been trained
on long problems (`tools/bootstrap.py`, --base). Its policy errs at a quarter of
the steps, so that few samples are right and a search has something to decide.
"pilot" (the default) has one round, with 260 training problems; "full" is the
study of docs/results/tiny_long.md.
"""

import rstar_jax as rj

# Numbers of training problems, of test problems, of test problems sampled in
# early rounds, and of rounds; and the learning rate of SFT: more solutions make
# more updates, which need a lower rate.
_SIZES = {"pilot": (260, 100, 4, 1, 2e-4), "full": (2500, 300, 20, 2, 3e-5)}


def get_config(arg: str = "pilot") -> rj.Config:
  """Returns the config of a run.

  Args:
    arg: "pilot" or "full".
  """
  if arg not in _SIZES:
    raise ValueError(f"tiny_long.py:{arg}: must be one of {', '.join(_SIZES)}")
  train_problems, test_problems, early, rounds, sft_rate = _SIZES[arg]
  config = rj.load_config("configs/tiny.py")
  config.train = rj.DataConfig(
    source="synthetic:long_train", count=train_problems
  )
  config.eval.data = rj.DataConfig(
    source="synthetic:long_test", count=test_problems
  )
  config.eval.early_problems = early
  # 14 steps, the printing step, and the answer.
  config.search.max_depth = config.eval.search.max_depth = 16
  config.engine.max_block_tokens = 576
  config.engine.max_prefix_tokens = 704
  # A gentle training: the search needs a policy as of an early round, which
  # still makes the errors of its training data.
  config.sft.length = 704
  config.sft.epochs = 1
  config.sft.learning_rate = sft_rate
  config.ppm.length = 1024
  config.ppm.epochs = 3
  config.eval.search.rollouts = 3
  # Enough to cost at least what the search costs.
  config.eval.samples = 24
  config.rounds = (
    rj.RoundConfig(rollouts=8, candidates=4),
    rj.RoundConfig(rollouts=8, candidates=4, annotation="ppm"),
  )[:rounds]
  return config
