"""Calls of models as one program: op by op, a test compiles a hundred."""

import functools
from typing import Any

import jax
from flax import nnx


def call(
  model: nnx.Module, *arrays: Any, name: str = "__call__", **options: Any
) -> Any:
  """Returns what a method gives; models of one config share its program.

  Args:
    model: of any head.
    arrays, options: the method's arguments, all of them arrays.
    name: of the method.
  """
  graphdef, params = nnx.split(model)
  return _call(params, arrays, options, graphdef=graphdef, name=name)


@functools.partial(jax.jit, static_argnames=("graphdef", "name"))
def _call(params, arrays, options, *, graphdef, name):
  return getattr(nnx.merge(graphdef, params), name)(*arrays, **options)
