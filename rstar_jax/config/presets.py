"""The paper's numbers (sections 3.4 and 4.1, A.1), and the released code's.

The defaults of `config/schema.py` are the paper's wherever it gives a number.
This adds what a model of billions of parameters needs: sizes of programs,
dtypes, and names of data.
"""

from rstar_jax.config import schema as config_lib

# NuminaMath-CoT's names of its parts. The paper uses its competitions, and
# problems that GPT-4 made from seeds of MATH, AMC and AIME (section 3.4.1);
# these parts were made from such seeds too.
_COMPETITIONS = ("olympiads", "amc_aime")
_SYNTHETIC = ("synthetic_math", "synthetic_amc")

# Those of the paper's sets that have a common name on the Hub.
_MORE = (
  "hf:openai/gsm8k/main/test",
  "hf:HuggingFaceH4/aime_2024/train",
)


def paper(policy: str) -> config_lib.Config:
  """Returns a config of the paper's four rounds, for one of its policies.

  The paper's 747k problems were not released. Similar problems of
  NuminaMath-CoT replace them, some 385k with synthetic ones, without
  MetaMath's. A larger model makes the first round: set `remote.url` and
  `remote.model`.

  Args:
    policy: a Hugging Face folder or name.
  """
  config = config_lib.Config()
  config.policy = config_lib.PolicyConfig(path=policy, dtype="bfloat16")
  config.train.source = "hf:AI-MO/NuminaMath-CoT/train"
  config.train.where = ("source=" + ",".join((*_COMPETITIONS, *_SYNTHETIC)),)
  # A synthetic problem's answer may be wrong if most solutions disagree.
  config.extract.min_correct_share = 0.5
  config.extract.min_correct_of = _SYNTHETIC
  config.eval.data.source = "hf:HuggingFaceH4/MATH-500/test"
  config.eval.data.count = 0
  config.eval.more = tuple(
    config_lib.DataConfig(source=source) for source in _MORE
  )
  # A context of 4096 tokens, as in the released code.
  config.engine = config_lib.EngineConfig(
    # The longest of the released solutions' nodes has about 115 tokens.
    max_step_tokens=256,
    max_block_tokens=2048,
    max_prefix_tokens=3072,
    # With this many rows, a v5e host computes a step in the time that it takes
    # to read the weights; the next two sizes match the scores of what is
    # sampled (docs/results/fleet.md).
    rows=256,
    inner_steps=6,
    prefill_tokens=1024,
    # As many as fit on a v5e host's four chips beside two 7B models
    # (docs/results/aot.md).
    pages=16384,
    # Programs take minutes to compile for a TPU, so progress is shown.
    warm_up=True,
  )
  config.search.in_flight = config.eval.search.in_flight = 64
  config.remote.max_tokens = 512
  # Hosts divide shards, and evenly only if each gets several: with many hosts,
  # where problems / (4 x hosts) is below 400, set a smaller size.
  config.shard_size = 400
  # With two workers the device waits for half of the time, with 16 or more for
  # a few percent. A TPU host has a hundred cores or more.
  config.sandbox.workers = 32
  # One worker cannot always keep up with answers that need sympy.
  config.grader.workers = 4
  # A TPU host has 4 or 8 chips, and Qwen's 7B has 4 key/value heads.
  config.search_mesh = config_lib.MeshConfig(tensor=4)
  # All chips share the state; micro-batches have 8 rows, two for each of the
  # four data shards of 16 chips: with four, SFT takes 14.2 of a v5e's 15.75
  # GiB. With more than 32 chips use fewer micro-batches.
  config.train_mesh = config_lib.MeshConfig(data=1, fsdp=-1, tensor=4)
  for train in (config.sft, config.ppm, config.reinforce.train):
    train.remat = "layer"
  config.reinforce.train.batch_size = 8
  config.sft.accumulate, config.ppm.accumulate = 16, 64
  return config


def released_code(policy: str) -> config_lib.Config:
  """Returns the config of the authors' released code, where it differs.

  Its yaml files have 48 rollouts of 12 candidates for every round, and 12 of 32
  at test time. Of candidates with an answer only the first is kept. The PPM is
  trained on raw values, for two epochs, on pairs with a margin of 0.5. SFT rows
  have 2048 tokens. There are no extra rollouts, second trees, or pairs for the
  final step. The answer is a vote among the `study.top_k` solutions of highest
  value in its searches.

  Args:
    policy: a Hugging Face folder or name.
  """
  config = paper(policy)
  config.rounds = tuple(
    config_lib.RoundConfig(
      rollouts=48, candidates=12, annotation=each.annotation
    )
    for each in config.rounds
  )
  for search in (config.search, config.eval.search):
    search.answer_dedup = "keep_first"
  config.eval.search.rollouts = 12
  config.remote.samples_per_request = 12
  config.ppm_head = "logit"
  config.ppm.epochs = 2
  config.ppm.length = config.sft.length = 2048
  config.extract.min_margin = 0.5
  config.extract.min_correct_share, config.extract.min_correct_of = 0.0, ()
  config.extract.final_pairs = False
  # 64 independent searches, of which the best 4 vote.
  config.study = config_lib.StudyConfig(
    methods=("greedy", "beam", "searches"),
    trajectories=64,
    rollouts_each=12,
    top_k=4,
  )
  return config
