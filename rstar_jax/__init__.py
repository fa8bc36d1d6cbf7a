"""rStar-Math in JAX: small language models that teach themselves to reason.

`import rstar_jax as rj` gives the public names. Each is loaded at its first
use, so that the import itself loads neither jax nor numpy. Names that are not
here may change in any version.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if sys.platform == "win32":
  raise ImportError(
    "rstar_jax is for Linux and macOS: on Windows install it within WSL 2, "
    "as docs/laptop.md says"
  )

# For a clone that is not installed; pip checks this itself.
if sys.version_info < (3, 11):  # noqa: UP036
  raise ImportError(
    "rstar_jax needs Python 3.11 or later, and this is "
    f"{sys.version.split()[0]}: name one, as in `make quick PYTHON=python3.11`"
  )

# For editors and type checkers; `_NAMES` is the same at run time.
if TYPE_CHECKING:
  from rstar_jax import testing as testing
  from rstar_jax.config import presets as presets
  from rstar_jax.config.flag import load_config as load_config
  from rstar_jax.config.schema import Config as Config
  from rstar_jax.config.schema import DataConfig as DataConfig
  from rstar_jax.config.schema import EngineConfig as EngineConfig
  from rstar_jax.config.schema import EvalConfig as EvalConfig
  from rstar_jax.config.schema import PolicyConfig as PolicyConfig
  from rstar_jax.config.schema import RoundConfig as RoundConfig
  from rstar_jax.config.schema import SearchConfig as SearchConfig
  from rstar_jax.config.schema import TrainConfig as TrainConfig
  from rstar_jax.data.problems import load_problems as load_problems
  from rstar_jax.data.sources import copy_rows as copy_rows
  from rstar_jax.evaluation.results_tables import markdown as markdown
  from rstar_jax.grading.answers import final_answer as final_answer
  from rstar_jax.grading.grader import Grader as Grader
  from rstar_jax.hf.folders import BASE_MODEL as BASE_MODEL
  from rstar_jax.hf.folders import load_policy as load_policy
  from rstar_jax.hf.folders import load_ppm as load_ppm
  from rstar_jax.hf.saving import save_policy as save_policy
  from rstar_jax.hf.saving import save_ppm as save_ppm
  from rstar_jax.hf.tokenizers import load_tokenizer as load_tokenizer
  from rstar_jax.inference.reward import load_reward as load_reward
  from rstar_jax.inference.step_values import step_values as step_values
  from rstar_jax.pipeline.backends import load_calls as load_calls
  from rstar_jax.pipeline.reading import read_pairs as read_pairs
  from rstar_jax.pipeline.reading import read_trees as read_trees
  from rstar_jax.pipeline.run import STAGES as STAGES
  from rstar_jax.pipeline.run import evolve as evolve
  from rstar_jax.pipeline.run import open_run as open_run
  from rstar_jax.pipeline.solve import solve as solve
  from rstar_jax.report.inline import show_run as show_run
  from rstar_jax.report.inline import show_trees as show_trees
  from rstar_jax.sandbox.pool import Limits as Limits
  from rstar_jax.sandbox.pool import Sandbox as Sandbox
  from rstar_jax.search.beam import beam_search as beam_search
  from rstar_jax.search.driver import run_searches as run_searches
  from rstar_jax.search.expansion import grow as grow
  from rstar_jax.search.mcts import search as search
  from rstar_jax.search.requests import Calls as Calls
  from rstar_jax.search.sampling import sample as sample
  from rstar_jax.search.tree import Tree as Tree
  from rstar_jax.search.tree import trajectories as trajectories
  from rstar_jax.tasks.named import load_task as load_task
  from rstar_jax.tasks.task import Task as Task
  from rstar_jax.training.own_data import train_policy as train_policy
  from rstar_jax.training.own_data import train_ppm as train_ppm
  from rstar_jax.types import Candidate as Candidate
  from rstar_jax.types import ExecResult as ExecResult
  from rstar_jax.types import Problem as Problem

# Where each name is: "module:name", or a module, below the package.
_NAMES = {
  # Records.
  "Problem": "types:Problem",
  "Candidate": "types:Candidate",
  "ExecResult": "types:ExecResult",
  "Tree": "search.tree:Tree",
  # Configs.
  "Config": "config.schema:Config",
  "DataConfig": "config.schema:DataConfig",
  "EngineConfig": "config.schema:EngineConfig",
  "EvalConfig": "config.schema:EvalConfig",
  "PolicyConfig": "config.schema:PolicyConfig",
  "RoundConfig": "config.schema:RoundConfig",
  "SearchConfig": "config.schema:SearchConfig",
  "TrainConfig": "config.schema:TrainConfig",
  "load_config": "config.flag:load_config",
  "presets": "config.presets",
  # Tasks and problems.
  "Task": "tasks.task:Task",
  "load_task": "tasks.named:load_task",
  "load_problems": "data.problems:load_problems",
  "copy_rows": "data.sources:copy_rows",
  # Search.
  "Calls": "search.requests:Calls",
  "search": "search",
  "beam_search": "search.beam:beam_search",
  "sample": "search.sampling:sample",
  "grow": "search.expansion:grow",
  "run_searches": "search.driver:run_searches",
  "trajectories": "search.tree:trajectories",
  # Code and answers.
  "Sandbox": "sandbox.pool:Sandbox",
  "Limits": "sandbox.pool:Limits",
  "Grader": "grading.grader:Grader",
  "final_answer": "grading.answers:final_answer",
  # Models.
  "BASE_MODEL": "hf.folders:BASE_MODEL",
  "load_policy": "hf.folders:load_policy",
  "load_ppm": "hf.folders:load_ppm",
  "save_policy": "hf.saving:save_policy",
  "save_ppm": "hf.saving:save_ppm",
  "load_tokenizer": "hf.tokenizers:load_tokenizer",
  "train_policy": "training.own_data:train_policy",
  "train_ppm": "training.own_data:train_ppm",
  "load_reward": "inference.reward:load_reward",
  "step_values": "inference.step_values:step_values",
  # Runs.
  "open_run": "pipeline.run:open_run",
  "STAGES": "pipeline.run:STAGES",
  "evolve": "pipeline.run:evolve",
  "solve": "pipeline.solve:solve",
  "load_calls": "pipeline.backends:load_calls",
  "markdown": "evaluation.results_tables:markdown",
  "read_trees": "pipeline.reading:read_trees",
  "read_pairs": "pipeline.reading:read_pairs",
  "show_run": "report.inline:show_run",
  "show_trees": "report.inline:show_trees",
  # Scripted callables, to try a search without a model.
  "testing": "testing",
}
# Hidden from type checkers, which would accept any name.
if not TYPE_CHECKING:
  __all__ = sorted(_NAMES)

  def __getattr__(name: str) -> Any:
    """Loads a public name (PEP 562)."""
    if name not in _NAMES:
      raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _NAMES[name].partition(":")
    found = importlib.import_module(f"{__name__}.{module}")
    if attribute:
      found = getattr(found, attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
  return sorted({*globals(), *_NAMES})
