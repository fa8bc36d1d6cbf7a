"""What is installed is whole, and the documents say how it is installed."""

import json
import pathlib
import re
import subprocess
import sys

from absl.testing import absltest

from tests import release
from tests.docs.reading import ROOT, documents

# What setuptools would put into a wheel, and what setup.py says.
_SCRIPT = """
import json, setuptools
from setuptools.command.build_py import build_py
setuptools.setup = lambda **given: setattr(setuptools, "given", given)
exec(open("setup.py").read(), {"__file__": "setup.py"})
given = {**setuptools.given, "script_name": "setup.py"}
command = build_py(setuptools.Distribution(given))
command.ensure_finalized()
files = [f"{p}/{f}" for _, p, _, names in command.data_files for f in names]
files += [file for _, _, file in command.find_all_modules()]
names = "version", "extras_require", "license_files", "long_description"
print(json.dumps([files, {name: given[name] for name in names}]))
"""


def described(folder: pathlib.Path) -> tuple[list[str], dict]:
  """Returns what a wheel of the folder would hold, and what setup.py says."""
  done = subprocess.run(
    [sys.executable, "-W", "ignore", "-c", _SCRIPT],
    **{"cwd": folder, "capture_output": True, "text": True, "check": True},
  )
  return json.loads(done.stdout)


class SetupTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.files, cls.given = described(ROOT)

  def test_the_wheel_holds_the_package(self):
    wanted = {
      str(path.relative_to(ROOT))
      for folder in ("rstar_jax", "configs")
      for path in (ROOT / folder).rglob("*")
      if path.is_file() and "__pycache__" not in path.parts
    }
    held = {str(pathlib.Path(name)) for name in self.files}
    self.assertEqual(held, wanted)

  def test_licences_are_there(self):
    for pattern in self.given["license_files"]:
      self.assertNotEmpty(list(ROOT.glob(pattern)), pattern)

  def test_an_index_gets_whole_links(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    files = {
      "setup.py": (ROOT / "setup.py").read_text(),
      "rstar_jax/__init__.py": '__version__ = "1.2"\n',
      "configs/tiny.py": "",
      "colab/README.md": "[repository]: https://host/me/it\n",
      "README.md": "[a](b.md#c) [d](https://e) [f](#g) ![h](i/j.png)\n",
    }
    for name, text in files.items():
      (folder / name).parent.mkdir(exist_ok=True)
      (folder / name).write_text(text)
    self.assertEqual(
      described(folder)[1]["long_description"],
      "[a](https://host/me/it/blob/v1.2/b.md#c) [d](https://e) [f](#g) "
      "![h](https://host/me/it/raw/v1.2/i/j.png)\n",
    )

  def test_release_notes_are_of_the_version(self):
    changelog = documents()["CHANGELOG.md"]
    text = release.notes(changelog, self.given["version"])
    self.assertStartsWith(text, f"# rstar_jax {self.given['version']}\n\n")
    self.assertNotIn("## [", text)
    with self.assertRaisesRegex(ValueError, "no section"):
      release.notes(changelog, "9.9.9")

  def test_notes_are_those_of_one_section(self):
    text = (
      "# C\n\n## [Unreleased]\n\n- a\n\n## [1.0] - 2026\n\n- b\n## [0.9]\n- c"
    )
    self.assertEqual(release.notes(text, "1.0"), "# rstar_jax 1.0\n\n- b\n")

  def test_says_how_it_is_published(self):
    path = pathlib.Path(self.create_tempfile("a.whl", "abc").full_path)
    said = release.summary([path], "1.0", "0123abc")
    # Of "abc", by FIPS 180-2.
    self.assertIn(
      "a.whl  0.0 MB  sha256 ba7816bf8f01cfea414140de5dae2223", said
    )
    self.assertIn("git tag v1.0 0123abc &&", said)
    # RELEASE_NOTES.md lies there too, and twine would refuse it.
    self.assertIn("twine upload dist/rstar_jax-1.0*", said)

  def test_says_what_hinders_it(self):
    changelog, url = "## [1.0]\n- b", "https://host/x"
    self.assertEmpty(release.hindrances("0123abc", changelog, url))
    for commit, text, repository, said in (
      ("0123abc-dirty", changelog, url, "differ from the commit"),
      ("0123abc", f"## [Unreleased]\n\n- a\n{changelog}", url, "no version"),
      ("0123abc", changelog, "", "names no repository"),
    ):
      with self.subTest(said):
        (found,) = release.hindrances(commit, text, repository)
        self.assertIn(said, found)

  def test_documents_install_a_clone(self):
    """There is no index that has the package: a clone is installed."""
    extras = self.given["extras_require"]
    named = set()
    for name, text in documents().items():
      for line in text.splitlines():
        if name == "docs/troubleshooting.md" and line.startswith("| `"):
          continue  # A message, of a package that is installed.
        with self.subTest(f"{name}: {line}"):
          self.assertNotRegex(line, r"pip install [^`|]*\brstar_jax\b")
        for found in re.findall(r"-e '\.\[([\w,]+)\]'", line):
          named.update(found.split(","))
    self.assertContainsSubset(named, extras)
    self.assertGreater(len(named), 6)

  def test_every_extra_is_listed(self):
    table = documents()["docs/laptop.md"].partition("| extra |")[2]
    cells = re.findall(r"(?m)^\| (`.+?) \|", table.partition("\n\n")[0])
    listed = re.findall(r"`(\w+)`", " ".join(cells))
    self.assertCountEqual(listed, self.given["extras_require"])

  def test_messages_name_extras(self):
    for path in (ROOT / "rstar_jax").rglob("*.py"):
      for found in re.findall(r"'rstar_jax\[(\w+)\]'", path.read_text()):
        with self.subTest(f"{path}: {found}"):
          self.assertIn(found, self.given["extras_require"])


if __name__ == "__main__":
  absltest.main()
