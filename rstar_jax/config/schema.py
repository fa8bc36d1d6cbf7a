"""Configuration: one dataclass a stage, a comment above every field.

The defaults of the search and of training are the paper's; a config file says
what differs. The range of a value stands beside its field, and `binds=False` at
those that a run may change at any time: they say how it is run, not what comes
out (`config/identity.py`). Rules between fields are in `config/validation.py`.
"""

import dataclasses
from typing import Literal

from rstar_jax.config.closed import Closed, field

# Ways to solve a problem; `evaluation/sources.py` says what each one is.
METHODS = (
  *("greedy", "samples", "beam", "diverse_beam", "rebase", "mcts", "searches"),
  "ab_mcts",
)


def urls_of(text: str) -> list[str]:
  """Returns the bases of the servers that a field names, with commas."""
  return [url.strip().rstrip("/") for url in text.split(",")] if text else []


@dataclasses.dataclass(kw_only=True)
class MeshConfig(Closed):
  """Devices along each mesh axis; -1 takes what is left."""

  # Copies of the model, each with its part of the batch.
  data: int = -1
  # Parts that parameters and optimiser state are cut into while at rest.
  fsdp: int = 1
  # Parts that each matrix product is cut into.
  tensor: int = 1


@dataclasses.dataclass(kw_only=True)
class PolicyConfig(Closed):
  """The base model, from which every round's SFT starts."""

  # A Hugging Face folder or name, or a GGUF file; a folder or a file may be in
  # a bucket (gs://). Empty: the bootstrap checkpoint that ships with the
  # package.
  path: str = ""
  # How a model is asked: "trained", by the task's prompt; or "few_shot", for
  # the base model alone, by solved examples, as any model can be asked.
  prompt: Literal["trained", "few_shot"] = "trained"
  # Who writes the steps in our engine's place: "module:function"
  # (config, folder) -> an Expand (types.py); the folder is the round's policy.
  backend: str = field("", takes=("config", "folder"), words=("",))
  # dtype of activations, and of parameters where they are not trained.
  dtype: Literal["float32", "bfloat16"] = "float32"
  # Where the markers need new rows of the embedding, their number is rounded up
  # to a multiple of this, so that a mesh can cut it.
  vocab_multiple: int = field(128, above=0)


@dataclasses.dataclass(kw_only=True)
class DataConfig(Closed):
  """Problems of one split."""

  # "synthetic:SPLIT", a .jsonl, .json, .csv (also .gz, .zst) or .parquet file,
  # "tfds:NAME/SPLIT", "hf:OWNER/NAME[/CONFIG]/SPLIT" of the Hugging Face Hub
  # (data/hub.py), "task:SPLIT" of the task's own problems, or "module:function"
  # () -> problems, or rows as dicts.
  source: str = field("synthetic:train", takes=())
  # Rows that are taken, by a field and its values: "source=olympiads,amc_aime".
  # Of several such conditions all have to hold.
  where: tuple[str, ...] = ()
  # How many problems; 0 takes all (not for synthetic, which has no end).
  count: int = field(0, least=0)
  # Seed of the generator of synthetic problems.
  seed: int = 0
  # What a line that cannot be read does: "skip" it with a warning, or "raise".
  on_error: Literal["skip", "raise"] = "raise"
  # Name of the question's field, "a.b" for one within another, or a template
  # of several: "{body} {question}". Empty: found by shape (data/shapes.py).
  question_field: str = ""
  # Name of the answer's field, likewise. Named, it is taken as it is.
  answer_field: str = ""
  # A regular expression that finds the answer within that field: its first
  # group, or all that it matches. Empty: as the shape says.
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
  # Keep tokens at least so likely, as a share of the likeliest; 0 keeps all.
  min_p: float = field(0.0, least=0, most=1)
  # Longest step, in tokens, its marker included.
  max_step_tokens: int = field(64, above=0)
  # Longest code block where solutions are sampled whole, in tokens.
  max_block_tokens: int = field(256, above=0)
  # Longest prefix that can be expanded, in tokens; the candidates of a longer
  # one come back empty, finish "length".
  max_prefix_tokens: int = field(384, above=0)
  # Token slots of a step: candidates that are sampled at once.
  rows: int = field(64, above=0, binds=False)
  # Most tokens that a slot samples in one call of a program. The engine takes
  # fewer where the host is quick beside a step.
  inner_steps: int = field(8, above=0, binds=False)
  # Token slots of a call that computes prefixes, or steps to be scored.
  prefill_tokens: int = field(256, above=0, binds=False)
  # Pages of 16 tokens for keys and values, of the policy and of the PPM each; 0
  # is enough for `rows`.
  pages: int = field(0, least=0, binds=False)
  # What computes attention and products of few rows: "cpp" kernels that a C++
  # compiler makes for this CPU, "pallas" a kernel for TPUs, "xla" anywhere;
  # "auto" is the first that there is. "ragged" is jax's kernel for TPUs.
  kernels: Literal["auto", "cpp", "pallas", "ragged", "xla"] = "auto"
  # Matrices of the policy and of the PPM in a search: "float", as they are, or
  # "int8", rounded to 255 steps, with a scale for each output. That is half of
  # bfloat16's memory, and faster where rows are few; on a CPU it is slower.
  weights: Literal["float", "int8"] = "float"
  # Whether a stage compiles its programs before it begins, with a progress bar,
  # and not each at its first call.
  warm_up: bool = field(False, binds=False)


@dataclasses.dataclass(kw_only=True)
class ClientConfig(Closed):
  """How servers are asked."""

  # Name of the environment variable that holds the API key; empty: no key.
  api_key_env: str = field("", binds=False)
  # Most requests that wait for an answer at once, of all servers together.
  in_flight: int = field(64, above=0, binds=False)
  # A request without an answer for this many seconds is asked again.
  timeout_seconds: float = field(600.0, above=0, binds=False)
  # A request that keeps failing, wherever it is sent, is asked again for this
  # many seconds.
  patience_seconds: float = field(900.0, least=0, binds=False)


@dataclasses.dataclass(kw_only=True)
class RemoteConfig(ClientConfig):
  """A larger model behind servers, to make the first round's data with.

  Round 1 of the paper: a 236B model, 8 rollouts of 5 candidates at 0.7.
  """

  # Base of an OpenAI-compatible server, e.g. "http://localhost:8000/v1", or of
  # several of one model, with commas; what is asked is URL/completions. Empty:
  # the base model makes round 1 too. Which servers they are may change at any
  # time, not whether there are some.
  url: str = field("", binds=bool)
  # The model's name on that server.
  model: str = ""
  # Samples of one request; 1 where the server gives one only (llama.cpp's and
  # transformers' do).
  samples_per_request: int = field(5, above=0)
  # Softmax temperature; 0 is greedy.
  temperature: float = field(0.7, least=0)
  # Keep the likeliest tokens that sum to p; 1 keeps all.
  top_p: float = field(1.0, above=0, most=1)
  # Longest step, in the server's tokens.
  max_tokens: int = field(512, above=0)
  # More fields of each request, as a JSON object: what a server can give beyond
  # the text (vLLM: return_token_ids), or wants to be told (transformers takes
  # do_sample from generation_config, a string that is JSON itself).
  extra: str = '{"logprobs": 0}'


@dataclasses.dataclass(kw_only=True)
class ServersConfig(ClientConfig):
  """Servers in our engine's place, with the run's own policies and PPMs.

  They take and give token ids; how steps are sampled is `engine`'s.
  """

  # More than of a larger model: a candidate is a request here.
  in_flight: int = field(256, above=0, binds=False)

  # Bases of servers of the policy, with commas, e.g.
  # "http://a:8000/v1,http://b:8000/v1"; each tree stays with one of them.
  # Empty: our engine. Which they are may change at any time, not whether.
  policy: str = field("", binds=bool)
  # Bases of servers of the PPM, likewise.
  ppm: str = field("", binds=bool)
  # Bases of servers of a published reward model, `eval.reward_model` and the
  # like, likewise. They stay as they were started: `load` puts nothing there.
  reward: str = field("", binds=bool)
  # What they speak: "openai" is /v1/completions and /pooling with token ids
  # (vLLM, `rstar_jax.tools.serve`), "sglang" is /generate and /classify
  # (SGLang); "sglang_jax" is the same without seeds, which SGLang-JAX lacks.
  protocol: Literal["openai", "sglang", "sglang_jax"] = field(
    "openai", binds=False
  )
  # The model's name on them; empty: the only one that they have.
  model: str = field("", binds=False)
  # Who puts a round's model there before it is asked: "vllm" and "sglang" by a
  # request that these servers take, or "module:function" (config, role, folder,
  # urls); the role is "policy" or "ppm". Empty: whoever starts the servers.
  load: str = field(
    "",
    binds=False,
    takes=("config", "role", "folder", "urls"),
    words=("", "vllm", "sglang"),
  )
  # Whether what servers compute is compared with the model, which is loaded
  # here once for that; otherwise only the form of their answers is looked at.
  compare: bool = field(True, binds=False)
  # By how much log-probabilities and values may be off then, on average: a
  # server computes in other numbers.
  tolerance: float = field(0.05, above=0, binds=False)


@dataclasses.dataclass(kw_only=True)
class RayConfig(Closed):
  """Hosts of a Ray cluster, which search and evaluate; see docs/ray.md."""

  # The cluster: "auto" for the one that this machine belongs to, HOST:PORT of
  # its head, or "local" for one on this machine alone. Empty: without Ray.
  address: str = field("", binds=False)
  # Most searchers, each with models of its own. Those for which there is no
  # room wait until a host joins.
  searchers: int = field(1, above=0, binds=False)
  # What a searcher takes of its host, in Ray's names: ("TPU=4",), ("GPU=1",).
  needs: tuple[str, ...] = field(("CPU=1",), binds=False)


@dataclasses.dataclass(kw_only=True)
class SandboxConfig(Closed):
  """Code execution; see `sandbox/pool.py`."""

  # Worker processes.
  workers: int = field(2, above=0, binds=False)
  # Wall time of one step, in seconds.
  wall_seconds: float = field(5.0, above=0)
  # Address space of one program, in bytes; also the memory of all interpreters
  # together that a worker keeps alive.
  memory_bytes: int = field(1 << 30, above=0)
  # Longest output of one step, in bytes.
  output_bytes: int = field(65536, above=0)
  # Most interpreters that a worker keeps alive, one for each prefix of steps
  # that it ran last; most take 2 to 14 MB. 0 executes each prefix anew.
  live: int = field(32, least=0, binds=False)
  # What a boundary of the kernel has to hold, or the run is refused: "net",
  # "read", "write", "fork" and so on; see docs/security.md.
  require: tuple[str, ...] = field((), binds=False)


@dataclasses.dataclass(kw_only=True)
class GraderConfig(Closed):
  """Answer grading; see `grading/grader.py`."""

  # Killable worker processes.
  workers: int = field(1, above=0, binds=False)
  # Deadline of one comparison, in seconds; past it the verdict is undecided.
  seconds: float = field(4.0, above=0)
  # Whether 25% also equals 1/4 and 0.25; by default it equals 25% and 25 only.
  percent_is_ratio: bool = False
  # Who compares in the place of ours: "module:function" (gold, predicted) ->
  # True or False, or "equal", "different" or "undecided".
  function: str = field("", takes=("gold", "predicted"), words=("",))


@dataclasses.dataclass(kw_only=True)
class SearchConfig(Closed):
  """MCTS. Defaults are the paper's; each departure is a named switch."""

  # Who searches: "mcts", or "module:function" with the arguments of
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
  # Exploration constant c of UCT (paper Eq. 1: 2).
  c: float = field(2.0, least=0)
  # Score of an unvisited child: "zero", as the paper's authors mean it, its
  # initial Q without an exploration bonus, so that a branch that pays is
  # followed to its end; "inf" is standard UCT, which tries every child first
  # (docs/results/pairs.md).
  uct_unvisited: Literal["zero", "inf"] = "zero"
  # "terminal": Q only from terminals (rounds 1-2, Eq. 2). "ppm": the PPM's
  # value starts a new node's Q (rounds 3-4, Eq. 3).
  annotation: Literal["terminal", "ppm"] = "terminal"
  # What a terminal backs up: "truth" is +1/-1 by the grader or by
  # tests, or what the task's reward gives; "ppm" the PPM's score of the full
  # trajectory (test time).
  terminal_reward: Literal["truth", "ppm"] = "truth"
  # The PPM's score of a full trajectory, used at test time: its value at the
  # last step (paper), or the mean or the least of its values at all steps.
  trajectory_value: Literal["last", "mean", "min"] = "last"
  # Whether the PPM's initial value counts as a visit (released code: yes).
  ppm_counts_visit: bool = True
  # MCTS: share of rollouts that begin not at the root, but beside a step that
  # led to wrong answers alone: more pairs where the PPM is wrong, fewer in all
  # (search/corrective.py, docs/results/pairs.md).
  corrective: float = field(0.0, least=0, most=1)
  # Above 0, candidates are sampled `portion` at a time, and no more of a leaf
  # once the estimated probability that the next is a new well-formed step is at
  # most this: the share that was sampled once (Good-Turing). Saves tokens.
  unseen_mass: float = field(0.0, least=0, below=1)
  # Candidates of a leaf that are sampled at once, if unseen_mass is above 0.
  portion: int = field(4, above=0)
  # Candidates of equal text are merged. "keep_first" also drops all but the
  # first answer and everything beside it, as the released code does.
  answer_dedup: Literal["merge", "keep_first"] = "merge"
  # A leaf whose expansion leaves no valid child this many times in a row is
  # dead: its rollout fails and is not backed up (paper: a failing step is no
  # node at all; the released code: 1, or 2 in round 1).
  max_consecutive_errors: int = 1
  # Most trees searched at once on a host.
  in_flight: int = field(64, above=0, binds=False)


@dataclasses.dataclass(kw_only=True)
class TrainConfig(Closed):
  """Training of the policy (SFT) or of the PPM."""

  # Passes over the data (paper: 2 for SFT, 1 for the PPM).
  epochs: int = field(2, above=0)
  # Updates, in the place of `epochs`: as many for any amount of data, such as a
  # PPM's pairs and a PQM's prefixes. 0 takes `epochs`.
  updates: int = field(0, least=0)
  # Packed rows (SFT) or pairs (PPM) per update (paper: 128 and 512).
  batch_size: int = field(128, above=0)
  # Micro-batches that make one update; divides batch_size.
  accumulate: int = field(1, above=0)
  # What of a layer the backward pass computes again, for less memory: "layer"
  # all of it, "mlp" the MLP, "elementwise" nothing that is a product. "none"
  # leaves it to the compiler, and keeps more than "elementwise"
  # (docs/results/training_aot.md).
  remat: Literal["none", "elementwise", "mlp", "layer"] = "none"
  # Weight of the auxiliary loss that spreads tokens over the experts of a
  # mixture, as `router_aux_loss_coef` (Qwen3-MoE was trained with 0.001). 0
  # leaves it out, as `transformers` does unless it is asked.
  balance: float = field(0.0, least=0)
  # Tokens of a row whose attention is computed at once, and again in the
  # backward pass; 0 is all. Scores of few stay in a CPU's fast memory. A TPU's
  # kernel has blocks of its own.
  attention_block: int = field(0, least=0)
  # Tokens per row; a longer sample is dropped and counted.
  length: int = field(4096, above=0)
  # Peak learning rate (paper: 7e-6).
  learning_rate: float = field(7e-6, above=0)
  # Shape after warm-up (paper: linear for Qwen, cosine for Phi-3).
  schedule: Literal["linear", "cosine", "constant"] = "linear"
  # Updates of linear warm-up, as a share of all updates.
  warmup: float = field(0.0, least=0, most=1)
  # "muon" orthogonalises the updates of the matrices inside the layers and
  # leaves the rest to AdamW (quicker for a small model, e.g. the bootstrap's).
  # For less memory: "adamw_8bit" rounds both moments, 2 bytes a parameter and
  # not 8; "adafactor" keeps sums of rows and columns, and no first moment.
  optimizer: Literal["adamw", "adamw_8bit", "adafactor", "muon"] = "adamw"
  # LoRA: rank of the updates that are trained in the place of the layers'
  # matrices, which stay as they are; 0 trains all parameters. It wants a larger
  # learning rate, such as 1e-4. The scalar head is trained as it is.
  lora_rank: int = field(0, least=0)
  # The updates count lora_alpha / lora_rank times.
  lora_alpha: float = field(16.0, above=0)
  # Which matrices of each layer have one.
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
  # One problem in so many is kept out of training, and the model measured on
  # it; 0 keeps none out. -1 is 0 for a policy, and 10 for a reward model.
  held_out: int = field(-1, least=-1)
  # Updates between measurements of what is held out. 0 measures a policy at its
  # end; of a reward model the accuracy there is always measured.
  eval_every: int = field(0, least=0, binds=False)
  # Decay of the moving average of the parameters that the trained model is; 0
  # takes the last ones. It is less at first: at most (1 + k) / (10 + k) at
  # update k.
  ema: float = field(0.0, least=0, below=1)
  # Updates between checkpoints.
  checkpoint_every: int = field(200, above=0, binds=False)
  # Updates between metrics.
  log_every: int = field(20, above=0, binds=False)

  @property
  def of_model(self) -> dict[str, str | int | float]:
    """The settings that the model's own config takes, by its fields."""
    names = "remat", "attention_block", "balance"
    return {name: getattr(self, name) for name in names}

  def passes(self, items: int) -> int:
    """Returns how often so many items are gone through, the last time in part.

    Args:
      items: what `batch_size` counts, at least 1.
    """
    return -(-self.updates * self.batch_size // items) or self.epochs


@dataclasses.dataclass(kw_only=True)
class ReinforceConfig(Closed):
  """Reinforcement learning, in rounds whose `algorithm` is one of its kinds.

  A round makes `iterations` turns: some problems are rolled out by the policy
  of that moment, and it is updated on all that it wrote, right and wrong. A
  round's `rollouts` are the size of a group.
  """

  # Turns of a round.
  iterations: int = field(100, above=0)
  # Problems of a turn.
  problems: int = field(32, above=0)
  # Updates of a turn, each with its part of the problems; with more than one
  # the policy is no longer the one that wrote.
  updates: int = field(1, above=0)
  # What the policy samples at, and the probabilities that are trained are of.
  # Lower than 1 where a small model's samples are mostly malformed at 1. Other
  # than 1 it needs `updates=1`: a draw's probability is recorded at 1.
  temperature: float = field(1.0, above=0)
  # What a step is worth in "tree", by the mean reward V of what ends below a
  # node: "siblings" V(node) - V(parent) (SPO); "treerl" the sum of that and
  # V(node) - V(root), more for nodes above many ends; "treepo" the mean of
  # V(node) - V(ancestor) over all ancestors.
  advantage: Literal["siblings", "treerl", "treepo"] = "treerl"
  # Whether advantages are divided by the deviation of a problem's rewards.
  normalize: bool = True
  # The ratio of a token's new probability to its old one counts down to 1 less
  # this, where the advantage is negative.
  clip_low: float = field(0.2, above=0, most=1)
  # It counts up to 1 and this, where the advantage is positive.
  clip_high: float = field(0.28, above=0)
  # A token of negative advantage whose ratio is above this has no gradient.
  ratio_limit: float = field(10.0, above=1)
  # Weight of the divergence from the round's first policy; 0 leaves it out.
  kl: float = field(0.0, least=0)
  # The optimiser; `batch_size` counts packed rows that are computed at once,
  # and there are as many of them in an update as its tokens need. Its `epochs`
  # and `updates` are not used.
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

  # Where solutions come from instead of trees: a file of the form of the
  # released rstar_sft, or an "hf:" name of such a data set. Empty: trees.
  sft_source: str = ""
  # Where preference pairs come from, likewise, in the form of rstar_ppm. Where
  # both are given no tree is needed, and so there is no rollout.
  pairs_source: str = ""
  # Whose trees are used: those of so many newest rounds (paper: 1). More than
  # one helps where a round alone gives few pairs.
  rounds: int = field(1, above=0)
  # Which correct trajectories of a problem are trained on (paper Table 7):
  # those of highest average Q, any ("random"), or "all"; or those that the
  # search's reward model values highest, wrong ones too ("reward": rejection
  # sampling; where no model guided a search, as "q").
  sft_choice: Literal["q", "random", "reward", "all"] = "q"
  # How many of them, in all but "all" (paper: 2).
  sft_per_problem: int = field(2, above=0)
  # Problems whose trajectories are correct less often than this are left out;
  # 0 keeps all (paper: synthetic problems under 0.5).
  min_correct_share: float = field(0.0, least=0, most=1)
  # Sources of the problems that this is for, as rows name them; empty: all.
  min_correct_of: tuple[str, ...] = ()
  # Positives per step, the siblings of highest Q (paper: 2).
  positives: int = field(2, above=0)
  # Negatives per step, the siblings of lowest Q (paper: 2).
  negatives: int = field(2, above=0)
  # Smallest difference of Q within a pair (released code: 0.5).
  min_margin: float = field(0.0, least=0)
  # Whether full-trajectory pairs are made for the final step (paper: yes).
  final_pairs: bool = True
  # Whether each step pair comes with one of nodes after different prefixes, so
  # that values compare across prefixes and not between siblings alone (paper:
  # no; docs/results/oracle.md).
  pairs_across: bool = False
  # Most pairs taken from one problem; 0 is no limit.
  max_pairs_per_problem: int = field(0, least=0)

  @property
  def needs_trees(self) -> bool:
    """Whether anything is taken from trees, and problems are searched."""
    return not (self.sft_source and self.pairs_source)


@dataclasses.dataclass(kw_only=True)
class EvalConfig(Closed):
  """The evaluation after each round, on held-out problems."""

  # Problems that are measured; none of them is trained on.
  data: DataConfig = field(
    factory=lambda: DataConfig(source="synthetic:test", count=300)
  )
  # More splits, measured in the same way.
  more: tuple[DataConfig, ...] = ()
  # In rounds before the last, how many of the problems of each split are solved
  # by sampling and by search too, not just greedily; 0 is all.
  early_problems: int = field(0, least=0)
  # Solutions sampled per problem for majority vote and best-of-N, of which as
  # many count as cost what the search costs. 0 is the most that it can cost,
  # its rollouts x candidates: 128, of which some 113 count.
  samples: int = field(0, least=0)
  # Search at test time (paper: 4 rollouts x 32 candidates).
  search: SearchConfig = field(
    factory=lambda: SearchConfig(
      rollouts=4, candidates=32, annotation="ppm", terminal_reward="ppm"
    )
  )
  # How the search's answer is chosen among its trajectories: the paper's best
  # PPM score (see search.trajectory_value, which best-of-N follows too), or a
  # vote: of all, weighted by the PPM, or of the k that it values highest (the
  # released code).
  answer_select: Literal["best", "majority", "weighted", "top_k"] = "best"
  # How many vote in "top_k" (released code: 4).
  top_k: int = field(4, above=0)
  # Values solutions in the place of the round's PPM: a Hugging Face folder or
  # name of a reward model, or FORM:NAME where the folder does not tell how it
  # is asked, "math_shepherd:NAME" (docs/your_reward.md); or "module:function"
  # (config) -> a Score (types.py).
  reward_model: str = field("", takes=("config",))


@dataclasses.dataclass(kw_only=True)
class StudyConfig(Closed):
  """The comparison of `rstar_jax study`, on the problems of `eval`."""

  # Ways to solve a problem; a search of one's own as in `search.method`.
  methods: tuple[str, ...] = field(
    METHODS,
    takes=("problems", "config", "calls", "seed=", "name="),
    words=METHODS,
  )
  # Who guides and chooses: "ppm" is the round's own; "orm" and "pqm" are
  # trained on its trees; "ppm:FOLDER" is that of another round or run; else as
  # in `eval.reward_model`.
  rewards: tuple[str, ...] = field(("ppm",), takes=("config",))
  # Most rollouts of one search, and most searches.
  trajectories: int = field(16, above=0)
  # Most samples, of "rebase" too, at each depth. 0 is the most that so many
  # rollouts can cost, as in `eval.samples`.
  samples: int = field(0, least=0)
  # Beams of a step beam search (released code: 8).
  beam_width: int = field(8, above=0)
  # Parts that diverse beam search has its beams in; divides beam_width.
  beam_groups: int = field(4, above=0)
  # Of the softmax that "rebase" divides its samples by (released code: 0.2).
  rebase_temperature: float = field(0.2, above=0)
  # Rollouts of each of the searches of "searches".
  rollouts_each: int = field(1, above=0)
  # How many solutions of highest value vote in a top-k majority (released code:
  # 4).
  top_k: int = field(4, above=0)
  # Whether samples and searches of a problem end once their majority can no
  # longer change. It is then the only choice among them that is shown.
  early_stop: bool = False
  # The choice that has to be settled in its place. "weighted" and "best" are of
  # searches: samples are all taken then, since models value them afterwards.
  early_choice: Literal["majority", "weighted", "best"] = "majority"
  # With early_stop: they end, too, once their most frequent answer is so in
  # truth with this probability (adaptive consistency: 0.95), so that more is
  # spent on problems that are hard; 1 asks for certainty.
  confidence: float = field(1.0, above=0.5, most=1)


@dataclasses.dataclass(kw_only=True)
class DecontaminateConfig(Closed):
  """Which training problems are dropped for being in an evaluation set."""

  # Those that share so many words in a row with an evaluation question, or all
  # words where they have fewer; 0 drops none (the field's custom: 13).
  ngram: int = field(13, least=0)
  # Sets to look in beside those of `eval`.
  against: tuple[DataConfig, ...] = ()


@dataclasses.dataclass(kw_only=True)
class RoundConfig(Closed):
  """A round of self-evolution, where it differs from `search`."""

  # Where a round's trees come from: a "search", or independent "samples", as
  # many solutions of a problem as there would be rollouts (expert iteration).
  rollout: Literal["search", "samples"] = "search"
  # How a round's policy is trained: by "sft" on the solutions in its trees
  # (paper); or from the policy of the round before, by reinforcement: "grpo"
  # rewards whole solutions, "tree" each step, by `reinforce.advantage`.
  algorithm: Literal["sft", "grpo", "tree"] = "sft"
  # Root-to-leaf descents per tree.
  rollouts: int = field(16, above=0)
  # Candidates sampled at each expansion.
  candidates: int = field(8, above=0)
  # "ppm" uses the previous round's PPM, so round 1 has to name one.
  annotation: Literal["terminal", "ppm"] = "terminal"
  # Who searches in the place of the last round's policy: a Hugging Face folder
  # or name of a model with the base model's tokenizer.
  policy: str = ""
  # Who guides in the place of the last round's PPM, likewise, or another's
  # reward model or a plugin as in `eval.reward_model`.
  ppm: str = field("", takes=("config",))
  # Trees per problem, each with seeds of its own (paper: 2 in round 4).
  trees: int = field(1, above=0)
  # Whether problems are left out whose every answer was right in the last round
  # that searched them; they count as solved.
  retire: bool = False
  # Extra rollouts, one value an attempt, for problems still unsolved (paper:
  # 16 in rounds 2-3; 64 in round 4, then up to 128, so 64 more).
  extra_rollouts: tuple[int, ...] = field((), above=0)


@dataclasses.dataclass(kw_only=True)
class Config(Closed):
  """Everything that a run is."""

  # Seed of the run; all others derive from it.
  seed: int = 0
  # Problems per shard, a file that one host writes.
  shard_size: int = field(50, above=0)
  # Where compiled programs are kept for the next process. Empty: in the run's
  # folder, programs/.
  programs: str = field("", binds=False)
  # Who gets the metrics beside metrics.jsonl: "tensorboard", if that is
  # installed, "wandb" (Weights & Biases) and "trackio"; docs/watching.md.
  trackers: tuple[str, ...] = field(("tensorboard",), binds=False)
  # What is learnt: "math"; "code", functions that tests judge;
  # "reasoning_gym:NAME" of that library; or "module:function" () -> a Task
  # (tasks/task.py).
  task: str = field("math", takes=(), words=("math", "code", "reasoning_gym:"))
  # The base model.
  policy: PolicyConfig = field(factory=PolicyConfig)
  # Training problems.
  train: DataConfig = field(factory=DataConfig)
  # What keeps them apart from the evaluation's.
  decontaminate: DecontaminateConfig = field(factory=DecontaminateConfig)
  # Devices of one host, in search and evaluation; hosts are replicas.
  search_mesh: MeshConfig = field(factory=MeshConfig)
  # Devices of all hosts together, in training.
  train_mesh: MeshConfig = field(factory=MeshConfig)
  # Search over training problems; each round overrides some of it.
  search: SearchConfig = field(factory=SearchConfig)
  # Generation, in the rounds and in evaluation.
  engine: EngineConfig = field(factory=EngineConfig)
  # Who searches in round 1 in the base model's place, if anyone.
  remote: RemoteConfig = field(factory=RemoteConfig)
  # Servers in our engine's place, if there are any.
  servers: ServersConfig = field(factory=ServersConfig)
  # Who searches for all rounds, and evaluates, if not this process.
  ray: RayConfig = field(factory=RayConfig)
  # Execution of the policy's code.
  sandbox: SandboxConfig = field(factory=SandboxConfig)
  # Comparison of answers with the gold ones.
  grader: GraderConfig = field(factory=GraderConfig)
  # What of the trees becomes training data.
  extract: ExtractConfig = field(factory=ExtractConfig)
  # Training of the policy.
  sft: TrainConfig = field(factory=TrainConfig)
  # Training of the PPM.
  ppm: TrainConfig = field(
    factory=lambda: TrainConfig(epochs=1, batch_size=512)
  )
  # Reinforcement learning, in rounds that do it.
  reinforce: ReinforceConfig = field(factory=ReinforceConfig)
  # What each round's policy is trained from: the "base" model (paper section
  # 3.4), the policy of the round before ("last"), or a Hugging Face folder or
  # name of a model with the base model's tokenizer.
  sft_from: str = "base"
  # What the reward model learns from: "ppm" preference pairs (paper Eq. 4),
  # "pqm" the Q-values themselves, "orm" whether a whole solution is right.
  reward: Literal["ppm", "pqm", "orm"] = "ppm"
  # Whether in "pqm" and "orm" what is right (Q above 0) and what is not weigh
  # the same in sum. Pairs have one of each.
  reward_balanced: bool = False
  # What the PPM is: the paper trains through tanh; the released code trains
  # raw values and applies tanh(x / 5) at inference.
  ppm_head: Literal["tanh", "logit"] = "tanh"
  # Evaluation after each round.
  eval: EvalConfig = field(factory=EvalConfig)
  # Comparison of methods at equal cost.
  study: StudyConfig = field(factory=StudyConfig, binds=False)
  # The rounds, first to last (paper section 3.4). More may be added at the end
  # at any time.
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
