"""Says how far a run is, as `progress.look` found it."""

from collections.abc import Sequence

from rstar_jax.report.progress import AtWork, Stage, Status
from rstar_jax.storage import layout
from rstar_jax.storage.formatting import duration, grid

# Seconds without a finished problem after which a host is reported.
_SILENT = 600.0
# Most hosts in that report.
_NAMED = 5


def render(found: Status) -> str:
  """Renders a status as text."""
  if not found.stages:
    return f"{found.workdir}: no run was begun here"
  lines = [
    f"{found.workdir}: {summary(found)}",
    "",
    *grid(*table(found)),
    "",
    *studies(found),
    *([_searching(found.at_work)] if found.at_work else []),
  ]
  for index, line in list(found.last.items())[: _NAMED + 1]:
    who = f"host {index}" if len(found.last) > 1 else "a process"
    said = [
      f"{name} {value:.4g}"
      for name, value in line.items()
      if name not in ("time", "elapsed", "age")
    ]
    lines.append(
      f"{who} last wrote {duration(line['age'])} ago: {', '.join(said[:4])}"
    )
  lines.append(f"time left: {time_left(found)}")
  return "\n".join(lines)


def table(found: Status) -> tuple[list[str], list[list[str]]]:
  """Returns the head and the rows of a table of stages, one row per round."""
  rounds = sorted({stage.round for stage in found.stages})
  by_key = {(stage.round, stage.name): stage for stage in found.stages}
  names = [n for n in layout.STAGES if any(s.name == n for s in found.stages)]
  return ["Round", *names], [
    [str(number), *(_cell(by_key.get((number, name))) for name in names)]
    for number in rounds
  ]


def studies(found: Status) -> list[str]:
  """Returns a line about studies, or no line without any."""
  begun = [
    f"{_cell(each)} of {name}"
    for name, each in found.studies.items()
    if each.state != "done"
  ]
  done = len(found.studies) - len(begun)
  parts = [f"{done} methods done", *begun]
  return [f"studies: {', '.join(parts)}"] if found.studies else []


def _searching(hosts: Sequence[AtWork]) -> str:
  """Returns a line about hosts at work, and silent ones."""
  silent = [each for each in hosts if each.age > _SILENT]
  shards = sum(each.shards for each in hosts)
  last = duration(min(each.age for each in hosts))
  said = (
    f"searching: {len(hosts)} hosts, on {shards} shards, the last problem was "
    f"done {last} ago"
  )
  if silent:
    silent.sort(key=lambda each: -each.age)
    named = [f"host {n.host} {duration(n.age)}" for n in silent[:_NAMED]]
    more = ["..."] if len(silent) > _NAMED else []
    said += f"; silent since long: {', '.join([*named, *more])}"
  return said


def kept(found: Status) -> str:
  """Returns a short list of finished work."""
  over, parts = [], []
  for number in sorted({stage.round for stage in found.stages}):
    stages = [stage for stage in found.stages if stage.round == number]
    begun = [
      each.name if each.state == "done" else f"{_cell(each)} of {each.name}"
      for each in stages
      if each.state == "done" or each.done or each.begun
    ]
    if all(stage.state == "done" for stage in stages):
      over.append(str(number))
    elif begun:
      parts.append(f"round {number} {', '.join(begun)}")
  if over:
    parts.insert(0, f"all of round {', '.join(over)}")
  begun = [
    f"{_cell(each)} of {name}"
    for name, each in found.studies.items()
    if each.state == "begun"
  ]
  return "; ".join([*parts, *begun]) or "nothing yet"


def summary(found: Status) -> str:
  """Returns a line with the number of finished stages, and the next one."""
  left = [stage for stage in found.stages if stage.state != "done"]
  if not left:
    return "all is done"
  done = len(found.stages) - len(left)
  return (
    f"{done} of {len(found.stages)} stages are done; next is "
    f"{left[0].name} of round {left[0].round}"
  )


def _cell(stage: Stage | None) -> str:
  if stage is None:
    return ""
  if stage.state == "done":
    took = f", {duration(stage.seconds)}" if stage.seconds else ""
    return f"done{took}"
  if stage.done or stage.begun:
    begun = f" ({stage.begun} begun)" if stage.begun else ""
    return f"{stage.done}/{stage.of or '?'} {stage.unit}{begun}"
  return "begun" if stage.state == "begun" else "-"


def time_left(found: Status) -> str:
  """Returns a line with the estimated time left, if there is an estimate."""
  unknown = [stage for stage in found.stages if stage.left is None]
  if not unknown:
    return f"about {duration(found.left)}" if found.left else "none"
  seconds = sum(stage.left or 0.0 for stage in found.stages)
  names = ", ".join(dict.fromkeys(stage.name for stage in unknown))
  least = f", more than {duration(seconds)}" if seconds else ""
  return f"unknown{least}: no round has finished its {names}"
