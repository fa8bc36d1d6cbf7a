"""Ways to put a model on servers that run.

The folder has to be one that the servers see. A server keeps the shapes that it
was started with.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from rstar_jax import outside
from rstar_jax.config.schema import Config
from rstar_jax.inference.posting import Later, Url

# (config, role, folder, urls): puts the model of a role, "policy" or "ppm",
# from a folder on servers, by their bases.
Load = Callable[[Config, str, str, Sequence[str]], None]


def vllm(config: Config, role: str, folder: str, urls: Sequence[str]) -> None:
  """Has vLLM read new weights; it is started with VLLM_SERVER_DEV_MODE=1.

  Its cache of prefixes, which are the old model's, is dropped.
  """
  del role
  fields = {"weights_path": folder}
  for base in urls:
    root = base.removesuffix("/v1")
    _post(
      config,
      f"{root}/collective_rpc",
      {"method": "reload_weights", "kwargs": fields},
    )
    _post(config, f"{root}/reset_prefix_cache", {})


def sglang(config: Config, role: str, folder: str, urls: Sequence[str]) -> None:
  """Has SGLang, or `rstar_jax.tools.serve`, read new weights."""
  del role
  for base in urls:
    root = base.removesuffix("/v1")
    _post(config, f"{root}/update_weights_from_disk", {"model_path": folder})


LOADS: dict[str, Load] = {"vllm": vllm, "sglang": sglang}


def _post(config: Config, url: str, fields: dict[str, Any]) -> None:
  """Posts; a server that cannot be asked now is left as it is.

  Raises:
    ValueError: the server refuses.
  """

  def read(answer: Any) -> None:
    if isinstance(answer, dict) and answer.get("success") is False:
      raise outside.Bad(f"says {json.dumps(answer)[:200]}")

  body = json.dumps(fields).encode()
  try:
    Url(url, config.servers, "servers").post(body, read, empty=True)
  except Later as error:
    raise ConnectionError(
      f"{url} {error}: the model was not put there"
    ) from error
