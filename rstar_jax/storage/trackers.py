"""Weights & Biases and trackio: trackers that get the lines of metrics.jsonl.

Neither is imported unless a config names it. A resumed run continues as the
same run there. A tracker that fails later is dropped; the run goes on without
it.
"""

import importlib
import importlib.util
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from absl import logging

from rstar_jax import outside
from rstar_jax.storage import json_io, layout, store

# The project of all runs.
_PROJECT = "rstar_jax"
# Packages of trackers; the extras have the same names.
PACKAGES = ("wandb", "trackio")


def check(names: Iterable[str]) -> None:
  """Checks that trackers are installed.

  Args:
    names: see `config.trackers`.

  Raises:
    ValueError: a package is not installed; one line that says what to do.
  """
  for name in PACKAGES:
    if name in names and importlib.util.find_spec(name) is None:
      raise ValueError(
        f"config.trackers has {name!r}, which is not installed: pip install "
        f"'rstar_jax[{name}]', or leave it out"
      )


class Tracker:
  """This run at a tracker."""

  def __init__(self, name: str, workdir: store.Path, config: Mapping[str, Any]):
    """Starts the run at the tracker, or resumes it.

    Args:
      name: one of `PACKAGES`.
      workdir: the run's folder, which stores the run's name at trackers.
      config: the settings that the tracker shows; JSON-able.

    Raises:
      ValueError: the tracker refuses; one line.
    """
    check([name])
    self._name, self._tops = name, set[str]()
    module = importlib.import_module(name)
    own = _name_of(workdir)
    # wandb identifies a run by its id, trackio by its name.
    more = {"id": own} if name == "wandb" else {}
    if more and not store.is_remote(workdir):
      more["dir"] = str(workdir)
    try:
      self._run = module.init(
        project=_PROJECT, name=own, config=dict(config), resume="allow", **more
      )
    except Exception as error:
      raise ValueError(
        f"config.trackers: {name} cannot begin ({type(error).__name__}: "
        f"{outside.first_line(error)}): log in there, keep it on this machine "
        "(WANDB_MODE=offline), or leave it out"
      ) from error

  def write(self, step: int, named: Mapping[str, float]) -> None:
    """Writes the scalars of one step; see `MetricsWriter.write`."""
    if self._run is None:
      return
    try:
      if self._name == "wandb":
        self._run.log(self._with_steps(step, named))
      else:
        self._run.log(dict(named), step=step)
    except Exception:  # noqa: BLE001 - of any library below.
      logging.exception("%s failed, and gets nothing more", self._name)
      self._run = None

  def _with_steps(
    self, step: int, named: Mapping[str, float]
  ) -> dict[str, float]:
    """Adds a step for each prefix of names.

    The step of `log` may only grow, and rounds and updates count separately.
    """
    values = dict(named)
    for top in {each.partition("/")[0] for each in named}:
      values[f"{top}/step"] = step
      if top not in self._tops:
        self._tops.add(top)
        self._run.define_metric(f"{top}/*", step_metric=f"{top}/step")
    return values

  def close(self) -> None:
    """Ends the run at the tracker, for this process."""
    if self._run is not None:
      try:
        self._run.finish()
      except Exception:  # noqa: BLE001 - likewise.
        logging.exception("%s failed at the end", self._name)


def _name_of(workdir: store.Path) -> str:
  """Returns the run's unique name at trackers."""
  file = workdir / layout.TRACKED
  stored = json_io.read(file)
  if not isinstance(stored, dict) or not isinstance(stored.get("name"), str):
    stored = {"name": f"{store.name_of(workdir)}-{uuid.uuid4().hex[:8]}"}
    json_io.write(file, stored)
  return stored["name"]
