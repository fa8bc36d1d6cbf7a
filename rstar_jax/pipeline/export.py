"""Exports a round's models and training data, to a disk or the Hub."""

import contextlib
import dataclasses
import functools
import pathlib

from rstar_jax.data import export as export_lib
from rstar_jax.data import pairs as pairs_lib
from rstar_jax.data import trajectories as trajectories_lib
from rstar_jax.hf import adapters, generation, model_card, upload
from rstar_jax.pipeline import cards, checks, models, results
from rstar_jax.pipeline.context import Context
from rstar_jax.pipeline.reading import rows_of
from rstar_jax.storage import layout, manifests, store
from rstar_jax.storage.formatting import grid


def export(
  context: Context,
  round_: int,
  what: str = "data",
  push_to: str = "",
  endpoint: str | None = None,
) -> str:
  """Writes a data set, or a model's card and stop ids; lists or pushes files.

  Args:
    context: the run.
    round_: from 1.
    what: one of `layout.EXPORTS`.
    push_to: "USER/NAME" of a repository on the Hub; one that does not exist is
      created, private. "" pushes nothing, and the list is what would be pushed.
    endpoint: the Hub's address; None is the default one.

  Returns:
    A table of the files, and where they are.

  Raises:
    ValueError: the round is not finished, it has no PPM or no such adapter, or
      the Hub refuses.
  """
  # The config that made the round, whatever this program was started with.
  config = checks.find_run(context.workdir)
  context = dataclasses.replace(context, config=config)
  kind: upload.Kind = "dataset" if what == "data" else "model"
  if what == "data":
    for name in ("sft", "pairs"):
      context.finished(round_, name)
  else:
    source, names = _model(context, round_, what, bool(push_to))
  if push_to:
    # Before the files are written, since that may take long.
    upload.prepare(push_to, kind, endpoint)
  folder = context.folder(round_, layout.EXPORT) / what
  with contextlib.ExitStack() as stack:
    local = stack.enter_context(store.staged(folder))
    if what == "data":
      summary, card = _write_data(context, round_, local)
      files = {name: local / name for name in store.files(local)}
    else:
      summary, card = f"round {round_}, {what}", _card(source, what)
      files = {name: source / name for name in names}
    if what == "policy":
      files[generation.FILE] = local / generation.FILE
      files[generation.FILE].write_text(
        generation.render(context.tokenizer), encoding="utf-8"
      )
    files[cards.CARD] = local / cards.CARD
    told = _told(context, round_, what, endpoint)
    files[cards.CARD].write_text(
      cards.add(card, cards.fields(config), told), encoding="utf-8"
    )
    lines = [f"{folder}: {summary}", "", *_listed(files), ""]
    if not push_to:
      return "\n".join([*lines, "--push_to=USER/NAME pushes them to the Hub."])
    if what != "data":
      place = stack.enter_context(store.local(source, [cards.CARD]))
      files |= {name: place / name for name in names}
    message = f"Add {what} of round {round_}"
    address = upload.push(files, push_to, kind, message, endpoint)
  return "\n".join([*lines, f"pushed to {address}"])


def _write_data(
  context: Context, round_: int, folder: pathlib.Path
) -> tuple[str, str]:
  """Writes the round's data as a data set; returns their counts, and a card."""
  counts = export_lib.write(
    folder,
    map(trajectories_lib.from_dict, rows_of(context.finished(round_, "sft"))),
    map(pairs_lib.from_dict, rows_of(context.finished(round_, "pairs"))),
    context.tokenizer.prompt,
  )
  summary = f"{counts['sft']} solutions, {counts['pairs']} pairs"
  return summary, (folder / cards.CARD).read_text(encoding="utf-8")


def _model(
  context: Context, round_: int, what: str, pushed: bool
) -> tuple[store.Path, list[str]]:
  """Returns a model's folder, and the names of its files except the card.

  Args:
    context: the run.
    round_: from 1.
    what: one of `layout.EXPORTS` except "data".
    pushed: whether others get it, who cannot read a local base model.
  """
  model, _, adapter = what.partition("/")
  folder = context.finished(round_, model)
  if model == "ppm" and (used := models.ppm_round(context, round_)) != round_:
    instead = f"; that of round {used} is used" if used else ""
    raise ValueError(f"round {round_} made no pairs and has no PPM{instead}")
  if not adapter:
    files = manifests.read(folder)["files"]
    return folder, sorted(set(files) - {cards.CARD})
  field = "sft" if model == "policy" else model
  names = sorted(set(store.files(folder / adapter)) - {cards.CARD})
  if adapters.CONFIG not in names:
    raise ValueError(
      f"{folder} has no {adapter}: it is there where config.{field}.lora_rank "
      f"is set; leave out /{adapter} to export the whole model"
    )
  with store.local(folder / adapter, [adapters.WEIGHTS]) as local:
    base = adapters.base_of(local)
  if pushed and not cards.is_on_hub(base):
    raise ValueError(
      f"{folder / adapter} is an update of {base}, which others do not have: "
      f"push {model}, into which it is merged"
    )
  return folder / adapter, names


def _card(folder: store.Path, what: str) -> str:
  """Returns the card that was saved with a model, or one for an adapter."""
  if what.endswith(adapters.FOLDER):
    return model_card.adapter("lm" if what.startswith("policy") else "tanh")
  return (store.read(folder / cards.CARD) or b"").decode()


def _told(
  context: Context, round_: int, what: str, endpoint: str | None
) -> str:
  """Returns a card's text on how this was made, and what a model reached."""
  licence = functools.cache(
    functools.partial(upload.licence, endpoint=endpoint)
  )
  text = cards.made(context.config, round_, licence)
  if what == "data" or what.endswith(adapters.FOLDER):
    return text
  measured = results.collect(context)
  return f"{text}\n{cards.measured(measured, round_, what, licence)}"


def _listed(files: dict[str, store.Path]) -> list[str]:
  """Returns a table of files and their sizes in bytes."""
  sizes = {name: store.version(file).size for name, file in files.items()}
  sizes = dict(sorted(sizes.items())) | {"all": sum(sizes.values())}
  return grid(
    ["File", "Bytes"], [[name, f"{size:,}"] for name, size in sizes.items()]
  )
