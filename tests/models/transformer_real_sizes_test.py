"""Heads of 64 and 128 in real contexts, against `transformers`.

`tests/parity/real_sizes.py` wrote what is expected, and says how.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.hf import model_config
from rstar_jax.models import rotary, transformer
from tests.models import plain
from tests.models.jitted import call
from tests.parity import real_sizes

ROOT = pathlib.Path(__file__).parents[2]
EXPECTED = np.load(ROOT / "tests" / "golden" / "real_sizes.npz")
TABLES = [
  (f"{kind}_{width}{end}", kind, width, positions)
  for kind in real_sizes.KINDS
  for width in real_sizes.WIDTHS
  for end, positions in (("", real_sizes.LONG), ("_short", real_sizes.SHORT))
  if kind == "longrope" or not end
]


def layer_of(kind, width, dtype="float32"):
  """Returns a model of one layer, with the weights that are drawn for it."""
  fields = real_sizes.fields(kind, width, real_sizes.LAYER_BORDER)
  config = model_config.from_fields(fields, "real_sizes")
  config.dtype = dtype
  arrays = real_sizes.weights(config)
  return transformer.from_arrays(
    config, "lm", {path: jnp.asarray(each) for path, each in arrays.items()}
  )


def tables(positions, config, spans):
  """Returns cosines and sines, by one program."""
  run = jax.jit(lambda *arrays: rotary.rotary(arrays[0], config, arrays[1]))
  return [np.asarray(each) for each in run(positions, spans)]


class RotaryTest(parameterized.TestCase):
  @parameterized.parameters(*TABLES)
  def test_tables(self, name, kind, width, positions):
    config = model_config.from_fields(
      real_sizes.fields(kind, width), "real_sizes"
    )
    positions = np.array(positions)
    spans = np.full(len(positions), positions[-1] + 1)
    found = tables(positions, config, spans)
    # In float32 an angle is off by some parts in ten millions.
    bound = (1e-6 + 5e-7 * positions)[:, None]
    angles = np.outer(positions, plain.frequencies(config, positions[-1] + 1))
    factor = config.rope.attention_factor
    for table, ours, exact in zip(
      EXPECTED[name],
      found,
      (factor * np.cos(angles), factor * np.sin(angles)),
      strict=True,
    ):
      self.assertLess((np.abs(ours[:, 0] - table) / bound).max(), 1)
      self.assertLess((np.abs(exact - table) / bound).max(), 1)

  @parameterized.parameters(*real_sizes.WIDTHS)
  def test_longrope_on_both_sides_of_its_border(self, width):
    """A sequence's length decides, and not a token's position."""
    config = model_config.from_fields(
      real_sizes.fields("longrope", width), "real_sizes"
    )
    positions = np.array(real_sizes.SHORT)
    for span, name in (
      (real_sizes.BORDER, f"longrope_{width}_short"),
      (real_sizes.BORDER + 1, f"longrope_{width}"),
    ):
      found = tables(positions, config, np.full(len(positions), span))
      for table, ours in zip(EXPECTED[name], found, strict=True):
        np.testing.assert_allclose(
          ours[:, 0], table[: len(positions)], rtol=0, atol=2e-3
        )

  def test_the_file_says_what_computed_it(self):
    # `make ci-parity` compares with the same version.
    makefile = (ROOT / "Makefile").read_text()
    pinned = f"\nPINNED := transformers=={EXPECTED['transformers']}\n"
    self.assertIn(pinned, makefile)
    names = [name for name, *_ in TABLES]
    names += [
      "layer_" + "_".join(map(str, each)) + end
      for each in real_sizes.LAYERS
      for end in ("", "_bfloat16")
    ]
    self.assertCountEqual(EXPECTED.files, ["transformers", *names])


class LayerTest(parameterized.TestCase):
  @parameterized.parameters(*real_sizes.LAYERS)
  def test_a_layer(self, kind, width, length):
    name = f"layer_{kind}_{width}_{length}"
    exact, theirs = EXPECTED[name], EXPECTED[f"{name}_bfloat16"]
    ids, kept = real_sizes.tokens(length), real_sizes.KEPT
    hidden = {
      dtype: np.asarray(
        call(layer_of(kind, width, dtype), ids, name="hidden"), np.float32
      )[0, -kept:]
      for dtype in ("float32", "bfloat16")
    }
    np.testing.assert_allclose(hidden["float32"], exact, rtol=0, atol=2e-4)
    reference = plain.Decoder(layer_of(kind, width)).hidden(ids[0])[-kept:]
    np.testing.assert_allclose(reference, exact, rtol=0, atol=2e-4)
    # As near to float32 as `transformers` comes in bfloat16.
    off = [
      np.sqrt(np.mean((each - exact) ** 2))
      for each in (hidden["bfloat16"], theirs)
    ]
    self.assertBetween(off[0], 0.1 * off[1], 1.25 * off[1])


if __name__ == "__main__":
  absltest.main()
