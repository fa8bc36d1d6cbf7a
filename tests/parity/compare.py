"""Our model against what `transformers` computed, whoever asks.

The golden test asks with committed results, `make parity` with fresh ones.
"""

import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx

from rstar_jax.config.schema import EngineConfig
from rstar_jax.hf import folders, model_config
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.generated import Stop
from rstar_jax.inference.scoring import ScoringEngine
from rstar_jax.models import experts
from tests.parity import cases

Expected = Mapping[str, np.ndarray]

# Most tokens and layers at which two libraries choose other experts in
# bfloat16: those whose last expert is hardly better than the next.
_APART = 0.1


def logits(folder: pathlib.Path, expected: Expected, name: str) -> None:
  """float32 logits agree within 1e-4, and values of a scalar head 1e-5."""
  model = folders.load_policy(folder)
  for length in cases.lengths(name):
    out, raw = _run(model, expected[f"ids_{length}"], expected["score"])
    np.testing.assert_allclose(
      out, expected[f"logits_{length}"], rtol=0, atol=1e-4
    )
    np.testing.assert_allclose(
      np.tanh(raw / 5), np.tanh(expected[f"raw_{length}"] / 5), atol=1e-5
    )


def bfloat16(folder: pathlib.Path, expected: Expected, name: str) -> None:
  """In bfloat16 we are as near to the float32 logits as `transformers` is.

  Rounding decides between experts that are nearly as good, and then a token
  goes through other weights. So we have their choice here, and ours must
  mostly be the same.
  """
  model = folders.load_policy(folder, jnp.bfloat16)
  for length in cases.lengths(name):
    exact = expected[f"logits_{length}"]
    theirs = expected[f"bfloat16_{length}"] - exact
    chosen = expected.get(f"chosen_{length}", ())
    logits, ours = _chosen(model, expected[f"ids_{length}"], chosen)
    apart = [
      np.any(np.sort(one, -1) != np.sort(other, -1), -1)
      for one, other in zip(ours, chosen, strict=True)
    ]
    assert not apart or np.mean(apart) < _APART, np.mean(apart)
    ours = logits - exact
    bound = 1.5 * np.sqrt(np.mean(theirs**2))
    assert 0 < np.sqrt(np.mean(ours**2)) < bound, (ours.std(), theirs.std())


def greedy(folder: pathlib.Path, expected: Expected, name: str) -> None:
  """Greedy tokens are identical through prefill and cached decoding.

  A second, shorter prefix and a second candidate share the calls, and must not
  change a token.
  """
  model = folders.load_policy(folder)
  for i, (length, new) in enumerate(cases.greedy_sizes(name)):
    prompt = expected[f"prompt_{i}"]
    config = EngineConfig(
      max_prefix_tokens=length,
      max_step_tokens=new,
      max_block_tokens=new,
      rows=32,
      prefill_tokens=32,
    )
    engine = Engine(model, config)
    rows = engine.expand(
      [prompt[: length // 2], prompt],
      np.zeros((2, 2), np.uint32),
      Stop(new),
      temperature=0.0,
    )
    for generated in rows[1]:
      np.testing.assert_array_equal(
        generated.token_ids, expected[f"greedy_{i}"]
      )


def values(
  folder: pathlib.Path, expected: Expected, name: str, ppm_folder: pathlib.Path
) -> None:
  """PPM values agree within 1e-5, run as a step of a path.

  Args:
    folder: of the policy.
    expected: results.
    name: of the case.
    ppm_folder: gets the same trunk with the scalar head of the results.
  """
  write_classifier(folder, expected["score"], ppm_folder)
  model = folders.load_reward_model(ppm_folder)
  for length in cases.lengths(name):
    ids = expected[f"ids_{length}"]
    wanted = np.tanh(expected[f"raw_{length}"] / 5)
    np.testing.assert_allclose(
      _extended(model, ids, length - 5), wanted, rtol=0, atol=1e-5
    )


def write_classifier(
  folder: pathlib.Path, score: np.ndarray, output: pathlib.Path
) -> None:
  """Writes a policy's trunk with a scalar head, as a sequence classifier."""
  output.mkdir(parents=True, exist_ok=True)
  tensors = safetensors.numpy.load_file(folder / "model.safetensors")
  tensors.pop("lm_head.weight", None)
  tensors["score.weight"] = score[None]
  safetensors.numpy.save_file(tensors, output / "model.safetensors")
  fields = json.loads((folder / "config.json").read_text())
  fields["architectures"] = [model_config.classifier(fields["model_type"])]
  fields["id2label"] = {"0": "LABEL_0"}
  (output / "config.json").write_text(json.dumps(fields))


@functools.partial(jax.jit, static_argnames="graphdef")
def _call(params, ids, score, *, graphdef):
  model = nnx.merge(graphdef, params)
  hidden = model.hidden(ids)
  return model.logits(hidden), hidden[:, -1].astype("float32") @ score


def _run(model, ids: np.ndarray, score: np.ndarray):
  """Returns logits [B, T, V], and what a scalar head gives at the end, [B]."""
  graphdef, params = nnx.split(model)
  return jax.device_get(_call(params, ids, score, graphdef=graphdef))


def _chosen(
  model, ids: np.ndarray, chosen: Sequence[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
  """Runs a model with the choice of others.

  Args:
    model: a policy.
    ids: int32 [B, T].
    chosen: int32 [B T, A] of each layer with experts.

  Returns:
    The logits, and what each layer would have chosen.
  """
  graphdef, params = nnx.split(model)
  choose = experts.choose

  def run(params, ids):
    given, own = iter(chosen), []

    def forced(logits, mixture):
      own.append(choose(logits, mixture)[0])
      theirs = jnp.asarray(next(given))
      top = jnp.take_along_axis(logits, theirs, axis=-1)
      of = top if mixture.normalised else logits
      total = jnp.sum(jnp.exp(of), axis=-1, keepdims=True)
      return theirs, jnp.exp(top) / total

    with mock.patch.object(experts, "choose", forced):
      return nnx.merge(graphdef, params)(ids), own

  return jax.tree.map(np.asarray, jax.jit(run)(params, ids))


def _extended(model, ids: np.ndarray, length: int) -> np.ndarray:
  """Returns the last values [B], the first `length` tokens run as a path."""
  config = EngineConfig(
    max_prefix_tokens=ids.shape[1], rows=32, prefill_tokens=32
  )
  engine = ScoringEngine(model, config)
  engine.submit([each[:length] for each in ids]).result()
  return engine.submit(list(ids)).result()
