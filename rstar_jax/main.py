"""Runs self-evolution, or one stage of it.

  python -m rstar_jax.main --config=configs/tiny.py --workdir=runs/tiny

The same command again resumes. This file is short on purpose: what it calls can
be imported and tested.
"""

import dataclasses
import json
import signal
import sys
import traceback

from absl import app, flags

from rstar_jax.config import flag
from rstar_jax.pipeline import status
from rstar_jax.storage import stopping, store

_CONFIG = flag.define_config()
_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "The run's folder, or gs://BUCKET/NAME; the same folder resumes.",
)
_OTHERS = ("status", "report", "solve", "study", "compare", "export", "branch")
_STAGE = flags.DEFINE_enum(
  "stage",
  "evolve",
  ["evolve", *status.STAGES, *_OTHERS],
  "What to run: all rounds, or one stage of --round; status, what of a run is "
  "done and what is left; report, the table and the page of what was measured; "
  "solve, the answer to --question; study or compare, a comparison of methods "
  "with the models of --round, or of this run with --other; export, the "
  "training data of --round as a data set; branch, what --other made before "
  "the data of --round, taken over.",
)
_ROUND = flags.DEFINE_integer(
  "round", None, "Round of the stage; for solve, the newest if not given."
)
_QUESTION = flags.DEFINE_string("question", None, "For --stage=solve.")
_OTHER = flags.DEFINE_string(
  "other", None, "For compare and branch: the folder of another run."
)
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed",
  False,
  "Run as one of several processes, each started with the same command. Cloud "
  "TPU, Slurm and Open MPI say which process it is; elsewhere --coordinator, "
  "--processes and --process do.",
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "With --distributed: HOST:PORT of process 0."
)
_PROCESSES = flags.DEFINE_integer(
  "processes", None, "With --distributed: how many there are."
)
_PROCESS = flags.DEFINE_integer(
  "process", None, "With --distributed: which this is, from 0."
)

_JSON = flags.DEFINE_bool("json", False, "With --stage=status: as JSON.")
_GRACE = flags.DEFINE_float(
  "grace",
  stopping.GRACE_SECONDS,
  "Seconds after SIGTERM in which this ends, in training with a checkpoint. A "
  "little less than the machine gives it: spot VMs of Cloud TPU give 30.",
)


def main(argv: list[str]) -> None:
  del argv
  if _STAGE.value == "status":
    tell()
    return
  # All but a status needs much that takes seconds to import.
  from rstar_jax.pipeline import hosts

  try:
    with stopping.listening(_GRACE.value, (signal.SIGTERM, signal.SIGINT)):
      run()
  except stopping.Stopped:
    kept = "what is whole in the bucket"
    if not store.is_remote(_WORKDIR.value):
      kept = status.kept(status.look(store.path(_WORKDIR.value)))
    line = f"stopped; the same command goes on from what is kept: {kept}"
    print(f"rstar_jax: {line}", file=sys.stderr)
    raise
  except (ValueError, OSError) as error:
    # A wrong input is a line for a person; a traceback is for our mistakes.
    print(f"rstar_jax: {error}", file=sys.stderr)
    hosts.leave_if_joined()
    raise SystemExit(1) from (error if flags.FLAGS.verbosity > 0 else None)
  except Exception:
    traceback.print_exc()
    hosts.leave_if_joined()
    raise


def tell() -> None:
  """Says what of the run is done, and what is left."""
  try:
    workdir = store.path(_WORKDIR.value)
    store.check(workdir)
    found = status.look(workdir)
  except (ValueError, OSError) as error:
    print(f"rstar_jax: {error}", file=sys.stderr)
    raise SystemExit(1) from None
  as_json = json.dumps(dataclasses.asdict(found), indent=2)
  print(as_json if _JSON.value else status.render(found))


def run() -> None:
  """Does what the flags say."""
  from rstar_jax.evaluation import results as evaluate
  from rstar_jax.pipeline import branching, hosts, solving, stages, studying
  from rstar_jax.pipeline import run as evolve
  from rstar_jax.report import page
  from rstar_jax.storage import logs

  workdir = store.path(_WORKDIR.value)
  store.check(workdir)
  config, stage = _CONFIG.value, _STAGE.value
  rounds = len(config.rounds)
  if stage == "solve" and not _QUESTION.value:
    raise ValueError("--stage=solve needs --question='...'")
  if stage in ("compare", "branch") and not _OTHER.value:
    raise ValueError(f"--stage={stage} needs --other=FOLDER")
  lowest = 0 if stage in ("evaluate", "solve", "compare") else 1
  given = _ROUND.value is not None
  if (given or stage in (*status.STAGES, "study", "export", "branch")) and not (
    given and lowest <= _ROUND.value <= rounds
  ):
    raise ValueError(f"--stage={stage} needs --round={lowest}..{rounds}")
  host = hosts.Host()
  placed = _COORDINATOR.value, _PROCESSES.value, _PROCESS.value
  if _DISTRIBUTED.value:
    host = hosts.join(*placed)
  elif any(each is not None for each in placed):
    raise ValueError(
      "--coordinator, --processes and --process are for --distributed"
    )
  if stage not in ("report", "solve", "compare", "export"):
    # Before the folder is bound to a config that cannot run.
    evaluation = stage in ("evaluate", "study")
    evolve.check_data(config, evaluation=evaluation)
  own = workdir if host.leads else workdir / f"host_{host.index}"
  quiet = not flags.FLAGS["verbosity"].present
  with (
    logs.kept(own / "log.txt", quiet=quiet),
    evolve.open_run(config, workdir, host) as context,
  ):
    said = ""
    if stage in ("evolve", "report"):
      results = getattr(evolve, stage)(context)
      said = evaluate.markdown(results) if host.leads else ""
    elif stage == "solve":
      round_ = _ROUND.value
      if round_ is None:
        round_ = evolve.newest_round(context)
      said = solving.solve(context, round_, _QUESTION.value).render()
    elif stage == "study":
      studying.study(context, _ROUND.value)
      said = studying.render(context, _ROUND.value) if host.leads else ""
    elif stage == "export":
      said = stages.export(context, _ROUND.value) if host.leads else ""
    elif stage == "branch":
      other = store.path(_OTHER.value)
      if host.leads:
        said = branching.branch(context, other, _ROUND.value)
    elif stage == "compare":
      other = store.path(_OTHER.value)
      said = studying.compare(context, other, _ROUND.value)
    else:
      evolve.STAGES[stage](context, _ROUND.value)
    if said and host.leads:
      print(said)
    if stage in ("evolve", "report") and host.leads:
      print(page.try_write(workdir))


if __name__ == "__main__":
  flags.mark_flag_as_required("workdir")
  flags.register_multi_flags_validator(
    ["config", "stage"],
    lambda given: given["config"] or given["stage"] == "status",
    "Flag --config must be given, for all but --stage=status.",
  )
  app.run(main, flags_parser=flag.parse_flags)
