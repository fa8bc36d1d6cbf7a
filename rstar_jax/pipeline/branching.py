"""Branches a run off another, with some settings changed.

A branch takes over all earlier rounds, and of the round at which it branches
what the stages before a given one have made. A round that trains by
reinforcement makes its policy with its trees. Evaluations are taken over only
if both configs evaluate alike. Files of weights and records are only ever
replaced, so on one disk they are hard-linked; all other files are copied.
Neither run can change the other.
"""

import contextlib
import os
from collections.abc import Sequence

from rstar_jax.config import identity
from rstar_jax.config.schema import Config
from rstar_jax.pipeline import checks, rollout
from rstar_jax.pipeline.context import Context
from rstar_jax.storage import json_io, layout, manifests, store

# Files that are replaced by renaming, and can therefore be hard-linked.
_RENAMED = (".safetensors", ".jsonl", ".jsonl.zst")


def branch(
  context: Context, other: store.Path, round_: int, stage: str = "extract"
) -> str:
  """Links or copies the work of another run, up to a stage of a round.

  Args:
    context: the new run; its folder has no rounds yet.
    other: the folder of the run to branch off.
    round_: the first round, from 1, of which this run does a part itself.
    stage: the first stage of that round that runs anew, a key of
      `layout.STAGES`.

  Returns:
    A line that names the other run and the fields that differ.

  Raises:
    ValueError: `search` sets what rounds do; or there is no other run, or one
      of its stages is not finished; or this run has rounds of its own, began as
      another branch, or trains the round's policy by another algorithm.
      Repeating the same branch resumes it.
  """
  rollout.check_search(context)
  workdir = context.workdir
  theirs, ours = checks.find_run(other), context.config
  alike = identity.of_answers(theirs) == identity.of_answers(ours)
  folders = [
    f"{layout.round_name(number)}/{name}"
    for number in range(round_)
    for name in layout.WRITERS
    if (alike or name != "eval")
    and (layout.stage_folder(other, number, name) / layout.MANIFEST).exists()
  ]
  stages = list(layout.STAGES)
  if before := stages[: stages.index(stage)]:
    algorithm = _made_by(ours, theirs, other, round_, before)
    folders += [
      f"{layout.round_name(round_)}/{name}"
      for each in before
      for name in layout.folders_of(each, algorithm)
    ]
  differing = identity.differences(theirs, ours)
  note = {
    "of": str(other),
    "round": round_,
    "taken": folders,
    "changes": differing,
  }
  # The note is written first, so that a killed branch can resume.
  begun = (workdir / layout.BRANCH).exists()
  if begun and json_io.read(workdir / layout.BRANCH) != note:
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
  for name in folders:
    if manifests.read(other / name) is None:
      raise ValueError(
        f"{other / name} is not finished, so a run cannot go on from there: "
        "finish it, or branch at an earlier round"
      )
  json_io.write(workdir / layout.BRANCH, note)
  for name in folders:
    if manifests.read(workdir / name) is None:
      _copy_folder(other / name, workdir / name)
  return (
    f"{workdir} goes on from {other}: {', '.join(differing) or 'no change'}"
  )


def _made_by(
  ours: Config,
  theirs: Config,
  other: store.Path,
  round_: int,
  before: Sequence[str],
) -> str:
  """Returns the algorithm whose folders of a round are taken over.

  Args:
    ours: the config of the new run.
    theirs: that of the other run, in the folder `other`.
    other: for errors.
    round_: from 1.
    before: the round's stages that are taken over.

  Raises:
    ValueError: a policy is among them, and another algorithm trained it.
  """
  wanted, made = (
    next((each.algorithm for each in config.rounds[round_ - 1 : round_]), "sft")
    for config in (ours, theirs)
  )
  # Any trees are enough to fine-tune on.
  if wanted != made and (wanted != "sft" or "sft" in before):
    raise ValueError(
      f"config.rounds[{round_ - 1}].algorithm={wanted!r}, but the policy of "
      f"{other} was trained by {made!r}: branch at an earlier round, or with "
      "--at=rollout"
    )
  return wanted


def _copy_folder(source: store.Path, target: store.Path) -> None:
  """Links or copies a folder, without training state, the manifest last."""
  names = [
    name
    for name in sorted(store.files(source), key=layout.MANIFEST.__eq__)
    if not {layout.CHECKPOINTS, layout.ROWS} & set(name.split("/")[:-1])
  ]

  def take(name: str) -> None:
    _link(source / name, target / name)

  where = source if store.is_remote(source) else target
  for _ in store.prefetch(take, names[:-1], where):
    pass
  take(names[-1])


def _link(source: store.Path, target: store.Path) -> None:
  if not store.is_remote(target):
    # A killed branch may have linked this file: writing would change the
    # other run.
    target.unlink(missing_ok=True)
  on_disk = not store.is_remote(source) and not store.is_remote(target)
  if on_disk and source.name.endswith(_RENAMED):
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # Another disk, or one without links.
      os.link(source, target)
      return
  store.copy(source, target)
