"""Renders the report as one self-contained HTML file.

Model output is embedded as JSON with "<" escaped, or packed, and shown only as
text. The content security policy allows only the page's own scripts and style
sheet, by their hashes: nothing from the network, nothing inline. Browsers with
trusted types also refuse to convert any string to HTML.
"""

import base64
import hashlib
import html
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging
from etils import epath

from rstar_jax import outside
from rstar_jax.report import forest, inputs
from rstar_jax.report import overview as overview_lib
from rstar_jax.report import trees as trees_lib
from rstar_jax.storage import layout, store

# In order of execution; each uses those before it.
SCRIPTS = (
  "d3-hierarchy.min.js",
  "base.js",
  "dom.js",
  "data.js",
  "charts.js",
  "tables.js",
  "costs.js",
  "decisions.js",
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
# Likewise, for a page that fetches its data.
LIVE_SCRIPTS = (*SCRIPTS[:-1], "renew.js", "live.js", SCRIPTS[-1])
# The part of the policy that keeps text from becoming markup or a script.
TRUSTED_TYPES = "; require-trusted-types-for 'script'; trusted-types 'none'"

_STYLE = "style.css"
_FRAME = "page.html"
_KIND = "rStar-Math report"
_PAGES = """\
  <nav aria-label="Pages of the report">
    <a href="#view=overview" data-view="overview">Overview</a>
    <a href="#view=problems" data-view="problems">Problems</a>
  </nav>"""


def write(
  workdir: epath.PathLike, budget: forest.Budget | None = None
) -> store.Path:
  """Writes a workdir's report.html, from its records alone.

  Equal records give equal bytes.

  Args:
    workdir: folder of a run, finished or not.
    budget: size limits of the page; None is the default.

  Returns:
    The path of the file.

  Raises:
    ValueError, OSError: the folder or a record in it cannot be read.
  """
  path = store.path(workdir) / layout.REPORT
  # The folder's name may be invalid Unicode.
  text = outside.valid(render(inputs.read(workdir, budget)))
  store.write(path, text.encode())
  return path


def try_write(workdir: epath.PathLike) -> str:
  """Writes the report; a failure is logged, and does not end the run.

  Returns:
    A line that names the file, or the error and what to do.
  """
  try:
    return f"report: {write(workdir)}"
  except Exception as error:  # noqa: BLE001 - a finished run stays finished.
    logging.exception("The report could not be written")
    return (
      f"no report: {type(error).__name__}: {error}; the run is complete. "
      f"Fix this, then: python -m rstar_jax.report {workdir}"
    )


def render(records: Mapping[str, Any]) -> str:
  """Returns the page as text.

  Args:
    records: the result of `inputs.read`.
  """
  return _page(
    str(records["name"]),
    SCRIPTS,
    [
      _block("overview", _json(overview_lib.overview(records))),
      _block("problems", trees_lib.encode(records["problems"])),
      *(
        _block(f"tree-{number}", packed)
        for number, packed in enumerate(records["trees"])
      ),
    ],
  )


def live(name: str) -> str:
  """Returns the page of a run in progress; see `live.py`.

  Args:
    name: name of the run.
  """
  return _page(outside.valid(name), LIVE_SCRIPTS, [], "; connect-src 'self'")


def _page(
  name: str, scripts: Sequence[str], blocks: Sequence[str], allowed: str = ""
) -> str:
  """Returns a page of scripts and blocks of data.

  Args:
    name: name of the run.
    scripts: names of assets, in order.
    blocks: elements of data.
    allowed: further directives of the content security policy.
  """
  style = _inline(_STYLE)
  texts = [_inline(each) for each in scripts]
  rules = html.escape(policy(texts, style) + allowed)
  return frame(
    title=f"{html.escape(name)} · {_KIND}",
    name=html.escape(name),
    kind=_KIND,
    head="\n".join(
      [
        f'<meta http-equiv="Content-Security-Policy" content="{rules}">',
        '<meta name="referrer" content="no-referrer">',
        f"<style>{style}</style>",
      ]
    ),
    pages=_PAGES,
    without="This page draws itself with JavaScript, all of which is in this "
    "file. Nothing is fetched from a network. Please allow it to run.",
    scripts="\n".join([*blocks, *(f"<script>{e}</script>" for e in texts)]),
  )


def frame(**parts: str) -> str:
  """Returns a page: the common frame, filled in.

  Args:
    **parts: markup for each place of the frame: "title"; "name" and "kind", at
      the top; "head", elements of the head; "pages", links; "without", the text
      without JavaScript; and "scripts".
  """
  first, *pieces = asset(_FRAME).split("{{")
  text = [first]
  for piece in pieces:
    place, _, rest = piece.partition("}}")
    text += [parts[place], rest]
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
  """Returns an element of data, which the browser does not execute."""
  return f'<script type="application/json" id="{name}">{text}</script>'


def _json(value: Any) -> str:
  """Returns JSON that is safe within a script element."""
  text = json.dumps(value, sort_keys=True, separators=(",", ":"))
  return text.replace("<", "\\u003c").replace(">", "\\u003e")


def _inline(name: str) -> str:
  """Returns the text of an asset that becomes the content of an element.

  Raises:
    ValueError: the text would end that element.
  """
  text = asset(name)
  if any(mark in text.lower() for mark in ("</script", "</style", "<!--")):
    raise ValueError(f"{name} holds </script, </style or <!--: write it apart")
  return text


def asset(name: str, room: str = "report") -> str:
  """Returns the text of a file in `assets` of a room of the package."""
  folder = importlib.resources.files(f"rstar_jax.{room}") / "assets"
  return (folder / name).read_text("utf-8")
