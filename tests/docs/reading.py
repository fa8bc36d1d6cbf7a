"""Reads the project's Markdown: blocks, commands, links and headings."""

import dataclasses
import pathlib
import re
import shlex
import sys
from unittest import mock

from absl import flags

from rstar_jax.config import flag
from rstar_jax.config.schema import Config
from tests import notebooks

ROOT = pathlib.Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"\]\(\s*([^)\s]+)")
_HEADING = re.compile(r"^#{1,6} +(.*?) *$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Block:
  """What a document shows between two fences.

  Attributes:
    language: as the fence names it, "" where it does not.
    text: the lines between.
    line: of the first of them, from 1.
    output: of the block of language "text" that is the next one of the
      document, if there is one: what this one prints. None otherwise.
  """

  language: str
  text: str
  line: int
  output: str | None = None

  @property
  def file(self) -> str:
    """The file that a comment on the first line names: "# my_file.py"."""
    found = re.match(r"# (\w+\.py)\n", self.text)
    return found[1] if found else ""


def documents(
  folders: tuple[str, ...] = ("docs", "launch", "benchmarks", "colab"),
) -> dict[str, str]:
  """Returns the text of every Markdown file by name, those at the top too.

  Of a notebook in these folders it is what stands in its text cells.
  """
  files = sorted(ROOT.glob("*.md"))
  for folder in folders:
    files += sorted((ROOT / folder).rglob("*.md"))
  texts = {each: each.read_text() for each in files}
  for folder in folders:
    for each in sorted((ROOT / folder).glob("*.ipynb")):
      texts[each] = notebooks.text(each)
  return {str(each.relative_to(ROOT)): text for each, text in texts.items()}


def blocks(text: str) -> list[Block]:
  """Returns what stands between fences, in order."""
  found = [
    Block(each[1], each[2], text.count("\n", 0, each.start(2)) + 1)
    for each in _FENCE.finditer(text)
  ]
  for i, following in enumerate(found[1:]):
    if following.language == "text":
      found[i] = dataclasses.replace(found[i], output=following.text)
  return found


def commands(script: str) -> list[str]:
  """Returns the commands of a shell block, each with its lines joined.

  Comments are left out; what is between quotes may have several lines.

  Raises:
    ValueError: a quotation is not closed.
  """
  found, held = [], ""
  for line in script.replace("\\\n", "").splitlines():
    held = f"{held}\n{line}" if held else line
    try:
      words = shlex.split(held, comments=True)
    except ValueError:
      continue  # A quotation that the next line goes on with.
    if words:
      found.append(re.sub(r"\s+#[^'\"]*$", "", held.strip()))
    held = ""
  if held:
    raise ValueError(f"a quotation is not closed: {held}")
  return found


def config(*words: str) -> Config:
  """Returns the config of a command with these flags: --config and the like."""
  argv, values = ["main", *words], flags.FlagValues()
  holder = flag.define_config(values)
  with mock.patch.object(sys, "argv", argv):
    flag.parse_flags(argv, values)
  return holder.value


def links(text: str) -> list[str]:
  """Returns where the links of a document lead, those in code left out."""
  return _LINK.findall(_SPAN.sub("", _FENCE.sub("", text)))


def anchors(text: str) -> set[str]:
  """Returns what a link can lead to within a document, as GitHub names it."""
  found: dict[str, int] = {}
  names = set()
  for heading in _HEADING.findall(_FENCE.sub("", text)):
    # Of a link only its text is named.
    shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    name = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
    count = found.setdefault(name, 0)
    found[name] += 1
    names.add(f"{name}-{count}" if count else name)
  return names
