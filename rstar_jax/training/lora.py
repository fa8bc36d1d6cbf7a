"""LoRA (Hu et al. 2021): trains a low-rank update of each matrix.

A matrix W [O, I] becomes W + alpha / rank x B A, with A [rank, I] random and B
[O, rank] zero at first. W is frozen, in the dtype of activations; only A and B
have optimiser state. The loss computes the sum, so the model itself is
unchanged: gradients of W are computed on the way to those of A and B, and
dropped.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rstar_jax import rng
from rstar_jax.config.schema import TrainConfig
from rstar_jax.hf import adapters, folders
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.models.transformer import Path, Transformer
from rstar_jax.steps.tokenizer import Tokenizer
from rstar_jax.storage import store

# Called with the trained parameters by path, and the merged model.
Saver = Callable[[Mapping[Path, jax.Array], Transformer], None]

# Number of output axes of a layer's matrices; they come before input axes.
_OUTPUTS = {"q": 2, "k": 2, "v": 2, "o": 1, "gate": 1, "up": 1, "down": 1}


def begin(
  params: nnx.State, config: TrainConfig, seed: int
) -> tuple[nnx.State, nnx.State]:
  """Divides a model's parameters into trained and frozen ones.

  Args:
    params: of `nnx.split`, on any devices.
    config: its `lora_rank` and `lora_matrices` are used. At rank 0, which is no
      LoRA, all are trained.
    seed: seed of A, together with the parameter's name.

  Returns:
    The trained parameters, in float32 and not yet on a mesh: "a" [rank, *I] and
    "b" [*O, rank] below the path of each matrix, and a scalar head itself. And
    the other parameters, unchanged.

  Raises:
    ValueError: the rank is above the smaller side of a matrix, or a matrix is
      one of experts.
  """
  if not config.lora_rank:
    return params, nnx.State({})
  trained, frozen = {}, {}
  for path, param in nnx.to_flat_state(params):
    if path == ("score",):
      value = param.get_value().astype(jnp.float32)
      trained[path] = param.replace(value)
      continue
    frozen[path] = param
    if path[0] == "layers" and path[-1] in config.lora_matrices:
      a, b = _pair(path, param, config.lora_rank, seed)
      trained[*path, "a"], trained[*path, "b"] = a, b
  return nnx.from_flat_state(trained), nnx.from_flat_state(frozen)


def merge(
  trained: nnx.State, frozen: nnx.State, config: TrainConfig
) -> nnx.State:
  """Returns the parameters of the model: W + alpha / rank x B A, in W's dtype.

  Args:
    trained: see `begin`.
    frozen: see `begin`; in any dtype.
    config: its `lora_alpha` and `lora_rank` are used.
  """
  added = dict(nnx.to_flat_state(trained))
  merged: dict[Path, Any] = {}
  for path, param in nnx.to_flat_state(frozen):
    if (*path, "a") in added:
      a, b = (added.pop((*path, each)).get_value() for each in "ab")
      value = param.get_value()
      update = config.lora_alpha / config.lora_rank * jnp.tensordot(b, a, 1)
      param = param.replace((value + update).astype(value.dtype))
    merged[path] = param
  return nnx.from_flat_state(merged | added)


def check_base(base: str | store.Path, config: TrainConfig) -> None:
  """Checks that an adapter can be trained on a model, before it is.

  Raises:
    ValueError: `config.lora_rank` is set, and the model is an adapter itself.
  """
  if config.lora_rank and folders.base_of_adapter(base) is not None:
    raise ValueError(
      f"{base} is an adapter, and nothing reads an adapter of one, which "
      f"lora_rank={config.lora_rank} would write: save it merged (load_policy, "
      "then save_policy), and name that folder"
    )


def saver(
  folder: str | store.Path,
  base: str | store.Path,
  config: TrainConfig,
  tokenizer: Tokenizer,
) -> Saver:
  """Returns a function that writes the trained parameters as an adapter.

  Args:
    folder: of the trained model; the adapter is in its subfolder `adapter`.
    base: folder or name of the model that training starts from. If its
      tokenizer lacks tokens, the adapter includes the embedding.
    config: its `lora_rank` and `lora_alpha` are used.
    tokenizer: of the trained model, saved with the adapter.

  Raises:
    ValueError: see `check_base`.
  """
  check_base(base, config)

  def save(trained: Mapping[Path, jax.Array], model: Transformer) -> None:
    known = load_tokenizer(base, add_markers=False).vocab_size
    adapters.save(
      store.path(folder) / adapters.FOLDER,
      trained,
      model,
      base=str(base),
      alpha=config.lora_alpha,
      new_rows=tokenizer.vocab_size > known,
      tokenizer=tokenizer,
    )

  return save


def _pair(
  path: Path, param: nnx.Param, rank: int, seed: int
) -> tuple[nnx.Param, nnx.Param]:
  """Returns the initial A and B of a matrix."""
  shape, axes = param.get_value().shape, param.get_metadata()["axes"]
  if "experts" in axes:
    raise ValueError(
      "lora_matrices: experts have no updates of low rank: set it to "
      "('q', 'k', 'v', 'o') in another --workdir"
    )
  cut = _OUTPUTS[path[-1]]
  sides = math.prod(shape[:cut]), math.prod(shape[cut:])
  if rank > min(sides):
    raise ValueError(
      f"lora_rank={rank} is above {min(sides)}, the smaller side of "
      f"{'.'.join(map(str, path))}: give a smaller one in another --workdir"
    )
  # As in PEFT: Kaiming's uniform distribution, with a slope of sqrt(5).
  bound = sides[1] ** -0.5
  random = np.random.default_rng(rng.seed_for(seed, "lora", *path))
  a = random.uniform(-bound, bound, (rank, *shape[cut:]))
  return (
    nnx.Param(jnp.asarray(a, jnp.float32), axes=("rank", *axes[cut:])),
    nnx.Param(
      jnp.zeros((*shape[:cut], rank), jnp.float32), axes=(*axes[:cut], "rank")
    ),
  )
