"""Runs the commands and the Python that README, docs and launch show.

  make docs-check                        # all of them
  make docs-check ARGS=--only=docs/your  # documents whose name holds the word
  make docs-check ARGS=--run=runs/tiny   # where a finished demo is

Documents are taken in order, their blocks too, in one folder that looks like a
clone: what one block writes the next may read. A command is run unless it is in
`NOT_RUN` with the reason; then what can be said of it without running it is
checked: its flags, its target, its extra. This takes long, and is no part of
`make test`, which checks that the list is whole and of use. Then come the
notebooks that need no download, as they stand.
"""

import argparse
import os
import pathlib
import re
import shlex
import shutil
import string
import subprocess
import sys
import tempfile
import time

from rstar_jax import commands
from tests import notebooks
from tests.docs import reading

FOLDERS = ("docs", "launch")
# Seconds after which a command has hung.
TIMEOUT = 3600
# What a demo that is finished has.
_FINISHED = "results.json"

# Notebooks that need no download: seconds, and less than ten minutes.
NOTEBOOKS = ("search", "self_evolution")

# (what a command begins with or holds, as a regular expression; why it is not
# run). The first that fits counts.
NOT_RUN = (
  (r"^make demo\b", "minutes; run where no --run is given"),
  (
    r"^make (test|lint|docs|docs-check|release|ci-full)\b",
    "these are the tests; CI runs them",
  ),
  (r"^make (parity|harness|aot)\b", "needs torch, lm-eval or libtpu"),
  (r"^ray |config\.ray\.", "needs a Ray cluster; `make ray`"),
  (r"^make mutants\b", "minutes to an hour; tests/mutants"),
  (r"^make smollm2\b", "downloads 93 MB"),
  (r"-m tests\.docs\.start", "downloads all anew; tests/docs/start_test.py"),
  (r"^pip install ", "downloads"),
  (r"--push_to=|^hf auth ", "needs an account; tests/pipeline/export_test.py"),
  (r"^vllm serve ", "needs a server with a large model"),
  (r"^gcloud ", "needs an account of Google Cloud"),
  (r"^(docker|kubectl) ", "needs Docker, or a cluster with TPUs"),
  (r"--workdir=gs://", "needs a bucket; tests/pipeline/resume_bucket_test.py"),
  (r"configs/smollm2_135m\.py", "needs the weights of `make smollm2`"),
  (
    r"-m rstar_jax\.tools\.cold_start ",
    "an hour; tests/tools/cold_start_test.py",
  ),
  (r"configs/smollm2_gsm8k\.py", "days, and what the line before makes"),
  (r"configs/tiny_gym\.py", "needs reasoning-gym; tests/pipeline/run_test.py"),
  (r"configs/tiny_rl\.py", "some minutes; tests/pipeline/reinforce_test.py"),
  (r"configs/tiny_long\.py", "an hour or more, and the model of the next line"),
  (
    r"-m rstar_jax\.tools\.bootstrap ",
    "minutes to an hour; tests/tools/bootstrap_test.py",
  ),
  (r"configs/released\.py", "needs the authors' data and a model for it"),
  (
    r"^launch/\w+\.sh (?!--dry-run)|^gcloud |--workdir=gs:",
    "needs Google Cloud; the tests have a fake one",
  ),
  (
    r"--distributed",
    "needs several processes; tests/pipeline/run_hosts_test.py",
  ),
  (r"remote\.url=", "needs a server with a large model"),
  (
    r"-m rstar_jax\.tools\.serve_engine |servers\.policy=",
    "serves until it is stopped; tests/pipeline/deploy_test.py",
  ),
  (r"rstar_jax serve |^curl ", "serves until it is stopped; tests/serve"),
  (
    r"rstar_jax watch ",
    "serves until it is stopped; tests/report/live_test.py",
  ),
  (r"config\.trackers=", "a whole run; tests/storage/trackers_test.py"),
  (r"-m rstar_jax\.tools\.aot ", "needs libtpu; `make aot`"),
  (r"-m rstar_jax\.tools\.harness ", "needs lm-eval; `make harness`"),
  (
    r"-m rstar_jax\.tools\.judge_rewards ",
    "needs the Hub and 15 GB; tests/tools/judge_rewards_test.py",
  ),
  (r"^benchmarks/paper\.sh", "an evening; tests/benchmarks/paper_test.py"),
  (r"-m benchmarks\.", "measures for minutes to hours; tests/benchmarks"),
  (
    r"rstar_jax study .*\borm\b",
    "trains reward models; tests/pipeline/study_test.py",
  ),
  (r"rstar_jax evolve \$OPTIONS", "trains a round; tests/pipeline/run_test.py"),
  (
    r"rstar_jax compare ",
    "needs a second run; tests/pipeline/study_tables_test.py",
  ),
)
# A program of ours, its module and its flags.
_PYTHON = re.compile(
  r"^(?:\w+=\S+ )*(?:\S*/)?(?:python -m (\S+)|rstar_jax (?P<command>\w+))(.*)",
  re.DOTALL,
)
_ASSIGNMENT = re.compile(r"""^(export )?(\w+=([^\s'"]*|'[^']*'|"[^"]*") ?)+$""")
_FLAG = re.compile(r"^--(?:no)?([\w-]+)")
CHECK_FLAGS = (
  "import sys; from rstar_jax import main; "
  "main.check_flags(main.parse(sys.argv))"
)


def reason(command: str) -> str | None:
  """Returns why a command is not run, None if it is."""
  plain = " ".join(command.split())
  for pattern, why in NOT_RUN:
    if re.search(pattern, plain):
      return why
  return None


def is_assignment(command: str) -> bool:
  """Says whether a command only sets a variable for those after it."""
  return bool(_ASSIGNMENT.match(" ".join(command.split())))


def expanded(command: str, before: list[str]) -> str:
  """Returns a command with the values of variables that were set before it.

  Args:
    command: one of a shell block.
    before: the assignments of the block so far.
  """
  words = [word for each in before for word in shlex.split(each)]
  values = dict(word.split("=", 1) for word in words if "=" in word)
  return string.Template(command).safe_substitute(values)


def shown(only: str = "") -> list[tuple[str, reading.Block]]:
  """Returns what is to be checked: (document, block), in order."""
  return [
    (name, block)
    for name, text in reading.documents(FOLDERS).items()
    if only in name
    for block in reading.blocks(text)
    if block.language in ("bash", "python")
  ]


def without_running(command: str, before: list[str]) -> list[list[str]]:
  """Returns what to run to check a command that is not run.

  Args:
    command: one of a shell block.
    before: the assignments of the block so far.
  """
  plain = " ".join(expanded(command, before).split())
  if found := re.match(r"^make ([\w-]+)", plain):
    return [["make", "--dry-run", "--always-make", found[1]]]
  if found := re.match(r"^pip install -e '\.\[(\w+)\]'$", plain):
    return [["grep", "-q", f'^  "{found[1]}": ', "setup.py"]]
  if not (found := _PYTHON.match(plain)):
    return []
  module, flags, name = found[1], found[3], found["command"]
  if name and commands.find(name).module:
    module = f"rstar_jax {name}"
  elif name:
    words = [f"--stage={name}", *shlex.split(flags)]
    return [[sys.executable, "-c", CHECK_FLAGS, *words]]
  if module == "rstar_jax.tools.harness":  # Its flags are lm-eval's.
    return [[sys.executable, "-c", f"import {module}"]]
  names = [_FLAG.match(each) for each in shlex.split(flags)]
  listed = [f"--{name[1]}" for name in names if name]
  # absl writes --[no]name of a flag that is true or false.
  tests = " && ".join(
    f"grep -Eq -- '--(\\[no\\])?{name[2:]}\\b' help.txt" for name in listed
  )
  ask = f"{sys.executable} -m {module} --help > help.txt || true"
  return [["bash", "-euc", f"{ask}; {tests or 'test -s help.txt'}"]]


class Clone:
  """A folder that looks like a clone in which the demo was run."""

  def __init__(self, folder: pathlib.Path, run: pathlib.Path | None):
    self.folder = folder
    for path in reading.ROOT.iterdir():
      if path.name != "runs" and ".venv" not in path.name:
        (folder / path.name).symlink_to(path)
    binaries = folder / ".venv" / "bin"
    binaries.mkdir(parents=True)
    # Not a link: Python looks for its packages beside the name it is run by.
    for name, module in (("python", ""), ("rstar_jax", " -m rstar_jax")):
      text = f'#!/bin/sh\nexec {sys.executable}{module} "$@"\n'
      (binaries / name).write_text(text)
      (binaries / name).chmod(0o755)
    (folder / ".venv" / ".stamp").touch()
    (folder / "runs").mkdir()
    if run:
      shutil.copytree(
        run,
        folder / "runs" / "tiny",
        ignore=shutil.ignore_patterns("checkpoints"),
      )

  def do(self, command: list[str], text: str = "") -> str:
    """Runs a command there; returns what it printed if it failed, else ""."""
    done = subprocess.run(
      command,
      cwd=self.folder,
      env=os.environ
      | {
        "JAX_PLATFORMS": "cpu",
        "PATH": f"{self.folder}/.venv/bin:{os.environ['PATH']}",
      },
      input=text,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      timeout=TIMEOUT,
    )
    return f"{done.stdout}\nexit {done.returncode}" if done.returncode else ""


def check(clone: Clone, block: reading.Block, demo: bool):
  """Yields (command, what was done with it, what went wrong or "")."""
  if block.language == "python":
    if block.file:
      (clone.folder / block.file).write_text(block.text)
    yield "python", "run", clone.do([sys.executable, "-"], block.text)
    return
  before: list[str] = []
  for command in reading.commands(block.text):
    why = reason(command)
    if why and not (demo and command.startswith("make demo")):
      parts = without_running(command, before)
      said = "".join(clone.do(part) for part in parts)
      yield command, f"not run: {why}", said
    elif is_assignment(command):
      before.append(command)
    else:
      script = "\n".join([*before, command])
      yield command, "run", clone.do(["bash", "-euc", script])


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--only", default="", help="documents that hold the word")
  parser.add_argument(
    "--run",
    type=pathlib.Path,
    default=reading.ROOT / "runs" / "tiny",
    help="a finished demo (default: runs/tiny); if there is none it is made",
  )
  args = parser.parse_args()
  run = args.run if (args.run / _FINISHED).exists() else None
  failed = 0
  with tempfile.TemporaryDirectory() as folder:
    clone = Clone(pathlib.Path(folder), run)
    for name, block in shown(args.only):
      start = time.monotonic()
      for command, what, said in check(clone, block, demo=run is None):
        place = f"{name}:{block.line}  {' '.join(command.split())[:70]}"
        start = tell(place, what, said, start)
        failed += bool(said)
  for name in NOTEBOOKS:
    path = str(notebooks.find(name).relative_to(reading.ROOT))
    if args.only in path:
      start, said = time.monotonic(), as_it_stands(name)
      tell(path, "run", said, start)
      failed += bool(said)
  print(f"{failed} failed")
  return int(failed > 0)


def as_it_stands(notebook: str) -> str:
  """Runs a notebook with its own settings; returns what went wrong, or ""."""
  try:
    notebooks.run(notebook, {})
  except AssertionError as error:
    return str(error)
  return ""


def tell(place: str, what: str, said: str, start: float) -> float:
  """Prints what came of something; returns when it ended."""
  end = time.monotonic()
  word = "FAIL" if said else "ok"
  print(f"{word:4} {end - start:6.1f} s  {place}  ({what})", flush=True)
  if said:
    print(said, flush=True)
  return end


if __name__ == "__main__":
  sys.exit(main())
