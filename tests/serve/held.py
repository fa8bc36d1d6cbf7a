"""A policy backend of a user's, for servers in processes of their own."""

import os
import pathlib
import time

from rstar_jax import testing

# The environment variable of the file that the question "slow" waits for.
GO = "RSTAR_JAX_TEST_GO"


def policy(config, folder):
  """Returns a scripted policy; see `policy.backend` of the config."""
  del config, folder
  scripted = testing.ToySum()

  def expand(questions, prefixes, seeds):
    while "slow" in questions and not pathlib.Path(os.environ[GO]).exists():
      time.sleep(0.02)
    return scripted(questions, prefixes, seeds)

  return expand
