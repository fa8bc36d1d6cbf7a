"""How often a policy samples ids that are not those of their text.

  python -m benchmarks.sampled_ids --model=FOLDER --problems=FILE --steps=200
  python -m benchmarks.sampled_ids --model=FOLDER --trees=FOLDER --trees=...

A search goes on from a step's text (`steps/tokenizer.py:encode_solution`). Of
first steps that are sampled now, or of what trees of a reinforced round keep, a
JSON line says of how many the text is encoded to "other" ids.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence

import jax.numpy as jnp
from absl import app, flags

from rstar_jax import rng
from rstar_jax.config.schema import EngineConfig
from rstar_jax.data.sources import open_source
from rstar_jax.hf import folders
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.policy import Policy
from rstar_jax.pipeline import reading
from rstar_jax.steps.tokenizer import Tokenizer

_MODEL = flags.DEFINE_string(
  "model", None, "Folder of a policy.", required=True
)
_TREES = flags.DEFINE_multi_string(
  "trees", [], "Folder of trees; may be given several times."
)
_PROBLEMS = flags.DEFINE_string("problems", None, "File of problems.")
_STEPS = flags.DEFINE_integer("steps", 200, "Most steps.", 1)
# Of a problem.
_CANDIDATES = 16


def sampled(tokenizer: Tokenizer) -> Iterator[Sequence[int]]:
  """Yields the ids of first steps."""
  model = folders.load_policy(_MODEL.value, jnp.bfloat16)
  config = EngineConfig(max_prefix_tokens=512, max_step_tokens=96, rows=32)
  policy = Policy(Engine(model, config), tokenizer)
  rows = open_source(_PROBLEMS.value)[1]
  asked = itertools.islice(rows, -(-_STEPS.value // _CANDIDATES))
  # All at once, so that the engine's rows are full.
  futures = [
    policy.submit(
      question, (), [rng.seed_for(0, question, i) for i in range(_CANDIDATES)]
    )
    for question in (row["question"] for row in asked)
  ]
  for future in futures:
    yield from (each.token_ids for each in future.result())


def kept() -> Iterator[Sequence[int]]:
  """Yields the ids of what trees keep."""
  for folder in _TREES.value:
    for tree in reading.read_trees(folder, draws=True):
      yield from (each.token_ids for each in tree.draws or ())


def count(steps: Iterable[Sequence[int]], tokenizer: Tokenizer) -> dict:
  """Counts steps, and those whose text is encoded to other ids."""
  ends, found = {tokenizer.eos_id, tokenizer.pad_id}, {"steps": 0, "other": 0}
  for ids in itertools.islice(filter(None, steps), _STEPS.value):
    text = tokenizer.decode(ids)
    found["steps"] += 1
    found["other"] += tokenizer.encode(text) != [
      each for each in ids if each not in ends
    ]
  return found


def main(_) -> None:
  tokenizer = load_tokenizer(_MODEL.value)
  steps = kept() if _TREES.value else sampled(tokenizer)
  print(json.dumps(count(steps, tokenizer)))


if __name__ == "__main__":
  app.run(main)
