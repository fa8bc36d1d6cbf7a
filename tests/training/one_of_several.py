"""One process of a training in several, for `tests/pipeline/hosts_test.py`.

A config is: coordinator, count, index; kind ("sft" or "ppm"), mesh; folder of
the checkpoints; out, where process 0 writes parameters and losses; and
killed_at, of a batch, with the signal that the process then sends itself.

`restored` restores a checkpoint of one array instead. Its config has no kind,
but may have unread, of a checkpoint that the process finds damaged.
"""

import os
from unittest import mock

import jax
import numpy as np

from rstar_jax.models import sharding
from rstar_jax.models.transformer import arrays_of
from rstar_jax.pipeline import hosts
from rstar_jax.storage import checkpoints, store
from rstar_jax.training import loop
from tests.training import tiny_training


def main(config: dict) -> None:
  host = hosts.join(config["coordinator"], config["count"], config["index"])
  count, seen = loop._tokens, []

  def counted(batch):
    if len(seen) == config.get("killed_at", -1):
      os.kill(os.getpid(), config["signal"])
    seen.append(1)
    return count(batch)

  with mock.patch.object(loop, "_tokens", counted):
    model, losses = tiny_training.train(
      config["kind"],
      tiny_training.make_mesh(config["mesh"]),
      folder=config["folder"],
      epochs=4,
      checkpoint_every=3,
    )
  arrays = {
    "/".join(map(str, path)): sharding.to_host(array)
    for path, array in arrays_of(model).items()
  }
  grown = tiny_training.with_more_tokens(model)
  arrays["grown"] = sharding.to_host(arrays_of(grown)["embedding",])
  if host.leads:
    np.savez(config["out"], losses=losses, **arrays)


def restored(config: dict) -> None:
  hosts.join(config["coordinator"], config["count"], config["index"])
  mesh, read = tiny_training.make_mesh(config["mesh"]), store.read
  start = jax.ShapeDtypeStruct(
    (8, 3),
    np.float32,
    sharding=jax.NamedSharding(mesh, jax.P(("fsdp", "tensor"))),
  )

  def read_all_but_one(file):
    return b"" if file.parent.name == config.get("unread") else read(file)

  with checkpoints.Checkpoints(config["folder"]) as saver:
    with mock.patch.object(store, "read", read_all_but_one):
      step, found = saver.restore_latest({"w": start})
  np.savez(
    config["out"] + str(config["index"]),
    step=step,
    rows=[each.data for each in found["w"].addressable_shards],
  )
