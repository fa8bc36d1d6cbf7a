"""Every family on a mesh of 8 fake devices: trained, and searched.

The models have two periods of their family's layers, so that a loop over
periods runs, as on a TPU. `plain.Decoder` says what is right: one sequence
after the other, in float64, without a loop, a mesh or a gradient.
"""

import dataclasses
import functools
import json
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from flax import nnx

from rstar_jax.config.schema import MeshConfig, TrainConfig
from rstar_jax.data import batches
from rstar_jax.hf import model_config
from rstar_jax.models import int8, losses, meshes, sharding
from rstar_jax.models.int8 import Int8
from rstar_jax.models.paged_attention import PagedAttention
from rstar_jax.models.paths import Paths, Slots
from rstar_jax.models.step import stacked, step
from rstar_jax.models.transformer import (
  Transformer,
  arrays_in,
  arrays_of,
  from_arrays,
  reconfigured,
)
from rstar_jax.training import lora, next_token
from tests.models import plain
from tests.parity import cases

jax.config.update("jax_num_cpu_devices", 8)

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
FAMILIES = [(family, family) for family in cases.FAMILIES]
# Tokens of a row; above the windows, which are 7 and 11.
LENGTH = 32


@functools.cache
def model_of(family: str) -> Transformer:
  """Returns a random model, whose heads, MLP and experts divide by 2."""
  file = GOLDEN / cases.FAMILIES[family] / "config.json"
  fields = json.loads(file.read_text()) | {"intermediate_size": 38}
  for name in {"num_experts", "num_local_experts"} & fields.keys():
    fields[name] = 6
  config = model_config.from_fields(fields, family)
  kinds = tuple(dict.fromkeys(config.kinds))
  config = dataclasses.replace(
    config, kinds=kinds, num_layers=2 * max(1, len(kinds))
  )
  shapes = nnx.eval_shape(lambda: Transformer(config, rngs=nnx.Rngs(0)))
  rng = np.random.default_rng(zlib.crc32(family.encode()))
  arrays = {}
  for path, shape in arrays_of(shapes).items():
    one = path[-1] == "scale" and config.norm_form != "offset"
    value = 0.3 * rng.standard_normal(shape.shape) + one
    arrays[path] = jnp.asarray(value, jnp.float32)
  return from_arrays(config, "lm", arrays)


@functools.cache
def solutions() -> list[list[batches.Row]]:
  """Returns four groups of solutions: two that share a prefix, and others."""
  rng = np.random.default_rng(0)
  groups = []
  for _ in range(4):
    both, *ends = (rng.integers(1, 97, n, np.int32) for n in (11, 6, 5, 8))
    groups.append([])
    for ids in (np.append(both, ends[0]), np.append(both, ends[1]), ends[2]):
      mask = rng.integers(0, 2, len(ids), np.int32)
      mask[0] = 0
      groups[-1].append((ids, mask))
  return groups


def packed() -> batches.Packed:
  """Returns the solutions as prefix trees, a group a row."""
  return batches.pack(solutions(), LENGTH)


def path_to(rows: batches.Packed, row: int, column: int) -> tuple[int, ...]:
  """Returns a token and those before it in its sequence."""
  tokens, positions, parents = (
    rows.arrays[name][row] for name in ("tokens", "positions", "parents")
  )
  columns = [column]
  while positions[columns[-1]]:
    columns.append(parents[columns[-1]])
  return tuple(tokens[columns[::-1]])


def has_experts(model: Transformer) -> bool:
  return any(each.mixture for each in model.config.layers())


def lora_config(model: Transformer) -> TrainConfig:
  config = TrainConfig(lora_rank=2, lora_alpha=3.0)
  if has_experts(model):
    # Experts have no updates of low rank.
    config.lora_matrices = ("q", "k", "v", "o")
  return config


@functools.cache
def update(family: str) -> tuple[nnx.State, nnx.State]:
  """Returns LoRA's A and B, which is not zero any more, and the parameters."""
  model = model_of(family)
  params = nnx.split(model)[1]
  trained, _ = lora.begin(params, lora_config(model), seed=3)
  rng = np.random.default_rng(1)
  trained = jax.tree.map(
    lambda x: jnp.asarray(0.2 * rng.standard_normal(x.shape), jnp.float32),
    trained,
  )
  return trained, params


def make_mesh() -> jax.sharding.Mesh:
  """Returns a mesh that cuts rows, matrices, heads and experts."""
  return meshes.make(MeshConfig(data=2, fsdp=2, tensor=2))


@functools.cache
def differentiated(family: str):
  """Returns loss, log-probabilities, and gradients of LoRA and of the whole."""
  model, mesh = model_of(family), make_mesh()
  config = lora_config(model)
  graphdef, _ = nnx.split(reconfigured(model, scan=True, remat="mlp"))

  def loss(trained, params, rows):
    merged = nnx.merge(graphdef, lora.merge(trained, params, config))
    logprobs, _, _ = next_token.logprobs(merged, rows)
    return losses.masked_nll(logprobs, rows["weights"])[0], logprobs

  run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
  placed = (sharding.place(each, mesh) for each in update(family))
  with sharding.on(mesh):
    (total, logprobs), grads = run(
      *placed, sharding.to_global(packed().arrays, mesh)
    )
  return float(total), np.asarray(logprobs), *map(arrays_in, grads)


def merged(family: str) -> dict[str, np.ndarray]:
  """Returns W + alpha / rank x B A in float64, by dotted names."""
  trained, params = (
    {path: np.asarray(value, np.float64) for path, value in each.items()}
    for each in map(arrays_in, update(family))
  )
  for path in params:
    if (*path, "a") in trained:
      a, b = (trained[*path, each] for each in "ab")
      params[path] += 1.5 * np.tensordot(b, a, 1)
  return {".".join(map(str, path)): each for path, each in params.items()}


def loss_of(decoder: plain.Decoder) -> float:
  """Returns the loss of the solutions, one after the other."""
  total = 0.0
  for ids, mask in sum(solutions(), []):
    found = decoder.logprobs(ids)[np.arange(len(ids) - 1), ids[1:]]
    total -= found @ mask[1:]
  return float(total)


class FamiliesTest(parameterized.TestCase):
  @parameterized.named_parameters(*FAMILIES)
  def test_trained(self, family):
    """The gradients, whole and LoRA's, are those of finite differences."""
    loss, _, low_rank, whole = differentiated(family)
    decoder, weights = plain.Decoder(model_of(family)), merged(family)
    gradients = {
      ".".join(map(str, path)): np.asarray(each, np.float64)
      for path, each in whole.items()
    }
    self.assertEqual(gradients.keys(), weights.keys())
    # Gemma 4's factors of layers are buffers, and no parameters.
    for name in [each for each in gradients if each.endswith(".factor")]:
      self.assertEqual(gradients.pop(name), 0)

    def moved(step: float, squared: bool = True) -> float:
      """Returns the loss after a step along each gradient, over its square."""
      decoder.arrays = weights | {
        name: weights[name]
        + step * each / (np.vdot(each, each) if squared else 1)
        for name, each in gradients.items()
      }
      return loss_of(decoder)

    np.testing.assert_allclose(loss, moved(0.0), rtol=1e-5)
    # Each that is a gradient adds 1 to the slope, and any other array less.
    slope = (moved(1e-7) - moved(-1e-7)) / 2e-7
    np.testing.assert_allclose(slope, len(gradients), rtol=1e-3)
    self.assertLess(moved(-1e-4, squared=False), loss)

    parts = arrays_in(update(family)[0])
    self.assertEqual(low_rank.keys(), parts.keys())
    for path, found in low_rank.items():
      gradient = whole[path[:-1]]
      a, b = (np.asarray(parts[*path[:-1], each]) for each in "ab")
      outputs = list(range(b.ndim - 1))
      inputs = list(range(b.ndim - 1, gradient.ndim))
      if path[-1] == "a":
        want = np.tensordot(b, gradient, (outputs, outputs))
      else:
        want = np.tensordot(gradient, a, (inputs, list(range(1, a.ndim))))
      np.testing.assert_allclose(
        found, 1.5 * want, atol=1e-4 * np.abs(want).max(), err_msg=str(path)
      )

  @parameterized.named_parameters(*FAMILIES)
  def test_sharded(self, family):
    """Whole rows, and steps in pages: in 8 bits, where there are no experts."""
    _, found, *_ = differentiated(family)
    decoder = plain.Decoder(model_of(family))
    decoder.arrays = merged(family)
    want = {}
    for ids, _ in sum(solutions(), []):
      for end, row in enumerate(decoder.logprobs(ids)[:-1], 1):
        want[tuple(ids[: end + 1])] = row[ids[end]]
    rows = packed()
    self.assertLen(rows, 4)
    for row, column in np.argwhere(rows.arrays["positions"] > 0):
      path = path_to(rows, row, column)
      self.assertAlmostEqual(found[row, column], want[path], delta=1e-3)

    model, mesh = model_of(family), make_mesh()
    layers = model.config.num_layers
    graphdef, params = nnx.split(model)
    params = sharding.place(params, mesh)
    if not has_experts(model):
      params = int8.quantized(params)
    cut = nnx.merge(graphdef, params)
    decoder = plain.Decoder(model)
    for path, each in arrays_of(cut).items():
      if isinstance(each, Int8):
        name = ".".join(map(str, path))
        scales = np.asarray(each.scales, np.float64)
        scales = scales.reshape(scales.shape + (1,) * (each.ndim - scales.ndim))
        decoder.arrays[name] = np.asarray(each.values) * scales
    graphdef, params = nnx.split(stacked(cut))
    attention = PagedAttention("xla", mesh)

    @jax.jit
    def run(params, pages, slots):
      model = nnx.merge(graphdef, params)
      out, pages = step(model, pages, slots, layers=layers, attention=attention)
      return model.logits(out), pages

    # A path of two pages in each of four data shards, in two calls.
    shards, length, first = 4, 24, 13
    ids = np.random.default_rng(2).integers(1, 97, (shards, length), np.int32)
    tables = np.tile(np.array([[2, 0]], np.int32), (shards, 1))
    pages = attention.empty(model.config, layers, 3)
    for start, stop in ((0, first), (first, length)):
      tokens = np.zeros((shards, first), np.int32)
      positions = np.full((shards, first), -1, np.int32)
      tokens[:, : stop - start] = ids[:, start:stop]
      positions[:, : stop - start] = np.arange(start, stop)
      tokens, positions = tokens.ravel(), positions.ravel()
      spans, rows = np.full_like(tokens, length), np.zeros_like(tokens)
      slots = sharding.to_global(
        Slots(tokens, spans, Paths(tables, rows, positions)), mesh
      )
      logits, pages = run(params, pages, slots)
      logits = np.asarray(logits).reshape(shards, first, -1)
      for found, path in zip(logits, ids, strict=True):
        want = decoder.logits(path)[start:stop]
        np.testing.assert_allclose(found[: stop - start], want, atol=1e-3)


if __name__ == "__main__":
  absltest.main()
