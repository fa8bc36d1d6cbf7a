"""Estimates the memory of a chip from sizes, in seconds, without a compiler.

For a search, weights and pages are exact, and temporaries an estimate. For a
training, the state is exact, and the rest is counted from what a backward pass
keeps; `tests/tools/aot/memory_test.py` compares the sum with libtpu's figures
for whole programs (docs/results/training_aot.jsonl). Letters as in `cost.py`.
"""

import dataclasses

import jax.numpy as jnp
from jax.sharding import AbstractMesh

from rstar_jax.config.schema import Config, MeshConfig, TrainConfig
from rstar_jax.models import meshes, sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot import cost, programs, report
from rstar_jax.tools.aot.programs import bytes_of
from rstar_jax.training import next_token, state

# Largest relative error of the sums against the compiler's.
MARGIN = 0.1
# Copies of float32 logits that a compiled sampling step holds at once.
_LOGITS = 4
# Bytes of code of a search's programs, and of a training's.
_SEARCH_CODE, _TRAINING_CODE = 40 * 2**20, 110 * 2**20
# Factor over `elementwise` of what XLA keeps without rematerialisation.
_NONE = 1.5


@dataclasses.dataclass(frozen=True)
class Training:
  """The memory of a training, in bytes.

  Attributes:
    chip: peak on one chip.
    state: of a checkpoint, all chips together.
  """

  chip: float
  state: float


def search(
  model: ModelConfig, config: Config, mesh: AbstractMesh
) -> report.Held:
  """Returns the memory of a chip in a search; see `programs.loaded`.

  Args:
    model: of the policy and the PPM, with the dtypes of the search.
    config: of the run.
    mesh: of one host's chips.

  Raises:
    ValueError: the config leaves the number of pages to the engines.
  """
  sizes, _ = programs.sizes_of(config, sharding.row_shards(mesh))
  rows = sizes.rows / sizes.shards
  logits = 4 * rows * model.vocab_size / mesh.shape["tensor"]
  held = report.held_by(model, config, mesh, {})
  policy, reward = programs.loaded(config)
  return report.Held(
    policy=held.policy * policy,
    value=held.value * reward,
    pages=held.pages / 2 * (policy + reward),
    temporaries=_LOGITS * logits,
    code=_SEARCH_CODE,
  )


def whole(model: ModelConfig) -> float:
  """Returns the bytes of a model's weights on one chip."""
  one = meshes.abstract(MeshConfig(data=1), 1)
  return bytes_of(programs.stacked_shapes(model, "lm", one)[1])


def training(
  head: str, model: ModelConfig, train: TrainConfig, mesh: AbstractMesh
) -> Training:
  """Returns the memory of a training.

  Args:
    head: of the model.
    model: its dtype is that of activations; master weights are float32.
    train: of `programs.training_of`.
    mesh: of all chips.
  """
  shards = sharding.row_shards(mesh)
  begun, trained, frozen = _state(model, head, train, mesh)
  one = meshes.abstract(MeshConfig(data=1), 1)
  size = jnp.dtype(model.dtype).itemsize
  # The summed gradients, and copies of the weights in the compute dtype.
  held = begun + trained + frozen
  held += size / 4 * (0 if train.lora_rank else trained)
  tensor = mesh.shape["tensor"]
  tokens = train.batch_size / (shards * train.accumulate) * train.length
  kept = tokens * size * _kept(model, train.remat, tensor)
  # While a layer is computed, all its activations are kept.
  layer = tokens * size * _kept(model, "elementwise", tensor)
  if mixture := model.experts():
    # Rows of (token, expert) pairs: inputs, outputs and their gradients, in
    # float32 too.
    pairs = tokens * mixture.chosen
    layer += 4 * (size + 4) * pairs * model.embed_dim
  vocabulary = model.vocab_size * model.embed_dim / tensor
  # Lookups gather the embedding in float32.
  ends = 4 * vocabulary
  if head == "lm":
    parts = next_token.parts(train.length, model.vocab_size)
    # The head too, with its gradient; and a part's logits, with theirs.
    ends += (size + 4) * vocabulary
    ends += 3 * 4 * tokens / parts * model.vocab_size / tensor
  # Sums between slices double the code.
  code = _TRAINING_CODE * (2 if mesh.shape["data"] > 1 else 1)
  return Training(
    held + model.num_layers * kept + layer + ends + code,
    _state(model, head, train, one)[0],
  )


def _state(
  model: ModelConfig, head: str, train: TrainConfig, mesh: AbstractMesh
) -> tuple[float, float, float]:
  """Returns bytes per chip of the state, and of trained and frozen weights.

  Periods of layers are alike, so models of one and two periods give the size of
  all: tracing a deep model takes seconds.
  """
  tx = state.optimizer(train, num_steps=1000)
  sizes = []
  for periods in (1, 2):
    masters = dataclasses.replace(
      model, param_dtype="float32", num_layers=periods * model.period
    )
    begun, frozen = programs.training_state(masters, head, train, tx, mesh)
    parts = begun, begun.params, frozen
    sizes.append([bytes_of(each) for each in parts])
  more = model.num_layers / model.period - 1
  return tuple(a + more * (b - a) for a, b in zip(*sizes, strict=True))


def _kept(model: ModelConfig, remat: str, tensor: int) -> float:
  """Counts the numbers per token that a layer keeps for the backward pass."""
  residual = model.embed_dim
  n, k, h = model.num_heads, model.num_kv_heads, model.head_dim
  attention = residual + (2 * n + 2 * k) * h / tensor
  # Each shard of the tensor axis has room for all (token, expert) pairs.
  cut = 1 if model.experts() else tensor
  mlp = 2 * cost.mlp_width(model) / cut
  return {
    "layer": residual,
    "mlp": residual + attention,
    "elementwise": residual + attention + mlp,
    "none": _NONE * (residual + attention + mlp),
  }[remat]
