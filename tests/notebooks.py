"""The notebooks of colab/: read, cleaned, and run without a notebook server.

  python -m tests.notebooks    strips what was run of all, as git keeps them,
                               and fills in the address of colab/README.md

`run` does what a server would: the cells in order, in a process of their own,
in one namespace, and what the last line of a cell is worth is its output. The
package is what a wheel holds, and nothing of the checkout is at hand.
"""

import ast
import atexit
import dataclasses
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "colab"
# Tags of cells: what is not run by a test, and what a test sets.
INSTALL, PARAMETERS = "install", "parameters"
# Where Colab opens a file of GitHub's.
_COLAB = "https://colab.research.google.com"
_BADGE = f"[![Open in Colab]({_COLAB}/assets/colab-badge.svg)]"
_METADATA = {
  "kernelspec": {
    "display_name": "Python 3",
    "language": "python",
    "name": "python3",
  },
  "language_info": {"name": "python"},
}


@dataclasses.dataclass(frozen=True)
class Cell:
  """A cell of code.

  Attributes:
    number: from 0, text cells counted.
    source: its text.
    tags: of the cell.
  """

  number: int
  source: str
  tags: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What came of a run.

  Attributes:
    printed: standard output of all cells.
    shown: what each cell that ends in a value shows, as HTML or else as text.
  """

  printed: str
  shown: list[str]


def paths() -> list[pathlib.Path]:
  """Returns the notebooks, in order."""
  return sorted(FOLDER.glob("*.ipynb"))


def find(name: str) -> pathlib.Path:
  """Returns the notebook of a name, its number left out."""
  [path] = FOLDER.glob(f"[0-9][0-9]_{name}.ipynb")
  return path


def code_cells(notebook: Mapping[str, Any]) -> Iterator[Cell]:
  """Yields the cells of code."""
  for number, cell in enumerate(notebook["cells"]):
    if cell["cell_type"] == "code":
      tags = tuple(cell["metadata"].get("tags", ()))
      yield Cell(number, "".join(cell["source"]), tags)


def text(path: pathlib.Path) -> str:
  """Returns what stands in the text cells of a notebook."""
  cells = json.loads(path.read_text())["cells"]
  kept = [each for each in cells if each["cell_type"] == "markdown"]
  return "\n\n".join("".join(each["source"]) for each in kept)


def repository() -> str:
  """Returns the address that colab/README.md names, "" while it names none."""
  found = re.search(
    r"(?m)^\[repository\]: (https://\S+)$", (FOLDER / "README.md").read_text()
  )
  return "" if "/OWNER/" in found[1] else found[1]


def addressed(source: str, name: str, url: str) -> str:
  """Returns a cell with the address, and its badge if it begins a notebook."""
  source = re.sub(
    r'(?m)^REPOSITORY = ".*?"', f'REPOSITORY = "{url}"', source, count=1
  )
  if not source.startswith("# "):
    return source
  kept = source.partition(f"\n\n{_BADGE}")[0]
  if not url.startswith("https://github.com/"):
    return kept
  path = url.removeprefix("https://github.com/").removesuffix(".git")
  return f"{kept}\n\n{_BADGE}({_COLAB}/github/{path}/blob/main/colab/{name})"


def cleaned(notebook: Mapping[str, Any], name: str, url: str) -> str:
  """Returns a notebook as git has it: as Jupyter writes it, and never run.

  Colab writes an older minor version, in which cells have no ids.

  Args:
    notebook: read.
    name: of its file.
    url: see `repository`.
  """
  notebook = json.loads(json.dumps(notebook))
  notebook |= {"nbformat_minor": 5, "metadata": _METADATA}
  for number, cell in enumerate(notebook["cells"]):
    source = addressed("".join(cell["source"]), name, url)
    cell["source"] = source.splitlines(keepends=True)
    cell.setdefault("id", f"{cell['cell_type']}-{number:02d}")
    kept = {"tags": cell["metadata"].get("tags")}
    cell["metadata"] = {key: value for key, value in kept.items() if value}
    if cell["cell_type"] == "code":
      cell |= {"execution_count": None, "outputs": []}
  text = json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False)
  return f"{text}\n"


def with_parameters(source: str, values: Mapping[str, Any]) -> str:
  """Returns a cell of settings with the values of some of them after it.

  Raises:
    ValueError: the cell has no such setting.
  """
  names = {
    node.id
    for node in ast.walk(ast.parse(source))
    if isinstance(node, ast.Name)
  }
  if unknown := set(values) - names:
    raise ValueError(f"no setting is called {', '.join(sorted(unknown))}")
  lines = [f"{name} = {value!r}" for name, value in values.items()]
  return "\n".join([source, *lines])


@functools.cache
def wheel() -> pathlib.Path:
  """Returns a folder with what a wheel of the package holds."""
  folder = pathlib.Path(tempfile.mkdtemp())
  atexit.register(shutil.rmtree, folder)
  command = ["setup.py", "--quiet", "build_py", f"--build-lib={folder}"]
  subprocess.run(
    [sys.executable, "-W", "ignore", *command],
    cwd=ROOT,
    check=True,
    capture_output=True,
  )
  return folder


def run(name: str, values: Mapping[str, Any]) -> Outcome:
  """Runs a notebook to its end, in an empty folder.

  Args:
    name: see `find`.
    values: of settings, in the place of the notebook's own.

  Raises:
    AssertionError: a cell failed; has what the process said.
  """
  notebook = json.loads(find(name).read_text())
  cells = []
  for cell in code_cells(notebook):
    if INSTALL in cell.tags:
      continue
    source = cell.source
    if PARAMETERS in cell.tags:
      source = with_parameters(source, values)
    cells.append([f"<cell {cell.number}>", source])
  with tempfile.TemporaryDirectory() as folder:
    written = pathlib.Path(folder) / "cells.json"
    shown = pathlib.Path(folder) / "shown.json"
    written.write_text(json.dumps(cells))
    done = subprocess.run(
      # -P: without the folder of this file, whose names are those of others.
      [sys.executable, "-P", __file__, str(written), str(shown)],
      cwd=folder,
      env={"JAX_PLATFORMS": "cpu"} | os.environ | {"PYTHONPATH": str(wheel())},
      capture_output=True,
      text=True,
      check=False,
    )
    if done.returncode:
      raise AssertionError(f"{name}: {done.stdout}\n{done.stderr}")
    return Outcome(done.stdout, json.loads(shown.read_text()))


def execute(cells: list[list[str]]) -> list[str]:
  """Executes [name, source] one after the other; returns what they show."""
  namespace: dict[str, Any] = {"__name__": "__main__"}
  shown = []
  for name, source in cells:
    module = ast.parse(source, name)
    last = module.body[-1]
    if isinstance(last, ast.Expr):
      module.body.pop()
    exec(compile(module, name, "exec"), namespace)
    if isinstance(last, ast.Expr):
      value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
      if value is not None:
        rich = getattr(value, "_repr_html_", None)
        shown.append(rich() if rich else repr(value))
  return shown


def main(arguments: list[str]) -> None:
  """Strips and addresses all notebooks; or executes cells, for `run`."""
  if arguments:
    cells, shown = map(pathlib.Path, arguments)
    shown.write_text(json.dumps(execute(json.loads(cells.read_text()))))
    return
  for path in paths():
    notebook = json.loads(path.read_text())
    path.write_text(cleaned(notebook, path.name, repository()))


if __name__ == "__main__":
  main(sys.argv[1:])
