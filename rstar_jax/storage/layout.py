"""The names of a run's files and folders.

config.json results.json metrics.jsonl log.txt at_work.json report.html
tracked.json programs/
round_k/{trees,sft,pairs,policy,ppm,eval}/   each with its MANIFEST.json
round_k/{policy,ppm}/rows/                   training rows, until it is done
round_k/trees/turn-00000/                    one per turn of reinforcement
round_k/study/MODEL/METHOD/SPLIT/            a comparison; tables.md and,
                                             while it runs, at_work.json
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
# The process that works there; see `alone.py`.
AT_WORK = "at_work.json"
REPORT = "report.html"
# The run's name at trackers, if it has any.
TRACKED = "tracked.json"
# Compiled programs.
PROGRAMS = "programs"
# Training problems that occur in an evaluation set.
DECONTAMINATION = "decontamination.json"
# The run that this one branched off.
BRANCH = "branch.json"

# The folders of a round by the stage that writes them, in order.
STAGES = {
  "rollout": ("trees",),
  "extract": ("sft", "pairs"),
  "sft": ("policy",),
  "ppm": ("ppm",),
  "evaluate": ("eval",),
}
# In a finished folder; see `manifests.py`.
MANIFEST = "MANIFEST.json"
STUDY = "study"
EXPORT = "export"
# What can be exported: training data, models, and LoRA adapters alone.
EXPORTS = ("data", "policy", "ppm", "policy/adapter", "ppm/adapter")
# Folder -> the stage that writes it.
WRITERS = {
  **{name: stage for stage, names in STAGES.items() for name in names},
  **dict.fromkeys(("orm", "pqm"), STUDY),
}
# In the folder of a model in training: its checkpoints.
CHECKPOINTS = "checkpoints"
# Likewise: its packed training rows.
ROWS = "rows"
# Prefixes of files' names, before the name of the shard with the same problems.
# In "sft": problems that no tree solved.
UNSOLVED = "unsolved-"
# In "eval": the trees.
TREES_OF = "trees-"
# Beside a folder, before its name: a cache of its files' hashes.
VERIFIED = ".verified-"
# Before a shard's name: a journal of its finished units.
BEGUN = "begun-"
# In a study's folder: its tables, and the folder of methods without a reward
# model. In a reward model's folder: its values on held-out trees, and the
# summary of its quality.
TABLES = "tables.md"
UNGUIDED = "policy"
VALUES = "held_out"
QUALITY = "quality"

_ROUND = re.compile(r"round_(\d+)")
_HOST = re.compile(r"host_(\d+)")


def folders_of(stage: str, algorithm: str = "sft") -> tuple[str, ...]:
  """Returns the folders that a stage of a round writes.

  Args:
    stage: a key of `STAGES`.
    algorithm: trains the round's policy; reinforcement makes it with the trees.
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
  """Returns the name of a turn's folder in `trees`; see `reinforce.py`."""
  return f"turn-{turn:05d}"


def host_folder(workdir: store.Path, index: int) -> store.Path:
  """Returns a host's folder of metrics and logs; host 0's is `workdir`."""
  return workdir / f"host_{index}" if index else workdir


def folder_name(name: str) -> str:
  """Returns the folder's name of a split or a plugin, e.g. "synthetic:test"."""
  return name.replace("/", "_").replace(":", "_")


def no_run(workdir: store.Path) -> str:
  """Returns the message that a folder holds no run, with a near one's name."""
  if not store.is_remote(workdir) and workdir.is_file():
    return f"{workdir} is a file, and a run's --workdir is a folder"
  beside = workdir.parent
  names = [
    name for name in store.children(beside) if (beside / name / CONFIG).exists()
  ]
  near = difflib.get_close_matches(workdir.name, names, n=1)
  near_runs = [beside / each for each in near]
  if not near_runs and workdir.exists() and (beside / CONFIG).exists():
    near_runs = [beside]  # A folder within a run was given.
  hint = f"; did you mean {near_runs[0]}?" if near_runs else ""
  return f"there is no run in {workdir}{hint}"


def rounds(names: Iterable[str]) -> list[int]:
  """Returns the rounds' numbers among folder names, sorted."""
  return _numbers(_ROUND, names)


def hosts(names: Iterable[str]) -> list[int]:
  """Returns the hosts' numbers among folder names, sorted."""
  return _numbers(_HOST, names)


def _numbers(pattern: re.Pattern, names: Iterable[str]) -> list[int]:
  return sorted(
    int(match[1]) for name in names if (match := pattern.fullmatch(name))
  )
