"""The cost of a step on a chip, from the model's sizes, and its time.

The compile report, the plan and the simulator of a fleet (benchmarks/fleet.py)
all use this model of cost. Letters: D model, N query heads, K key/value heads,
H head, F MLP, V vocabulary, L layers, n chips that a product is sharded over.
Products count 2 FLOPs per multiply-add.
"""

import dataclasses
import math

import jax.numpy as jnp

from rstar_jax.models.config import ModelConfig
from rstar_jax.models.paged_attention import LANES
from rstar_jax.tools.aot.chips import Slice
from rstar_jax.training import next_token


@dataclasses.dataclass(frozen=True)
class Work:
  """The work of one chip.

  Attributes:
    flops: FLOPs of matrix products.
    bytes: bytes to and from HBM. Activations are not counted, as if they never
      left the chip.
    wire: bytes sent to other chips of its slice.
    between: bytes sent to other slices.
  """

  flops: float = 0.0
  bytes: float = 0.0
  wire: float = 0.0
  between: float = 0.0

  def __add__(self, other: "Work") -> "Work":
    return Work(
      self.flops + other.flops,
      self.bytes + other.bytes,
      self.wire + other.wire,
      self.between + other.between,
    )

  def parts(self, where: Slice) -> dict[str, float]:
    """Returns the seconds of each resource at its published peak."""
    seconds = {
      "compute": self.flops / where.chip.flops,
      "hbm": self.bytes / where.chip.hbm_rate,
      "ici": self.wire / where.ici_rate if self.wire else 0.0,
    }
    if self.between and where.chip.dcn_rate:
      seconds["dcn"] = self.between / where.chip.dcn_rate
    return seconds

  def seconds(self, where: Slice) -> float:
    """Returns the seconds at the published peaks.

    Products overlap with reads of weights. A layer's all-reduces wait for its
    products, and the next products for them; sums between slices come last.
    """
    parts = self.parts(where)
    return (
      max(parts["compute"], parts["hbm"]) + parts["ici"] + parts.get("dcn", 0.0)
    )


def layer_parameters(model: ModelConfig, *, held: bool = False) -> float:
  """Counts the parameters of a layer's matrix products, averaged over layers.

  Args:
    model: sizes of the layers.
    held: whether all experts count, or only those that a token is routed to.
  """
  heads = [
    2 * layer.num_heads + (2 - layer.keys_as_values) * layer.num_kv_heads
    for layer in model.layers()
  ]
  widths = [layer.head_dim for layer in model.layers()]
  projected = sum(map(math.prod, zip(heads, widths, strict=True))) / len(widths)
  return model.embed_dim * (projected + 3 * mlp_width(model, held=held))


def scored_width(model: ModelConfig) -> float:
  """Returns the width of a token's queries, averaged over layers."""
  widths = [layer.num_heads * layer.head_dim for layer in model.layers()]
  return sum(widths) / len(widths)


def mlp_width(model: ModelConfig, *, held: bool = False) -> float:
  """Returns F, summed over experts; see `layer_parameters`."""
  widths = []
  for layer in model.layers():
    mixture, width = layer.mixture, 0
    if mixture:
      width += (mixture.experts if held else mixture.chosen) * mixture.dim
    if not mixture or mixture.beside:
      width += layer.mlp_dim
    widths.append(width)
  return sum(widths) / len(widths)


def head_parameters(model: ModelConfig) -> int:
  """Counts the parameters of the LM head's product."""
  return model.vocab_size * model.embed_dim


def token_bytes(model: ModelConfig) -> int:
  """Returns the bytes of a token's keys and values in all layers."""
  dim = -(-model.head_dim // LANES) * LANES
  heads = model.num_kv_heads * dim
  return 2 * model.num_layers * heads * jnp.dtype(model.dtype).itemsize


def step(
  model: ModelConfig,
  *,
  tokens: int,
  keys: float,
  read: float,
  sampled: int = 0,
  tensor: int = 1,
  int8: bool = False,
) -> Work:
  """Counts the work of one step of a data shard, on one of its chips.

  Args:
    model: sizes, and the dtypes of the run.
    tokens: token slots, empty ones included.
    keys: tokens attended to, summed over slots.
    read: tokens whose keys and values are read; a page that slots share counts
      once.
    sampled: slots with logits.
    tensor: n.
    int8: whether matrices have 8 bits. Products are still in the model's dtype;
      the conversion of weights is not counted.
  """
  size = 1 if int8 else jnp.dtype(model.param_dtype).itemsize
  layers = model.num_layers
  matrices = layers * layer_parameters(model)
  head = head_parameters(model) if sampled else 0
  flops = 2 * (tokens * matrices + sampled * head)
  flops += 4 * layers * scored_width(model) * keys
  # Float32 logits are written and read once more.
  logits = 2 * 4 * sampled * model.vocab_size
  weights = size * (layers * layer_parameters(model, held=True) + head)
  cut = tensor if model.num_kv_heads % tensor == 0 else 1
  held = token_bytes(model) * (read + tokens) / cut
  # All-reduces of each layer, after attention and after the MLP; and of the
  # embedding's rows, which is sharded over the vocabulary.
  ring = 2 * (tensor - 1) / tensor
  row = model.embed_dim * jnp.dtype(model.dtype).itemsize
  sums = (2 * layers + 1) * tokens * row
  return Work(flops / tensor, (weights + logits) / tensor + held, ring * sums)


def update(
  model: ModelConfig,
  *,
  rows: int,
  length: int,
  head: bool,
  chips: int,
  tensor: int = 1,
  accumulate: int = 1,
) -> Work:
  """Counts the work of one update of a training, on one of the chips.

  Args:
    model: sizes; `remat` is what is recomputed. Master weights, moments and
      gradients are float32, whatever its dtypes.
    rows: packed rows of the update.
    length: tokens of a row.
    head: whether there are logits.
    chips: number of chips that share the rows and the state.
    tensor: n.
    accumulate: number of micro-batches.
  """
  layers, size = model.num_layers, jnp.dtype(model.dtype).itemsize
  matrices = layers * layer_parameters(model, held=True)
  tokens = rows * length
  embeddings = 2 if head and not model.tied_embeddings else 1
  parameters = matrices + embeddings * head_parameters(model)
  flops = useful(model, rows=rows, length=length, head=head)
  # A forward pass, and twice as much for the backward pass.
  passes = 4 if model.remat == "layer" else 3
  mlp = model.embed_dim * mlp_width(model)
  again = {
    # The MLP's result has no part in a gradient.
    "layer": layer_parameters(model) - mlp,
    "mlp": 2 * mlp,
  }.get(model.remat, 0)
  flops += 2 * tokens * layers * again
  if model.remat == "layer":
    flops += _attention(model, rows, length)
  if head and next_token.parts(length, model.vocab_size) > 1:
    flops += 2 * tokens * head_parameters(model)
  # Master weights, two moments and the gradient are read and written in
  # float32. A micro-batch reads the weights in each pass, and adds to the
  # gradient.
  state = 8 * 4 * parameters / chips
  part = parameters / tensor
  reads = accumulate * (passes * size * part + 8 * parameters / chips)
  # A micro-batch gathers the other shards' weights, in the forward and the
  # backward pass, and scatters the gradient; all-reduces as in `step`.
  others = (chips - tensor) / chips
  gathered = accumulate * others * part * ((passes - 1) * size + 4)
  ring = 2 * (tensor - 1) / tensor
  sums = 2 * layers * passes * tokens * tensor / chips * model.embed_dim * size
  return Work(flops / chips, state + reads, gathered + ring * sums)


def useful(model: ModelConfig, *, rows: int, length: int, head: bool) -> float:
  """Counts the FLOPs of an update without recomputation.

  Attention counts one sequence per row; rows with several need less.
  """
  matrices = model.num_layers * layer_parameters(model)
  matrices += head_parameters(model) if head else 0
  return 3 * (2 * rows * length * matrices + _attention(model, rows, length))


def _attention(model: ModelConfig, rows: int, length: int) -> float:
  keys = rows * length * (length + 1) / 2
  return 4 * model.num_layers * scored_width(model) * keys
