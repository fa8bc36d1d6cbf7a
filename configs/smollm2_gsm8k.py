r"""SmolLM2-135M teaches itself word problems, on a CPU, over many sittings.

  make smollm2
  python -m rstar_jax.tools.cold_start --policy=MODEL --output=cold
  rstar_jax evolve --config=configs/smollm2_gsm8k.py:cold \
    --workdir=runs/gsm8k

"cold" is the cold start's folder: a policy that has learnt the step grammar
from solutions of seven tenths of GSM8K's training problems, and two tenths that
it has not seen, which are searched. The evaluation has GSM8K's test set and two
easier sets, which are not trained on.
"""

import pathlib

import rstar_jax as rj


def get_config(arg: str = "cold") -> rj.Config:
  """Returns the config of a run.

  Args:
    arg: the folder of `rstar_jax.tools.cold_start`.
  """
  cold = pathlib.Path(arg)
  config = rj.Config(shard_size=25)
  config.policy = rj.PolicyConfig(path=str(cold / "policy"), dtype="bfloat16")
  # It solves hardly any problem of more than three steps; see
  # docs/results/gsm8k.md.
  config.train = rj.DataConfig(
    source=str(cold / "search.jsonl"), where=("level=1,2,3",)
  )
  config.eval.data = rj.DataConfig(
    source="hf:openai/gsm8k/main/test", count=300
  )
  config.eval.more = (
    rj.DataConfig(
      source="hf:ChilleD/SVAMP/test",
      question_field="{Body} {Question}",
      answer_field="Answer",
      count=300,
    ),
    rj.DataConfig(
      source="hf:EleutherAI/asdiv/validation",
      question_field="{body} {question}",
      answer_field="answer",
      # Without the unit after the number: "9 (apples)".
      answer_pattern=r"^([^(]*[^( ])",
      count=300,
    ),
  )
  config.engine = rj.EngineConfig(
    temperature=0.6,
    max_step_tokens=96,
    max_block_tokens=384,
    max_prefix_tokens=640,
    rows=128,
  )
  config.search.max_depth = config.eval.search.max_depth = 12
  config.eval.early_problems = 50
  config.eval.samples = 16
  config.eval.search.rollouts = 4
  config.eval.search.candidates = 8
  config.eval.search.trajectory_value = "min"
  config.extract.rounds = 4
  common = {
    "length": 512,
    "attention_block": 128,
    "schedule": "cosine",
    "warmup": 0.05,
    "weight_decay": 0.01,
    "checkpoint_every": 20,
    "log_every": 5,
  }
  # Two rows at a time take 8 GB; a whole update would take 23 GB.
  config.sft = rj.TrainConfig(
    batch_size=8, accumulate=4, epochs=2, learning_rate=1e-4, **common
  )
  config.ppm = rj.TrainConfig(
    batch_size=16, accumulate=8, epochs=1, learning_rate=5e-5, **common
  )
  # With --config.rounds[0].algorithm=grpo --config.rounds[0].rollout=samples:
  # as many tokens as the search of 400 problems.
  reinforce = config.reinforce
  reinforce.problems, reinforce.iterations = 16, 55
  reinforce.temperature = 0.6
  # A row at a time is as many tokens as two of the rows above.
  reinforce.train = rj.TrainConfig(
    batch_size=1,
    length=1024,
    attention_block=128,
    schedule="constant",
    learning_rate=3e-5,
    weight_decay=0.0,
    checkpoint_every=5,
    log_every=1,
  )
  config.rounds = (
    rj.RoundConfig(rollouts=8, candidates=4),
    rj.RoundConfig(rollouts=8, candidates=4),
    rj.RoundConfig(rollouts=8, candidates=4, annotation="ppm"),
    rj.RoundConfig(
      rollouts=8, candidates=4, annotation="ppm", extra_rollouts=(8,)
    ),
  )
  return config
