"""Sphinx's settings for the site; `build.py` stages its pages and calls it."""

import itertools
import os
import re

project = "rstar_jax"
author = "The rstar_jax maintainers"
release = os.environ["RSTAR_JAX_DOCS_VERSION"]
root_doc = "README"
# Sphinx 9 asks that the copyright have a year.
project_copyright = "2026, The rstar_jax maintainers"

extensions = [
  "myst_parser",
  "sphinx.ext.autodoc",
  "sphinx.ext.napoleon",
  "sphinx.ext.viewcode",
]
# A class is shown where it is written, and not where it is imported too.
viewcode_follow_imported_members = False
# Anchors of headings as GitHub makes them.
myst_heading_anchors = 6

# What a docstring has between backticks is code.
default_role = "code"
# The first word of what a function returns is taken for a type of that name.
suppress_warnings = ["ref.python"]
# Fifteen hundred names in the list beside each page take four fifths of the
# build; the list has a page's modules, and the search finds names.
toc_object_entries = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
# Of another class or library: its own docstring is no text of ours.
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
napoleon_use_rtype = False
# Fields of a class are listed once.
napoleon_use_ivar = True

html_theme = "sphinx_book_theme"
html_title = f"rstar_jax {release}"
html_copy_source = False
html_show_sphinx = False
# By the theme's own template; the list is a file beside the versions' folders.
html_theme_options = {
  "article_header_start": ["toggle-primary-sidebar", "version-switcher"],
  "check_switcher": False,
  "show_toc_level": 2,
  "switcher": {"json_url": "../versions.json", "version_match": release},
  "use_download_button": False,
  "use_fullscreen_button": False,
}

# In a docstring, outside of code: what reStructuredText takes for markup.
_CODE = re.compile(r"(`[^`]+`)")
_MARKUP = re.compile(r"([*|]|(?<=\w)_(?!\w))")
_SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):$")


def escaped(text: str) -> str:
  """Returns a text without markup of its own, with code between backticks."""
  parts = _CODE.split(text)
  for i, part in enumerate(parts):
    if i % 2:
      # Code ends at a letter too, in "`Request`s".
      parts[i] = f"`{part}`" + "\\ " * parts[i + 1][:1].isalnum()
    else:
      parts[i] = _MARKUP.sub(r"\\\1", part)
  return "".join(parts)


def plain(app, what, name, obj, options, lines: list[str]) -> None:
  """Has docstrings read as they are written; before napoleon finds sections.

  What is indented outside of a section, a table or commands, keeps its form.
  """
  del app, what, name, obj, options
  section, kept = "", False
  marked: list[tuple[bool, str]] = []
  for line in lines:
    if line and line[0] != " ":
      found = _SECTION.match(line)
      section, kept = found[1] if found else "", False
    elif line:
      kept = not section
      if section == "Returns":
        line = f"  {line.lstrip()}"  # One paragraph, however it was laid out.
    marked.append((kept, line))
  read: list[str] = []
  for kept, group in itertools.groupby(marked, lambda each: each[0]):
    part = [line for _, line in group]
    if kept:
      read += ["", "::", "", *(f"  {line}" for line in part), ""]
    else:
      read += escaped("\n".join(part)).split("\n")
  lines[:] = read


def setup(app) -> None:
  """Connects `plain`, before napoleon reads the sections."""
  # napoleon's own handler has 500.
  app.connect("autodoc-process-docstring", plain, priority=400)
