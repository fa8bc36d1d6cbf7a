"""Counts of ids that are not those of their text, by hand."""

from absl import flags
from absl.testing import absltest, flagsaver

from benchmarks import sampled_ids
from rstar_jax import testing
from rstar_jax.steps import grammar

# The command needs one, which nothing here reads.
flags.set_default(sampled_ids._MODEL, "none")


class SampledIdsTest(absltest.TestCase):
  def test_counts(self):
    tokenizer = testing.ByteTokenizer()
    same = tokenizer.encode(f"x = 1\n{grammar.END_OF_STEP}")
    # A marker, letter by letter, has an id of its own as a text.
    offset = tokenizer.encode("a")[0] - ord("a")
    other = [offset + each for each in grammar.END_OF_STEP.encode()]
    steps = [
      same,
      (),
      [*same, tokenizer.eos_id, tokenizer.pad_id],
      other,
      [*same, *other],
    ]
    with flagsaver.flagsaver(steps=9):
      found = sampled_ids.count(steps, tokenizer)
    self.assertEqual(found, {"steps": 4, "other": 2})
    with flagsaver.flagsaver(steps=3):
      found = sampled_ids.count(steps, tokenizer)
    self.assertEqual(found, {"steps": 3, "other": 1})


if __name__ == "__main__":
  absltest.main()
