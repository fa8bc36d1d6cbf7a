"""Where others end what a policy writes: where the engine does."""

import json
import pathlib
import types

import transformers
from absl.testing import absltest

from rstar_jax.hf import folders, generation
from rstar_jax.inference.policy import stop_finishes
from rstar_jax.steps.tokenizer import HfTokenizer


class GenerationTest(absltest.TestCase):
  def test_others_end_a_step_where_the_engine_does(self):
    tokenizer = HfTokenizer(folders.BASE_MODEL)
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / generation.FILE).write_text(generation.render(tokenizer))
    read = transformers.GenerationConfig.from_pretrained(folder)
    self.assertEqual(set(read.eos_token_id), stop_finishes(tokenizer).keys())
    self.assertEqual(read.eos_token_id[0], tokenizer.eos_id)
    self.assertEqual(read.pad_token_id, tokenizer.pad_id)
    self.assertIsNone(read.bos_token_id)

  def test_a_tokenizer_that_knows_no_step(self):
    plain = types.SimpleNamespace(
      eos_id=5, pad_id=5, bos_ids=(3,), id_of={}.__getitem__
    )
    self.assertEqual(
      json.loads(generation.render(plain)),
      {"bos_token_id": 3, "eos_token_id": [5], "pad_token_id": 5},
    )


if __name__ == "__main__":
  absltest.main()
