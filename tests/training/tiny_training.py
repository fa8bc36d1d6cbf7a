"""Trainings so small that tests can afford many, on one device or on a mesh.

The model is made so that nothing is easy: 2 key/value heads do not divide by 4,
and the vocabulary, 267, by nothing.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

from rstar_jax import testing
from rstar_jax.config.schema import MeshConfig, TrainConfig
from rstar_jax.data import sides
from rstar_jax.models import meshes, vocabulary
from rstar_jax.models.config import ModelConfig
from rstar_jax.models.transformer import Transformer, ppm_from_policy
from rstar_jax.steps import grammar
from rstar_jax.training import loop, ppm, sft
from rstar_jax.types import PreferencePair

TOKENIZER = testing.ByteTokenizer()
# Rows of no multiple of the batch: the last one of an epoch is filled up.
ROWS = [(f"{n}?", (f"<code>\nx = {n * n}\n<end_of_code>",)) for n in range(29)]
PAIRS = [
  PreferencePair(
    problem_id=str(n),
    question=f"{n}?",
    # Never the rejected one: a tie may be broken by a last bit.
    chosen=(f"<code>\nx = {2 * n + 1}\n{grammar.END_OF_STEP}",),
    rejected=(f"<code>\nx = {n}\n{grammar.END_OF_STEP}",),
    weight=0.25,
    kind="step",
  )
  for n in range(27)
]
SFT = TrainConfig(
  epochs=2,
  batch_size=16,
  length=131,
  learning_rate=1e-3,
  checkpoint_every=2,
  log_every=1,
)
PPM = dataclasses.replace(SFT, length=128)


class Recorder:
  """A writer that keeps loss and gradient norm of each update."""

  def __init__(self):
    self.losses = []

  def write(self, step, values, prefix=""):
    del step, prefix
    self.losses.append((values["loss"], values["grad_norm"]))

  def close(self):
    pass


def policy(**changes) -> Transformer:
  config = testing.tiny_model(
    **{"num_layers": 1, "num_heads": 4, "mlp_dim": 40} | changes
  )
  graphdef, make = _made(config)
  return nnx.merge(graphdef, make())


@functools.cache
def _made(config: ModelConfig) -> tuple[nnx.GraphDef, Callable[[], nnx.State]]:
  """Returns a model's structure, and a program that makes its parameters."""

  def build():
    return nnx.split(Transformer(config, rngs=nnx.Rngs(7)))

  graphdef, _ = nnx.eval_shape(build)
  # One program, not one for each parameter.
  return graphdef, jax.jit(lambda: build()[1])


def reward_model(model: Transformer | None = None) -> Transformer:
  return ppm_from_policy(model or policy(), "tanh", rngs=nnx.Rngs(1))


def with_more_tokens(model: Transformer) -> Transformer:
  return vocabulary.resize(model, known=251, used=269, multiple=16)


def make_mesh(sizes):
  axes = dict(zip(meshes.AXES, sizes, strict=True))
  return meshes.make(MeshConfig(**axes))


def train(
  kind: str, mesh=None, model=None, folder=None, adapter=None, **changes
):
  """Trains; returns the model, and loss and gradient norm of each update."""
  recorder = Recorder()
  session = loop.Session(
    kind, 3, mesh, folder, recorder, progress=False, adapter=adapter
  )
  model = model or policy()
  if kind == "sft":
    config = dataclasses.replace(SFT, **changes)
    rows, kept = (
      sft.pack(each, TOKENIZER, config.length) for each in (ROWS, [])
    )
    model = sft.train_packed(model, rows, config, session, held_out=kept)
  else:
    config = dataclasses.replace(PPM, **changes)
    model = reward_model(model)
    pairs, kept = (
      sides.encode_pairs(TOKENIZER, each, config.length) for each in (PAIRS, [])
    )
    model = ppm.train_sides(model, pairs, config, session, held_out=kept)
  return model, np.array(recorder.losses)
