"""Checks what `make release` has built, and tries it away from the checkout.

  make release

The files of dist/ hold what they should; the wheel is installed in an
environment of its own, in a folder that knows no checkout, where the command
answers a question and searches some problems. What the changelog says of the
version becomes dist/RELEASE_NOTES.md. The last lines say what there is, of
which commit, and how it is published.
"""

import hashlib
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile

from tests import notebooks

ROOT = pathlib.Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
# Beside the package and its configs.
_SOURCES = (
  *("CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "setup.py"),
  # It names the repository.
  "colab/README.md",
)
_QUESTION = "Sila keeps 3 pens of 14 hens. How many hens does Sila keep?"


def tracked() -> set[str]:
  """Returns what the package is made of, as git knows it."""
  listed = subprocess.run(
    ["git", "ls-files", "rstar_jax", "configs/*.py"],
    **{"cwd": ROOT, "check": True, "capture_output": True, "text": True},
  )
  return set(listed.stdout.split())


def installed_as(name: str) -> str:
  """Returns where a wheel has a file of the repository."""
  return f"rstar_jax/{name}" if name.startswith("configs/") else name


def sections(changelog: str) -> dict[str, str]:
  """Returns what a changelog says of each version, "Unreleased" among them."""
  parts = re.split(r"(?m)^## \[(.+?)\].*\n", changelog)
  texts = map(str.strip, parts[2::2])
  return dict(zip(parts[1::2], texts, strict=True))


def notes(changelog: str, version: str) -> str:
  """Returns the notes of a version.

  Raises:
    ValueError: the changelog says nothing of it.
  """
  if not (text := sections(changelog).get(version)):
    raise ValueError(f"CHANGELOG.md has no section [{version}]")
  return f"# rstar_jax {version}\n\n{text}\n"


def check_files(wheel: pathlib.Path, sources: pathlib.Path) -> None:
  """Compares what both hold with the repository; raises SystemExit."""
  with zipfile.ZipFile(wheel) as file:
    in_wheel = {name for name in file.namelist() if ".dist-info/" not in name}
  with tarfile.open(sources) as file:
    in_sources = {name.partition("/")[2] for name in file.getnames()}
  wanted = tracked()
  lost = {
    "the wheel lacks": {installed_as(name) for name in wanted} - in_wheel,
    "the wheel has besides": in_wheel - {installed_as(name) for name in wanted},
    "the sources lack": (wanted | set(_SOURCES)) - in_sources,
    "the sources have tests": {n for n in in_sources if n.startswith("tests/")},
  }
  said = [f"{what}: {', '.join(sorted(n))}" for what, n in lost.items() if n]
  if said:
    raise SystemExit("\n".join(said))


def try_out(wheel: pathlib.Path) -> None:
  """Installs a wheel and uses it; raises CalledProcessError if that fails."""
  with tempfile.TemporaryDirectory() as folder:
    # Nothing of the checkout is found by chance.
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment = {**kept, "JAX_PLATFORMS": "cpu", "HOME": folder}

    def do(*words: str) -> str:
      print("==", *words, flush=True)
      return subprocess.run(
        words,
        **{"cwd": folder, "env": environment, "check": True},
        **{"stdout": subprocess.PIPE, "text": True},
      ).stdout

    do(sys.executable, "-m", "venv", "--without-pip", "venv")
    # By the pip of this environment, whose caches and settings are the user's.
    pip = ("-m", "pip", "--python", f"{folder}/venv/bin/python", "install")
    words = [sys.executable, *pip, "--no-compile", str(wheel)]
    print("==", *words, flush=True)
    subprocess.run(words, **{"cwd": folder, "env": kept, "check": True})
    command = f"{folder}/venv/bin/rstar_jax"
    assert "rollout" in do(command, "--help")
    config = "--config=configs/tiny.py"
    said = do(command, "solve", config, f"--question={_QUESTION}")
    print(said)
    assert "answer" in said.lower(), said
    do(
      *(command, "rollout", config, "--workdir=run", "--round=1"),
      *("--config.train.count=4", "--config.shard_size=4"),
    )
    script = (
      "import rstar_jax as rj; print(rj.__file__, "
      "*map(len, rj.read_trees('run/round_1/trees')))"
    )
    where, *nodes = do(f"{folder}/venv/bin/python", "-c", script).split()
    print(where, *nodes)
    assert where.startswith(folder) and len(nodes) == 4, (where, nodes)


def commit() -> str:
  """Returns the commit that is checked out, "-dirty" after it if changed."""
  done = subprocess.run(
    ["git", "describe", "--always", "--dirty", "--exclude=*"],
    **{"cwd": ROOT, "check": True, "capture_output": True, "text": True},
  )
  return done.stdout.strip()


def hindrances(made_of: str, changelog: str, repository: str) -> list[str]:
  """Returns what keeps a build from being published.

  Args:
    made_of: as `commit` names it.
    repository: as `notebooks.repository` does.
  """
  found = []
  if made_of.endswith("-dirty"):
    found.append("files differ from the commit: commit or undo the changes")
  if sections(changelog).get("Unreleased"):
    found.append("CHANGELOG.md has changes under [Unreleased], of no version")
  if not repository:
    found.append(
      "colab/README.md names no repository: on an index README.md's links "
      "would lead nowhere"
    )
  return found


def summary(files: list[pathlib.Path], version: str, made_of: str) -> str:
  """Returns what there is to publish, and the commands that do it."""
  lines = [f"Of commit {made_of}, in dist:"]
  for path in files:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    lines.append(f"  {path.name}  {len(content) / 1e6:.1f} MB  sha256 {digest}")
  lines += [
    "  RELEASE_NOTES.md, the text of the release",
    "Nothing has been uploaded. To publish it:",
    f"  git tag v{version} {made_of} && git push origin v{version}",
    f"  .venv-release/bin/twine upload dist/rstar_jax-{version}*",
  ]
  return "\n".join(lines)


def main() -> None:
  """Does all of it with what lies in dist/."""
  (wheel,), (sources,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
  version = wheel.name.split("-")[1]
  check_files(wheel, sources)
  changelog, made_of = (ROOT / "CHANGELOG.md").read_text(), commit()
  text = notes(changelog, version)
  try_out(wheel)
  (DIST / "RELEASE_NOTES.md").write_text(text)
  if found := hindrances(made_of, changelog, notebooks.repository()):
    print("All was tried, but this is not to be published:", *found, sep="\n  ")
  else:
    print(summary([wheel, sources], version, made_of))


if __name__ == "__main__":
  main()
