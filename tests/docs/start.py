"""What the quick start of docs/README.md takes, from a new clone on.

  python -m tests.docs.start                  # every step of it
  python -m tests.docs.start --steps=1,6,8    # those that take minutes

The commands of the page are run in a clone of this one's last commit, with a
HOME of its own, so that nothing is cached. For each step a line says how many
commands it has, how many processor seconds they and what they started took,
and how many MB pip downloaded. Wall time is left out: it says as much of other
programs. A server is stopped when the commands after it have ended.
"""

import argparse
import contextlib
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator

from tests.docs import reading

PAGE = reading.ROOT / "docs" / "README.md"
_STEP = re.compile(r"^\*\*(\d+)\. (.+?)\*\*", re.MULTILINE)
_DOWNLOADED = re.compile(r"Downloading \S+ \(([\d.]+) (kB|MB|GB)\)")
_MB = {"kB": 1e-3, "MB": 1.0, "GB": 1e3}
_SERVES = "rstar_jax serve "
_HEALTH = "http://127.0.0.1:8000/health"


def steps(page: str) -> dict[int, tuple[str, list[str]]]:
  """Returns the steps that have commands: their titles and these."""
  parts = _STEP.split(page)
  found = {}
  for number, title, text in zip(
    parts[1::3], parts[2::3], parts[3::3], strict=True
  ):
    commands = [
      command
      for block in reading.blocks(text)
      if block.language == "bash"
      for command in reading.commands(block.text)
    ]
    if commands:
      found[int(number)] = title.rstrip("."), commands
  return found


def downloaded(said: str) -> float:
  """Returns the MB that pip says it downloaded."""
  found = _DOWNLOADED.findall(said)
  return sum(float(number) * _MB[unit] for number, unit in found)


def row(title: str, commands: int, seconds: float, said: str) -> str:
  """Returns a line of the table.

  Args:
    seconds: of processors.
    said: what the commands printed.
  """
  return (
    f"| {title} | {commands} | {seconds:.0f} s | {downloaded(said):.0f} MB |"
  )


@contextlib.contextmanager
def serving(command: str, health: str = _HEALTH, **where) -> Iterator[None]:
  """Runs a server; begins when it answers, and ends it with SIGTERM."""
  server = subprocess.Popen(["bash", "-c", f"exec {command}"], **where)
  try:
    while server.poll() is None:
      with contextlib.suppress(OSError):
        urllib.request.urlopen(health).close()
        break
      time.sleep(1)
    yield
  finally:
    server.send_signal(signal.SIGTERM)
    server.wait()


def do(commands: list[str], folder: pathlib.Path, home: pathlib.Path) -> str:
  """Runs commands in a folder; returns what they printed.

  Raises:
    CalledProcessError: one failed.
  """
  kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  where = {"cwd": folder, "env": kept | {"HOME": str(home)}}
  said = []
  with contextlib.ExitStack() as stack:
    for command in commands:
      print(f"$ {command}", file=sys.stderr, flush=True)
      if _SERVES in command:
        stack.enter_context(serving(command, **where))
        continue
      done = subprocess.run(
        ["bash", "-euc", command],
        **where,
        **{"stdout": subprocess.PIPE, "text": True, "check": True},
      )
      print(done.stdout, file=sys.stderr, flush=True)
      said.append(done.stdout)
  return "".join(said)


def _used() -> float:
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--steps", help="numbers, with commas (default: all)")
  parser.add_argument(
    "--folder", type=pathlib.Path, help="keep the clone here, or go on in it"
  )
  args = parser.parse_args()
  found = steps(PAGE.read_text())
  chosen = map(int, args.steps.split(",")) if args.steps else found
  with tempfile.TemporaryDirectory() as folder:
    folder = args.folder or pathlib.Path(folder)
    clone, home = folder / "clone", folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    if not clone.exists():
      subprocess.run(["git", "clone", "-q", reading.ROOT, clone], check=True)
    for number in chosen:
      title, commands = found[number]
      before = _used()
      said = do(commands, clone, home)
      print(row(title, len(commands), _used() - before, said), flush=True)


if __name__ == "__main__":
  main()
