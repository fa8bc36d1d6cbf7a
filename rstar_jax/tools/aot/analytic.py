"""What a program must do at the least, worked out from the model's sizes.

Letters: D model, N query heads, K key/value heads, H head, F MLP, V vocabulary,
L layers. Products count 2 FLOPs for each multiplication and addition.
"""

import dataclasses

import numpy as np

from rstar_jax.models.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Least:
  """The least that one run takes, all chips together.

  Attributes:
    flops: of matrix products.
    bytes: to and from HBM: weights and caches once for each step that needs
      them, results that are kept once; activations none, as if they never left
      the chip.
  """

  flops: float
  bytes: float


def matrix_parameters(model: ModelConfig) -> int:
  """Counts the parameters of one layer's matrix products."""
  d, h = model.embed_dim, model.head_dim
  n, k, f = model.num_heads, model.num_kv_heads, model.mlp_dim
  return d * (n + 2 * k) * h + n * h * d + 3 * d * f


def head_parameters(model: ModelConfig) -> int:
  """Counts the parameters of the LM head's product."""
  return model.vocab_size * model.embed_dim


def cache_bytes(model: ModelConfig, dtype: str | None = None) -> int:
  """Returns the bytes of one token's keys and values, in all layers."""
  size = _size(dtype or model.dtype)
  heads = model.num_kv_heads * model.head_dim
  return 2 * model.num_layers * heads * size


def decode(
  model: ModelConfig,
  *,
  leaves: int,
  candidates: int,
  path: int,
  step: int,
  replicas: int = 1,
  repeated: bool = False,
) -> Least:
  """Returns what sampling `step` tokens of each candidate takes.

  The first token comes of the prefill's last hidden state; each later one reads
  the weights, the path once for all candidates of a leaf (or once for each,
  `repeated`), and the candidate's own tokens so far, and writes its own.

  Args:
    model: with the dtypes that it is run with.
    leaves: in all.
    candidates: of each leaf.
    path: tokens of each leaf's path.
    step: tokens of each candidate.
    replicas: copies of the weights, each with its part of the leaves.
    repeated: whether each candidate has its own copy of the path.
  """
  rows, steps = leaves * candidates, step - 1
  size = _size(model.param_dtype)
  weights = model.num_layers * matrix_parameters(model)
  head = head_parameters(model)
  # Token i of steps attends to the path and to i + 1 tokens of its own.
  own = sum(range(1, steps + 1))
  seen = steps * path + own
  attention = 4 * model.num_layers * model.num_heads * model.head_dim
  first = rows if repeated else leaves
  flops = rows * (2 * steps * (weights + head) + attention * seen)
  flops += 2 * first * head
  token = cache_bytes(model)
  paths = rows if repeated else leaves
  read = paths * path * steps + rows * (own + steps)
  total = replicas * size * ((weights + head) * steps + head) + token * read
  return Least(flops, total)


def forward(
  model: ModelConfig,
  *,
  rows: int,
  length: int,
  before: int = 0,
  shared: int = 1,
  replicas: int = 1,
) -> Least:
  """Returns what running whole sequences takes, without a head.

  Args:
    model: with the dtypes that it is run with.
    rows: sequences, or steps after paths.
    length: tokens of each.
    before: tokens of a path that each attends to besides.
    shared: rows that share one path.
    replicas: copies of the weights, each with its part of the rows.
  """
  weights = model.num_layers * matrix_parameters(model)
  seen = length * before + length * (length + 1) // 2
  attention = 4 * model.num_layers * model.num_heads * model.head_dim
  flops = rows * (2 * length * weights + attention * seen)
  token = cache_bytes(model)
  moved = rows * length + rows // shared * before
  size = _size(model.param_dtype)
  return Least(flops, replicas * size * weights + token * moved)


def training(
  model: ModelConfig, *, rows: int, length: int, head: bool
) -> Least:
  """Returns what one update takes: three times the forward pass, and no more.

  Args:
    model: any dtypes.
    rows: packed rows of the update.
    length: tokens of each.
    head: whether there are logits.

  Returns:
    FLOPs without recomputation; bytes of the masters, the two moments and the
    gradient, each read and written once in float32.
  """
  passed = forward(model, rows=rows, length=length).flops
  if head:
    passed += 2 * rows * length * head_parameters(model)
  return Least(3 * passed, 2 * 4 * 4 * parameters(model, head))


def parameters(model: ModelConfig, head: bool = True) -> int:
  """Counts the parameters of matrices: of layers, embedding and LM head."""
  embeddings = 2 if head and not model.tied_embeddings else 1
  total = model.num_layers * matrix_parameters(model)
  return total + embeddings * head_parameters(model)


def _size(dtype: str) -> int:
  return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
