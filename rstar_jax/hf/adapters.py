"""LoRA adapters in PEFT's format: merged when read, and written.

A folder has adapter_config.json and adapter_model.safetensors: for each adapted
matrix W [O, I] of the base model a `lora_A` [r, I] and a `lora_B` [O, r], which
make it W + alpha / r x B A; and tensors that replace whole ones of the base.
Reading is strict: a field that would compute anything else is refused by name.
"""

import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from rstar_jax.hf import families, reward_heads, tensors
from rstar_jax.hf.fields import Fields, read_json
from rstar_jax.models import sharding
from rstar_jax.models.transformer import Path, Transformer, arrays_of
from rstar_jax.steps.tokenizer import Tokenizer
from rstar_jax.storage import json_io, store

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
# The adapter's subfolder in a model's folder.
FOLDER = "adapter"

_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"

# Fields that are read here; or that only describe the training; or that list
# modules with tensors, which the tensors themselves show.
_KNOWN = frozenset(
  """
  alpha_pattern auto_mapping base_model_name_or_path bias corda_config
  ensure_weight_tying eva_config exclude_modules inference_mode
  init_lora_weights layers_pattern layers_to_transform lora_alpha lora_dropout
  lora_ga_config megatron_config megatron_core modules_to_save peft_type
  peft_version qalora_group_size r rank_pattern revision target_modules
  task_type use_rslora
  """.split()
)
# Initialisations that leave the base unchanged; others change it.
_INITIAL = (True, False, None, "gaussian", "eva", "orthogonal")


# What is matched of regular expressions: names of modules, with alternatives.
# Others can take a time that is exponential in the length of a name.
_PATTERN = re.compile(r"\^?(?:[\w.|]|\\\.)+")


def is_adapter(folder: pathlib.Path) -> bool:
  """Returns whether a local folder holds an adapter.

  Raises:
    ValueError: it also holds a whole model, or weights in another format.
  """
  if not (folder / CONFIG).exists():
    return False
  whole = sorted(
    file.name
    for pattern in ("*.safetensors", "*.gguf")
    for file in folder.glob(pattern)
    if file.name != WEIGHTS
  )
  if whole:
    raise ValueError(
      f"{folder} has {CONFIG} and the weights of a model, {whole[0]}: move one "
      "of them to a folder of its own, since it is not clear which is meant"
    )
  return True


def base_of(folder: pathlib.Path) -> str:
  """Returns the folder or name of the model that an adapter is for.

  Raises:
    ValueError: this package does not compute such an adapter.
  """
  return _Config(folder / CONFIG).base


class Merged:
  """The tensors of a base model merged with an adapter; see `tensors.Tensors`.

  Blocks are merged in float32 when they are read.
  """

  def __init__(self, base: tensors.Tensors, folder: pathlib.Path, tied: bool):
    """Opens an adapter.

    Args:
      base: the tensors of its base model.
      folder: the adapter's folder.
      tied: whether the base's LM head is its embedding.

    Raises:
      ValueError: the adapter is for another base, or this package does not
        compute it.
    """
    self._base, self._where = base, folder / WEIGHTS
    if not self._where.exists():
      raise ValueError(
        f"{folder} has {CONFIG} and no {WEIGHTS}: save the adapter as "
        "safetensors"
      )
    config = _Config(folder / CONFIG)
    self._adapter = tensors.SafetensorsFolder(folder)
    self._scales: dict[str, float] = {}
    self._replaced: set[str] = set()
    known = set(base.names())
    for name in self._adapter.names():
      inner = name.removeprefix(_PREFIX)
      module = inner.removesuffix(_A).removesuffix(_B)
      if name == inner or not inner.endswith(".weight"):
        self._refuse(name, "is no tensor of LoRA")
      if module == inner:
        if inner not in known | {"score.weight", "lm_head.weight"}:
          self._refuse(name, "replaces what the base model does not have")
        self._replaced.add(inner)
      elif f"{module}.weight" not in known:
        self._refuse(name, f"is for {module}, which the base model lacks")
      else:
        self._scales[f"{module}.weight"] = self._scale(module, config)
    if not self._scales:
      raise ValueError(f"{self._where} has no tensor of LoRA")
    if tied and {"embed_tokens", "lm_head"} & set(config.saved):
      raise ValueError(
        f"{folder / CONFIG}: modules_to_save={config.saved} would part the "
        "embedding and the LM head, which are one matrix in the base model"
      )
    names = known | self._replaced
    if "score.weight" in self._replaced:
      names.discard("lm_head.weight")
    self._names = sorted(names)

  def replaced(self, name: str) -> int | None:
    """Returns the rows of a tensor that the adapter replaces, else None."""
    return self.shape(name)[0] if name in self._replaced else None

  def head(self) -> str | None:
    """Returns the form of a PPM's scalar head, or None."""
    return tensors.said_of(self._where).get(reward_heads.HEAD)

  def names(self) -> list[str]:
    return self._names

  def shape(self, name: str) -> tuple[int, ...]:
    if name in self._replaced:
      return self._adapter.shape(_PREFIX + name)
    return self._base.shape(name)

  def read(self, name: str, index: tensors.Index) -> np.ndarray:
    if name in self._replaced:
      return self._adapter.read(_PREFIX + name, index)
    block = self._base.read(name, index)
    if name not in self._scales:
      return block
    module = _PREFIX + name.removesuffix(".weight")
    rows, columns = index
    b = self._adapter.read(module + _B, (rows, slice(None)))
    a = self._adapter.read(module + _A, (slice(None), columns))
    update = b.astype(np.float32) @ a.astype(np.float32)
    return block.astype(np.float32) + self._scales[name] * update

  def _scale(self, module: str, config: "_Config") -> float:
    """Returns the scale of a module's update, and checks its shapes."""
    shape = self._base.shape(f"{module}.weight")
    names = self._adapter.names()
    for end in (_A, _B):
      if _PREFIX + module + end not in names:
        self._refuse(_PREFIX + module + end, "is missing")
    rank = config.rank(module)
    for end, wanted in ((_A, (rank, *shape[1:])), (_B, (*shape[:1], rank))):
      found = self._adapter.shape(_PREFIX + module + end)
      if found != wanted:
        self._refuse(
          _PREFIX + module + end,
          f"has the shape {found}, and {wanted} is that of rank {rank} and the "
          "base model",
        )
    return config.alpha(module) / (math.sqrt(rank) if config.rs else rank)

  def _refuse(self, name: str, why: str) -> None:
    raise ValueError(f"{self._where}: the tensor {name} {why}")


class _Config:
  """The fields of adapter_config.json that affect the computation.

  Attributes:
    base: folder or name of the base model.
    saved: names of modules that were trained in full.
    rs: whether updates are scaled by alpha / sqrt(r) instead of alpha / r.
  """

  def __init__(self, file: pathlib.Path):
    values = read_json(file)
    fields = Fields(values, str(file))
    if fields.value("peft_type") != "LORA":
      fields.refuse("peft_type", "'LORA', the one kind that is merged here")
    for name, value in values.items():
      # An unknown field, e.g. of a later PEFT, must be off.
      if name not in _KNOWN and value:
        fields.refuse(name, "left out or off: it is not computed here")
    if fields.value("bias", "none") != "none":
      fields.refuse("bias", "'none': trained biases are not merged")
    if fields.value("init_lora_weights", True) not in _INITIAL:
      fields.refuse(
        "init_lora_weights",
        "one that leaves the base model as it is: convert the adapter with "
        "PEFT's save_pretrained(path_initial_model_for_weight_conversion=...)",
      )
    if fields.value("revision", None) not in (None, "main"):
      fields.refuse(
        "revision", "'main': download that one, and name its folder as the base"
      )
    self.base = fields.value("base_model_name_or_path")
    if not (isinstance(self.base, str) and self.base):
      fields.refuse("base_model_name_or_path", "a folder or name")
    self.rs = fields.flag("use_rslora", False)
    self.saved = list(fields.value("modules_to_save", None) or ())
    self._rank = fields.whole("r")
    self._alpha = fields.number("lora_alpha")
    self._ranks = fields.part("rank_pattern")
    self._alphas = fields.part("alpha_pattern")

  def rank(self, module: str) -> int:
    """Returns the rank of a module's update."""
    key = _match(self._ranks, module)
    return self._rank if key is None else self._ranks.whole(key)

  def alpha(self, module: str) -> float:
    key = _match(self._alphas, module)
    return self._alpha if key is None else self._alphas.number(key)


def _match(patterns: Fields, module: str) -> str | None:
  """Returns the first pattern that ends a module's name, as PEFT does."""
  for pattern in patterns:
    if not _PATTERN.fullmatch(pattern):
      patterns.refuse(
        pattern,
        "by a regular expression of letters, digits, '_', '.' and '|': name "
        "the modules one by one",
      )
    if re.match(rf"(.*\.)?({pattern})$", module):
      return pattern
  return None


def save(
  folder: str | store.Path,
  trained: Mapping[Path, jax.Array],
  model: Transformer,
  *,
  base: str,
  alpha: float,
  new_rows: bool = False,
  tokenizer: Tokenizer | None = None,
) -> None:
  """Writes a trained adapter in PEFT's format; the bytes are reproducible.

  Args:
    folder: created if missing.
    trained: by path, "a" [rank, *I] and "b" [*O, rank] of each matrix, and a
      scalar head; see `training/lora.py`. On any mesh, whose processes all call
      this.
    model: the trained model.
    base: folder or name of the model that training started from.
    alpha: updates are scaled by alpha / rank.
    new_rows: whether the base's embedding lacks rows for some tokens, so that
      the embedding is written too. PEFT needs the base resized to it first.
    tokenizer: saved with the adapter.
  """
  arrays = arrays_of(model)
  whole = [("score",)] if model.head != "lm" else []
  if new_rows:
    whole += [p for p in (("embedding",), ("lm_head",)) if p in arrays]
  entries = families.entries(model.config, set(arrays))
  shapes = families.disk_shapes(entries)
  parts: dict[str, list[families.Entry]] = {}
  merged: dict[str, np.ndarray] = {}
  for entry in entries:
    if (*entry.path, "a") in trained:
      parts.setdefault(entry.name, []).append(entry)
    elif entry.path in whole:
      value = sharding.to_host(arrays[entry.path])
      merged[_PREFIX + entry.name] = families.to_disk(value, entry)
  rank = len(next(x for path, x in trained.items() if path[-1] == "a"))
  ranks: dict[str, int] = {}
  for name, some in parts.items():
    module = name.removesuffix(".weight")
    a, b = _joined(some, trained, shapes[name][0])
    merged[_PREFIX + module + _A], merged[_PREFIX + module + _B] = a, b
    ranks[module] = len(a)
  if jax.process_index() != 0:
    return
  fields = _fields(ranks, rank, alpha, model.head, base)
  specs = {
    name: tensors.Spec(merged[name].dtype, merged[name].shape)
    for name in sorted(merged)
  }
  with store.staged(folder) as local:
    # PEFT warns about unknown fields, so this is not in its config.
    metadata = {} if model.head == "lm" else {reward_heads.HEAD: model.head}
    values = (merged[name] for name in specs)
    tensors.write_file(local / WEIGHTS, specs, values, **metadata)
    json_io.write(local / CONFIG, fields)
    if tokenizer is not None:
      tokenizer.save(local)


def _joined(
  entries: list[families.Entry],
  trained: Mapping[Path, jax.Array],
  rows: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns A and B of a tensor that concatenates several parameters.

  Each part has its own rank: the A matrices are stacked, and B is block
  diagonal.
  """
  pairs = [
    tuple(sharding.to_host(trained[*entry.path, each]) for each in "ab")
    for entry in entries
  ]
  a = np.concatenate([a.reshape(len(a), -1) for a, _ in pairs])
  b = np.zeros((rows, len(a)), np.float32)
  column = 0
  for entry, (_, part) in zip(entries, pairs, strict=True):
    part = part.reshape(-1, part.shape[-1])
    end = column + part.shape[1]
    b[entry.start : entry.start + len(part), column:end] = part
    column = end
  return a, b


def _fields(
  ranks: Mapping[str, int], rank: int, alpha: float, head: str, base: str
) -> dict[str, Any]:
  """Returns the fields of adapter_config.json."""
  modules = {module.rpartition(".")[2]: r for module, r in ranks.items()}
  joined = {module: r for module, r in modules.items() if r != rank}
  return {
    "alpha_pattern": {m: alpha * r / rank for m, r in joined.items()},
    "base_model_name_or_path": base,
    "bias": "none",
    "inference_mode": True,
    "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
    "modules_to_save": None if head == "lm" else ["score"],
    "peft_type": "LORA",
    "r": rank,
    "rank_pattern": joined,
    "target_modules": sorted(modules),
    "task_type": "CAUSAL_LM" if head == "lm" else "SEQ_CLS",
  }
