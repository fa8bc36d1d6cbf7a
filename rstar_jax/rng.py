"""Derives seeds from identities, never from call order.

A sample is identified by run seed, round, problem, rollout, depth and so on, so
it is the same in any batch, slot or resumed run.
"""

import hashlib


def seed_for(seed: int, *identities: int | str) -> int:
  """Returns a uint32 seed for an event.

  Args:
    seed: the run's seed.
    *identities: ints and strings that identify the event; 1 and "1" differ.

  Returns:
    An int in [0, 2**32), equal on every machine and Python version if the
    version's tables of Unicode have all characters of the strings.
  """
  name = repr((int(seed), *identities)).encode()
  return int.from_bytes(hashlib.blake2s(name, digest_size=4).digest(), "little")
