"""Model and data set cards: how a run made them, and what was measured.

Everything comes from the run's config and records. A card gives no figure that
was not measured, and a licence only where the source's card names one.
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
from rstar_jax.evaluation import results_tables
from rstar_jax.storage import store
from rstar_jax.storage.formatting import grid

# Returns the licence of a model or data set on the Hub, None if unknown.
Licence = Callable[[str, str], str | None]

CARD = "README.md"

_ON_HUB = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_FRONT = "---\n"


def add(card: str, fields: Mapping[str, list[str]], text: str) -> str:
  """Returns a card with fields added to its head, and text at its end.

  Args:
    card: Markdown whose head is YAML between lines of "---".
    fields: values by field; a field without values is left out.
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
  """Returns the card fields that name base model and data sets on the Hub."""
  sources = dict.fromkeys(_on_hub(each.source) for each in _training(config))
  base = config.policy.path
  return {
    "base_model": [base] if is_on_hub(base) else [],
    "datasets": [name for name in sources if name],
  }


def made(config: Config, round_: int, licence: Licence) -> str:
  """Returns the section on how a round's data and models were made.

  Args:
    config: of the run.
    round_: from 1.
    licence: looks a licence up on the Hub.
  """
  rows = [["base model", _base(config, licence)]]
  rows += [
    ["problems", _source(each.source, licence)] for each in _training(config)
  ]
  rows += [
    ["round", f"{round_} of {len(config.rounds)}"],
    ["policy trained by", config.rounds[round_ - 1].algorithm],
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
  """Returns the section of measurements for a model of one round.

  Args:
    found: the run's measurements; see `results.collect`.
    round_: the model's round, from 1.
    what: "policy" or "ppm".
    licence: looks a licence up on the Hub.
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
      "Pairs of problems of the training set, held out of this model's own "
      "training, that the values rank as the search does.",
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
      results_tables.markdown(found).rstrip(),
      "",
      "Problems: " + "; ".join(_source(e, licence) for e in sources) + ".",
      "",
    ]
  if not found["rows"] and not (what == "ppm" and rows):
    lines += ["Nothing: this run was not evaluated.", ""]
  return "\n".join(lines)


def is_on_hub(name: str) -> bool:
  """Returns whether a name is of the Hub's form, and not of a local folder."""
  return bool(_ON_HUB.fullmatch(name)) and not pathlib.Path(name).exists()


def library() -> str:
  """Returns the version of this package, and its commit in a clone."""
  try:
    version = f"rstar_jax {importlib.metadata.version('rstar_jax')}"
  except importlib.metadata.PackageNotFoundError:
    version = "rstar_jax"
  # In an environment inside another repository this file is not tracked.
  if _git("ls-files", "--error-unmatch", __file__):
    return f"{version}, commit {_git('describe', '--always', '--dirty')}"
  return version


def _git(*command: str) -> str:
  """Returns the output of git in this package's folder, "" if it fails."""
  here = str(pathlib.Path(__file__).parent)
  try:
    result = subprocess.run(
      ["git", "-C", here, *command],
      capture_output=True,
      text=True,
      check=True,
      timeout=10,
    )
  except (OSError, subprocess.SubprocessError):
    return ""
  return result.stdout.strip()


def _training(config: Config) -> list[DataConfig]:
  """Returns the sources of the training data."""
  extract = config.extract
  released = [extract.sft_source, extract.pairs_source]
  given = [DataConfig(source=each) for each in released if each]
  return ([config.train] if extract.needs_trees else []) + given


def _base(config: Config, licence: Licence) -> str:
  path = config.policy.path
  if not path:
    return "the one that rstar_jax ships (Apache-2.0)"
  if is_on_hub(path):
    return f"{path} ({_licence_text(licence(path, 'model'))})"
  return f"{_shown(path)} ({_licence_text(_licence_in(path))})"


def _source(source: str, licence: Licence) -> str:
  """Returns the name of a source of problems, with its licence."""
  if source.startswith("synthetic:"):
    return f"{source}, generated by rstar_jax"
  name = _on_hub(source)
  if name:
    return f"{source} ({_licence_text(licence(name, 'dataset'))})"
  return _shown(source)


def _licence_text(licence: str | None) -> str:
  return f"licence: {licence}" if licence else "licence not known"


def _licence_in(folder: str) -> str | None:
  """Returns the licence that the card in a model's folder names, if any."""
  card = store.read(store.path(folder) / CARD)
  head = re.match(
    r"---\n(.*?)\n---\n", (card or b"").decode(errors="replace"), re.S
  )
  match = head and re.search(r"(?m)^license: *(\S.*)$", head[1])
  return match[1].strip("\"' ") if match else None


def _on_hub(source: str) -> str:
  """Returns a source's name on the Hub, "" if it is not there."""
  if not source.startswith("hf:"):
    return ""
  path = hub.parse(source.removeprefix("hf:")).path
  return path if is_on_hub(path) else ""


def _shown(value: Any) -> Any:
  """Returns settings without local paths: of a path its last part is kept."""
  if isinstance(value, Mapping):
    return {name: _shown(each) for name, each in value.items()}
  if isinstance(value, list):
    return [_shown(each) for each in value]
  if isinstance(value, str) and re.match(r"(\w+:)?(/|~|\.\.?/|\w+://)", value):
    return f".../{value.rstrip('/').rpartition('/')[2]}"
  return value
