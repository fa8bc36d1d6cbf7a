"""Pushes files to the Hugging Face Hub, and looks up licences there."""

import contextlib
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Literal

from rstar_jax import outside

Kind = Literal["model", "dataset"]

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# Timeout in seconds of the look-up of a licence, which is optional.
_SECONDS = 10.0


def prepare(name: str, kind: Kind, endpoint: str | None = None) -> None:
  """Creates a private repository, unless it exists.

  Args:
    name: "USER/NAME", of the logged-in user or an organisation.
    kind: of the repository.
    endpoint: the Hub's address; None is the default of `huggingface_hub`.

  Raises:
    ValueError: the name is malformed, no user is logged in, or the Hub refuses;
      one line that says what to do.
  """
  import huggingface_hub

  if not _NAME.fullmatch(name):
    raise ValueError(f"{name!r} is no name on the Hub: give USER/NAME")
  with _errors_in_one_line(name):
    huggingface_hub.HfApi(endpoint).create_repo(
      name, repo_type=kind, private=True, exist_ok=True
    )


def push(
  files: Mapping[str, pathlib.Path],
  name: str,
  kind: Kind,
  message: str,
  endpoint: str | None = None,
) -> str:
  """Uploads files as one commit; unchanged files are not sent.

  Args:
    files: files to upload, by path in the repository.
    name: a repository that `prepare` created or found.
    kind: of the repository.
    message: of the commit.
    endpoint: see `prepare`.

  Returns:
    The repository's address, and its visibility.

  Raises:
    ValueError: the Hub refuses, or cannot be reached; one line.
  """
  import huggingface_hub

  api = huggingface_hub.HfApi(endpoint)
  operations = [
    huggingface_hub.CommitOperationAdd(path, str(file))
    for path, file in files.items()
  ]
  with _errors_in_one_line(name):
    api.create_commit(name, operations, commit_message=message, repo_type=kind)
    private = api.repo_info(name, repo_type=kind).private
  url = f"{api.endpoint}/{'datasets/' * (kind == 'dataset')}{name}"
  return f"{url} ({'private' if private else 'public'})"


def licence(name: str, kind: Kind, endpoint: str | None = None) -> str | None:
  """Returns the licence that a repository's card names.

  Args:
    name: "OWNER/NAME".
    kind: of the repository.
    endpoint: see `prepare`.

  Returns:
    Its identifier, e.g. "apache-2.0"; None if the card names none, or the Hub
    cannot be reached.
  """
  import huggingface_hub

  api = huggingface_hub.HfApi(endpoint)
  try:
    card = api.repo_info(name, repo_type=kind, timeout=_SECONDS).card_data
  except Exception:  # A missing network raises many kinds.
    return None
  named = card.get("license") if card else None
  return ", ".join(named) if isinstance(named, list) else named


@contextlib.contextmanager
def _errors_in_one_line(name: str) -> Iterator[None]:
  """Turns errors of `huggingface_hub` into a line."""
  try:
    yield
  except Exception as error:  # Its HTTP errors have no common base class.
    reason = outside.one_line(error)[:300]
    raise ValueError(
      f"{name} cannot be pushed to ({type(error).__name__}: {reason}): log in "
      "by `hf auth login` or $HF_TOKEN, with a token that may write there, and "
      "run the same command again"
    ) from None
