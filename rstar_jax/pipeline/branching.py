"""A run that begins where another one was: one idea changed, the rest shared.

What another config would not have made differently need not be made again: all
of the rounds before one, and the trees of that one. Evaluations are shared only
where the configs would have them alike. Weights and records are linked where
the two folders are on one disk, since those are written anew and renamed, never
changed; all else is copied. So neither run can touch the other's.
"""

import contextlib
import json
import os

from rstar_jax.config import identity
from rstar_jax.pipeline import checks
from rstar_jax.pipeline.context import Context
from rstar_jax.storage import layout, records, store

# What an evaluation depends on beside the models.
_EVALUATION = ("seed", "shard_size", "policy", "engine", "eval")
# Of files that are renamed into their place, and so may have two names.
_RENAMED = (".safetensors", ".jsonl")


def branch(context: Context, other: store.Path, round_: int) -> str:
  """Takes over what another run made before a round's data were extracted.

  Args:
    context: the new run; its folder has no rounds yet.
    other: the folder of the run that it goes on from.
    round_: the first whose `extract` is this run's own; its trees are shared.

  Returns:
    A line that says what was taken over, and what in the configs differs.

  Raises:
    ValueError: there is no other run, or it lacks a round; or this run has
      rounds of its own, or began as another branch. The same branch again goes
      on where it ended.
  """
  workdir = context.workdir
  theirs, ours = checks.find_run(other), context.config
  bound = identity.identity(theirs), identity.identity(ours)
  alike = all(bound[0][name] == bound[1][name] for name in _EVALUATION)
  taken = [
    f"{layout.round_name(number)}/{name}"
    for number in range(round_)
    for name in layout.WRITERS
    if (alike or name != "eval")
    and (layout.stage_folder(other, number, name) / records.MANIFEST).exists()
  ]
  taken.append(f"{layout.round_name(round_)}/trees")
  differing = identity.differences(theirs, ours)
  note = {
    "of": str(other),
    "round": round_,
    "taken": taken,
    "changes": differing,
  }
  # What begins a branch: one that was killed goes on.
  begun = (workdir / layout.BRANCH).exists()
  if begun and json.loads((workdir / layout.BRANCH).read_text()) != note:
    raise ValueError(
      f"{workdir / layout.BRANCH} says that this run began otherwise: branch "
      "into a new --workdir"
    )
  if not begun and any(
    name.startswith("round_") for name in store.children(workdir)
  ):
    raise ValueError(
      f"{workdir} has rounds of its own: branch into a new --workdir"
    )
  for name in taken:
    if records.read_manifest(other / name) is None:
      raise ValueError(
        f"{other / name} is not finished, so a run cannot go on from there"
      )
  records.write_json(workdir / layout.BRANCH, note)
  for name in taken:
    if records.read_manifest(workdir / name) is None:
      _take(other / name, workdir / name)
  return (
    f"{workdir} goes on from {other}: {', '.join(differing) or 'no change'}"
  )


def _take(source: store.Path, target: store.Path) -> None:
  """Links or copies a folder, but for checkpoints; its manifest comes last."""
  names = [
    name
    for name in sorted(store.files(source), key=records.MANIFEST.__eq__)
    if layout.CHECKPOINTS not in name.split("/")[:-1]
  ]

  def take(name: str) -> None:
    _link(source / name, target / name)

  where = source if store.is_remote(source) else target
  for _ in store.prefetch(take, names[:-1], where):
    pass
  take(names[-1])


def _link(source: store.Path, target: store.Path) -> None:
  if not store.is_remote(target):
    # Of a branch that was killed; to write into it may be to write into theirs.
    target.unlink(missing_ok=True)
  on_disk = not store.is_remote(source) and not store.is_remote(target)
  if on_disk and source.name.endswith(_RENAMED):
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # Another disk, or one without links.
      os.link(source, target)
      return
  store.copy(source, target)
