"""Seeds that come from identities, never from call order.

A sample is named by what it is (run seed, round, problem, rollout, depth,
candidate), so it stays the same in whichever batch, slot or resumed run it is
made.
"""

import hashlib


def seed_for(seed: int, *identities: int | str) -> int:
  """Returns a uint32 seed for a named event.

  Args:
    seed: the run's seed.
    *identities: ints and strings that name the event. The type counts: 1 and
      "1" are different names.

  Returns:
    An int in [0, 2**32), equal on every machine and Python version.
  """
  name = repr((int(seed), *identities)).encode()
  return int.from_bytes(hashlib.blake2s(name, digest_size=4).digest(), "little")
