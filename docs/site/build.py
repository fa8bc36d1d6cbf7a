"""Builds the site: pages, API and gallery, strictly, every link checked.

  python docs/site/build.py                  # into build/docs/VERSION
  python docs/site/build.py --no-api         # without the package's docstrings
  python docs/site/build.py --version=0.1.0  # a release, beside the others

The pages are the Markdown of this repository, each at its place, so that a link
works here and on GitHub. What is not in it is made here: the contents, from the
sections of docs/README.md; a page a room of the package, from its docstrings,
in the order of docs/architecture.md; pages of the files that others link to;
and the trees of docs/gallery.md, as the report draws them.
"""

import argparse
import html
import html.parser
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
SITE = ROOT / "docs" / "site"
FOLDERS = ("docs", "launch", "benchmarks", "colab")
PACKAGE = "rstar_jax"

_FENCE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(\s*([^)\s]+)\s*\)")
_LANGUAGES = {
  **{".py": "python", ".sh": "bash", ".js": "js", ".json": "json"},
  **{".toml": "toml", ".yaml": "yaml", ".cff": "yaml"},
}


def documents() -> list[str]:
  """Returns the Markdown files of the repository, those at the top first."""
  files = sorted(ROOT.glob("*.md"))
  for folder in FOLDERS:
    files += sorted((ROOT / folder).rglob("*.md"))
  return [str(each.relative_to(ROOT)) for each in files]


def targets(text: str) -> list[str]:
  """Returns where the links of a text lead, those in code left out."""
  return _LINK.findall(_FENCE.sub("", text))


def contents(text: str) -> list[tuple[str, list[str]]]:
  """Returns the sections of docs/README.md: a heading, the pages it lists.

  A page is listed once, in the first section that has it. The text before the
  first section has ways through the pages, and lists none.
  """
  seen = {"README.md"}
  sections = []
  for section in re.split(r"(?m)^## ", text)[1:]:
    title, _, body = section.partition("\n")
    pages = []
    for target in targets(body):
      page = os.path.normpath(f"docs/{target.partition('#')[0] or 'README.md'}")
      if page.endswith(".md") and page not in seen:
        seen.add(page)
        pages.append(page)
    if pages:
      sections.append((title, pages))
  return sections


def rooms(text: str) -> list[tuple[str, str]]:
  """Returns the rooms of docs/architecture.md in their order: name, content."""
  table = text.partition("| room |")[2].partition("\n\n")[0]
  rows = re.findall(r"(?m)^\| (`.+?`) \| (.*) \|$", table)
  return [
    (room, content)
    for cell, content in rows
    for room in re.findall(r"`(\w+)", cell)
  ]


def modules(room: str) -> list[str]:
  """Returns the dotted names of a room's modules, that of the room first."""
  folder = ROOT / PACKAGE / room
  files = [folder.with_suffix(".py")]
  if folder.is_dir():
    files = sorted(folder.rglob("*.py"))
  names = []
  for file in files:
    parts = file.relative_to(ROOT).with_suffix("").parts
    if parts[-1] != "__main__":
      names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
  return sorted(names)


class Staged:
  """A folder of what Sphinx reads.

  Attributes:
    folder: where the pages are written.
    api: whether docstrings are read.
  """

  def __init__(self, folder: pathlib.Path, api: bool):
    self.folder, self.api = folder, api
    self._rooms = rooms((ROOT / "docs" / "architecture.md").read_text())
    self._pages = documents()
    # Files and folders that pages link to and that are no pages.
    self._linked: dict[str, None] = {}

  def write(self, name: str, text: str) -> None:
    """Writes a page."""
    path = self.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)

  def stage(self) -> None:
    """Writes all pages."""
    for name in self._pages:
      text = self.linked(name, (ROOT / name).read_text())
      if name == "README.md":
        text += self._contents()
      if name == "docs/gallery.md":
        text = self._drawn(text)
      self.write(name, text)
    self._api()
    # Pages of folders link to further files.
    done = 0
    while done < len(self._linked):
      self._shown(list(self._linked)[done])
      done += 1

  def linked(self, name: str, text: str) -> str:
    """Returns the text of a page whose links lead to what the site has."""

    def moved(match: re.Match) -> str:
      target, _, anchor = match[1].partition("#")
      if not target or ":" in target:
        return match[0]
      path = os.path.normpath(os.path.join(os.path.dirname(name), target))
      there = self._place(path)
      if there != path:
        anchor = there.partition("#")[2]
        target = os.path.relpath(
          there.partition("#")[0], os.path.dirname(name) or "."
        )
      return f"]({target}{'#' if anchor else ''}{anchor})"

    parts = _FENCE.split(text)
    parts[::2] = [_LINK.sub(moved, part) for part in parts[::2]]
    return "".join(parts)

  def _place(self, path: str) -> str:
    """Returns where the site has a file of the repository."""
    if path in self._pages:
      return path
    module = path.removesuffix(".py").replace("/", ".")
    for room, _ in self._rooms:
      if path == f"{PACKAGE}/{room}":
        return f"api/{room}.md"
      if path.endswith(".py") and module in modules(room):
        return f"api/{room}.md#{module.replace('.', '')}"
    self._linked[path] = None
    file = ROOT / path
    if file.is_dir() or file.suffix in _LANGUAGES or not file.suffix:
      return f"files/{path}.md"
    return path  # A picture, or a file to download.

  def _shown(self, path: str) -> None:
    """Writes the page of a file or folder that others link to."""
    file, name = ROOT / path, f"files/{path}.md"
    # Found by a link, not by the search.
    head = f"---\norphan: true\nnosearch: true\n---\n# {path}\n\n"
    if file.is_dir():
      inside = sorted(
        each
        for each in file.iterdir()
        if each.is_file() and each.suffix in _LANGUAGES
      )
      up = os.path.relpath(".", os.path.dirname(name))
      lines = [f"- [{each.name}]({up}/{path}/{each.name})" for each in inside]
      self.write(name, self.linked(name, head + "\n".join(lines) + "\n"))
    elif self._place(path) == name:
      language = _LANGUAGES.get(file.suffix, "text")
      text = f"{head}````{{code-block}} {language}\n:linenos:\n\n"
      self.write(name, text + file.read_text() + "\n````\n")
    else:
      there = self.folder / path
      there.parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(file, there)

  def _drawn(self, text: str) -> str:
    """Returns the gallery, each `<!-- tree: ID -->` replaced by its tree.

    A tree is a page of its own, in a frame that has nothing of the page around
    it; `html_extra_path` takes it along.
    """
    import rstar_jax as rj

    trees = {
      tree.problem.id: tree for tree in rj.read_trees(ROOT / "docs" / "gallery")
    }

    def drawn(match: re.Match) -> str:
      frame = rj.show_trees([trees[match[1]]])
      self.write(f"extra/docs/gallery/{match[1]}.html", frame.page)
      address = html.escape(f"gallery/{match[1]}.html{frame.address}")
      return (
        f'<p><a href="{address}">The tree alone</a></p>\n'
        f'<iframe src="{address}" sandbox="allow-scripts" loading="lazy" '
        f'title="A search tree: {match[1]}" width="100%" height="640">'
        "</iframe>"
      )

    return re.sub(r"(?m)^<!-- tree: ([\w-]+) -->$", drawn, text)

  def _contents(self) -> str:
    """Returns the contents of the site, which its pages show at the side."""
    sections = contents((ROOT / "docs" / "README.md").read_text())
    api = ["api/README.md", *(f"api/{room}.md" for room, _ in self._rooms)]
    return "".join(
      f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n"
      + "".join(f"/{page}\n" for page in pages)
      + "```\n"
      for title, pages in [*sections, ("API", api)]
    )

  def _api(self) -> None:
    """Writes a page of the public names and one a room."""
    text = "# Public names\n\n"
    if self.api:
      text += "```{eval-rst}\n.. automodule:: rstar_jax\n   :no-members:\n```\n"
    import rstar_jax

    rows = []
    for public, place in rstar_jax._NAMES.items():
      module, _, attribute = place.partition(":")
      full = f"{PACKAGE}.{module}" + (f".{attribute}" if attribute else "")
      role = "obj" if attribute else "mod"
      shown = f"{{py:{role}}}`{full}`" if self.api else f"`{full}`"
      rows.append(f"| `rj.{public}` | {shown} |\n")
    text += "\n| name | where it is |\n| --- | --- |\n" + "".join(rows)
    self.write("api/README.md", text)
    for room, content in self._rooms:
      text = f"# {room}\n\n{content}\n".replace("](", "](../docs/")
      for module in modules(room):
        text += f"\n## {module}\n"
        if self.api:
          text += f"\n```{{eval-rst}}\n.. automodule:: {module}\n```\n"
      self.write(f"api/{room}.md", text)


class Read(html.parser.HTMLParser):
  """What a built page names and where it leads.

  Attributes:
    names: ids of its elements.
    links: addresses of its links, pictures, scripts and frames.
  """

  def __init__(self, text: str):
    super().__init__()
    self.names: set[str] = set()
    self.links: list[str] = []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    for key, value in attrs:
      if key in ("id", "name") and value:
        self.names.add(value)
      elif key in ("href", "src") and value:
        self.links.append(value)


def broken(site: pathlib.Path) -> list[str]:
  """Returns the links of built pages that lead nowhere inside the site.

  An anchor in a page that draws itself is not looked for.
  """
  pages = {
    path.resolve(): Read(path.read_text())
    for path in site.rglob("*.html")
    # What the theme keeps there are no pages, but templates.
    if "_static" not in path.parts
  }
  found = []
  for path, page in pages.items():
    for link in page.links:
      parts = urllib.parse.urlsplit(link)
      if parts.scheme or parts.netloc:
        continue
      file = path
      if parts.path:
        file = (path.parent / urllib.parse.unquote(parts.path)).resolve()
      anchor = urllib.parse.unquote(parts.fragment)
      there = pages.get(file)
      missing = anchor and there and "=" not in anchor
      if not file.exists() or missing and anchor not in there.names:
        found.append(f"{path.relative_to(site.resolve())}: {link}")
  return found


def write_versions(site: pathlib.Path) -> None:
  """Writes the list of versions, and a page that opens the newest.

  Args:
    site: has a folder a version; "dev" is the newest only where it is alone.
  """

  def key(name: str) -> list[int]:
    return [int(each) for each in re.findall(r"\d+", name)]

  names = sorted(
    (each.parent.name for each in site.glob("*/README.html")),
    **{"key": key, "reverse": True},
  )
  rows = [{"version": name, "url": f"../{name}/README.html"} for name in names]
  (site / "versions.json").write_text(json.dumps(rows, indent=2) + "\n")
  (site / "index.html").write_text(
    "<!doctype html><title>rstar_jax</title>"
    f'<meta http-equiv="refresh" content="0; url={names[0]}/README.html">'
    f'<a href="{names[0]}/README.html">rstar_jax {names[0]}</a>\n'
  )


def build(out: pathlib.Path, version: str, api: bool) -> None:
  """Builds a version of the site; raises SystemExit if anything is wrong.

  Args:
    out: folder of all versions.
    version: its name, a folder.
    api: whether docstrings are read, for which the package is loaded.
  """
  work = out.parent / f"{out.name}-source"
  shutil.rmtree(work, ignore_errors=True)
  shutil.rmtree(out / version, ignore_errors=True)
  Staged(work, api).stage()
  path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
  done = subprocess.run(
    [
      *(sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning"),
      *("--conf-dir", str(SITE), "--fresh-env"),
      f"--define=html_extra_path={work / 'extra'}",
      *("--doctree-dir", str(work / ".doctrees")),
      *(str(work), str(out / version)),
    ],
    env={**os.environ, "PYTHONPATH": path, "RSTAR_JAX_DOCS_VERSION": version},
  )
  if done.returncode:
    raise SystemExit(f"Sphinx ended with {done.returncode}: see above")
  write_versions(out)
  if lost := broken(out / version):
    raise SystemExit("\n".join(["links that lead nowhere:", *lost]))
  pages = len(list((out / version).rglob("*.html")))
  print(f"{pages} pages in {out / version}; to look at them:")
  print(f"  {sys.executable} -m http.server --bind 127.0.0.1 --directory {out}")


def main(argv: list[str] | None = None) -> None:
  """Builds the site as the command line says."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/docs")
  parser.add_argument("--version", default="dev")
  parser.add_argument("--no-api", dest="api", action="store_false")
  given = parser.parse_args(argv)
  build(given.out.absolute(), given.version, given.api)


if __name__ == "__main__":
  main()
