"""Configuration: a dataclass per stage, with a comment above every field.

The defaults of the search and of training are the paper's; a config file sets
what differs. A field declares its range, and `binds=False` if a run may change
it at any time, since it does not affect the results (`config/identity.py`).
Rules between fields are in `config/validation.py`.
"""

import dataclasses
from typing import Literal

from rstar_jax.config.closed import Closed, field

# Ways to solve a problem; `evaluation/sources.py` describes each one.
METHODS = (
  *("greedy", "samples", "beam", "diverse_beam", "rebase", "mcts", "puct"),
  *("searches", "ab_mcts"),
)


def urls_of(text: str) -> list[str]:
  """Returns the base URLs in a field, which commas separate."""
  return [url.strip().rstrip("/") for url in text.split(",")] if text else []


@dataclasses.dataclass(kw_only=True)
class MeshConfig(Closed):
  """Devices along each mesh axis; -1 takes all that are left."""

  # Data-parallel replicas of the model.
  data: int = -1
  # Shards of parameters and optimiser state while they are not in use.
  fsdp: int = 1
  # Shards of each matrix product.
  tensor: int = 1


@dataclasses.dataclass(kw_only=True)
class PolicyConfig(Closed):
  """The base model, from which every round's SFT starts."""

  # A Hugging Face folder or name, or a GGUF file; a folder or a file may be in
  # a bucket (gs://). Empty: the bootstrap checkpoint that ships with the
  # package.
  path: str = ""
  # Prompt of the policy: "trained" is the task's prompt; "few_shot", for the
  # base model alone, shows solved examples, which any model can follow.
  prompt: Literal["trained", "few_shot"] = "trained"
  # Replaces the engine: "module:function" (config, folder) -> an Expand
  # (types.py); the folder is the round's policy. Empty: the engine.
  backend: str = field("", takes=("config", "folder"), words=("",))
  # dtype of activations, and of parameters that are not being trained.
  dtype: Literal["float32", "bfloat16"] = "float32"
  # If the markers need new rows of the embedding, the number of rows is rounded
  # up to a multiple of this, so that a mesh can shard it.
  vocab_multiple: int = field(128, above=0)


@dataclasses.dataclass(kw_only=True)
class DataConfig(Closed):
  """Problems of one split."""

  # "synthetic:SPLIT", a .jsonl, .json, .csv (also .gz, .zst) or .parquet file,
  # "tfds:NAME/SPLIT", "hf:OWNER/NAME[/CONFIG]/SPLIT" of the Hugging Face Hub
  # (data/hub.py), "task:SPLIT" of the task's own problems, or "module:function"
  # () -> problems, or rows as dicts.
  source: str = field("synthetic:train", takes=())
  # Takes only rows whose field has one of these values:
  # "source=olympiads,amc_aime", "meta.verified=true". All conditions must hold.
  where: tuple[str, ...] = ()
  # Number of problems; 0 takes all (not for synthetic, which has no end).
  count: int = field(0, least=0)
  # Seed of the generator of synthetic problems.
  seed: int = 0
  # For a malformed row: "skip" it with a warning, or "raise".
  on_error: Literal["skip", "raise"] = "raise"
  # Name of the question's field, "a.b" for a nested one, or a template of
  # several: "{body} {question}". Empty: found by shape (data/shapes.py).
  question_field: str = ""
  # Name of the answer's field, likewise; its text is taken as it is.
  answer_field: str = ""
  # A regular expression that finds the answer within that field: its first
  # group, or the whole match. Empty: by the shape.
  answer_pattern: str = ""


@dataclasses.dataclass(kw_only=True)
class EngineConfig(Closed):
  """Generation: sampling, and sizes of the programs."""

  # Softmax temperature; 0 is greedy (paper: 0.7 in round 1, then 1.0).
  temperature: float = field(1.0, least=0)
  # Keep the k likeliest tokens; 0 keeps all.
  top_k: int = field(0, least=0)
  # Keep the likeliest tokens that sum to p; 1 keeps all.
  top_p: float = field(1.0, above=0, most=1)
  # Keep tokens of at least this share of the likeliest one's probability; 0
  # keeps all.
  min_p: float = field(0.0, least=0, most=1)
  # Most tokens of a step, its marker included.
  max_step_tokens: int = field(64, above=0)
  # Most tokens of a code block, where solutions are sampled whole.
  max_block_tokens: int = field(256, above=0)
  # Most tokens of a prefix that is expanded; the candidates of a longer one are
  # empty, with finish "length".
  max_prefix_tokens: int = field(384, above=0)
  # Token slots of a decoding step: candidates that are sampled at once.
  rows: int = field(64, above=0, binds=False)
  # Most tokens that a slot samples in one call of a program. The engine takes
  # fewer if the host's time per call is short against a step.
  inner_steps: int = field(8, above=0, binds=False)
  # Token slots of a prefill call, for prefixes or for steps to score.
  prefill_tokens: int = field(256, above=0, binds=False)
  # Pages of 16 tokens for keys and values, for the policy and the PPM each; 0
  # allocates enough for `rows`.
  pages: int = field(0, least=0, binds=False)
  # Implementation of attention and of products of few rows: "cpp", kernels that
  # a C++ compiler builds for this CPU; "pallas", a kernel for TPUs; "xla",
  # anywhere; "auto", the first available of these; "ragged", jax's kernel for
  # TPUs.
  kernels: Literal["auto", "cpp", "pallas", "ragged", "xla"] = "auto"
  # Matrices of the policy and the PPM in a search: "float", unchanged, or
  # "int8", rounded to 255 levels with a scale per output. int8 needs half of
  # bfloat16's memory and is faster with few rows; on a CPU it is slower.
  weights: Literal["float", "int8"] = "float"
  # Whether a stage compiles all programs before it starts, with a progress bar,
  # instead of each at its first call.
  warm_up: bool = field(False, binds=False)

  @property
  def max_new_tokens(self) -> int:
    """Returns the most tokens that a policy writes at once."""
    return max(self.max_step_tokens, self.max_block_tokens)


@dataclasses.dataclass(kw_only=True)
class ClientConfig(Closed):
  """Requests to servers."""

  # Environment variable with the API key; empty: no key.
  api_key_env: str = field("", binds=False)
  # Most requests in flight, to all servers together.
  in_flight: int = field(64, above=0, binds=False)
  # A request without a response for this many seconds is repeated.
  timeout_seconds: float = field(600.0, above=0, binds=False)
  # A request that fails at all servers is repeated for this many seconds.
  patience_seconds: float = field(900.0, least=0, binds=False)


@dataclasses.dataclass(kw_only=True)
class RemoteConfig(ClientConfig):
  """A larger model behind servers, which makes the first round's data.

  Round 1 of the paper: a 236B model, 8 rollouts of 5 candidates at 0.7.
  """

  # Base URL of an OpenAI-compatible server, e.g. "http://localhost:8000/v1", or
  # of several with one model, separated by commas; requests go to
  # URL/completions. Empty: the base model makes round 1 too. The servers may
  # change at any time, but not whether there are any.
  url: str = field("", binds=bool)
  # The model's name on that server.
  model: str = ""
  # Samples per request; 1 for servers that give only one (llama.cpp's and
  # transformers').
  samples_per_request: int = field(5, above=0)
  # Softmax temperature; 0 is greedy.
  temperature: float = field(0.7, least=0)
  # Keep the likeliest tokens that sum to p; 1 keeps all.
  top_p: float = field(1.0, above=0, most=1)
  # Most tokens of a step, as the server counts them.
  max_tokens: int = field(512, above=0)
  # Further fields of each request, as a JSON object: for results beyond the
  # text (vLLM: return_token_ids), or for options (transformers takes do_sample
  # from generation_config, a string that is JSON itself).
  extra: str = '{"logprobs": 0}'


@dataclasses.dataclass(kw_only=True)
class ServersConfig(ClientConfig):
  """Servers that replace the engine, with the run's own policies and PPMs.

  They exchange token ids; `engine` sets how steps are sampled.
  """

  # Most requests in flight, to all servers of a role together. More than for a
  # larger model, since each candidate is a request here.
  in_flight: int = field(256, above=0, binds=False)

  # Base URLs of the policy's servers, separated by commas, e.g.
  # "http://a:8000/v1,http://b:8000/v1"; each tree stays with one of them.
  # Empty: the engine. The servers may change at any time, but not whether there
  # are any.
  policy: str = field("", binds=bool)
  # Base URLs of the PPM's servers, likewise.
  ppm: str = field("", binds=bool)
  # Base URLs of the servers of a published reward model such as
  # `eval.reward_model`, likewise. They keep the model that they were started
  # with: `load` does not apply.
  reward: str = field("", binds=bool)
  # Protocol: "openai" is /v1/completions and /pooling with token ids (vLLM,
  # `rstar_jax.tools.serve_engine`), "sglang" is /generate and /classify
  # (SGLang); "sglang_jax" is the same without seeds, which SGLang-JAX lacks.
  protocol: Literal["openai", "sglang", "sglang_jax"] = field(
    "openai", binds=False
  )
  # The model's name on the servers; empty: their only model.
  model: str = field("", binds=False)
  # Loads a round's model into the servers: "vllm" and "sglang" by a request of
  # these servers, or "module:function" (config, role, folder, urls) with the
  # role "policy" or "ppm". Empty: whoever starts the servers.
  load: str = field(
    "",
    binds=False,
    takes=("config", "role", "folder", "urls"),
    words=("", "vllm", "sglang"),
  )
  # Whether the servers' outputs are compared with the model's own, for which it
  # is loaded here once; otherwise only the form of responses is checked.
  compare: bool = field(True, binds=False)
  # Largest mean difference of log-probabilities and values in that comparison:
  # a server may compute in another precision.
  tolerance: float = field(0.05, above=0, binds=False)


@dataclasses.dataclass(kw_only=True)
class RayConfig(Closed):
  """Hosts of a Ray cluster, which search and evaluate; see docs/ray.md."""

  # The cluster: "auto", the one that this machine belongs to; HOST:PORT of its
  # head; or "local", a cluster on this machine alone. Empty: no Ray.
  address: str = field("", binds=False)
  # Most searchers, each with its own models. Those without room wait until a
  # host joins.
  searchers: int = field(1, above=0, binds=False)
  # Resources of a searcher, in Ray's names: ("TPU=4",), ("GPU=1",).
  needs: tuple[str, ...] = field(("CPU=1",), binds=False)


@dataclasses.dataclass(kw_only=True)
class SandboxConfig(Closed):
  """Code execution; see `sandbox/pool.py`."""

  # Worker processes.
  workers: int = field(2, above=0, binds=False)
  # Wall time of one step, in seconds.
  wall_seconds: float = field(5.0, above=0)
  # Address space of one program, in bytes; also the total memory of the
  # interpreters that a worker keeps alive.
  memory_bytes: int = field(1 << 30, above=0)
  # Most bytes of a step's output.
  output_bytes: int = field(65536, above=0)
  # Most interpreters that a worker keeps alive, one for each recent prefix of
  # steps; most take 2 to 14 MB. 0 executes each prefix anew.
  live: int = field(32, least=0, binds=False)
  # Accesses that a kernel's boundary must block, or the run is refused: "net",
  # "read", "write", "fork" and so on; see docs/security.md.
  require: tuple[str, ...] = field((), binds=False)


@dataclasses.dataclass(kw_only=True)
class GraderConfig(Closed):
  """Answer grading; see `grading/grader.py`."""

  # Killable worker processes.
  workers: int = field(1, above=0, binds=False)
  # Deadline of one comparison, in seconds, after which it is undecided.
  seconds: float = field(4.0, above=0)
  # Whether 25% also equals 1/4 and 0.25; by default it equals 25% and 25 only.
  percent_is_ratio: bool = False
  # Replaces the grader: "module:function" (gold, predicted) -> True or False,
  # or "equal", "different" or "undecided".
  function: str = field("", takes=("gold", "predicted"), words=("",))


@dataclasses.dataclass(kw_only=True)
class SearchConfig(Closed):
  """MCTS. Defaults are the paper's; each departure is a named switch."""

  # The search: "mcts", or "module:function" with the arguments of
  # `rstar_jax.search` -> a tree for each problem, in order.
  method: str = field(
    "mcts",
    takes=("problems", "config", "calls", "seed=", "name="),
    words=("mcts",),
  )

  # Root-to-leaf descents per tree (paper: 8 in round 1, then 16; test: 4).
  rollouts: int = field(16, above=0)
  # Candidates sampled at each expansion (paper: 5, 8, 8, 16; test: 32).
  candidates: int = field(8, above=0)
  # Deepest node; a deeper path is abandoned (paper: 16).
  max_depth: int = field(16, above=0)
  # Which child a rollout descends to, the one of highest score: "uct" (paper
  # Eq. 1); "puct", whose bonus is by the policy's probability of a step
  # (docs/results/tiny_long.md); or "module:function" with (a tree, a node, this
  # config) -> a score for each child of the node, which leaves the tree alone.
  selection: str = field(
    "uct", takes=("tree", "node", "config"), words=("uct", "puct")
  )
  # Exploration constant c of UCT and PUCT (paper Eq. 1: 2).
  c: float = field(2.0, least=0)
  # UCT of an unvisited child: "zero", as the paper's authors mean it, is its
  # initial Q without an exploration bonus, so that a good branch is followed to
  # its end; "inf" is standard UCT, which tries every child first
  # (docs/results/pairs.md).
  uct_unvisited: Literal["zero", "inf"] = "zero"
  # "terminal": Q only from terminals (rounds 1-2, Eq. 2). "ppm": the PPM's
  # value starts a new node's Q (rounds 3-4, Eq. 3).
  annotation: Literal["terminal", "ppm"] = "terminal"
  # The reward that a terminal backs up: "truth" is +1/-1 by the grader or by
  # tests, or the task's reward; "ppm" is the PPM's score of the full trajectory
  # (test time). `eval.search` may have "truth" with a task of your own, whose
  # reward may need no gold answer.
  terminal_reward: Literal["truth", "ppm"] = "truth"
  # The PPM's score of a full trajectory at test time: its value at the last
  # step (paper), or the mean or minimum of its values at all steps.
  trajectory_value: Literal["last", "mean", "min"] = "last"
  # Whether the PPM's initial value counts as a visit (released code: yes).
  ppm_counts_visit: bool = True
  # MCTS: share of rollouts that start beside a step that led to wrong answers
  # alone, instead of at the root: more pairs where the PPM is wrong, fewer in
  # all (search/corrective.py, docs/results/pairs.md).
  corrective: float = field(0.0, least=0, most=1)
  # Above 0, candidates are sampled `portion` at a time, until the estimated
  # probability that the next is a new well-formed step is at most this. The
  # estimate is the share of steps that were sampled once (Good-Turing). Saves
  # tokens.
  unseen_mass: float = field(0.0, least=0, below=1)
  # Candidates of a leaf per portion, if unseen_mass is above 0.
  portion: int = field(4, above=0)
  # Candidates of equal text are merged. "keep_first" also drops all but the
  # first answer and its siblings, as the released code does.
  answer_dedup: Literal["merge", "keep_first"] = "merge"
  # A leaf whose expansion gives no valid child this many times in a row is
  # dead: its rollout fails and is not backed up (paper: a failing step is no
  # node; released code: 1, or 2 in round 1).
  max_consecutive_errors: int = field(1, above=0)
  # Most trees searched at once on a host.
  in_flight: int = field(64, above=0, binds=False)


@dataclasses.dataclass(kw_only=True)
class TrainConfig(Closed):
  """Training of the policy (SFT) or of the PPM."""

  # Passes over the data (paper: 2 for SFT, 1 for the PPM).
  epochs: int = field(2, above=0)
  # Number of updates, instead of `epochs`: the same for any amount of data,
  # such as a PPM's pairs and a PQM's prefixes. 0 uses `epochs`.
  updates: int = field(0, least=0)
  # Packed rows (SFT) or pairs (PPM) per update (paper: 128 and 512).
  batch_size: int = field(128, above=0)
  # Micro-batches that make one update; divides batch_size.
  accumulate: int = field(1, above=0)
  # Part of a layer that the backward pass recomputes, for less memory: "layer"
  # all of it, "mlp" the MLP, "elementwise" everything but products. "none"
  # leaves it to the compiler, and keeps more than "elementwise"
  # (docs/results/training_aot.md).
  remat: Literal["none", "elementwise", "mlp", "layer"] = "none"
  # Weight of the auxiliary loss that balances the load of experts,
  # `router_aux_loss_coef` in `transformers` (Qwen3-MoE was trained with 0.001).
  # 0 leaves it out, the default of `transformers`.
  balance: float = field(0.0, least=0)
  # Tokens of a row whose attention is computed at a time, and recomputed in the
  # backward pass; 0 is all. The scores of small blocks stay in a CPU's cache. A
  # TPU's kernel has blocks of its own.
  attention_block: int = field(0, least=0)
  # Tokens per packed row; a longer sample is dropped and counted.
  length: int = field(4096, above=0)
  # Peak learning rate (paper: 7e-6).
  learning_rate: float = field(7e-6, above=0)
  # Shape after warm-up (paper: linear for Qwen, cosine for Phi-3).
  schedule: Literal["linear", "cosine", "constant"] = "linear"
  # Updates of linear warm-up, as a share of all updates.
  warmup: float = field(0.0, least=0, most=1)
  # "muon" orthogonalises updates of the layers' matrices and leaves the rest to
  # AdamW (faster for a small model such as the bootstrap's). For less memory:
  # "adamw_8bit" quantises both moments, 2 bytes per parameter instead of 8;
  # "adafactor" keeps sums of rows and columns, and no first moment.
  optimizer: Literal["adamw", "adamw_8bit", "adafactor", "muon"] = "adamw"
  # LoRA: rank of the trained updates of the layers' matrices, which are frozen;
  # 0 trains all parameters. It needs a larger learning rate, such as 1e-4. The
  # scalar head is trained in full.
  lora_rank: int = field(0, least=0)
  # LoRA: updates are scaled by lora_alpha / lora_rank.
  lora_alpha: float = field(16.0, above=0)
  # LoRA: matrices of each layer that have an update.
  lora_matrices: tuple[
    Literal["q", "k", "v", "o", "gate", "up", "down"], ...
  ] = ("q", "k", "v", "o", "gate", "up", "down")
  # AdamW: decoupled weight decay, of matrices only.
  weight_decay: float = 0.1
  # AdamW: decay of the first moment.
  b1: float = 0.9
  # AdamW: decay of the second moment.
  b2: float = 0.95
  # Largest global norm of the gradient.
  clip: float = 1.0
  # One problem in this many is held out of training, and the model measured on
  # it; 0 holds out none. -1 is 10 for the reward models of a run, whose policy
  # was then trained on their held-out problems, and 0 for all else: also for
  # `train_ppm`, which trains on all pairs that it is given.
  held_out: int = field(-1, least=-1)
  # Updates between measurements on held-out problems. 0 measures only at the
  # end; the accuracy of a run's reward models is always measured there.
  eval_every: int = field(0, least=0, binds=False)
  # Decay of the moving average of parameters, which becomes the trained model;
  # 0 takes the last parameters. It is smaller at first: at most (1 + k) / (10 +
  # k) at update k.
  ema: float = field(0.0, least=0, below=1)
  # Updates between checkpoints.
  checkpoint_every: int = field(200, above=0, binds=False)
  # Updates between metrics.
  log_every: int = field(20, above=0, binds=False)

  @property
  def of_model(self) -> dict[str, str | int | float]:
    """The settings that belong to the model's config, by its fields."""
    names = "remat", "attention_block", "balance"
    return {name: getattr(self, name) for name in names}

  def passes(self, items: int) -> int:
    """Returns the number of passes over the items, the last one partial.

    Args:
      items: number of the items that `batch_size` counts, at least 1.
    """
    return -(-self.updates * self.batch_size // items) or self.epochs


@dataclasses.dataclass(kw_only=True)
class ReinforceConfig(Closed):
  """Reinforcement learning, in rounds whose `algorithm` is "grpo" or "tree".

  A round makes `iterations` turns: the current policy rolls out some problems,
  and is updated on all that it wrote, right and wrong. A round's `rollouts` are
  the size of a group.
  """

  # Turns of a round.
  iterations: int = field(100, above=0)
  # Problems of a turn.
  problems: int = field(32, above=0)
  # Updates of a turn, each with a share of the problems; with more than one the
  # later ones are off-policy.
  updates: int = field(1, above=0)
  # Temperature of samples, and of the probabilities in the loss. Below 1 if a
  # small model's samples are mostly malformed at 1. Other values than 1 need
  # `updates=1`, since probabilities are recorded at 1.
  temperature: float = field(1.0, above=0)
  # Advantage of a step in "tree", by the mean reward V of all ends below a
  # node: "siblings" V(node) - V(parent) (SPO); "treerl" the sum of that and
  # V(node) - V(root), larger for nodes above many ends; "treepo" the mean of
  # V(node) - V(ancestor) over all ancestors.
  advantage: Literal["siblings", "treerl", "treepo"] = "treerl"
  # Whether advantages are divided by the standard deviation of a problem's
  # rewards.
  normalize: bool = True
  # With a negative advantage, the ratio of a token's new probability to its old
  # one is clipped below at 1 minus this.
  clip_low: float = field(0.2, above=0, most=1)
  # With a positive advantage, the ratio is clipped above at 1 plus this.
  clip_high: float = field(0.28, above=0)
  # A token with negative advantage and a ratio above this has no gradient.
  ratio_limit: float = field(10.0, above=1)
  # Weight of the divergence from the round's first policy; 0 leaves it out.
  kl: float = field(0.0, least=0)
  # The optimiser. `batch_size` is the number of packed rows of a micro-batch;
  # an update has as many micro-batches as its tokens need. `epochs` and
  # `updates` are not used.
  train: TrainConfig = field(
    factory=lambda: TrainConfig(
      batch_size=16,
      learning_rate=1e-6,
      schedule="constant",
      weight_decay=0.0,
      checkpoint_every=10,
      log_every=1,
    )
  )


@dataclasses.dataclass(kw_only=True)
class ExtractConfig(Closed):
  """Trees -> SFT rows and preference pairs."""

  # Source of solutions instead of trees: a file in the format of the released
  # rstar_sft, or the "hf:" name of such a data set. Empty: trees.
  sft_source: str = ""
  # Source of preference pairs, likewise, in the format of rstar_ppm. If both
  # are given, no trees are needed, and rollouts are left out.
  pairs_source: str = ""
  # Uses the trees of this many newest rounds (paper: 1). More than one helps if
  # a single round gives few pairs.
  rounds: int = field(1, above=0)
  # Correct trajectories of a problem for training (paper Table 7): "q", those
  # of highest average Q; "random"; "all"; or "reward", those that the search's
  # reward model values highest, wrong ones included (rejection sampling;
  # without a reward model the same as "q").
  sft_choice: Literal["q", "random", "reward", "all"] = "q"
  # Their number, except for "all" (paper: 2).
  sft_per_problem: int = field(2, above=0)
  # Problems with a smaller share of correct trajectories are left out; 0 keeps
  # all (paper: synthetic problems under 0.5).
  min_correct_share: float = field(0.0, least=0, most=1)
  # Applies that to problems of these sources, as rows name them; empty: all.
  min_correct_of: tuple[str, ...] = ()
  # Positives per step, the siblings of highest Q (paper: 2).
  positives: int = field(2, above=0)
  # Negatives per step, the siblings of lowest Q (paper: 2).
  negatives: int = field(2, above=0)
  # Smallest difference of Q within a pair (released code: 0.5).
  min_margin: float = field(0.0, least=0)
  # Whether the final step gives pairs of full trajectories (paper: yes).
  final_pairs: bool = True
  # Whether each step pair is joined by a pair of nodes after different
  # prefixes, so that values are comparable across prefixes and not among
  # siblings alone (paper: no; docs/results/oracle.md).
  pairs_across: bool = False
  # Most pairs taken from one problem; 0 is no limit.
  max_pairs_per_problem: int = field(0, least=0)

  @property
  def needs_trees(self) -> bool:
    """Whether training data come from trees, so that problems are searched."""
    return not (self.sft_source and self.pairs_source)


@dataclasses.dataclass(kw_only=True)
class EvalConfig(Closed):
  """The evaluation after each round, on held-out problems."""

  # Held-out problems; none of them is trained on.
  data: DataConfig = field(
    factory=lambda: DataConfig(source="synthetic:test", count=300)
  )
  # Further splits, evaluated in the same way.
  more: tuple[DataConfig, ...] = ()
  # In rounds before the last, number of problems of each split that are also
  # sampled and searched, and not only solved greedily; 0 is all.
  early_problems: int = field(0, least=0)
  # Solutions sampled per problem for majority vote and best-of-N; of these, as
  # many count as cost what the search costs. 0 is the most that a search can
  # cost, rollouts x candidates: 128, of which some 113 count.
  samples: int = field(0, least=0)
  # Search at test time (paper: 4 rollouts x 32 candidates).
  search: SearchConfig = field(
    factory=lambda: SearchConfig(
      rollouts=4, candidates=32, annotation="ppm", terminal_reward="ppm"
    )
  )
  # Choice of the search's answer among its trajectories: "best", the paper's
  # best PPM score (see search.trajectory_value, which best-of-N uses too); or a
  # vote: of all, weighted by the PPM, or of the k of highest value (released
  # code).
  answer_select: Literal["best", "majority", "weighted", "top_k"] = "best"
  # Number of voters in "top_k" (released code: 4).
  top_k: int = field(4, above=0)
  # Replaces the round's PPM: a Hugging Face folder or name of a reward model;
  # or FORM:NAME if the folder does not show its input format, e.g.
  # "math_shepherd:NAME" (docs/your_reward.md); or "module:function" (config) ->
  # a Score (types.py).
  reward_model: str = field("", takes=("config",))

  @property
  def sets(self) -> tuple[DataConfig, ...]:
    """All evaluation sets."""
    return self.data, *self.more


@dataclasses.dataclass(kw_only=True)
class StudyConfig(Closed):
  """The comparison of `rstar_jax study`, on the problems of `eval`."""

  # Ways to solve a problem; a search plugin as in `search.method`. "puct" has
  # to be asked for, since it needs the policy's log-probabilities.
  methods: tuple[str, ...] = field(
    tuple(each for each in METHODS if each != "puct"),
    takes=("problems", "config", "calls", "seed=", "name="),
    words=METHODS,
  )
  # Reward models to compare: "ppm" is the round's own; "orm" and "pqm" are
  # trained on its trees; "ppm:FOLDER" is a PPM of another round or run; others
  # as in `eval.reward_model`.
  rewards: tuple[str, ...] = field(("ppm",), takes=("config",))
  # Updates of each "orm" and "pqm", such as the PPM's, which has fewer items. 0
  # trains as `ppm` says.
  updates: int = field(0, least=0)
  # Most rollouts of one search, and most searches.
  trajectories: int = field(16, above=0)
  # Most samples; for "rebase", at each depth. 0 is the most that `trajectories`
  # rollouts can cost, as in `eval.samples`.
  samples: int = field(0, least=0)
  # Beams of a step beam search (released code: 8).
  beam_width: int = field(8, above=0)
  # Groups of beams in diverse beam search; divides beam_width.
  beam_groups: int = field(4, above=0)
  # Temperature of the softmax by which "rebase" divides its samples (released
  # code: 0.2).
  rebase_temperature: float = field(0.2, above=0)
  # Rollouts of each search in "searches".
  rollouts_each: int = field(1, above=0)
  # Number of voters in a top-k majority, those of highest value (released code:
  # 4).
  top_k: int = field(4, above=0)
  # Whether a problem's samples and searches stop once their majority can no
  # longer change. The majority is then the only choice in tables.
  early_stop: bool = False
  # The choice that has to be settled instead. "weighted" and "best" apply to
  # searches: all samples are then drawn, since models value them afterwards.
  early_choice: Literal["majority", "weighted", "best"] = "majority"
  # With early_stop: they also stop once the leading answer is the likeliest one
  # with this probability (adaptive consistency: 0.95), so that hard problems
  # get more samples; 1 requires certainty.
  confidence: float = field(1.0, above=0.5, most=1)


@dataclasses.dataclass(kw_only=True)
class DecontaminateConfig(Closed):
  """Training problems that are dropped since they are in an evaluation set."""

  # Drops problems that share this many consecutive words with an evaluation
  # question, or all words if they have fewer; 0 drops none (commonly 13).
  ngram: int = field(13, least=0)
  # Further evaluation sets, in addition to those of `eval`.
  against: tuple[DataConfig, ...] = ()


@dataclasses.dataclass(kw_only=True)
class RoundConfig(Closed):
  """A round of self-evolution; its search is `search` with these changes."""

  # Source of a round's trees: a "search", or independent "samples", as many per
  # problem as `rollouts` (expert iteration).
  rollout: Literal["search", "samples"] = "search"
  # Training of a round's policy: "sft" on the solutions in its trees (paper);
  # or reinforcement of the last round's policy: "grpo" rewards whole solutions,
  # "tree" each step, by `reinforce.advantage`.
  algorithm: Literal["sft", "grpo", "tree"] = "sft"
  # Root-to-leaf descents per tree.
  rollouts: int = field(16, above=0)
  # Candidates sampled at each expansion.
  candidates: int = field(8, above=0)
  # "ppm" uses the last round's PPM, so round 1 has to name one.
  annotation: Literal["terminal", "ppm"] = "terminal"
  # Replaces the last round's policy: a Hugging Face folder or name of a model
  # with the base model's tokenizer.
  policy: str = ""
  # Replaces the last round's PPM, likewise; or a published reward model or a
  # plugin as in `eval.reward_model`.
  ppm: str = field("", takes=("config",))
  # Trees per problem, each with its own seeds (paper: 2 in round 4).
  trees: int = field(1, above=0)
  # Whether problems are left out if all their answers were right in the last
  # round that searched them; they count as solved.
  retire: bool = False
  # Extra rollouts for unsolved problems, a value per attempt (paper: 16 in
  # rounds 2-3; 64 in round 4, then up to 128, so 64 more).
  extra_rollouts: tuple[int, ...] = field((), above=0)


@dataclasses.dataclass(kw_only=True)
class Config(Closed):
  """All settings of a run."""

  # Seed of the run; all others derive from it.
  seed: int = 0
  # Problems per shard, a file that one host writes.
  shard_size: int = field(50, above=0)
  # Folder of compiled programs, for later processes. Empty: programs/ in the
  # run's folder.
  programs: str = field("", binds=False)
  # Trackers that get the metrics, beside metrics.jsonl: "tensorboard", if it is
  # installed, "wandb" (Weights & Biases) and "trackio"; docs/watching.md.
  trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = field(
    ("tensorboard",), binds=False
  )
  # The task: "math"; "code", functions that tests judge; "reasoning_gym:NAME"
  # of that library; or "module:function" () -> a Task (tasks/task.py).
  task: str = field("math", takes=(), words=("math", "code", "reasoning_gym:"))
  # The base model.
  policy: PolicyConfig = field(factory=PolicyConfig)
  # Training problems.
  train: DataConfig = field(factory=DataConfig)
  # Removal of evaluation problems from the training problems.
  decontaminate: DecontaminateConfig = field(factory=DecontaminateConfig)
  # Mesh of one host's devices, in search and evaluation; hosts are replicas.
  search_mesh: MeshConfig = field(factory=MeshConfig)
  # Mesh of all hosts' devices, in training.
  train_mesh: MeshConfig = field(factory=MeshConfig)
  # Search over training problems; each round overrides some fields.
  search: SearchConfig = field(factory=SearchConfig)
  # Generation, in the rounds and in evaluation.
  engine: EngineConfig = field(factory=EngineConfig)
  # A larger model that searches in round 1 instead of the base model, if any.
  remote: RemoteConfig = field(factory=RemoteConfig)
  # Servers that replace the engine, if any.
  servers: ServersConfig = field(factory=ServersConfig)
  # Ray cluster that searches and evaluates, if any.
  ray: RayConfig = field(factory=RayConfig)
  # Execution of the policy's code.
  sandbox: SandboxConfig = field(factory=SandboxConfig)
  # Comparison of answers with the gold ones.
  grader: GraderConfig = field(factory=GraderConfig)
  # Choice of training data from trees.
  extract: ExtractConfig = field(factory=ExtractConfig)
  # Training of the policy.
  sft: TrainConfig = field(factory=TrainConfig)
  # Training of the PPM.
  ppm: TrainConfig = field(
    factory=lambda: TrainConfig(epochs=1, batch_size=512)
  )
  # Reinforcement learning, in rounds that use it.
  reinforce: ReinforceConfig = field(factory=ReinforceConfig)
  # Model that each round's SFT starts from: the "base" model (paper section
  # 3.4), the last round's policy ("last"), or a Hugging Face folder or name of
  # a model with the base model's tokenizer.
  sft_from: str = "base"
  # Training data of the reward model: "ppm" preference pairs (paper Eq. 4),
  # "pqm" the Q-values themselves, "orm" whether a whole solution is right.
  reward: Literal["ppm", "pqm", "orm"] = "ppm"
  # Whether right items (Q above 0) and others get the same total weight in
  # "pqm" and "orm". A pair has one of each.
  reward_balanced: bool = False
  # Head of the PPM: the paper trains through tanh; the released code trains raw
  # values and applies tanh(x / 5) at inference.
  ppm_head: Literal["tanh", "logit"] = "tanh"
  # Evaluation after each round.
  eval: EvalConfig = field(factory=EvalConfig)
  # Comparison of methods at equal cost.
  study: StudyConfig = field(factory=StudyConfig, binds=False)
  # The rounds in order (paper section 3.4). More may be added at the end at any
  # time.
  rounds: tuple[RoundConfig, ...] = field(
    factory=lambda: (
      RoundConfig(rollouts=8, candidates=5),
      RoundConfig(extra_rollouts=(16,)),
      RoundConfig(annotation="ppm", extra_rollouts=(16,)),
      RoundConfig(
        candidates=16, annotation="ppm", trees=2, extra_rollouts=(64, 64)
      ),
    )
  )

  @property
  def trainings(self) -> dict[str, TrainConfig]:
    """The trainings of the rounds whose batches a mesh cuts, by their fields.

    Reinforcement is not among them: it fills its batches up.
    """
    by_sft = any(each.algorithm == "sft" for each in self.rounds)
    policies = {"sft": self.sft} if by_sft else {}
    return {**policies, "ppm": self.ppm}
