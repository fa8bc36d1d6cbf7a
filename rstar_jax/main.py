"""Runs self-evolution, or one stage of it.

  python -m rstar_jax.main --config=configs/tiny.py --workdir=runs/tiny

The same command again resumes. This file is short on purpose: what it calls can
be imported and tested.
"""

import pathlib
import sys

from absl import app, flags

from rstar_jax import config_flag, evaluate, evolve, session, solving
from rstar_jax.io import compiled

_CONFIG = config_flag.define_config()
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "The run's folder; the same folder resumes."
)
_STAGE = flags.DEFINE_enum(
  "stage",
  "evolve",
  ["evolve", *evolve.STAGES, "report", "solve"],
  "What to run: all rounds, one stage of --round, the table of what is done, "
  "or the answer to --question.",
)
_ROUND = flags.DEFINE_integer(
  "round", None, "Round of the stage; for solve, the newest if not given."
)
_QUESTION = flags.DEFINE_string("question", None, "For --stage=solve.")


def main(argv: list[str]) -> None:
  del argv
  try:
    run()
  except (ValueError, OSError) as error:
    # A wrong input is a line for a person; a traceback is for our mistakes.
    print(f"rstar_jax: {error}", file=sys.stderr)
    raise SystemExit(1) from (error if flags.FLAGS.verbosity > 0 else None)


def run() -> None:
  """Does what the flags say."""
  config, stage = _CONFIG.value, _STAGE.value
  rounds = len(config.rounds)
  if stage == "solve" and not _QUESTION.value:
    raise ValueError("--stage=solve needs --question='...'")
  lowest = 0 if stage in ("evaluate", "solve") else 1
  given = _ROUND.value is not None
  if (given or stage in evolve.STAGES) and not (
    given and lowest <= _ROUND.value <= rounds
  ):
    raise ValueError(f"--stage={stage} needs --round={lowest}..{rounds}")
  if stage not in ("report", "solve"):
    # Before the folder is bound to a config that cannot run.
    evolve.check_data(config, evaluation=stage == "evaluate")
  workdir = pathlib.Path(_WORKDIR.value)
  compiled.keep(config.programs or workdir / "programs")
  evolve.check_workdir(config, workdir)
  with session.open_context(config, workdir) as context:
    if stage == "evolve":
      print(evaluate.markdown(evolve.evolve(context)))
    elif stage == "report":
      print(evaluate.markdown(evolve.report(context)))
    elif stage == "solve":
      round_ = _ROUND.value
      if round_ is None:
        round_ = evolve.newest_round(context)
      print(solving.solve(context, round_, _QUESTION.value).render())
    else:
      evolve.STAGES[stage](context, _ROUND.value)


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main, flags_parser=config_flag.parse_flags)
