"""Finds a model: a folder, a GGUF file, or a name on the Hub."""

import difflib
import pathlib
from collections.abc import Sequence

from rstar_jax import outside
from rstar_jax.hf import adapters, pickles, tensors
from rstar_jax.storage import store

# The policies of a run, below its folder.
_OF_RUN = "round_*/policy"

# Files of weights, which only `load_*` functions need.
WEIGHTS = ("*.safetensors", pickles.FILES.pattern)
# Files to download from the Hub; pickled weights only without safetensors.
_WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
# Nothing reads a subfolder, or the same weights in Mistral's own form.
_LEFT = ("*/*", "consolidated*")


def find(
  name_or_folder: str | pathlib.Path, *, weights: bool = True
) -> pathlib.Path:
  """Returns a model's local folder; downloads a name on the Hub.

  Args:
    name_or_folder: a path on the disk, or a name on the Hub.
    weights: whether weights are downloaded too.

  Raises:
    ValueError: there is no such model; one line.
  """
  path = pathlib.Path(name_or_folder)
  if not path.exists():
    return _download(str(name_or_folder), weights)
  if policies := sorted(path.glob(_OF_RUN)):
    raise ValueError(
      f"{path} is a run, and no model: name one of its models, such as "
      f"{policies[-1]}"
    )
  for file in [path] if path.is_file() else sorted(path.iterdir()):
    if _is_pointer(file):
      raise ValueError(
        f"{file} is a pointer of Git LFS, not the file itself: run `git lfs "
        "pull` in its repository"
      )
  return path


def _is_pointer(file: pathlib.Path) -> bool:
  """Returns whether a file is a Git LFS pointer instead of the content."""
  if not store.matches(file.name, *_WANTED, *WEIGHTS, "*.gguf"):
    return False
  # Pointers have fewer than 1024 bytes, by their format.
  small = file.is_file() and file.stat().st_size < 1024
  return small and file.read_bytes().startswith(b"version https://git-lfs.")


def gguf_file(name_or_folder: str | pathlib.Path) -> pathlib.Path | None:
  """Returns the GGUF file at a path or in a folder, None for other models."""
  path = pathlib.Path(name_or_folder)
  if path.is_file():
    return path
  described = ("config.json", adapters.CONFIG)
  if path.is_dir() and not any((path / name).exists() for name in described):
    files = sorted(path.glob("*.gguf"))
    if len(files) != 1:
      many = f", but {len(files)} of these" if files else ""
      raise FileNotFoundError(
        f"{path} has neither a config.json nor one .gguf file{many}"
      )
    return files[0]
  return None


def _download(name: str, weights: bool) -> pathlib.Path:
  import huggingface_hub

  def download(wanted: Sequence[str]) -> pathlib.Path:
    return pathlib.Path(
      huggingface_hub.snapshot_download(
        name, allow_patterns=list(wanted), ignore_patterns=list(_LEFT)
      )
    )

  try:
    folder = download(
      [each for each in _WANTED if weights or each not in WEIGHTS]
    )
    if weights and not any(folder.glob(tensors.FILES.pattern)):
      download([*_WANTED, pickles.FILES.pattern])
    return folder
  except (OSError, ValueError) as error:
    raise ValueError(
      f"there is no folder {name}{_hint(name)}, and the hub does not give a "
      f"model of that name: {outside.first_line(error)}"
    ) from None


def _hint(name: str) -> str:
  """Returns a hint at a similar folder, "" without one."""
  path = pathlib.Path(name)
  names = [each.parent.name for each in path.parent.glob("*/config.json")]
  near = difflib.get_close_matches(path.name, names, n=1)
  return f" (did you mean {path.parent / near[0]}?)" if near else ""
