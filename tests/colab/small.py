"""The notebooks' configs, cut to what a test can afford: `CONFIG` + ":NAME".

Sizes of programs and numbers of updates, nothing else: the models are the ones
that a notebook names.
"""

from rstar_jax.config import schema as config_lib
from rstar_jax.config import flag

CONFIG = __file__


def get_config(name: str) -> config_lib.Config:
  """Returns a config of `configs/` with few and small programs."""
  # As `tiny_run.in_a_loop`, which a notebook's process does not have.
  of_model = config_lib.TrainConfig.of_model.fget
  config_lib.TrainConfig.of_model = property(
    lambda train: of_model(train) | {"scan": True}
  )
  config = flag.load_config(f"configs/{name}.py")
  config.engine = config_lib.EngineConfig(
    # Warm enough for the base model to be right and wrong.
    temperature=1.0,
    max_step_tokens=40,
    max_block_tokens=128,
    max_prefix_tokens=256,
    rows=32,
    prefill_tokens=64,
  )
  # No verdict may depend on time, on whatever machine.
  config.sandbox = config_lib.SandboxConfig(workers=1, wall_seconds=120.0)
  config.grader = config_lib.GraderConfig(seconds=120.0)
  for search in (config.search, config.eval.search):
    search.in_flight, search.max_depth = 4, 12
  config.eval.samples = 4
  config.eval.search.rollouts, config.eval.search.candidates = 3, 4
  config.rounds = (config_lib.RoundConfig(rollouts=3, candidates=4),)
  for train in (config.sft, config.ppm):
    train.epochs, train.batch_size, train.length = 1, 4, 256
  return config
