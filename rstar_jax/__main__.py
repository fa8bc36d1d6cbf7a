"""`python -m rstar_jax`: the command line of `main.py`."""

from rstar_jax import main

if __name__ == "__main__":
  main.console()
