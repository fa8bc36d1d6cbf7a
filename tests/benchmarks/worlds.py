"""A scripted policy, PPM and sandbox of one generated problem, for tests."""

from benchmarks import scripted
from rstar_jax import rng
from rstar_jax.hf.folders import BASE_MODEL
from rstar_jax.steps.tokenizer import HfTokenizer, encode_piece

TOKENIZER = HfTokenizer(BASE_MODEL)


def of(solved) -> scripted.World:
  """Returns a world with slips of 0.3 and flips of 0.1, of seed 1."""

  def tokens(text):
    return len(encode_piece(TOKENIZER, text))

  checker = scripted.Checker(solved)
  chances = scripted.Chances(rng.seed_for(1, "ppm", solved.problem.id))
  return scripted.World(
    scripted.Policy(solved, 0.3, tokens, 1),
    checker,
    scripted.Ppm(checker, 0.1, chances),
  )
