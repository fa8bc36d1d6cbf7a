"""Lower bounds of a program's work, from the model's sizes.

Letters: D model, N query heads, K key/value heads, H head, F MLP, V vocabulary,
L layers. Products count 2 FLOPs for each multiplication and addition.
"""

import dataclasses

import numpy as np

from rstar_jax.models.config import ModelConfig
from rstar_jax.tools.aot.chips import Slice
from rstar_jax.tools.aot.shapes import Shapes


@dataclasses.dataclass(frozen=True)
class LowerBound:
  """Work that one run cannot do without, all chips together.

  Attributes:
    flops: of matrix products.
    bytes: to and from HBM: weights and caches once for each step that needs
      them, cached results once; activations none, as if they never left the
      chip.
  """

  flops: float
  bytes: float

  def seconds(self, where: Slice) -> float:
    """Returns the seconds at the published peaks, shared by all the chips."""
    chip = where.chip
    slowest = max(self.flops / chip.flops, self.bytes / chip.hbm_rate)
    return slowest / where.chips


def matrix_parameters(model: ModelConfig) -> int:
  """Counts the parameters of one layer's matrix products."""
  d, h = model.embed_dim, model.head_dim
  n, k, f = model.num_heads, model.num_kv_heads, model.mlp_dim
  return d * (n + 2 * k) * h + n * h * d + 3 * d * f


def head_parameters(model: ModelConfig) -> int:
  """Counts the parameters of the LM head's product."""
  return model.vocab_size * model.embed_dim


def parameters(model: ModelConfig, head: bool = True) -> int:
  """Counts the parameters of matrices: of layers, embedding and LM head."""
  embeddings = 2 if head and not model.tied_embeddings else 1
  total = model.num_layers * matrix_parameters(model)
  return total + embeddings * head_parameters(model)


def cache_bytes(model: ModelConfig) -> int:
  """Returns the bytes of one token's keys and values, in all layers."""
  heads = model.num_kv_heads * model.head_dim
  return 2 * model.num_layers * heads * _size(model.dtype)


def decode(
  model: ModelConfig,
  *,
  leaves: int,
  candidates: int,
  path: int,
  step: int,
  replicas: int = 1,
) -> LowerBound:
  """Bounds the sampling of `step` tokens of each candidate.

  The first token comes from the prefill's last hidden state. Each later one
  reads the weights, the path once for all candidates of a leaf, and the
  candidate's own tokens so far, and writes its own.

  Args:
    model: with the dtypes that it is run with.
    leaves: in all.
    candidates: of each leaf.
    path: tokens of each leaf's path.
    step: tokens of each candidate.
    replicas: copies of the weights, each with its part of the leaves.
  """
  rows, steps = leaves * candidates, step - 1
  weights = model.num_layers * matrix_parameters(model)
  head = head_parameters(model)
  # Token i of steps attends to the path and to i + 1 tokens of its own.
  own = sum(range(1, steps + 1))
  attention = _attention(model) * (steps * path + own)
  flops = rows * (2 * steps * (weights + head) + attention) + 2 * leaves * head
  read = leaves * path * steps + rows * (own + steps)
  size = replicas * _size(model.param_dtype)
  total = size * ((weights + head) * steps + head) + cache_bytes(model) * read
  return LowerBound(flops, total)


def forward(
  model: ModelConfig,
  *,
  rows: int,
  length: int,
  before: int = 0,
  shared: int = 1,
  replicas: int = 1,
) -> LowerBound:
  """Bounds a forward pass of whole sequences, without a head.

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
  flops = rows * (2 * length * weights + _attention(model) * seen)
  tokens = rows * length + rows // shared * before
  size = replicas * _size(model.param_dtype)
  return LowerBound(flops, size * weights + cache_bytes(model) * tokens)


def training(
  model: ModelConfig, *, rows: int, length: int, head: bool
) -> LowerBound:
  """Bounds one update: three forward passes, without recomputation.

  Args:
    model: any dtypes.
    rows: packed rows of the update.
    length: tokens of each.
    head: whether there are logits.

  Returns:
    Its bytes are those of the masters, the two moments and the gradient, each
    read and written once in float32.
  """
  flops = forward(model, rows=rows, length=length).flops
  if head:
    flops += 2 * rows * length * head_parameters(model)
  return LowerBound(3 * flops, 2 * 4 * 4 * parameters(model, head))


def search(
  name: str, model: ModelConfig, sizes: Shapes, replicas: int
) -> LowerBound:
  """Bounds a program of the search.

  Args:
    name: of `programs.SEARCH`.
    model: the policy, or the PPM for "score".
    sizes: of the programs.
    replicas: copies of the weights on the host.
  """
  match name:
    case "expand":
      return decode(
        model,
        leaves=sizes.leaves,
        candidates=sizes.candidates,
        path=sizes.path,
        step=sizes.step,
        replicas=replicas,
      )
    case "commit" | "fork":
      tokens = sizes.step - 1 if name == "commit" else sizes.room
      # Read and written.
      return LowerBound(0.0, 2 * sizes.moved * tokens * cache_bytes(model))
    case "advance":
      rows, length, shared = sizes.moved, sizes.tail, 1
    case _:
      shared, length = sizes.columns, sizes.scored_step
      rows = sizes.scored * shared
  return forward(
    model,
    rows=rows,
    length=length,
    before=sizes.path,
    shared=shared,
    replicas=replicas,
  )


def _attention(model: ModelConfig) -> int:
  """Returns the FLOPs of one token's attention to one other."""
  return 4 * model.num_layers * model.num_heads * model.head_dim


def _size(dtype: str) -> int:
  return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
