"""A small model and its run, for the tests beside this file."""

from rstar_jax.config.schema import Config
from rstar_jax.models.config import ModelConfig

MODEL = ModelConfig(
  vocab_size=2048,
  num_layers=2,
  embed_dim=512,
  num_heads=8,
  num_kv_heads=4,
  head_dim=64,
  mlp_dim=1536,
  tied_embeddings=False,
)


def config() -> Config:
  """Returns a run whose paths have one block of pages: 128 tokens."""
  found = Config()
  engine = found.engine
  engine.kernels, engine.pages = "xla", 64
  engine.rows = engine.prefill_tokens = 64
  engine.max_prefix_tokens = engine.max_step_tokens = 64
  engine.max_block_tokens = 64
  engine.inner_steps = 1
  return found
