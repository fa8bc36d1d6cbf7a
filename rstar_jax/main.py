"""Runs self-evolution, or one stage of it.

  rstar_jax evolve --config=configs/tiny.py --workdir=runs/tiny

`python -m rstar_jax` is the same, and so is the flag --stage=evolve. Repeating
the command resumes it. `commands.py` has all commands.
"""

import contextlib
import dataclasses
import importlib
import json
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import app, flags

from rstar_jax import commands, outside
from rstar_jax.config import flag
from rstar_jax.report import progress, status
from rstar_jax.storage import alone as alone_lib
from rstar_jax.storage import layout, logs, stopping, store

if TYPE_CHECKING:
  from rstar_jax.pipeline.context import Context
  from rstar_jax.pipeline.hosts import Host

_CONFIG = flag.define_config()
_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Folder of the run, or gs://BUCKET/NAME; the same folder resumes.",
)
_STAGE = flags.DEFINE_enum(
  "stage",
  "evolve",
  [name for name, each in commands.COMMANDS.items() if not each.module],
  "The command, if it is not the first word.",
)
_ROUND = flags.DEFINE_integer(
  "round",
  None,
  "The round, from 1, or 0 for the base model where that is possible; for "
  "solve and compare the newest by default.",
)
_QUESTION = flags.DEFINE_string("question", None, "The question to solve.")
_QUESTIONS = flags.DEFINE_string(
  "questions",
  None,
  "Questions: a .jsonl, .json, .csv or .parquet file, hf:OWNER/NAME/SPLIT, "
  "tfds:NAME/SPLIT, module:function or task:SPLIT; - reads lines of JSON from "
  "standard input.",
)
_OUT = flags.DEFINE_string(
  "out",
  None,
  "File of the answers to --questions, one JSON object a line; questions that "
  "it answers are left out. Default standard output.",
)
_METHOD = flags.DEFINE_enum(
  "method",
  None,
  ["greedy", "majority", "best_of_n", "search"],
  "How to answer: by the likeliest solution, by a vote or the reward model's "
  "choice among config.eval.samples, or by config.eval.search. Default search "
  "with a reward model, else majority.",
)
_OTHER = flags.DEFINE_string("other", None, "Folder of another run.")
_AT = flags.DEFINE_enum(
  "at",
  "extract",
  list(layout.STAGES),
  "The first stage of --round that runs anew, such as rollout for a change of "
  "the search; what those before it have made is taken over.",
)
_ARTIFACT = flags.DEFINE_enum(
  "artifact",
  "data",
  layout.EXPORTS,
  "Export the round's training data, a model, or a LoRA adapter alone.",
)
_PUSH_TO = flags.DEFINE_string(
  "push_to",
  None,
  "Push to this repository, USER/NAME on the Hugging Face Hub; a new one is "
  "private. By default files and sizes are only listed.",
)
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed",
  False,
  "Run as one of several processes, each started with the same command. Cloud "
  "TPU, Slurm and Open MPI number the processes; elsewhere give --processes "
  "and --process, and --coordinator for stages that train. Other stages do "
  "not join the processes, so one that died can be started again.",
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator",
  None,
  "With --distributed, for stages that train: HOST:PORT of process 0.",
)
_PROCESSES = flags.DEFINE_integer(
  "processes", None, "With --distributed: number of processes."
)
_PROCESS = flags.DEFINE_integer(
  "process", None, "With --distributed: number of this process, from 0."
)

_TOPOLOGY = flags.DEFINE_string(
  "topology",
  None,
  "Check for this TPU, such as v5e-64, v5p-128 or '2x v5e-16'.",
)
_JSON = flags.DEFINE_bool("json", False, "Print JSON.")
_GRACE = flags.DEFINE_float(
  "grace",
  stopping.GRACE_SECONDS,
  "Most seconds from SIGTERM to the end of the process, with a checkpoint of "
  "a training. Give a little less than the machine allows: Cloud TPU spot VMs "
  "allow 30.",
)


def main(argv: list[str]) -> None:
  logs.to_terminal()
  try:
    check_flags(argv)
    check_folder()
    if _STAGE.value == "status":
      tell()
      return
    if _STAGE.value == "check":
      raise SystemExit(0 if foresee() else 1)
  except (ValueError, OSError) as error:
    refuse(error)
  # Only a status needs none of these imports, which take seconds.
  from rstar_jax.pipeline import hosts

  try:
    with stopping.listening(_GRACE.value, (signal.SIGTERM, signal.SIGINT)):
      run()
  except stopping.Stopped:
    kept = "what is whole in the bucket"
    if commands.COMMANDS[_STAGE.value].reads:
      kept = _OUT.value or "nothing"
    elif not store.is_remote(_WORKDIR.value):
      kept = status.kept(progress.look(store.path(_WORKDIR.value)))
    line = f"stopped; the same command goes on from what is kept: {kept}"
    outside.say(f"rstar_jax: {line}", sys.stderr)
    raise
  except (ValueError, OSError) as error:
    refuse(error, hosts.leave_if_joined)
  except Exception as error:
    # Python would print control characters in an error's text.
    outside.say(traceback.format_exc(), sys.stderr)
    hosts.leave_if_joined()
    raise SystemExit(1) from error


def refuse(error: Exception, leave: Callable[[], None] = lambda: None) -> None:
  """Ends the program; a wrong input prints one line and no traceback."""
  if flags.FLAGS.is_parsed() and flags.FLAGS.verbosity > 0:
    outside.say("".join(traceback.format_exception(error)), sys.stderr)
  outside.say(f"rstar_jax: {error}", sys.stderr)
  leave()
  raise SystemExit(1) from None


def check_flags(argv: list[str]) -> None:
  """Checks the flags, without reading files.

  Raises:
    ValueError: a flag is missing, or has no meaning here; one line.
  """
  stage = _STAGE.value
  if len(argv) > 1:
    raise ValueError(
      f"{argv[1]!r} is no flag; {commands.meant(argv[1], stage)}"
    )
  if not _WORKDIR.value and not _of_no_run():
    hint = ""
    if stage == "solve":
      hint = ", or --config=configs/tiny.py alone, to ask its base model"
    raise ValueError(
      f"the run's folder is missing: give --workdir=FOLDER{hint}"
    )
  if stage != "status" and _CONFIG.value is None:
    no_run = ""
    if _WORKDIR.value:
      no_run = f"{layout.no_run(store.path(_WORKDIR.value))}, and "
    raise ValueError(
      f"{no_run}the config is missing: give --config=configs/tiny.py, or the "
      "--workdir of a run"
    )
  taken = {name for each in commands.COMMANDS.values() for name in each.takes}
  for name in sorted(taken - set(commands.COMMANDS[stage].takes)):
    if flags.FLAGS[name].present:
      raise ValueError(
        f"--{name} means nothing to {stage}: leave it out, or give the command "
        f"{'|'.join(commands.takers(name))}"
      )
  if stage == "solve":
    check_asked()
  if "other" in commands.COMMANDS[stage].takes and not _OTHER.value:
    raise ValueError(f"{stage} needs --other=FOLDER")


def check_folder() -> None:
  """Checks the run's folder, before slow imports.

  Raises:
    ValueError: it is a file.
  """
  if _WORKDIR.value and not store.is_remote(_WORKDIR.value):
    workdir = store.path(_WORKDIR.value)
    if workdir.is_file():
      raise ValueError(layout.no_run(workdir))


def _of_no_run() -> bool:
  """Returns whether the command needs no folder, and none was given."""
  stage, round_ = _STAGE.value, _ROUND.value
  asked = stage == "solve" and not round_ and _CONFIG.value is not None
  return _WORKDIR.value is None and (stage == "check" or asked)


def check_asked() -> None:
  """Checks that there is one question, or one file of them.

  Raises:
    ValueError: there is neither, or both.
  """
  if _QUESTION.value is not None and _QUESTIONS.value is not None:
    raise ValueError("--question and --questions exclude each other")
  if _OUT.value is not None and _QUESTIONS.value is None:
    raise ValueError("--out is for --questions=FILE")
  if _QUESTIONS.value is None and not (_QUESTION.value or "").strip():
    if _QUESTION.value is not None or not sys.stdin.isatty():
      raise ValueError(
        "solve needs --question='...' or --questions=FILE; on a terminal it "
        "asks for questions without them"
      )


def check_round(rounds: int) -> None:
  """Checks --round against the number of rounds.

  Raises:
    ValueError: the stage needs a round, or another one.
  """
  command = commands.COMMANDS[_STAGE.value]
  if _ROUND.value is None and not command.needs_round:
    return
  if _ROUND.value is None or not command.lowest <= _ROUND.value <= rounds:
    raise ValueError(f"{_STAGE.value} needs --round={command.lowest}..{rounds}")


def tell() -> None:
  """Prints the run's progress."""
  workdir = store.path(_WORKDIR.value)
  store.check(workdir)
  found = progress.look(workdir)
  if not found.stages:
    raise ValueError(layout.no_run(workdir))
  as_json = json.dumps(dataclasses.asdict(found), indent=2)
  outside.say(as_json if _JSON.value else status.render(found))


def spare_accelerator() -> None:
  """Makes jax use the CPU, unless the command runs a model.

  Only one process at a time can use a TPU, and a run on this machine may have
  it; one worker of a pod would wait for the others.
  """
  if not commands.COMMANDS[_STAGE.value].computes:
    import jax

    jax.config.update("jax_platforms", "cpu")


def foresee() -> bool:
  """Prints what would fail and the cost; returns whether nothing would."""
  from rstar_jax.tools.preflight import check, findings

  spare_accelerator()
  results = check.check(
    _CONFIG.value,
    _TOPOLOGY.value,
    workdir=_WORKDIR.value or "",
    grace=_GRACE.value,
  )
  return findings.render(results, outside.say)


def run() -> None:
  """Runs the command."""
  from rstar_jax.pipeline import checks, hosts
  from rstar_jax.pipeline import run as evolve
  from rstar_jax.report import page

  config, stage = _CONFIG.value, _STAGE.value
  reads = commands.COMMANDS[stage].reads
  workdir, round_, other = find()
  spare_accelerator()
  host = place(round_)
  hosts.check_devices()
  # Before the folder is created, or bound to a config that cannot run.
  checks.check_base(config)
  if stage != "report" and not reads:
    evaluation = stage in ("evaluate", "study")
    checks.check_data(config, evaluation=evaluation)
  with contextlib.ExitStack() as stack:
    if workdir is None:
      workdir = store.path(stack.enter_context(tempfile.TemporaryDirectory()))
    own = layout.host_folder(workdir, host.index)
    if stage in ("evolve", *layout.STAGES):
      stack.enter_context(alone_lib.alone(own))
    elif stage == "study" and host.leads:
      # Its own folder alone: other rounds may be made meanwhile.
      studied = layout.stage_folder(workdir, round_, layout.STUDY)
      stack.enter_context(alone_lib.alone(studied))
    quiet = not flags.FLAGS["verbosity"].present
    file = None if reads else own / layout.LOG
    stack.enter_context(logs.to_file(file, quiet=quiet))
    context = stack.enter_context(
      evolve.open_run(config, workdir, host, reads=reads)
    )
    if stage == "evolve" and host.leads:
      outside.say(f"see it go: rstar_jax watch {workdir}", sys.stderr)
    text = do(context, round_, other)
    if text and host.leads:
      outside.say(text)
    if stage in ("evolve", "report") and host.leads:
      outside.say(page.try_write(workdir))


def find() -> tuple[store.Path | None, int | None, store.Path | None]:
  """Returns the run's folder, the round and the other run's folder.

  Where the base model is asked without a run, there is no folder, and the round
  is 0.

  Raises:
    ValueError: a folder does not hold what the command needs; or --round is
      missing or out of range.
  """
  from rstar_jax.pipeline import checks

  config, stage, round_ = _CONFIG.value, _STAGE.value, _ROUND.value
  command = commands.COMMANDS[stage]
  if _of_no_run():
    return None, 0, None
  workdir = store.path(_WORKDIR.value)
  store.check(workdir)
  if (stage, round_) == ("solve", 0) and not checks.has_run(workdir):
    return None, 0, None
  other = store.path(_OTHER.value) if _OTHER.value else None
  if other is not None:
    checks.find_run(other)
  if command.reads:
    check_round(len(checks.find_run(workdir).rounds))
    checks.check_models(config, workdir)
    return workdir, round_, other
  check_round(len(config.rounds))
  begins = command.begins and round_ in (None, command.lowest)
  if not begins and stage != "branch":
    checks.find_run(workdir)
  checks.check_identity(config, workdir)
  return workdir, round_, other


def place(round_: int | None) -> "Host":
  """Returns this process as a host of the run, joined with others if needed.

  Raises:
    ValueError: the flags or the environment do not say which process it is.
  """
  from rstar_jax.pipeline import hosts

  placed = _COORDINATOR.value, _PROCESSES.value, _PROCESS.value
  if _DISTRIBUTED.value:
    stage = _STAGE.value
    rounds = _CONFIG.value.rounds
    # Reinforcement trains while it rolls out.
    trains = stage == "rollout" and rounds[round_ - 1].algorithm != "sft"
    apart = commands.COMMANDS[stage].apart and not trains
    return hosts.place(*placed[1:]) if apart else hosts.join(*placed)
  if any(each is not None for each in placed):
    raise ValueError(
      "--coordinator, --processes and --process are for --distributed"
    )
  return hosts.Host()


def do(context: "Context", round_: int | None, other: store.Path | None) -> str:
  """Does the command's work in an open run; returns the text to print."""
  from rstar_jax.evaluation import results_tables
  from rstar_jax.pipeline import branching, export, results, study, study_tables
  from rstar_jax.pipeline import run as evolve

  stage, leads = _STAGE.value, context.host.leads
  text = ""
  if stage in ("evolve", "report"):
    make = evolve.evolve if stage == "evolve" else results.write
    result = make(context)  # On every host; only the first prints the result.
    text = results_tables.markdown(result) if leads else ""
  elif stage == "solve":
    text = answer(context, round_)
  elif stage == "study":
    study.study(context, round_)
    text = study_tables.render(context, round_) if leads else ""
  elif stage == "export":
    if leads:
      what, push_to = _ARTIFACT.value, _PUSH_TO.value or ""
      text = export.export(context, round_, what, push_to)
  elif stage == "branch":
    if leads:
      text = branching.branch(context, other, round_, _AT.value)
  elif stage == "compare":
    text = study_tables.compare(context, other, round_)
  else:
    evolve.STAGES[stage](context, round_)
  return text


def answer(context: "Context", round_: int | None) -> str:
  """Answers the question or questions; returns the text to print.

  Args:
    context: an open run.
    round_: the round of the models; None is the newest.

  Raises:
    ValueError: the single question has no answer, or a file cannot be used.
  """
  from rstar_jax.pipeline import questions
  from rstar_jax.pipeline import run as evolve

  if round_ is None:
    round_ = evolve.newest_round(context)
  rows = []
  if _QUESTIONS.value is not None:
    # Before the models, which take long to load.
    data = context.config.eval.data
    rows = questions.read(_QUESTIONS.value, data, context.task)
    questions.check_target(_OUT.value or questions.STANDARD)
  asking = questions.Asking.of(context, round_, _METHOD.value)
  outside.say(asking.describe(), sys.stderr)
  if _QUESTIONS.value is not None:
    target = _OUT.value or questions.STANDARD
    summary = questions.answer_file(asking, rows, target)
    outside.say(summary, sys.stderr)
    return ""
  if _QUESTION.value is None:
    questions.converse(asking)
    return ""
  return questions.answer_one(asking, _QUESTION.value)


@outside.program("rstar_jax")
def console() -> None:
  """Runs the command `rstar_jax`; `python -m rstar_jax` is the same."""
  flag.at_home(sys.argv)
  words = sys.argv[1:]
  name = words[0] if words and not words[0].startswith("-") else ""
  command = commands.find(name) if name else None
  if command and command.module:
    # `ml_collections` looks for overrides in sys.argv.
    sys.argv = [f"{sys.argv[0]} {name}", *words[1:]]
    try:
      status = importlib.import_module(command.module).main(words[1:])
    except ModuleNotFoundError as error:
      if not command.extra:
        raise
      raise ValueError(
        f"{name} needs {error.name}: pip install "
        f"'rstar_jax[{command.extra}]', or -e '.[{command.extra}]' in a clone"
      ) from None
    raise SystemExit(status)
  if not words or set(words) & set(commands.HELP):
    text = commands.overview()
    if name:
      text = commands.usage(name, lambda each: flags.FLAGS[each].help)
    outside.say(text)
    return
  if name:
    if flag.given(sys.argv, "stage") is not None:
      raise ValueError(f"the command is {name}: leave out --stage")
    sys.argv[1] = f"--stage={name}"
  app.run(main, flags_parser=parse)


def parse(argv: list[str]) -> list[str]:
  """Parses flags; the default config is the run's own."""
  try:
    # A status needs no config, and also reports a run whose config is invalid.
    if flag.given(argv, "stage") != "status":
      flag.with_run(argv, layout.CONFIG)
  except Exception as error:  # A bucket's libraries raise many kinds.
    refuse(error)
  return flag.parse_flags(argv)


if __name__ == "__main__":
  console()
