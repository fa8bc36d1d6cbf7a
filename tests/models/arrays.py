"""Random arrays for tests of models."""

import numpy as np


def normal(seed, *shape):
  """Returns float32 numbers, normal, of a shape."""
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
