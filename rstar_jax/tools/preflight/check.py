"""Checks a run before a TPU is requested: what would fail, and the cost.

  rstar_jax check --config=configs/qwen2_5_math_7b.py --topology=v5e-16

Each finding is a line: ok, a warning or an error, and what to do. Meshes,
memory, checkpoints and the price follow from sizes; data and answers are tried
on the first rows; the sandbox, servers and the workdir are tried from this
machine, which need not be the TPU's. Nothing is compiled, and it takes less
than a minute.
"""

from rstar_jax import outside
from rstar_jax.config.schema import Config
from rstar_jax.evaluation import cost
from rstar_jax.hf import published
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.pipeline import checks, models, rollout
from rstar_jax.storage import store, trackers
from rstar_jax.tools.aot import chips
from rstar_jax.tools.preflight import sizes, trials
from rstar_jax.tools.preflight.findings import Finding, Findings


def check(
  config: Config,
  topology: str | None = None,
  *,
  workdir: str = "",
  grace: float,
) -> Findings:
  """Yields findings one by one.

  Args:
    config: of the run, validated.
    topology: the TPU that the run will have; see `chips.parse`. None is this
      machine, and checks of chips are left out.
    workdir: the run's folder, which is written to; "" checks none.
    grace: seconds between SIGTERM and the end of a machine.

  Raises:
    ValueError: the topology's name is unknown; one line.
  """
  where = chips.parse(topology) if topology else None
  yield _writer(config)
  yield from _search(config, workdir)
  yield from _equal_cost(config)
  if where is not None:
    yield from sizes.of_chips(config, where, grace)
  else:
    yield Finding(
      "warning",
      "chips",
      "meshes, memory and price are not counted: give --topology=v5e-16",
    )
  yield from trials.data(config)
  yield from trials.servers(config)
  yield from _trackers(config)
  yield trials.sandbox(config, away=where is not None)
  if workdir:
    yield trials.workdir(config, workdir, away=where is not None)


def _writer(config: Config) -> Finding:
  """Checks that a model can write steps in round 1."""
  base = str(models.base(config))
  try:
    knows = False
    # No published model knows the grammar, and they need not be here.
    if base not in published.MODELS:
      knows = checks.knows_grammar(load_tokenizer(base))
  except (OSError, ValueError) as error:
    return Finding("warning", "round 1", outside.one_line(error))
  try:
    writer = checks.first_writer(config, knows)
  except ValueError as error:
    return Finding("error", "round 1", outside.one_line(error))
  return Finding("ok", "round 1", f"{writer} writes the steps")


def _search(config: Config, workdir: str) -> Findings:
  """Checks that a new run's search sets nothing that rounds replace."""
  said = rollout.in_vain(config.search)
  if said and not (workdir and checks.begun(store.path(workdir))):
    yield Finding("error", "search", said)


def _trackers(config: Config) -> Findings:
  """Checks that the config's trackers are installed."""
  try:
    trackers.check(config.trackers)
  except ValueError as error:
    yield Finding("error", "trackers", outside.one_line(error))


def _equal_cost(config: Config) -> Findings:
  """Compares the cost of samples with that of the search."""
  search, study = config.eval.search, config.study
  for name, rollouts, count in (
    ("eval", search.rollouts, cost.samples_of_evaluation(config)),
    ("study", study.trajectories, cost.samples_of_study(config)),
  ):
    most = rollouts * search.candidates
    # A search that exhausts its tree costs less than its most.
    if 2 * count < most:
      yield Finding(
        "warning",
        "equal cost",
        f"config.{name}.samples={count} beside a search that costs up to "
        f"{rollouts} x {search.candidates} = {most} solutions: majority and "
        f"best-of-N get less than the search; 0 gives as many as it can cost",
      )
