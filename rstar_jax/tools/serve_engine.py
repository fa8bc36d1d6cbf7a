r"""Serves this package's engine, for searches that run elsewhere.

  python -m rstar_jax.tools.serve_engine --config=configs/tiny.py \
    --policy=runs/tiny/round_2/policy --ppm=runs/tiny/round_2/ppm --port=8000

and, wherever problems are searched,

  --config.servers.policy=http://HOST:8000/v1 \
  --config.servers.ppm=http://HOST:8000/v1

The protocol is in `serve/engine_server.py`. --ppm may also be a published
reward model, which searchers name by servers.reward. It is for trusted
networks: it uses the standard library's server, without encryption. By default
only this machine can reach it.
"""

import os

from absl import app, flags

from rstar_jax import outside
from rstar_jax.config import flag
from rstar_jax.pipeline import hosts
from rstar_jax.report import address
from rstar_jax.serve import command, engine_http, engine_server


def define_flags() -> None:
  """Defines the flags; not at import, since `main.py` has flags of its own."""
  flag.define_config()
  flags.DEFINE_string(
    "policy", "", "Policy to sample from: a folder or Hub name."
  )
  flags.DEFINE_string("ppm", "", "PPM's folder, or a published reward model.")
  flags.DEFINE_string(
    "host", "127.0.0.1", "Address to listen on; 0.0.0.0 is all."
  )
  flags.DEFINE_integer("port", 8000, "Port to listen on.", 0, 65535)
  flags.DEFINE_string(
    "api_key_env",
    "",
    "Environment variable with the key that clients must send.",
  )


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise ValueError(f"{argv[1]!r} is no flag; --help lists them")
  given = flags.FLAGS
  if given.config is None or not (given.policy or given.ppm):
    raise ValueError("give --config, and --policy or --ppm, or both")
  key = os.environ.get(given.api_key_env, "")
  if given.api_key_env and not key:
    raise ValueError(
      f"--api_key_env={given.api_key_env}: the environment lacks it"
    )
  hosts.check_devices()
  # The port is taken before models are loaded, which takes minutes.
  with command.listening(given.host, given.port) as place:
    service = engine_server.EngineService(
      given.config, policy=given.policy, ppm=given.ppm
    )
    with engine_http.make(service, place, key) as server:
      url = address.url(given.host, server.server_port)
      outside.say(f"serving at {url}/v1")
      try:
        server.serve_forever()
      except KeyboardInterrupt:
        pass


if __name__ == "__main__":
  define_flags()
  with outside.program("rstar_jax.tools.serve_engine"):
    app.run(main, flags_parser=flag.parse_flags)
