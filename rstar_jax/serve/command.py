"""`rstar_jax serve`: serves a round's models by OpenAI's API, with a page.

  rstar_jax serve --workdir=runs/tiny
  rstar_jax serve --config=configs/smollm2_135m.py --round=0

It answers as `rstar_jax solve` does, many questions at once; see
docs/serving.md.
"""

import contextlib
import errno
import importlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from absl import flags

from rstar_jax import outside
from rstar_jax.config import flag
from rstar_jax.report import address
from rstar_jax.storage import logs, stopping, store

if TYPE_CHECKING:  # These imports take seconds.
  from rstar_jax.pipeline.context import Context

TOKEN = "RSTAR_JAX_TOKEN"
# Seconds for a client to receive data.
_UNREAD_SECONDS = 120
# Seconds after the grace to notify clients and end the process.
_LAST_SECONDS = 10.0
# Errors about the port; others are about the host.
_PORT_TAKEN = (errno.EADDRINUSE, errno.EACCES)


def _flags() -> flags.FlagValues:
  """Returns the command's own flags, in a namespace of their own."""
  own = flags.FlagValues()
  flag.define_config(own)
  add = {"flag_values": own}
  flags.DEFINE_string(
    "workdir", "", "Folder of the run whose models answer.", **add
  )
  flags.DEFINE_integer(
    "round", None, "Round of the models; default the newest, 0 the base.", **add
  )
  flags.DEFINE_string(
    "name", "", "The model's name in the API; default the folder's.", **add
  )
  flags.DEFINE_string(
    "host", "127.0.0.1", "Address to listen on; 0.0.0.0 is all.", **add
  )
  flags.DEFINE_integer(
    "port", 8000, "Port to listen on; 0 is any free one.", 0, 65535, **add
  )
  flags.DEFINE_string(
    "token_env",
    TOKEN,
    "Environment variable with the token that clients must send.",
    **add,
  )
  flags.DEFINE_bool("open", False, "Serve the network without a token.", **add)
  flags.DEFINE_integer(
    "places", 64, "Most requests answered at once.", 1, **add
  )
  flags.DEFINE_integer("line", 64, "Most requests that wait.", 0, **add)
  flags.DEFINE_float(
    "seconds", 600.0, "Most seconds of a request, waiting included.", 0.1, **add
  )
  flags.DEFINE_integer(
    "solutions",
    512,
    "Most solutions of a request: n x samples, or n x rollouts x candidates.",
    1,
    **add,
  )
  flags.DEFINE_integer(
    "question_characters", 8000, "Most characters of a question.", 1, **add
  )
  flags.DEFINE_float(
    "grace",
    stopping.GRACE_SECONDS,
    "Seconds after SIGTERM for requests to finish.",
    0.0,
    **add,
  )
  return own


def main(arguments: Sequence[str]) -> int:
  """Serves until a signal; returns the exit status.

  Raises:
    ModuleNotFoundError: the extra "serve" is not installed.
  """
  logs.to_terminal()
  given = _flags()
  if set(arguments) & {"--help", "-h", "--helpshort"}:
    outside.say(_usage(given))
    return 0
  rest = flag.parse_flags(["rstar_jax serve", *arguments], given)
  try:
    if len(rest) > 1:
      raise ValueError(
        f"{rest[1]!r} is no flag; the run's folder is given as "
        f"--workdir={rest[1]}"
      )
    token = _token(given)
    for each in ("app", "server"):  # Fails early if the extra is missing.
      importlib.import_module(f"rstar_jax.serve.{each}")
    with contextlib.ExitStack() as stack:
      place = stack.enter_context(listening(given.host, given.port))
      stack.enter_context(
        stopping.listening(
          given.grace + _LAST_SECONDS, (signal.SIGTERM, signal.SIGINT)
        )
      )
      context, round_ = stack.enter_context(_opened(given))
      serve(context, round_, place, given, token)
  except (ValueError, OSError) as error:
    outside.say(f"rstar_jax: {outside.line(str(error), 2000)}", sys.stderr)
    return 1
  return 0


def _usage(given: flags.FlagValues) -> str:
  """Returns the text of --help."""
  lines = [__doc__.strip(), ""]
  for name in given:
    lines += flag.described(name, given[name].help)
  return "\n".join(lines)


def _token(given: flags.FlagValues) -> str:
  """Returns the token that clients must send, "" for none.

  Raises:
    ValueError: there is no token, and other machines can reach the server.
  """
  token = os.environ.get(given.token_env, "")
  if not token and given["token_env"].present:
    raise ValueError(f"--token_env={given.token_env}: the environment lacks it")
  if token and not (token.isascii() and token.isprintable()):
    raise ValueError(f"{given.token_env} is not printable ASCII")
  if not token and not given.open and not address.is_local(given.host):
    raise ValueError(
      f"--host={given.host} can be reached by others: set the environment "
      f"variable {given.token_env} to what they have to send, or let anyone "
      "in by --open"
    )
  return token


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
  """Binds a port; it is not served before the models are loaded."""
  with socket.socket(address.family(host)) as place:
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
      # Inherited by connections: one whose client does not read is closed.
      place.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * _UNREAD_SECONDS
      )
    try:
      place.bind((host, port))
    except OSError as error:
      wrong = "port" if error.errno in _PORT_TAKEN else "host"
      raise OSError(
        f"cannot listen at {host}, port {port}: {error.strerror}; give "
        f"another --{wrong}"
      ) from None
    yield place


@contextlib.contextmanager
def _opened(given: flags.FlagValues) -> Iterator[tuple["Context", int]]:
  """Opens the run, or the base model alone; yields it and its round."""
  from rstar_jax.pipeline import checks, hosts, run

  hosts.check_devices()
  config = given.config
  with contextlib.ExitStack() as stack:
    if given.workdir:
      workdir = store.path(given.workdir)
      store.check(workdir)
      found = checks.find_run(workdir)
      config = config or found
      rounds = len(found.rounds)
    elif config is None:
      raise ValueError("whose models? give --workdir=FOLDER, or --config=FILE")
    else:
      # The base model has no run, so the workdir is temporary.
      workdir = store.path(stack.enter_context(tempfile.TemporaryDirectory()))
      rounds = 0
    if given.round is not None and not 0 <= given.round <= rounds:
      raise ValueError(f"--round={given.round} is not in 0..{rounds}")
    # Compile before the first request.
    config.engine.warm_up = True
    context = stack.enter_context(run.open_run(config, workdir, reads=True))
    round_ = given.round
    if round_ is None:
      round_ = run.newest_round(context)
    yield context, round_


def serve(
  context: "Context",
  round_: int,
  place: socket.socket,
  given: flags.FlagValues,
  token: str,
) -> None:
  """Loads the models, and serves until a signal.

  Raises:
    ValueError: the default budget exceeds a request's limit.
  """
  from rstar_jax.pipeline import backends
  from rstar_jax.pipeline.solve import Solver, usual
  from rstar_jax.serve import app
  from rstar_jax.serve.metrics import Metrics
  from rstar_jax.serve.server import Server
  from rstar_jax.serve.service import Limits, Service
  from rstar_jax.serve.wire import Served

  config = context.config
  valued = backends.scores(context, round_)
  budget = usual(config, round_, valued=valued)
  if budget.solutions > given.solutions:
    raise ValueError(
      f"--solutions={given.solutions} would refuse every question without a "
      f"budget of its own: {budget.method} takes {budget.solutions}; raise "
      "--solutions"
    )
  solver = Solver(context, round_)
  solver.backend.warm_up()
  stopping.check()
  limits = Limits(places=given.places, line=given.line, seconds=given.seconds)
  service = Service(solver, limits)
  name = given.name or (
    store.name_of(store.path(given.workdir)) if given.workdir else "base"
  )
  served = Served(
    name=name,
    methods=solver.methods,
    usual=budget,
    temperature=config.engine.temperature,
    any_temperature=solver.any_temperature,
    top_p=config.engine.top_p,
    seed=config.seed,
    question_characters=given.question_characters,
    solutions=given.solutions,
  )
  local = address.is_local(given.host) and not token
  made = app.App(
    service,
    served,
    Metrics(service, lambda: len(context.sandbox.pids)),
    token=token,
    hosts=address.names(given.host) if local else (),
  )
  shown = address.url(given.host, place.getsockname()[1])
  outside.say(
    f"{name}, round {round_}, at {shown}/ and /v1; {', '.join(solver.methods)}"
  )
  if not token and not address.is_local(given.host):
    outside.say("anyone who reaches this machine may ask: --open")
  server = Server(made, service, given.grace)
  try:
    server.run([place])
  finally:
    service.close()
