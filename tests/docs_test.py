"""Documents say what is so: files, links, commands, fields and layers exist."""

import ast
import dataclasses
import os
import re
import shlex
import subprocess
import typing

from absl.testing import absltest

import rstar_jax
from rstar_jax.config import schema as config_lib
from tests import layering_test
from tests.docs.reading import ROOT, anchors, documents, links

README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()

_CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
# A file of this repository, in code: a known folder or a top-level name.
_FILE = re.compile(
  r"(?<![\w/.-])((?:rstar_jax|configs|tests|launch|benchmarks|docs|colab)"
  r"/[\w/.-]*\.(?:py|md|sh|ipynb))"
)
_OVERRIDE = re.compile(r"--config((?:\.\w+(?:\[\d+\])?)+)")


def templates(paths=()) -> set[str]:
  """Returns every text of files, "..." for what is put into it.

  Args:
    paths: none are those of the package.
  """

  def text(node) -> str:
    match node:
      case ast.Constant(value=str(value)):
        return value
      case ast.JoinedStr(values=values):
        return "".join(map(text, values))
    return "..."

  return {
    text(node)
    for path in paths or layering_test.sources().values()
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Constant | ast.JoinedStr)
  }


def has_field(path: str) -> bool:
  """Whether `.search.c` and the like names a field of the config."""
  declared = config_lib.Config
  for part in path.split(".")[1:]:
    if typing.get_origin(declared) is tuple:
      declared = typing.get_args(declared)[0]
    if not dataclasses.is_dataclass(declared):
      return False
    hints = typing.get_type_hints(declared)
    name = part.partition("[")[0]
    if name not in hints:
      return False
    declared = hints[name]
  return True


class DocumentsTest(absltest.TestCase):
  def test_no_merge_is_half_done(self):
    for name, text in documents().items():
      with self.subTest(name):
        self.assertNotRegex(text, r"(?m)^(<<<<<<<|>>>>>>>|=======$)")

  def test_links_lead_somewhere(self):
    texts = documents()
    for name, text in texts.items():
      for link in links(text):
        if "://" in link or link.startswith("mailto:"):
          continue
        with self.subTest(f"{name}: {link}"):
          file, _, anchor = link.partition("#")
          path = ((ROOT / name).parent / file) if file else ROOT / name
          self.assertTrue(path.exists())
          if anchor:
            there = texts[str(path.resolve().relative_to(ROOT))]
            self.assertIn(anchor, anchors(there))

  def test_files_exist(self):
    for name, text in documents().items():
      for code in _CODE.findall(text):
        for file in _FILE.findall(code):
          if file != "configs/NAME.py":
            with self.subTest(f"{name}: {file}"):
              self.assertTrue((ROOT / file).exists())

  def test_make_targets_exist(self):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([\w-]+):(?!=)", makefile, re.MULTILINE))
    self.assertContainsSubset({"demo", "test", "lint", "clean"}, targets)
    for name, text in documents().items():
      for code in _CODE.findall(text):
        for target in re.findall(r"(?m)(?:^|`)make ([\w-]+)", code):
          with self.subTest(f"{name}: make {target}"):
            self.assertIn(target, targets)

  def test_the_demo_takes_no_exports_of_the_launch_scripts(self):
    for words, workdir in ([], "runs/tiny"), (["WORKDIR=a b/c"], "a b/c"):
      done = subprocess.run(
        ["make", "--dry-run", "demo", *words],
        cwd=ROOT,
        env=os.environ
        | {"CONFIG": "a.py", "WORKDIR": "gs://a/b", "MAKEFLAGS": ""},
        capture_output=True,
        check=True,
        text=True,
      )
      (run,) = re.findall("(?m)^.* -m rstar_jax .*$", done.stdout)
      self.assertEqual(
        shlex.split(run)[-2:],
        ["--config=configs/tiny.py", f"--workdir={workdir}"],
      )

  def test_parts_of_ci_full_are_targets_with_their_time(self):
    script = (ROOT / ".ci" / "full").read_text()
    parts = re.search(r"(?m)^parts=\((.*)\)$", script).group(1).split()
    self.assertGreater(len(parts), 4)
    makefile = (ROOT / "Makefile").read_text()
    page = documents()["CONTRIBUTING.md"]
    for part in parts:
      with self.subTest(part):
        self.assertRegex(makefile, rf"(?m)^ci-{part}:")
        self.assertRegex(page, rf"(?m)^\| `{part}` \| .* \| .*min")

  def test_modules_that_are_run_exist(self):
    for name, text in documents().items():
      for module in re.findall(r"python -m ((?:rstar_jax|tests)[\w.]*)", text):
        with self.subTest(f"{name}: {module}"):
          path = ROOT / module.replace(".", "/")
          places = (path.with_suffix(".py"), path / "__main__.py")
          self.assertTrue(any(each.exists() for each in places))

  def test_config_fields_exist(self):
    self.assertTrue(has_field(".rounds[0].rollouts"))
    self.assertFalse(has_field(".search.nothing"))
    for name, text in documents().items():
      for path in _OVERRIDE.findall(text):
        with self.subTest(f"{name}: --config{path}"):
          self.assertTrue(has_field(path))

  def test_no_line_is_left_open(self):
    for name, text in documents().items():
      with self.subTest(name):
        self.assertEqual(len(re.findall("^```", text, re.MULTILINE)) % 2, 0)


class TroubleshootingTest(absltest.TestCase):
  # Not of this package: what jax, and a program of the model, print.
  FOREIGN = ("RESOURCE_EXHAUSTED", "MemoryError")

  def test_messages_are_those_of_the_code(self):
    page = documents()["docs/troubleshooting.md"]
    messages = re.findall(r"^\| `(.+?)` \|", page, re.MULTILINE)
    self.assertGreater(len(messages), 30)
    known = templates()
    for message in messages:
      with self.subTest(message):
        # Where it begins is free: a line says first where something is wrong.
        said = any(message in text for text in known)
        self.assertTrue(said or message in self.FOREIGN)

  def test_every_message_has_its_advice(self):
    page = documents()["docs/troubleshooting.md"]
    for line in page.splitlines():
      if line.startswith("| `"):
        with self.subTest(line):
          self.assertLen(re.findall(r"(?<!\\)\|", line), 3)


class ReadmeTest(absltest.TestCase):
  def test_has_its_parts(self):
    headings = re.findall("^## (.*)$", README, re.MULTILINE)
    for heading in ("What the demo shows", "How the pieces fit", "Citation"):
      self.assertIn(heading, headings)


class ArchitectureTest(absltest.TestCase):
  def test_rooms_are_in_their_order(self):
    table = ARCHITECTURE.partition("| room |")[2].partition("\n\n")[0]
    cells = re.findall(r"(?m)^\| (`.+?`) \|", table)
    rooms = re.findall(r"`(\w+)", " ".join(cells))
    wanted = [each for each in layering_test.ROOMS if each != "__main__"]
    self.assertEqual(rooms, wanted)

  def test_functions_exist(self):
    named = re.findall(r"`([\w/]+\.py):(\w+)`", ARCHITECTURE)
    self.assertGreater(len(named), 20)
    for file, name in named:
      with self.subTest(f"{file}:{name}"):
        tree = ast.parse((ROOT / "rstar_jax" / file).read_text())
        self.assertIn(name, {getattr(each, "name", "") for each in tree.body})

  def test_switches_are_fields(self):
    table = ARCHITECTURE.partition("| switch |")[2].partition("\n\n")[0]
    names = re.findall(r"^\| `([\w.]+)`", table, re.MULTILINE)
    self.assertNotEmpty(names)
    for name in names:
      with self.subTest(name):
        self.assertTrue(has_field(f".{name}"))


class VersionTest(absltest.TestCase):
  def test_is_the_package_s(self):
    version = re.escape(rstar_jax.__version__)
    citation = (ROOT / "CITATION.cff").read_text()
    self.assertRegex(citation, f"(?m)^version: {version}$")
    self.assertRegex(documents()["CHANGELOG.md"], rf"\b{version}\b")


class ConfigDocumentsTest(absltest.TestCase):
  def test_every_program_has_a_docstring(self):
    for folder in ("configs", "benchmarks", "rstar_jax"):
      for path in (ROOT / folder).rglob("*.py"):
        text = path.read_text()
        if path.name != "__init__.py":
          with self.subTest(str(path.relative_to(ROOT))):
            self.assertTrue(ast.get_docstring(ast.parse(text)))


if __name__ == "__main__":
  absltest.main()
