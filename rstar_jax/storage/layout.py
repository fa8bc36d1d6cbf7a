"""The names of a run's files and folders: the one place that has them.

config.json results.json metrics.jsonl log.txt at_work.json report.html
tracked.json programs/
round_k/{trees,sft,pairs,policy,ppm,eval}/   each with its MANIFEST.json
round_k/{policy,ppm}/rows/                   what a training reads, till it ends
round_k/trees/turn-00000/                    with its own: by reinforcement
round_k/study/MODEL/METHOD/SPLIT/            a comparison; tables.md
host_k/                                      metrics and logs of host k
"""

import difflib
import re
from collections.abc import Iterable

from rstar_jax.storage import store

CONFIG = "config.json"
RESULTS = "results.json"
METRICS = "metrics.jsonl"
LOG = "log.txt"
# Who works there; see `alone.py`.
AT_WORK = "at_work.json"
REPORT = "report.html"
# What the run is called at trackers, if it has some.
TRACKED = "tracked.json"
# Compiled programs.
PROGRAMS = "programs"
# Which training problems are in an evaluation set.
DECONTAMINATION = "decontamination.json"
# Where a run began, if it goes on from another one.
BRANCH = "branch.json"

# The folders of a round by the stage that writes them, in the order of a round.
STAGES = {
  "rollout": ("trees",),
  "extract": ("sft", "pairs"),
  "sft": ("policy",),
  "ppm": ("ppm",),
  "evaluate": ("eval",),
}
# In a finished folder: its files; see `manifests.py`.
MANIFEST = "MANIFEST.json"
STUDY = "study"
EXPORT = "export"
# The stage that writes a folder.
WRITERS = {
  **{name: stage for stage, names in STAGES.items() for name in names},
  **dict.fromkeys(("orm", "pqm"), STUDY),
}
# Below the folder of a model that is being trained.
CHECKPOINTS = "checkpoints"
# Likewise: packed rows that it reads.
ROWS = "rows"
# In the folder "sft", before the name of the shard of the same problems: those
# that no tree solved.
UNSOLVED = "unsolved-"
# In the folder "eval", before the name of the shard of the same problems.
TREES_OF = "trees-"
# Beside a folder, before its name: which of its files were hashed; a cache.
VERIFIED = ".verified-"
# Before the name of a shard: a journal of what is there of it.
BEGUN = "begun-"
# In the folder of a study: its tables, and the folder of what no reward model
# has a say in. In that of a reward model: its values on held-out trees, and how
# good it is.
TABLES = "tables.md"
UNGUIDED = "policy"
HELD_OUT = "held_out"
QUALITY = "quality"

_ROUND = re.compile(r"round_(\d+)")
_HOST = re.compile(r"host_(\d+)")


def folders_of(stage: str, algorithm: str = "sft") -> tuple[str, ...]:
  """Returns the folders that a stage of a round writes.

  Args:
    stage: a key of `STAGES`.
    algorithm: of the round's policy; reinforcement makes it with the trees.
  """
  if algorithm != "sft" and stage in ("rollout", "sft"):
    return ("trees", "policy") if stage == "rollout" else ()
  return STAGES[stage]


def round_name(round_: int) -> str:
  """Returns the name of a round's folder."""
  return f"round_{round_}"


def stage_folder(workdir: store.Path, round_: int, name: str) -> store.Path:
  """Returns the folder of a round that a stage writes; see `WRITERS`."""
  return workdir / round_name(round_) / name


def turn_name(turn: int) -> str:
  """Returns the name of a turn's folder in `trees`, where a round has turns."""
  return f"turn-{turn:05d}"


def host_folder(workdir: store.Path, index: int) -> store.Path:
  """Returns where a host writes metrics and logs; the first, in `workdir`."""
  return workdir / f"host_{index}" if index else workdir


def split_name(split: str) -> str:
  """Returns the name of the folder of a split, such as "synthetic:test"."""
  return split.replace("/", "_").replace(":", "_")


def no_run(workdir: store.Path) -> str:
  """Says that a folder holds no run, and where one is that may be meant."""
  if not store.is_remote(workdir) and workdir.is_file():
    return f"{workdir} is a file, and a run's --workdir is a folder"
  beside = workdir.parent
  names = [
    name for name in store.children(beside) if (beside / name / CONFIG).exists()
  ]
  near = difflib.get_close_matches(workdir.name, names, n=1)
  found = [beside / each for each in near]
  if not found and workdir.exists() and (beside / CONFIG).exists():
    found = [beside]  # A folder of a run was given.
  hint = f"; did you mean {found[0]}?" if found else ""
  return f"there is no run in {workdir}{hint}"


def rounds(names: Iterable[str]) -> list[int]:
  """Returns the numbers of the rounds among names of folders, sorted."""
  return _numbers(_ROUND, names)


def hosts(names: Iterable[str]) -> list[int]:
  """Returns the numbers of the hosts among names of folders, sorted."""
  return _numbers(_HOST, names)


def _numbers(pattern: re.Pattern, names: Iterable[str]) -> list[int]:
  return sorted(
    int(match[1]) for name in names if (match := pattern.fullmatch(name))
  )
