"""The page at `/`: its files, which load nothing from elsewhere.

The frame and the drawing of trees are the report's own files; the others are in
`assets`.
All text of models arrives as JSON and is shown as text: browsers with trusted
types refuse to convert any string to HTML.
"""

import functools

from rstar_jax.report import page as report

# In order of execution; each uses those before it.
SCRIPTS = (
  *("d3-hierarchy.min.js", "base.js", "dom.js", "data.js", "charts.js"),
  *("tables.js", "costs.js", "layout.js", "draw.js", "detail.js"),
  *("replay.js", "guide.js", "tree.js", "ask.js"),
)
_STYLES = ("style.css", "ask.css")
_KINDS = {"js": "text/javascript", "css": "text/css"}
_POLICY = (
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src "
  "'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
  f"{report.TRUSTED_TYPES}"
)
HEADERS = {
  "Content-Security-Policy": _POLICY,
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cache-Control": "no-cache",
}


@functools.cache
def html() -> str:
  """Returns the page."""
  links = [f'<link rel="stylesheet" href="assets/{each}">' for each in _STYLES]
  links += [f'<script defer src="assets/{each}"></script>' for each in SCRIPTS]
  return report.frame(
    title="Ask · rStar-Math",
    name="",
    kind="rStar-Math",
    head="\n".join(links),
    pages="",
    without="This page asks the server by JavaScript. Please allow it.",
    scripts="",
  )


def asset(name: str) -> tuple[str, str] | None:
  """Returns a file of the page and its type, None if there is none."""
  # Clients choose names, of which only those of files may stay in memory.
  return _read(name) if name in (*SCRIPTS, *_STYLES) else None


@functools.cache
def _read(name: str) -> tuple[str, str]:
  room = "serve" if name.startswith("ask.") else "report"
  return report.asset(name, room), _KINDS[name.rpartition(".")[2]]
