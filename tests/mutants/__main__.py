"""Changes the code of a room in small ways: its tests have to notice.

  python -m tests.mutants search               every change of a room
  python -m tests.mutants search --sample=80   80 of them, which --seed decides
  python -m tests.mutants search --only=backup     those whose name holds this
  python -m tests.mutants search --list        names them and runs nothing

A mutant is killed if a test of the room fails or hangs on it; a survivor is
printed as a difference. The exit status is 1 if a room's share of killed
mutants is below its floor. What no test can notice, or what none should, stands
with its reason in accepted.toml and is not tried.

First each test file runs once, to note the lines that each case runs. A mutant
is then tried by the files that run its line, the quickest first, and in them
first by the cases that do, up to the first failure.

mutmut 3 and cosmic-ray were weighed. cosmic-ray starts Python for each mutant,
which takes longer here than most of the tests, and runs all of them; mutmut
needs pytest and finds its mutant by an environment variable, which the
sandbox's workers do not get. Neither draws the same sample twice, nor changes a
dtype.
"""

import argparse
import collections
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from typing import Any

from tests import run as runner
from tests.mutants import changes, trial, watch

ROOT = runner.ROOT
ACCEPTED = pathlib.Path(__file__).parent / "accepted.toml"


@dataclasses.dataclass(frozen=True)
class Room:
  """What is changed, and what has to notice.

  Attributes:
    sources: globs of files below the root.
    tests: words of paths of test files.
    floor: least share of killed mutants.
    elsewhere: whether most of it runs in processes whose lines are not noted,
      so that any test of the room may be the one that notices.
  """

  sources: tuple[str, ...]
  tests: tuple[str, ...]
  floor: float
  elsewhere: bool = False


# Floors are what was reached, docs/results/mutants.md, less what a sample of
# about 80 may be off by. The goal is 0.85 in all.
ROOMS = {
  "search": Room(("rstar_jax/search/*.py",), ("tests/search/",), 0.92),
  "sandbox": Room(
    ("rstar_jax/sandbox/**/*.py",), ("tests/sandbox/",), 0.55, elsewhere=True
  ),
  "grading": Room(("rstar_jax/grading/*.py",), ("tests/grading/",), 0.78),
  "training": Room(
    ("rstar_jax/training/*.py", "rstar_jax/models/losses.py"),
    ("tests/training/", "tests/models/losses_test.py"),
    0.7,
  ),
  "inference": Room(
    tuple(
      f"rstar_jax/inference/{name}.py"
      for name in (
        *("prefix_cache", "runs", "programs", "paged_model", "sizes"),
        *("page_memory", "engine", "generated", "scoring", "futures"),
      )
    ),
    tuple(
      f"tests/inference/{name}_test"
      for name in (
        *("prefix_cache", "runs", "futures", "programs", "paged_model"),
        *("sizes", "page_memory", "engine", "generated", "scoring"),
        *("engine_bits", "engine_mesh"),
      )
    ),
    0.85,
  ),
  "statistics": Room(
    (
      "rstar_jax/evaluation/*.py",
      "rstar_jax/rng.py",
      "benchmarks/paper.py",
      "benchmarks/seeds.py",
    ),
    (
      *("tests/evaluation/", "tests/rng_test.py"),
      *("tests/benchmarks/paper", "tests/benchmarks/seeds"),
    ),
    0.85,
  ),
}


def files_of(room: Room) -> list[str]:
  """Returns the paths of the room's files, below the root."""
  found = {path for glob in room.sources for path in ROOT.glob(glob)}
  return sorted(path.relative_to(ROOT).as_posix() for path in found)


def accepted() -> dict[str, str]:
  """Returns the reason of each mutant that need not be killed, by name."""
  groups = tomllib.loads(ACCEPTED.read_text()).get("group", [])
  return {name: each["reason"] for each in groups for name in each["mutants"]}


def record(tree: pathlib.Path, room: Room) -> dict[str, Any]:
  """Runs each test file once; returns what `trial.plan` needs.

  It is kept in build/mutants until a source or a test changes.

  Raises:
    SystemExit: if a test fails without a change.
  """
  sources = files_of(room)
  paths = runner.discover(tree, [*room.tests])
  tests = [path.relative_to(tree).as_posix() for path in paths]
  digest = hashlib.sha256(repr((sources, tests)).encode())
  for folder in ("rstar_jax", "tests", "benchmarks"):
    for path in sorted((tree / folder).rglob("*.py")):
      if path.parent.name != "mutants":
        digest.update(path.read_bytes())
  kept = ROOT / "build" / "mutants" / f"{digest.hexdigest()[:16]}.json"
  if kept.exists():
    return json.loads(kept.read_text())
  texts = {source: (tree / source).read_text() for source in sources}
  for source, text in texts.items():
    trial.write(tree / source, watch.with_probes(source, text).encode())
  notes = {}
  for test in tests:
    with tempfile.NamedTemporaryFile() as out:
      start = time.monotonic()
      status, output = trial.run_file(
        tree, test, {"out": out.name}, runner.TIMEOUT
      )
      if status != 0:
        sys.exit(f"{output}\n{test} fails without a change")
      wall = time.monotonic() - start
      notes[test] = json.load(out) | {"wall": wall}
    print(f"noted {wall:6.1f} s  {test}", flush=True)
  for source, text in texts.items():
    trial.write(tree / source, text.encode())
  kept.parent.mkdir(parents=True, exist_ok=True)
  kept.write_text(json.dumps(notes))
  return notes


def interval(killed: int, n: int) -> tuple[float, float]:
  """Returns the 95% interval of a share (Wilson 1927)."""
  z, share = 1.959964, killed / n
  middle = share + z * z / (2 * n)
  half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
  scale = 1 + z * z / n
  return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def difference(mutant: changes.Mutant, text: bytes) -> str:
  """Returns the lines of a file that a mutant changes, before and after."""
  start = text.rfind(b"\n", 0, mutant.span[0]) + 1
  tail = len(text) - text.find(b"\n", mutant.span[1])
  changed = mutant.apply(text)
  return "\n".join(
    f"    {sign} {line}"
    for sign, part in (("-", text), ("+", changed))
    for line in part[start : len(part) - tail].decode().splitlines()
  )


def share(counts: collections.Counter) -> str:
  """Returns a score in words, with its interval."""
  n = counts.total()
  killed = n - counts["survived"]
  low, high = interval(killed, n)
  late = f", {counts['late']} of them late" if counts["late"] else ""
  return (
    f"{100 * killed / n:5.1f}% [{100 * low:.1f}, {100 * high:.1f}]"
    f"  {killed} of {n} killed{late}"
  )


def run(
  name: str,
  mutants: list[changes.Mutant],
  texts: dict[str, bytes],
  folder: pathlib.Path,
  jobs: int,
) -> float:
  """Tries mutants of a room, prints survivors and scores; returns the score.

  Args:
    name: of the room.
    mutants: at least one.
    texts: of the room's files, by path.
    folder: for copies of the tree.
    jobs: mutants at a time.
  """
  room, start = ROOMS[name], time.monotonic()
  trees = [trial.copy_tree(ROOT, folder / f"{name}{i}") for i in range(jobs)]
  notes = record(trees[0], room)
  steps = {
    each.name: trial.plan(each, notes, room.elsewhere) for each in mutants
  }
  files = collections.defaultdict(collections.Counter)
  for mutant, result in trial.run(texts, trees, mutants, steps):
    files[mutant.file][result.outcome] += 1
    print(f"{result.outcome:8} {mutant.name}  {result.by}", flush=True)
    if result.outcome == "survived":
      print(
        f"  line {mutant.line}\n{difference(mutant, texts[mutant.file])}",
        flush=True,
      )
  total = sum(files.values(), collections.Counter())
  for file, counts in sorted(files.items()):
    print(f"{share(counts)}  {file}")
  print(f"{share(total)}  {name}, {time.monotonic() - start:.0f} s", flush=True)
  return 1 - total["survived"] / total.total()


def main() -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("rooms", nargs="*", choices=[[], *ROOMS], default=[])
  parser.add_argument("--sample", type=int, help="number of mutants a room")
  parser.add_argument("--seed", type=int, default=1, help="of the sample")
  parser.add_argument(
    "--only", action="append", help="part of a mutant's name; may come often"
  )
  parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
  parser.add_argument("--list", action="store_true", help="run nothing")
  args = parser.parse_args()
  # No TemporaryDirectory, which each fork would remove at its end.
  folder = pathlib.Path(tempfile.mkdtemp())
  folder.chmod(0o755)  # Some tests go on as another user.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  try:
    return check(args, folder)
  finally:
    shutil.rmtree(folder)


def check(args: argparse.Namespace, folder: pathlib.Path) -> int:
  """Tries the mutants that arguments ask for; returns the exit status."""
  # Hypothesis draws the same examples for each mutant.
  os.environ.update(runner.DEFAULTS | os.environ | {"CI": "true"})
  # What a killed test leaves goes with the rest.
  os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
  # Programs are compiled once for all mutants that do not change them.
  os.environ |= {
    "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
  }
  known, below = accepted(), []
  if not (args.list or trial.isolates()):
    sys.exit("needs namespaces of processes, as root or from the kernel")
  if not args.list:
    runner.preload()
  for name in args.rooms or ROOMS:
    files = files_of(ROOMS[name])
    texts = {file: (ROOT / file).read_bytes() for file in files}
    mutants = [
      mutant
      for file, text in texts.items()
      for mutant in changes.of(file, text.decode())
    ]
    listed = {each for each in known if each.split()[0] in files}
    for gone in sorted(listed - {each.name for each in mutants}):
      print(f"accepted.toml names no mutant: {gone}")
      below.append(name)
    matching = [
      each
      for each in mutants
      if any(part in each.name for part in args.only or [""])
    ]
    drawn = changes.sample(matching, args.sample or len(mutants), args.seed)
    left = [each for each in drawn if each.name not in known]
    print(
      f"{name}: {len(drawn)} of {len(mutants)} mutants, seed {args.seed}, "
      f"{len(drawn) - len(left)} of them accepted",
      flush=True,
    )
    if args.list:
      print("\n".join(each.name for each in left))
    elif left and run(name, left, texts, folder, args.jobs) < ROOMS[name].floor:
      below.append(name)
  if below:
    print(f"below the floor, or accepted in vain: {', '.join(set(below))}")
  return int(bool(below))


if __name__ == "__main__":
  sys.exit(main())
