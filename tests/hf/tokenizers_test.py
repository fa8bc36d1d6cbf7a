"""The tokenizer of a file that has a whole model."""

import pathlib
from unittest import mock

import huggingface_hub
from absl.testing import absltest, parameterized

from rstar_jax.hf.tokenizers import load_tokenizer
from tests import tiny_gguf
from tests.steps import alike


class LoadTokenizerTest(parameterized.TestCase):
  @parameterized.parameters(True, False)
  def test_a_whole_file_of_phi3(self, has_bytes):
    tokens, _ = alike.pieces()
    file = pathlib.Path(self.create_tempdir().full_path) / "phi3.gguf"
    fields = {
      "model": "llama",
      "tokens": tokens,
      "scores": [-float(i) for i in range(len(tokens))],
      "token_type": [2, 3, 3]
      + [6 if has_bytes else 1] * 256
      + [1] * (len(tokens) - 259),
      "bos_token_id": 1,
      "eos_token_id": 2,
      "unknown_token_id": 0,
    }
    fields = {f"tokenizer.ggml.{key}": fields[key] for key in fields}
    tiny_gguf.write(file, "phi3", metadata=fields)
    if has_bytes:
      tokenizer = load_tokenizer(file)
      self.assertEqual(
        [tokenizer.known, tokenizer.bos_ids], [len(tokens), (1,)]
      )
    else:
      with self.assertRaisesRegex(ValueError, f"^{file}: .* comes back as"):
        load_tokenizer(file)

  def test_a_name_is_asked_for_once(self):
    failing = mock.Mock(side_effect=OSError("no network\nmore"))
    with (
      mock.patch.object(huggingface_hub, "snapshot_download", failing),
      self.assertRaisesRegex(ValueError, "^there is no folder a/b, .*network$"),
    ):
      load_tokenizer("a/b")
    failing.assert_called_once()


if __name__ == "__main__":
  absltest.main()
