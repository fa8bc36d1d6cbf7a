r"""Runs the Dockerfile's steps in a bare root, for want of a Docker.

  debootstrap --variant=minbase --include=ca-certificates trixie ROOT
  # ... and what `FROM` has besides: Python, in ROOT/usr/local
  python -m tests.launch.bare_root ROOT              # then the image's command
  python -m tests.launch.bare_root ROOT COMMAND ...  # then another one

Needs root, on Linux. Steps run in order, each by itself, with the root, the
processes and the mounts of a container and the network of the machine; there
are no layers and no cache, and `FROM` is what ROOT has.
"""

import json
import pathlib
import re
import shlex
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def steps(text: str) -> list[tuple[str, str]]:
  """Returns the instructions of a Dockerfile, and what follows each."""
  lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
  split = (line.partition(" ") for line in lines if line)
  return [(word, rest.strip()) for word, _, rest in split]


class Root:
  """A folder that is made an image of.

  Attributes:
    command: what the image runs.
  """

  def __init__(self, folder: pathlib.Path):
    self.command: list[str] = []
    self._root, self._workdir, self._user = folder, "/", "root"
    self._variables = {"PATH": _PATH}

  def step(self, word: str, rest: str) -> None:
    """Does what an instruction says; raises CalledProcessError if it fails."""
    match word:
      case "FROM":
        pass
      case "ARG":
        name, _, value = rest.partition("=")
        self._variables[name] = value
      case "WORKDIR":
        self._workdir = rest
        self._inside().mkdir(parents=True, exist_ok=True)
      case "COPY":
        if rest != ". .":
          raise ValueError(f"COPY {rest}: only that of the whole is done")
        # What a checkout has; `.dockerignore` names nothing of it.
        subprocess.run(
          "git ls-files -z | tar --create --null --files-from=- | "
          f"tar --extract --no-same-owner --directory={self._inside()}",
          **{"shell": True, "cwd": REPOSITORY, "check": True},
        )
      case "RUN":
        self.run(["/bin/sh", "-c", rest])
      case "USER":
        self._user = rest
      case "CMD":
        self.command = json.loads(rest)
      case _:
        raise ValueError(f"{word} is not done here")

  def run(self, words: list[str]) -> None:
    """Runs a command as a container would."""
    user = ["setpriv", f"--reuid={self._user}", f"--regid={self._user}"]
    subprocess.run(
      [
        *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
        *("--mount-proc", f"--root={self._root}", f"--wd={self._workdir}"),
        *user,
        *("--init-groups", "--"),
        *words,
      ],
      env=self._variables,
      check=True,
    )

  def _inside(self) -> pathlib.Path:
    return self._root / self._workdir.removeprefix("/")


def main(folder: str, *command: str) -> None:
  """Runs the steps, and the command."""
  root = Root(pathlib.Path(folder).resolve())
  for word, rest in steps((REPOSITORY / "Dockerfile").read_text()):
    print(f"--- {word} {rest}", flush=True)
    root.step(word, rest)
  words = list(command) or root.command
  print(f"--- {shlex.join(words)}", flush=True)
  root.run(words)


if __name__ == "__main__":
  main(*sys.argv[1:])
