"""The commands of docs/servers.md go together: a server, and a run on it."""

import pathlib

import jax
from absl.testing import absltest
from flax import nnx

from rstar_jax.hf import folders, saving
from rstar_jax.pipeline import deploy
from rstar_jax.serve import engine_server
from rstar_jax.storage import manifests
from tests import tiny_run
from tests.docs import reading
from tests.inference import stand_in

LOAD = "/update_weights_from_disk"


def flags(command: str) -> dict[str, str]:
  """Returns the flags of a command, by name."""
  words = command.split()
  return dict(each[2:].split("=", 1) for each in words if each[:2] == "--")


def config(given: dict[str, str]):
  return reading.config(
    *(f"--{name}={text}" for name, text in given.items() if "config" in name)
  )


class OneServerTest(absltest.TestCase):
  def test_a_run_begins_with_the_server_s_model_and_loads_the_next(self):
    page = (reading.ROOT / "docs" / "servers.md").read_text()
    section = page.partition("\n## One server\n")[2]
    serve, evolve = (flags(each.text) for each in reading.blocks(section)[:2])
    served = engine_server.EngineService(
      config(serve), policy=str(reading.ROOT / serve["policy"])
    )
    server = stand_in.StandIn(served)
    self.addCleanup(server.close)
    self.assertIn(f":{serve['port']}/v1", evolve["config.servers.policy"])
    run = config(evolve | {"config.servers.policy": server.url})
    run.servers.patience_seconds = 0.0
    folder = pathlib.Path(self.create_tempdir().full_path)
    context = tiny_run.make_context(run, folder)

    deploy.policy(context, 0)
    self.assertNotIn(LOAD, dict(server.asked))

    trained = folders.load_policy(folders.BASE_MODEL)
    weights = nnx.state(trained)
    nnx.update(trained, jax.tree.map(lambda each: 1.5 * each, weights))
    policy = context.folder(1, "policy")
    saving.save_policy(trained, policy, tokenizer=context.tokenizer)
    manifests.write(policy, {})
    deploy.policy(context, 1)
    asked = dict(server.asked)
    self.assertEqual(asked[LOAD]["model_path"], str(policy))


if __name__ == "__main__":
  absltest.main()
