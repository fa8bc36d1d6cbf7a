"""The commands of `rstar_jax COMMAND`, their flags, and the text of --help.

A command is a word before all flags. `main.py` runs it, unless it names a
module of its own here.
"""

import dataclasses
import difflib
from collections.abc import Callable

from rstar_jax.config import flag

HELP = ("--help", "-h", "--helpshort")
# Flags that all commands of `main.py` take.
_COMMON = (
  *("config", "workdir", "grace", "distributed"),
  *("coordinator", "processes", "process"),
)


@dataclasses.dataclass(frozen=True)
class Command:
  """A command.

  Attributes:
    does: description for --help, half a line.
    takes: flags that it takes beside the common ones.
    module: module whose `main(arguments)` runs it, with flags of its own, and
      returns the exit status; "" for commands of `main.py`.
    extra: extra of the package that installs the module's requirements.
    reads: whether it reads a run and does not bind it, so settings may differ.
    begins: whether it can be the first of a run, at its lowest round if it
      takes --round. Others need a folder that holds a run, but for a branch.
    apart: whether its processes work independently, unless they also train.
    lowest: the lowest round.
    newest: whether it takes the newest round if --round is not given.
    computes: whether it runs a model, on the accelerator if there is one.
  """

  does: str
  takes: tuple[str, ...] = ()
  module: str = ""
  extra: str = ""
  reads: bool = False
  begins: bool = False
  apart: bool = False
  lowest: int = 1
  newest: bool = False
  computes: bool = True

  @property
  def needs_round(self) -> bool:
    """Whether --round has to be given."""
    return "round" in self.takes and not self.newest


_ROUND = ("round",)
COMMANDS = {
  "evolve": Command(
    "runs or resumes all rounds of self-evolution", begins=True
  ),
  "rollout": Command(
    "searches training problems; takes --round, as the next four",
    _ROUND,
    begins=True,
    apart=True,
  ),
  "extract": Command(
    "chooses solutions and preference pairs in the trees",
    _ROUND,
    begins=True,
    apart=True,
    computes=False,
  ),
  "sft": Command("trains the policy on the solutions", _ROUND),
  "ppm": Command("trains the process preference model on the pairs", _ROUND),
  "evaluate": Command(
    "answers the held-out problems, by each method",
    _ROUND,
    begins=True,
    apart=True,
    lowest=0,
  ),
  "solve": Command(
    "answers a question, a file of them, or a person's in turn",
    ("question", "questions", "out", "method", *_ROUND),
    reads=True,
    lowest=0,
    newest=True,
  ),
  "serve": Command(
    "answers over HTTP, by OpenAI's API and on a page",
    module="rstar_jax.serve.command",
    extra="serve",
  ),
  "status": Command("shows which stages of a run are done or left", ("json",)),
  "watch": Command(
    "shows a run in progress in a browser",
    module="rstar_jax.report.live",
  ),
  "report": Command(
    "writes the table and the page of a run's results", computes=False
  ),
  "study": Command("compares methods, with the models of --round", _ROUND),
  "compare": Command(
    "compares this run with another",
    ("other", *_ROUND),
    reads=True,
    lowest=0,
    newest=True,
    computes=False,
  ),
  "branch": Command(
    "takes over another run's work, up to a stage of --round",
    ("other", "at", *_ROUND),
    computes=False,
  ),
  "export": Command(
    "exports the training data or a model of --round",
    ("artifact", "push_to", *_ROUND),
    reads=True,
    computes=False,
  ),
  "check": Command(
    "checks whether a run can work, and estimates its cost",
    ("topology",),
    computes=False,
  ),
}


def find(name: str) -> Command:
  """Returns a command.

  Raises:
    ValueError: there is no such command; the message names a similar one.
  """
  if name in COMMANDS:
    return COMMANDS[name]
  near = difflib.get_close_matches(name, COMMANDS, n=1)
  hint = f"did you mean {near[0]}? " if near else ""
  if "/" in name or name.endswith(".py"):
    hint = f"{meant(name)}; "
  raise ValueError(
    f"there is no command {name!r}; {hint}`rstar_jax --help` lists them"
  )


def meant(word: str, command: str = "") -> str:
  """Returns a hint on how to give a word that is in the wrong place."""
  if word in COMMANDS:
    return f"the command comes first: rstar_jax {word} --config=..."
  if word.endswith(".py"):
    return f"the config is given as --config={word}"
  if command == "solve" and " " in word.strip():
    return "the question is given as --question='...'"
  return f"the run's folder is given as --workdir={word}"


def takers(flag: str) -> tuple[str, ...]:
  """Returns the commands that take a flag, other than a common one."""
  return tuple(name for name, each in COMMANDS.items() if flag in each.takes)


def overview() -> str:
  """Returns the text of `rstar_jax --help`."""
  lines = [
    "rstar_jax: small language models teach themselves to reason.",
    "",
    "usage: rstar_jax COMMAND --config=FILE --workdir=FOLDER [flags]",
    "",
  ]
  lines += [f"  {name:9} {each.does}" for name, each in COMMANDS.items()]
  lines += [
    "",
    "To begin: rstar_jax evolve --config=configs/tiny.py --workdir=runs/tiny",
    "rstar_jax COMMAND --help has the flags of a command.",
  ]
  return "\n".join(lines)


def usage(name: str, describe: Callable[[str], str]) -> str:
  """Returns the text of `rstar_jax COMMAND --help`.

  Args:
    name: the command.
    describe: returns a flag's help.
  """
  command = COMMANDS[name]
  lines = [f"rstar_jax {name}: {command.does}."]
  for flags in (command.takes, _COMMON):
    lines += [""] if flags else []
    for each in flags:
      lines += flag.described(each, describe(each))
  return "\n".join(lines)
