"""The paper's numbers, for whichever policy (sections 3.4 and 4.1, A.1).

The defaults of `config.py` are the paper's wherever it gives one. What is here
is what a model of billions of parameters needs besides: sizes of programs,
dtypes, and data by their names.
"""

from rstar_jax import config as config_lib

# Of the paper's sets, those that have a usual name on the hub.
_MORE = (
  "hf:openai/gsm8k/main/test",
  "hf:HuggingFaceH4/aime_2024/train",
)


def paper(policy: str) -> config_lib.Config:
  """Returns the config of four rounds with a policy of the paper.

  The paper's 747k problems were not released; NuminaMath-CoT is where most of
  them are from. Its first round is made by a larger model: set `remote.url` and
  `remote.model`.

  Args:
    policy: a Hugging Face folder or name.
  """
  config = config_lib.Config()
  config.policy = config_lib.PolicyConfig(path=policy, dtype="bfloat16")
  config.train.source = "hf:AI-MO/NuminaMath-CoT/train"
  config.eval.data.source = "hf:HuggingFaceH4/MATH-500/test"
  config.eval.data.count = 0
  config.eval.more = tuple(
    config_lib.DataConfig(source=source) for source in _MORE
  )
  # A context of 4096 tokens: what the released code has.
  config.engine = config_lib.EngineConfig(
    # All wait for the longest step of a call. If one in a hundred does not end
    # by itself, this halves what a limit of 512 costs (docs/results/fleet.md);
    # the longest of the released solutions' nodes has about 115 tokens.
    max_step_tokens=256,
    max_block_tokens=2048,
    prefix_buckets=(512, 1024, 2048, 3072),
    tail_buckets=(32, 256),
    score_buckets=(8, 32),
    step_buckets=(64, 128, 256),
    # Programs take minutes to compile for a TPU; then one wants to see them.
    ahead=True,
  )
  config.remote.max_tokens = 512
  # From docs/results/fleet.md, a simulation of hosts with four chips. A shard
  # has to fill slots x groups = 64 several times: 50 problems take 2.1 times as
  # long each as 800 do, 400 take 1.03 times, and what deaths lose is under
  # 1%. So many hosts that problems / (4 x hosts) is below 400 want that.
  config.shard_size = 400
  # Two workers keep the device waiting for half of the time; from 16 on it is
  # a few percent. A host of a TPU has a hundred cores and more.
  config.sandbox.workers = 32
  # One worker cannot always keep up with the answers that need sympy.
  config.grader.workers = 4
  # A TPU host has 4 chips or 8, and Qwen's 7B has 4 key/value heads.
  config.search_mesh = config_lib.MeshConfig(tensor=4)
  # State is shared by all chips; micro-batches are of 16 rows, on up to 64.
  config.train_mesh = config_lib.MeshConfig(data=1, fsdp=-1, tensor=4)
  config.sft.remat = config.ppm.remat = True
  config.sft.accumulate, config.ppm.accumulate = 8, 32
  return config
