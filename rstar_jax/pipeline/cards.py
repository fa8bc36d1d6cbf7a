"""What a card says of a run: how it was made, and what was measured.

All of it comes from the run's config and records. What was not measured is not
said; a licence is said where the card of the source names one.
"""

import importlib.metadata
import json
import pathlib
import re
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

from rstar_jax.config import identity
from rstar_jax.config.schema import Config, DataConfig
from rstar_jax.data import hub
from rstar_jax.evaluation import accuracy
from rstar_jax.storage import store
from rstar_jax.storage.formatting import grid

# Says the licence of a model or data set of the Hub, None if it is not known.
Licence = Callable[[str, str], str | None]

CARD = "README.md"

_ON_HUB = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_FRONT = "---\n"


def add(card: str, fields: Mapping[str, list[str]], text: str) -> str:
  """Returns a card with more fields in its head, and a text at its end.

  Args:
    card: Markdown that begins with fields between lines of "---".
    fields: names of fields, and their values; those without are left out.
    text: Markdown.
  """
  head, body = card.removeprefix(_FRONT).split(_FRONT, 1)
  more = "".join(
    f"{name}: {json.dumps(values)}\n"
    for name, values in fields.items()
    if values
  )
  return f"{_FRONT}{head}{more}{_FRONT}{body.rstrip()}\n\n{text.rstrip()}\n"


def fields(config: Config) -> dict[str, list[str]]:
  """Returns the fields that link a card to what the Hub has of its sources."""
  sources = dict.fromkeys(_on_hub(each.source) for each in _training(config))
  base = config.policy.path
  return {
    "base_model": [base] if is_on_hub(base) else [],
    "datasets": [name for name in sources if name],
  }


def made(config: Config, round_: int, licence: Licence) -> str:
  """Returns how a round's data and models were made.

  Args:
    config: the run's.
    round_: from 1.
    licence: asks the Hub.
  """
  rows = [["base model", _base(config, licence)]]
  rows += [
    ["problems", _source(each.source, licence)] for each in _training(config)
  ]
  search = config.rounds[round_ - 1]
  rows += [
    ["round", f"{round_} of {len(config.rounds)}"],
    ["policy trained by", search.algorithm],
    ["seed", str(config.seed)],
    ["card written by", library()],
  ]
  bound = _shown(identity.identity(config))
  text = json.dumps(bound, indent=1, sort_keys=True, ensure_ascii=False)
  return "\n".join(
    [
      "## How it was made",
      "",
      *grid(["", ""], rows),
      "",
      "<details><summary>All settings</summary>",
      "",
      "```json",
      text,
      "```",
      "",
      "</details>",
      "",
    ]
  )


def measured(
  found: Mapping[str, Any], round_: int, what: str, licence: Licence
) -> str:
  """Returns the tables of a run, for a model of one of its rounds.

  Args:
    found: see `results.collect`.
    round_: the model's.
    what: "policy" or "ppm".
    licence: asks the Hub.
  """
  lines = ["## What was measured", ""]
  pairs = [each for each in found["ppm"] if each["round"] == round_]
  rows = [
    [
      name.removeprefix("held_out_"),
      f"{100 * each['accuracy']:.1f}",
      str(each["pairs"]),
    ]
    for name, each in (pairs[0] if pairs else {}).items()
    if name.startswith("held_out_")
  ]
  if what == "ppm" and rows:
    lines += [
      "Pairs of held-out problems of the training set that the values rank "
      "as the search does.",
      "",
      *grid(["Pairs", "Ranked alike, %", "n"], rows),
      "",
    ]
  if found["rows"]:
    data = found["config"]["eval"]
    sources = [data["data"]["source"], *(e["source"] for e in data["more"])]
    lines += [
      f"This is the model of round {round_}. Round 0 is the base model. The "
      f"seed of all of it is {found['config']['seed']}; programs were run, and "
      "answers compared by rstar_jax.",
      "",
      accuracy.markdown(found).rstrip(),
      "",
      "Problems: " + "; ".join(_source(e, licence) for e in sources) + ".",
      "",
    ]
  if not found["rows"] and not (what == "ppm" and rows):
    lines += ["Nothing: this run was not evaluated.", ""]
  return "\n".join(lines)


def is_on_hub(name: str) -> bool:
  """Says whether a model or data set is named as on the Hub, and not here."""
  return bool(_ON_HUB.fullmatch(name)) and not pathlib.Path(name).exists()


def library() -> str:
  """Returns the version of this package, and its commit in a clone."""
  try:
    said = f"rstar_jax {importlib.metadata.version('rstar_jax')}"
  except importlib.metadata.PackageNotFoundError:
    said = "rstar_jax"
  # Within another's repository, as an environment is, this file is not tracked.
  if _git("ls-files", "--error-unmatch", __file__):
    return f"{said}, commit {_git('describe', '--always', '--dirty')}"
  return said


def _git(*command: str) -> str:
  """Returns what git says of this package, "" where it fails."""
  here = str(pathlib.Path(__file__).parent)
  try:
    done = subprocess.run(
      ["git", "-C", here, *command],
      capture_output=True,
      text=True,
      check=True,
      timeout=10,
    )
  except (OSError, subprocess.SubprocessError):
    return ""
  return done.stdout.strip()


def _training(config: Config) -> list[DataConfig]:
  """Returns the sources of what is trained on."""
  extract = config.extract
  released = [extract.sft_source, extract.pairs_source]
  found = [DataConfig(source=each) for each in released if each]
  return ([config.train] if extract.needs_trees else []) + found


def _base(config: Config, licence: Licence) -> str:
  path = config.policy.path
  if not path:
    return "the one that rstar_jax ships (Apache-2.0)"
  if is_on_hub(path):
    return f"{path} ({_named(licence(path, 'model'))})"
  return f"{_shown(path)} ({_named(_licence_in(path))})"


def _source(source: str, licence: Licence) -> str:
  """Returns a source of problems, with its licence."""
  if source.startswith("synthetic:"):
    return f"{source}, generated by rstar_jax"
  name = _on_hub(source)
  if name:
    return f"{source} ({_named(licence(name, 'dataset'))})"
  return _shown(source)


def _named(found: str | None) -> str:
  return f"licence: {found}" if found else "licence not known"


def _licence_in(folder: str) -> str | None:
  """Returns the licence that the card in a model's folder names."""
  card = store.read(store.path(folder) / CARD)
  head = re.match(
    r"---\n(.*?)\n---\n", (card or b"").decode(errors="replace"), re.S
  )
  found = head and re.search(r"(?m)^license: *(\S.*)$", head[1])
  return found[1].strip("\"' ") if found else None


def _on_hub(source: str) -> str:
  """Returns the data set's name of a source on the Hub, "" of another."""
  if not source.startswith("hf:"):
    return ""
  path = hub.parse(source.removeprefix("hf:")).path
  return path if is_on_hub(path) else ""


def _shown(value: Any) -> Any:
  """Returns settings as others may see them: of a place, its last name."""
  if isinstance(value, Mapping):
    return {name: _shown(each) for name, each in value.items()}
  if isinstance(value, list):
    return [_shown(each) for each in value]
  if isinstance(value, str) and re.match(r"(hf:)?(/|~|\.\.?/|\w+://)", value):
    return f".../{value.rstrip('/').rpartition('/')[2]}"
  return value
