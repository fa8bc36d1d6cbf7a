"""Items of reward models on the disk, against the same items in memory."""

import pathlib
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import testing
from rstar_jax.data import sides, stored_sides
from rstar_jax.types import PreferencePair

TOKENIZER = testing.ByteTokenizer()


def made(seed: int, scored: bool) -> sides.Encoded:
  """Returns items of some questions that share prefixes; some are too long."""
  rng = np.random.default_rng(seed)
  items = []
  for question in range(20):
    path = tuple("x" * rng.integers(1, 20) for _ in range(3))
    for _ in range(rng.integers(1, 9)):
      shared = path[: rng.integers(4)]
      one, other = (
        (*shared, f"{rng.integers(9)}" * rng.integers(1, 50)) for _ in range(2)
      )
      target, name = float(rng.integers(-1, 2)), f"q{question}"
      pair = PreferencePair(name, name, one, other, 1 + target / 2, "step")
      items.append((name, one, target) if scored else pair)
  encode = sides.encode_scored if scored else sides.encode_pairs
  return encode(TOKENIZER, items, 140)


class StoredSidesTest(parameterized.TestCase):
  @parameterized.product(scored=(False, True), seed=(0, 1))
  def test_batches_are_those_of_items_in_memory(self, scored, seed):
    encoded = made(seed, scored)
    self.assertGreater(encoded.dropped, 0)
    folder = pathlib.Path(self.create_tempdir().full_path)
    with stored_sides.Writer(folder) as writer:
      for number, group in enumerate(encoded.groups):
        writer.put(sides.Encoded([group], encoded.dropped * (number == 3)))
    found = stored_sides.StoredSides(folder)
    for name in ("above", "longest", "dropped"):
      self.assertEqual(getattr(found, name), getattr(encoded, name))
    for options in ((7, 2, 3), (40, 1, None)):
      (wanted, count), (at, same) = (
        sides.make_batches(
          *(each, *options),
          length=256,
          balanced=scored,
          # What is known is not looked for.
          size=size,
        )
        for each, size in (
          (encoded, None),
          (found, sides.largest(found, *options, length=256)),
        )
      )
      self.assertEqual(same, count)
      for k in (count - 1, 0, count // 2):
        batch = at(k)
        self.assertEqual(batch.keys(), wanted(k).keys())
        for name, array in wanted(k).items():
          np.testing.assert_array_equal(batch[name], array, name)
          self.assertEqual(batch[name].dtype, array.dtype)

  def test_one_question_is_read_for_a_batch(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    with stored_sides.Writer(folder) as writer:
      writer.put(made(0, False))
    found = stored_sides.StoredSides(folder)
    size = sides.largest(found, 1, 1, 5, length=256)
    at, _ = sides.make_batches(found, 1, 1, 5, length=256, size=size)
    with mock.patch.object(found, "read", wraps=found.read) as read:
      at(4)
    read.assert_called_once()

  def test_no_items(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    with stored_sides.Writer(folder) as writer:
      writer.put(sides.Encoded([], 3))
    found = stored_sides.StoredSides(folder)
    self.assertEqual((len(found.counts), found.dropped), (0, 3))


if __name__ == "__main__":
  absltest.main()
