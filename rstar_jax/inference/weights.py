"""Weights as an argument of compiled programs."""

import functools
from typing import Any

import jax
from flax import nnx

from rstar_jax.models.transformer import Transformer


class Structure:
  """A model without its parameters; a static argument of programs.

  `structure_of` gives equal graphdefs one object: the hash of a graphdef takes
  milliseconds, and each call of a program needs it.
  """

  def __init__(self, graphdef: nnx.GraphDef):
    self._graphdef = graphdef

  def merge(self, params: Any) -> Transformer:
    """Returns the model with parameters."""
    return nnx.merge(self._graphdef, params)


@functools.cache
def structure_of(graphdef: nnx.GraphDef) -> Structure:
  """Returns the structure of a graphdef."""
  return Structure(graphdef)


class Weights:
  """A module's parameters, as an argument of compiled programs.

  Attributes:
    structure: a static argument of the programs.
    params: the arrays; `load` replaces them without a recompilation.
  """

  def __init__(self, model: Transformer):
    graphdef, self.params = nnx.split(model)
    self.structure = structure_of(graphdef)

  def load(self, model: Transformer) -> None:
    """Replaces the parameters by those of another model.

    Raises:
      ValueError: the structure, a shape or a dtype differs.
    """
    params = nnx.split(model)[1]
    old, new = (
      jax.tree.map(lambda x: (x.shape, x.dtype), tree)
      for tree in (self.params, params)
    )
    if old != new:
      raise ValueError(
        "the new parameters are not of the loaded model's shapes"
      )
    self.params = params
