"""Saves models as Hugging Face folders, which `transformers` loads.

It has no classifier for some families (`Family.scalar`), so their PPMs only
this package loads. Saving needs neither torch nor `transformers`. Tensors are
gathered and written one by one.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from rstar_jax.hf import (
  families,
  folders,
  model_card,
  model_config,
  tensors,
)
from rstar_jax.models import llama_form, sharding
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.transformer import Path, Transformer, arrays_of
from rstar_jax.steps.tokenizer import Tokenizer
from rstar_jax.storage import json_io, store

# Most bytes of a file of weights, as in `transformers`.
SHARD_BYTES = 5_000_000_000


def save_policy(
  model: Transformer, folder: str | store.Path, **options: Any
) -> None:
  """Writes a causal LM that `transformers` loads; the bytes are reproducible.

  Args:
    model: a model with an LM head.
    folder: created if missing.
    **options: `tokenizer`, saved with the model; `shard_bytes`, most bytes of a
      file of weights.
  """
  if model.head != "lm":
    raise ValueError(f"a model with head={model.head!r} is not a policy")
  _save(model, folder, **options)


def save_ppm(
  ppm: Transformer, folder: str | store.Path, **options: Any
) -> None:
  """Writes a PPM as a sequence classifier with one label.

  `transformers` loads it, unless it has no classifier of the family.

  Args:
    ppm: a model with a scalar head, whose form is written as "rstar_head".
    folder: created if missing.
    **options: see `save_policy`.
  """
  if ppm.head not in ("tanh", "logit"):
    raise ValueError(f"a model with head={ppm.head!r} is not a PPM")
  _save(ppm, folder, **options)


def check(config: ModelConfig, tokenizer: Tokenizer, where: str) -> None:
  """Checks that a policy can be saved with a tokenizer, before it is trained.

  Args:
    config: the model's config.
    tokenizer: with which it is saved.
    where: name of the model, for the error message.

  Raises:
    ValueError: the family's config.json cannot express the config.
  """
  if _is_misread(config, tokenizer):
    config = llama_form.config_of(config)
  try:
    model_config.to_fields(config, "lm")
  except ValueError as error:
    raise ValueError(
      f"{where} loads, but once trained it could not be saved with its "
      f"tokenizer: {error}; train another model"
    ) from None


def _is_misread(config: ModelConfig, tokenizer: Tokenizer | None) -> bool:
  """Returns whether a model is written as the Llama that computes the same."""
  misread = () if tokenizer is None else tokenizer.misread_in
  return config.family in misread and not any(config.windows())


def _parts(
  entries: Sequence[families.Entry],
  arrays: Mapping[Path, jax.Array],
) -> Iterator[np.ndarray]:
  """Yields the tensors' values as they are written, one by one."""
  for _, own in itertools.groupby(entries, key=lambda entry: entry.name):
    turns = []
    for entry in own:
      array = arrays[entry.path]
      if entry.expert is not None:
        array = array[entry.expert]
      part = families.to_disk(sharding.to_host(array), entry)
      if families.take_turns(entry.row):
        turns.append(part)
      else:
        yield part
    if turns:
      yield np.stack(turns, families.turning_axis(entry.row))


def _save(
  model: Transformer,
  folder: str | store.Path,
  *,
  tokenizer: Tokenizer | None = None,
  shard_bytes: int = SHARD_BYTES,
) -> None:
  """Writes weights, config, model card and, if given, tokenizer.

  Args:
    model: with any head, on any mesh; every process of the mesh calls this.
    folder: created if missing.
    tokenizer: saved with the model; gives the ids of end-of-text and padding. A
      Qwen2 model with another family's tokenizer is written as a Llama.
    shard_bytes: most bytes of a file of weights.
  """
  form = {}
  if _is_misread(model.config, tokenizer):
    model, form = llama_form.from_qwen2(model), {folders.FORM_OF: "qwen2"}
  config = model.config
  fields = model_config.to_fields(config, model.head) | form
  if tokenizer is not None:
    fields |= {
      "eos_token_id": tokenizer.eos_id,
      "pad_token_id": tokenizer.pad_id,
    }
  arrays = arrays_of(model)
  entries = families.entries(config, set(arrays))
  # The sort is stable, so the parts of a tensor stay in order.
  entries.sort(key=lambda entry: entry.name)
  # One by one; all processes take part in gathering each.
  parts = _parts(entries, arrays)
  if jax.process_index() != 0:
    for _ in parts:
      pass
    return
  dtypes = {entry.name: arrays[entry.path].dtype for entry in entries}
  specs = {
    name: tensors.Spec(dtypes[name], shape)
    for name, shape in families.disk_shapes(entries).items()
  }
  count = sum(array.size for array in arrays.values())
  prompt = {} if tokenizer is None else {"prompt": tokenizer.prompt}
  card = model_card.render(config, model.head, count, **prompt)
  with store.staged(folder, stale="*.safetensors*") as local:
    tensors.write(local, specs, parts, shard_bytes)
    json_io.write(local / "config.json", fields)
    store.write(local / "README.md", card.encode())
    if tokenizer is not None:
      tokenizer.save(local)
