"""The paper's numbers (sections 3.4 and 4.1, A.1), and the released code's.

The defaults of `config/schema.py` are the paper's wherever it gives one. What
is here
is what a model of billions of parameters needs besides: sizes of programs,
dtypes, and data by their names.
"""

from rstar_jax.config import schema as config_lib

# NuminaMath-CoT's names of what it is put together from. The paper takes its
# competitions, and problems that GPT-4 made from seeds of MATH, AMC and AIME
# (section 3.4.1); these here were made from such seeds too.
_COMPETITIONS = ("olympiads", "amc_aime")
_SYNTHETIC = ("synthetic_math", "synthetic_amc")

# Of the paper's sets, those that have a usual name on the hub.
_MORE = (
  "hf:openai/gsm8k/main/test",
  "hf:HuggingFaceH4/aime_2024/train",
)


def paper(policy: str) -> config_lib.Config:
  """Returns the config of four rounds with a policy of the paper.

  The paper's 747k problems were not released. What NuminaMath-CoT has of their
  kind takes their place, some 385k with synthetic ones, without MetaMath's. The
  first round is made by a larger model: set `remote.url` and `remote.model`.

  Args:
    policy: a Hugging Face folder or name.
  """
  config = config_lib.Config()
  config.policy = config_lib.PolicyConfig(path=policy, dtype="bfloat16")
  config.train.source = "hf:AI-MO/NuminaMath-CoT/train"
  config.train.where = ("source=" + ",".join((*_COMPETITIONS, *_SYNTHETIC)),)
  # Answers of synthetic problems may be wrong: where most solutions disagree.
  config.extract.min_correct_share = 0.5
  config.extract.min_correct_of = _SYNTHETIC
  config.eval.data.source = "hf:HuggingFaceH4/MATH-500/test"
  config.eval.data.count = 0
  config.eval.more = tuple(
    config_lib.DataConfig(source=source) for source in _MORE
  )
  # A context of 4096 tokens: what the released code has.
  config.engine = config_lib.EngineConfig(
    # The longest of the released solutions' nodes has about 115 tokens.
    max_step_tokens=256,
    max_block_tokens=2048,
    max_prefix_tokens=3072,
    # A step of so many takes a v5e host as long to compute as to read the
    # weights; of the other two as much as the scores of what is sampled
    # (docs/results/fleet.md).
    rows=256,
    inner_steps=6,
    prefill_tokens=1024,
    # What the four chips of a v5e host hold beside two 7B models
    # (docs/results/aot.md).
    pages=16384,
    # Programs take minutes to compile for a TPU; then one wants to see them.
    warm_up=True,
  )
  config.search.in_flight = config.eval.search.in_flight = 64
  config.remote.max_tokens = 512
  # Hosts divide shards: for an even division each wants some, so that many
  # hosts, for which problems / (4 x hosts) is below 400, want smaller ones.
  config.shard_size = 400
  # Two workers keep the device waiting for half of the time; from 16 on it is
  # a few percent. A host of a TPU has a hundred cores and more.
  config.sandbox.workers = 32
  # One worker cannot always keep up with the answers that need sympy.
  config.grader.workers = 4
  # A TPU host has 4 chips or 8, and Qwen's 7B has 4 key/value heads.
  config.search_mesh = config_lib.MeshConfig(tensor=4)
  # State is shared by all chips; micro-batches are of 8 rows, two on a chip of
  # 16: with four, a v5e's memory does not do. More than 32 chips want fewer.
  config.train_mesh = config_lib.MeshConfig(data=1, fsdp=-1, tensor=4)
  for train in (config.sft, config.ppm, config.reinforce.train):
    train.remat = "layer"
  config.reinforce.train.batch_size = 8
  config.sft.accumulate, config.ppm.accumulate = 16, 64
  return config


def released_code(policy: str) -> config_lib.Config:
  """Returns the config of the authors' released code, where it differs.

  Its yaml files have 48 rollouts of 12 candidates for every round, and 12 of 32
  at test time; of candidates that answer the first alone is kept; the PPM is
  trained on raw values, twice, on pairs with a margin of 0.5; SFT rows have
  2048 tokens. It has neither extra rollouts, nor second trees, nor pairs for
  the final step, and answers by a vote among the best solutions of its
  searches, those `study.top_k` of highest value.

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
  # 64 searches of their own, of which the best 4 vote.
  config.study = config_lib.StudyConfig(
    methods=("greedy", "beam", "searches"),
    trajectories=64,
    rollouts_each=12,
    top_k=4,
  )
  return config
