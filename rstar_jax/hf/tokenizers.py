"""Loads a model's tokenizer from a folder, a GGUF file or the Hub."""

import tempfile

from rstar_jax.hf import finding, folders, gguf_tokenizer
from rstar_jax.hf.gguf import GgufFile
from rstar_jax.steps import prompts
from rstar_jax.steps.tokenizer import HfTokenizer
from rstar_jax.storage import store

# Files of which a folder with a tokenizer has at least one.
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def load_tokenizer(
  base: store.Path | str,
  *,
  add_markers: bool = True,
  prompt: prompts.Prompt = prompts.prompt,
) -> HfTokenizer:
  """Loads a model's tokenizer; see `HfTokenizer`.

  Args:
    base: a Hugging Face folder or name, or a GGUF file. An adapter without a
      tokenizer uses its base model's.
    add_markers: whether missing markers of the step grammar are added.
    prompt: returns the text before the first step.

  Raises:
    ValueError: no tokenizer can be read; or, with markers, it changes texts.
  """
  options = {"add_markers": add_markers, "prompt": prompt}
  with store.local(base, finding.WEIGHTS) as base:
    # Given a name, the library asks the Hub for each file, repeatedly if there
    # is no network.
    base = finding.find(base, weights=False)
    file = finding.gguf_file(base)
    if file is None:
      if not any((base / name).exists() for name in _FILES):
        named = folders.base_of_adapter(base)
        if named is not None:
          return load_tokenizer(named, **options)
      return HfTokenizer(base, **options)
    with tempfile.TemporaryDirectory() as folder:
      gguf_tokenizer.save(GgufFile(file).metadata, folder)
      try:
        return HfTokenizer(folder, **options)
      except ValueError as error:
        reason = str(error).replace(folder, str(file))
        raise ValueError(reason) from None
