"""Pushes files to the Hugging Face Hub, and asks it for licences."""

import contextlib
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Literal

Kind = Literal["model", "dataset"]

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# Seconds for an answer about a licence, which may do without one.
_SECONDS = 10.0


def prepare(name: str, kind: Kind, endpoint: str | None = None) -> None:
  """Makes a repository, private, unless there is one.

  Args:
    name: "USER/NAME"; the user is who is logged in, or an organisation.
    kind: of the repository.
    endpoint: the Hub's address; None is what `huggingface_hub` takes.

  Raises:
    ValueError: the name is none, nobody is logged in, or the Hub refuses; one
      line that says what to do.
  """
  import huggingface_hub

  if not _NAME.fullmatch(name):
    raise ValueError(f"{name!r} is no name on the Hub: give USER/NAME")
  with _told(name):
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
  """Uploads files as one commit; files that are there already are not sent.

  Args:
    files: what to upload, by path in the repository.
    name: a repository that `prepare` made.
    kind: of the repository.
    message: of the commit.
    endpoint: see `prepare`.

  Returns:
    The repository's address, and who sees it.

  Raises:
    ValueError: the Hub refuses, or is not reached; one line.
  """
  import huggingface_hub

  api = huggingface_hub.HfApi(endpoint)
  operations = [
    huggingface_hub.CommitOperationAdd(path, str(file))
    for path, file in files.items()
  ]
  with _told(name):
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
    Its identifier, such as "apache-2.0"; None if the card names none, or the
    Hub is not reached.
  """
  import huggingface_hub

  api = huggingface_hub.HfApi(endpoint)
  try:
    found = api.repo_info(name, repo_type=kind, timeout=_SECONDS).card_data
  except Exception:  # What is not reached is of many kinds.
    return None
  named = found.get("license") if found else None
  return ", ".join(named) if isinstance(named, list) else named


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
  """Turns what `huggingface_hub` raises into a line."""
  try:
    yield
  except Exception as error:  # Its errors of HTTP have no base of their own.
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    raise ValueError(
      f"{name} cannot be pushed to ({type(error).__name__}: {reason}): log in "
      "by `hf auth login` or $HF_TOKEN, with a token that may write there, and "
      "run the same command again"
    ) from None
