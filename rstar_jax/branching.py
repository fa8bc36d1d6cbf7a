"""A run that begins where another one was: one idea changed, the rest shared.

What another config would not have made differently need not be made again: all
of the rounds before one, and the trees of that one. Files are linked where the
two folders are on one disk, and copied elsewhere; a stage never changes a file
that it has written, so neither run can touch the other's.
"""

import json
import os
import pathlib
import shutil

from rstar_jax.io import records
from rstar_jax.session import WRITERS, Context

# What says where a run began, and how its config differs.
BRANCH = "branch.json"


def branch(context: Context, other: pathlib.Path, round_: int) -> str:
  """Takes over what another run made before a round's data were extracted.

  Args:
    context: the new run; its folder has no rounds yet.
    other: the folder of the run that it goes on from.
    round_: the first whose `extract` is this run's own; its trees are shared.
      One past the last round shares all rounds: their models alone are used.

  Returns:
    A line that says what was taken over, and what in the configs differs.

  Raises:
    ValueError: this run has rounds of its own, or the other lacks one.
  """
  workdir = context.workdir
  if any(workdir.glob("round_*")):
    raise ValueError(
      f"{workdir} has rounds of its own: branch into a new --workdir"
    )
  taken = [
    f"round_{number}/{name}"
    for number in range(round_)
    for name in (("eval",) if number == 0 else tuple(WRITERS))
    if (other / f"round_{number}" / name / records.MANIFEST).exists()
  ]
  taken.append(f"round_{round_}/trees")
  for name in taken:
    if records.read_manifest(other / name) is None:
      raise ValueError(
        f"{other / name} is not finished, so a run cannot go on from there"
      )
  for name in taken:
    shutil.copytree(
      other / name,
      workdir / name,
      copy_function=_link,
      ignore=shutil.ignore_patterns("checkpoints"),
    )
  theirs = json.loads((other / "config.json").read_text())
  ours = json.loads((workdir / "config.json").read_text())
  changes = sorted(differences(theirs, ours, "config"))
  records.write_json(
    workdir / BRANCH,
    {"of": str(other), "round": round_, "taken": taken, "changes": changes},
  )
  return f"{workdir} goes on from {other}: {', '.join(changes) or 'no change'}"


def differences(old, new, name: str) -> list[str]:
  """Says where two configs as JSON differ, a line a field."""
  if isinstance(old, dict) and isinstance(new, dict):
    return [
      each
      for key in old.keys() | new.keys()
      for each in differences(old.get(key), new.get(key), f"{name}.{key}")
    ]
  return [] if old == new else [f"{name} was {old!r} and is {new!r}"]


def _link(source: str, target: str) -> str:
  try:
    os.link(source, target)
    return target
  except OSError:  # Another disk, or one without links.
    return shutil.copy2(source, target)
