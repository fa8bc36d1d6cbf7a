"""Loads the policies of a run, and makes the meshes that they run on."""

import dataclasses

import jax
import jax.numpy as jnp

from rstar_jax.config.schema import Config, TrainConfig
from rstar_jax.hf import folders, saving
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.inference.paged_model import kernels_for
from rstar_jax.models import meshes, sharding, vocabulary
from rstar_jax.models.transformer import Transformer
from rstar_jax.pipeline.context import Context
from rstar_jax.steps.tokenizer import HfTokenizer
from rstar_jax.storage import json_io, layout, store
from rstar_jax.training import lora


def base(config: Config) -> store.Path | str:
  """Returns the folder or name of the base model."""
  return config.policy.path or folders.BASE_MODEL


def policy_of(context: Context, start: int | str) -> store.Path | str:
  """Returns the folder or Hub name of a policy.

  Args:
    context: the run.
    start: a round, 0 being the base model; or a Hugging Face folder or name,
      which is returned as it is.
  """
  if isinstance(start, str):
    return start
  return context.finished(start, "policy") if start else base(context.config)


def ppm_round(context: Context, round_: int) -> int:
  """Returns the round whose PPM a round uses; 0 if there is none yet.

  A round without preference pairs trains no PPM, and uses an earlier round's.
  Only manifests are read. A round without a manifest counts as if it had a PPM:
  opening its folder reports what is missing.
  """
  for number in range(round_, 0, -1):
    folder = context.folder(number, "ppm")
    manifest = json_io.read(folder / layout.MANIFEST)
    if manifest is None or manifest.get("pairs") != 0:
      return number
  return 0


def trained_in(context: Context, round_: int, reward: str) -> int:
  """Returns the round that trained a round's "ppm", "orm" or "pqm"; 0 for none.

  Only PPMs are those of an earlier round, see `ppm_round`.
  """
  return ppm_round(context, round_) if reward == "ppm" else round_


def search_mesh(config: Config) -> jax.sharding.Mesh | None:
  """Returns the mesh of this host's devices, None for a single device."""
  return meshes.of_field(
    config.search_mesh, jax.local_devices(), "config.search_mesh"
  )


def train_mesh(config: Config) -> jax.sharding.Mesh | None:
  """Returns the mesh of the devices of all hosts, None for a single device."""
  return meshes.of_field(config.train_mesh, jax.devices(), "config.train_mesh")


def check_trainings(config: Config) -> None:
  """Checks that this run's devices can train, before any search.

  Raises:
    ValueError: a batch cannot be divided over `train_mesh`; the message says
      which sizes can.
  """
  mesh = train_mesh(config)
  if mesh is None:
    return
  for name, train in config.trainings.items():
    sharding.check_rows(
      f"config.{name}", train.batch_size, train.accumulate, mesh
    )


def check_policy(context: Context, name: str) -> None:
  """Checks a policy given by name, without reading the values of its tensors.

  Raises:
    ValueError: see `load_policy`; raised early, before a run needs the model.
  """
  folders.check_policy(name)
  check_rows(_tokenizer_of(context, name), name)


def check_rows(tokenizer: HfTokenizer, name: store.Path | str) -> None:
  """Checks that a model has rows for its tokens, by its config.json alone.

  Raises:
    ValueError: see `HfTokenizer.known_to`; or the model is none that loads.
  """
  rows = folders.merged_fields(name)["vocab_size"]
  try:
    tokenizer.known_to(rows)
  except ValueError as error:
    raise ValueError(f"{name}: {error}") from None


def check_saved(tokenizer: HfTokenizer, name: store.Path | str) -> None:
  """Checks, by its config.json alone, that a model can be saved when trained.

  Raises:
    ValueError: see `saving.check`; or the model is none that loads.
  """
  saving.check(folders.read_config(name)[0], tokenizer, str(name))


def check_engine(config: Config, name: store.Path | str) -> None:
  """Checks, by its config.json alone, that an engine can hold a model.

  Which kernels and how many devices there are is known only where the search
  runs: with Ray that is elsewhere.

  Raises:
    ValueError: see `paged_model.kernels_for`; or the model is none that loads.
  """
  dtype = config.policy.dtype
  model = dataclasses.replace(
    folders.read_config(name)[0], dtype=dtype, param_dtype=dtype
  )
  engine, mesh = config.engine, None
  if config.ray.address:
    engine = dataclasses.replace(engine, kernels="auto")
  else:
    mesh = search_mesh(config)
  kernels_for(engine, model, mesh, jax.default_backend())


def _tokenizer_of(context: Context, name: str) -> HfTokenizer:
  tokenizer = load_tokenizer(name)
  if not tokenizer.has_ids_of(context.tokenizer):
    raise ValueError(
      f"{name} has another tokenizer than {base(context.config)}: name a "
      "model of the same family, or make it policy.path, in another --workdir"
    )
  return tokenizer


def load_policy(
  context: Context,
  start: int | str,
  *,
  train: TrainConfig | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> Transformer:
  """Loads a policy; round 0 is the base model.

  Args:
    context: the run.
    start: a round, or a Hugging Face folder or name.
    train: config of the training that the model is loaded for. Trained
      parameters are then float32; activations and the parameters that LoRA
      freezes keep `policy.dtype`.
    mesh: devices that the parameters are sharded over; None is one device.

  Returns:
    A model whose embedding has a row for every token of the tokenizer.

  Raises:
    ValueError: a model given by name has another tokenizer.
  """
  config, tokenizer = context.config.policy, context.tokenizer
  if isinstance(start, str):
    tokenizer = _tokenizer_of(context, start)
  dtype = jnp.dtype(config.dtype)
  model = folders.load_policy(
    policy_of(context, start),
    jnp.float32 if train and not train.lora_rank else dtype,
    compute_dtype=dtype,
    mesh=mesh,
  )
  if train is not None:
    model.config = dataclasses.replace(model.config, **train.of_model)
  if isinstance(start, int) and start > 0:
    return model
  return vocabulary.resize(
    model,
    known=tokenizer.known_to(model.config.vocab_size),
    used=tokenizer.vocab_size,
    multiple=config.vocab_multiple,
  )


def adapter_saver(
  context: Context, folder: store.Path, start: int | str, train: TrainConfig
) -> lora.Saver:
  """Returns `lora.saver` for a model of the run.

  Args:
    context: the run.
    folder: folder of the trained model, into which the adapter is merged.
    start: the model that training starts from; see `load_policy`.
    train: config of the training.
  """
  return lora.saver(folder, policy_of(context, start), train, context.tokenizer)
