"""Tests of finding a model: here, on the Hub, or what is said without one."""

import fnmatch
from unittest import mock

import huggingface_hub
from absl.testing import absltest, parameterized

from rstar_jax.hf import finding, saving
from tests.hf.folders_test import FolderCase, make


class FindingTest(FolderCase):
  @parameterized.parameters("model.safetensors", "tokenizer.json", "a.gguf")
  def test_a_pointer_is_named(self, name):
    saving.save_policy(make(), self.folder)
    self.assertEqual(finding.find(self.folder), self.folder)
    # As https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md has it.
    pointer = (
      "version https://git-lfs.github.com/spec/v1\n"
      f"oid sha256:{'4d7a' * 16}\nsize 269060552\n"
    )
    (self.folder / "picture.png").write_text(pointer)
    self.assertEqual(finding.find(self.folder), self.folder)
    (self.folder / name).write_text(pointer)
    for where in (self.folder, self.folder / name):
      with self.assertRaisesRegex(ValueError, f"/{name} is a pointer of Git"):
        finding.find(where)

  @parameterized.parameters(("model.safetensors", 1), ("pytorch_model.bin", 2))
  def test_the_older_form_is_downloaded_only_where_it_is_all(self, name, times):
    self.folder.mkdir()
    asked = []

    def download(repo, allow_patterns, ignore_patterns):
      asked.append(allow_patterns)
      if any(fnmatch.fnmatch(name, each) for each in allow_patterns):
        (self.folder / name).touch()
      return str(self.folder)

    with mock.patch.object(huggingface_hub, "snapshot_download", download):
      self.assertEqual(finding.find("org/model"), self.folder)
    self.assertTrue((self.folder / name).exists())
    self.assertLen(asked, times)
    self.assertNotIn("pytorch_model*.bin", asked[0])

  def test_what_nobody_reads_is_not_downloaded(self):
    """Files of openai/gpt-oss-20b and mistralai/Mistral-7B-v0.3."""
    self.folder.mkdir()
    (self.folder / "model.safetensors").touch()
    download = mock.Mock(return_value=str(self.folder))
    with mock.patch.object(huggingface_hub, "snapshot_download", download):
      finding.find("org/model")
    names = [
      "chat_template.jinja",
      "config.json",
      "consolidated.safetensors",
      "metal/model.bin",
      "model-00001-of-00003.safetensors",
      "original/config.json",
      "original/model.safetensors",
      "tokenizer.json",
      "tokenizer.model",
      "tokenizer.model.v3",
    ]
    # The library's own choice by the patterns.
    chosen = huggingface_hub.utils.filter_repo_objects(
      names,
      allow_patterns=download.call_args.kwargs["allow_patterns"],
      ignore_patterns=download.call_args.kwargs["ignore_patterns"],
    )
    self.assertEqual(list(chosen), [names[i] for i in (0, 1, 4, 7, 8)])

  def test_a_tokenizer_alone_needs_no_weights(self):
    self.folder.mkdir()
    download = mock.Mock(return_value=str(self.folder))
    with mock.patch.object(huggingface_hub, "snapshot_download", download):
      finding.find("org/model", weights=False)
    download.assert_called_once()
    patterns = download.call_args.kwargs["allow_patterns"]
    self.assertIn("*.json", patterns)
    self.assertNoCommonElements(patterns, finding.WEIGHTS)

  def test_a_misspelt_folder(self):
    (self.folder / "tiny").mkdir(parents=True)
    (self.folder / "tiny" / "config.json").touch()
    with self.assertRaisesRegex(
      ValueError, f"no folder {self.folder}/tinny .did you mean .*/tiny"
    ):
      finding.find(self.folder / "tinny")

  def test_a_run_is_no_model(self):
    (self.folder / "round_2" / "policy").mkdir(parents=True)
    with self.assertRaisesRegex(ValueError, "is a run, .* as .*/round_2/polic"):
      finding.find(self.folder)


if __name__ == "__main__":
  absltest.main()
