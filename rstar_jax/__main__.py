"""`python -m rstar_jax`, the same as the command `rstar_jax` (`main.py`)."""

import sys

from rstar_jax import outside


@outside.program("rstar_jax")
def console() -> None:
  """Runs the command line; Ctrl-C prints one line, even during imports.

  Raises:
    SystemExit: see `outside.program`.
  """
  try:
    from rstar_jax import main
  except ModuleNotFoundError as error:
    if error.name is None or error.name.startswith("rstar_jax"):
      raise
    raise ValueError(
      f"{sys.executable} has no {error.name}: use the Python that rstar_jax is "
      "installed in (in a clone `make quick` makes one, .venv/bin/python), or "
      "install it: pip install -e ."
    ) from None
  main.console()


if __name__ == "__main__":
  console()
