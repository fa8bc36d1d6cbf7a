"""Puts a model on servers that run.

The servers have to see the model's folder. A server keeps the shapes that it
was started with.
"""

import concurrent.futures
import json
from collections.abc import Callable, Sequence
from typing import Any

from rstar_jax import outside
from rstar_jax.config.schema import Config
from rstar_jax.inference.http_post import Later, Url

# (config, role, folder, urls): puts the model of a role, "policy" or "ppm",
# from a folder on servers, by their bases. Returns why each server is to get no
# work, "" for one that has the model; None if all have it.
Load = Callable[[Config, str, str, Sequence[str]], Sequence[str] | None]


def vllm(
  config: Config, role: str, folder: str, urls: Sequence[str]
) -> list[str]:
  """Has vLLM read new weights; it is started with VLLM_SERVER_DEV_MODE=1.

  The prefix cache, which is the old model's, is dropped.
  """
  del role
  fields = {"weights_path": folder}
  reload = {"method": "reload_weights", "kwargs": fields}
  posts = (("/collective_rpc", reload), ("/reset_prefix_cache", {}))
  return _post_all(config, urls, posts)


def sglang(
  config: Config, role: str, folder: str, urls: Sequence[str]
) -> list[str]:
  """Has SGLang, or `rstar_jax.tools.serve_engine`, read new weights."""
  del role
  posts = (("/update_weights_from_disk", {"model_path": folder}),)
  return _post_all(config, urls, posts)


LOADS: dict[str, Load] = {"vllm": vllm, "sglang": sglang}


def _post_all(
  config: Config,
  urls: Sequence[str],
  posts: Sequence[tuple[str, dict[str, Any]]],
) -> list[str]:
  """Posts to all servers at once.

  Returns:
    For each server why it did not answer, "" if it did.

  Raises:
    ValueError: a server refuses.
    ConnectionError: none could be asked.
  """

  def one(base: str) -> str:
    for path, fields in posts:
      url = Url(base.removesuffix("/v1") + path, config.servers, "servers")
      try:
        url.post(json.dumps(fields).encode(), _read, empty=True)
      except Later as error:
        return f"{url.url} {error}: the model was not put there"
    return ""

  with concurrent.futures.ThreadPoolExecutor(len(urls)) as pool:
    failed = list(pool.map(one, urls))
  if all(failed):
    raise ConnectionError(failed[0])
  return failed


def _read(answer: Any) -> None:
  if isinstance(answer, dict) and answer.get("success") is False:
    raise outside.Bad(f"says {json.dumps(answer)[:200]}")
