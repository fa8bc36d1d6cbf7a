"""Renders the report: one HTML file that needs nothing else.

What a model wrote reaches the page as JSON in which "<" is escaped, or packed,
and is shown as text alone. The policy in the page's head allows the scripts and
the style sheet that are in it, by their hashes, and nothing else: nothing from
a network, nothing inline. A browser that knows trusted types refuses to make
HTML of a string altogether.
"""

import base64
import hashlib
import html
import importlib.resources
import json
from collections.abc import Mapping
from typing import Any

from absl import logging
from etils import epath

from rstar_jax.report import forest
from rstar_jax.report import overview as overview_lib
from rstar_jax.report import records as records_lib
from rstar_jax.report import trees as trees_lib
from rstar_jax.storage import store

NAME = "report.html"

# In the order in which they run; each uses those before it.
SCRIPTS = (
  "d3-hierarchy.min.js",
  "base.js",
  "dom.js",
  "data.js",
  "charts.js",
  "tables.js",
  "costs.js",
  "overview.js",
  "problems.js",
  "layout.js",
  "draw.js",
  "detail.js",
  "replay.js",
  "guide.js",
  "tree.js",
  "app.js",
)
# No text becomes markup or a script, by any way; of the policy.
TRUSTED_TYPES = "; require-trusted-types-for 'script'; trusted-types 'none'"

_STYLE = "style.css"
_PAGE = "page.html"


def write(
  workdir: epath.PathLike, budget: forest.Budget | None = None
) -> store.Path:
  """Writes report.html of a workdir, from its records alone.

  The same records give the same bytes.

  Args:
    workdir: of a run, finished or not.
    budget: how much the page may hold; None takes the default.

  Returns:
    The file.

  Raises:
    ValueError, OSError: the folder or a record in it cannot be read.
  """
  path = store.path(workdir) / NAME
  text = render(records_lib.read(workdir, budget))
  store.write(path, text.encode())
  return path


def try_write(workdir: epath.PathLike) -> str:
  """Writes the report if it can be; a run does not fail for want of it.

  Returns:
    A line that names the file, or says what went wrong and what to do.
  """
  try:
    return f"report: {write(workdir)}"
  except Exception as error:  # noqa: BLE001 - a finished run stays finished.
    logging.exception("The report could not be written")
    return (
      f"no report: {type(error).__name__}: {error}; the run itself is whole. "
      f"Once that is mended: python -m rstar_jax.report {workdir}"
    )


def render(records: Mapping[str, Any]) -> str:
  """Returns the page as text.

  Args:
    records: of `records.read`.
  """
  style = _asset(_STYLE)
  scripts = [_asset(name) for name in SCRIPTS]
  blocks = [
    _block("overview", _json(overview_lib.overview(records))),
    _block("problems", trees_lib.encode(records["problems"])),
    *(
      _block(f"tree-{number}", packed)
      for number, packed in enumerate(records["trees"])
    ),
  ]
  parts = {
    "policy": html.escape(policy(scripts, style)),
    "title": html.escape(str(records["name"])),
    "style": style,
    "blocks": "\n".join(blocks),
    "scripts": "\n".join(f"<script>{each}</script>" for each in scripts),
  }
  page = _asset(_PAGE)
  pieces = page.split("{{")
  text = [pieces[0]]
  for piece in pieces[1:]:
    name, _, rest = piece.partition("}}")
    text += [parts[name], rest]
  return "".join(text)


def policy(scripts: list[str], style: str) -> str:
  """Returns the content security policy for these scripts and this style."""
  allowed = " ".join(map(_hash, scripts))
  return (
    f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; "
    f"base-uri 'none'; form-action 'none'{TRUSTED_TYPES}"
  )


def _hash(text: str) -> str:
  digest = hashlib.sha256(text.encode()).digest()
  return f"'sha256-{base64.b64encode(digest).decode()}'"


def _block(name: str, text: str) -> str:
  """Returns data that the browser does not run."""
  return f'<script type="application/json" id="{name}">{text}</script>'


def _json(value: Any) -> str:
  """Returns JSON that can stand in a script element, whatever is in it."""
  text = json.dumps(value, sort_keys=True, separators=(",", ":"))
  return text.replace("<", "\\u003c").replace(">", "\\u003e")


def _asset(name: str) -> str:
  """Returns a file of the page.

  Raises:
    ValueError: it would end the element that it is put into.
  """
  folder = importlib.resources.files("rstar_jax.report") / "assets"
  text = (folder / name).read_text("utf-8")
  if name != _PAGE and any(
    mark in text.lower() for mark in ("</script", "</style", "<!--")
  ):
    raise ValueError(f"{name} holds </script, </style or <!--: write it apart")
  return text
