"""Configuration of generation; a part of `config/schema.py`, as that is."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(kw_only=True)
class EngineConfig:
  """Generation: shapes and sampling."""

  # Softmax temperature; 0 is greedy (paper: 0.7 in round 1, then 1.0).
  temperature: float = 1.0
  # Keep the k likeliest tokens; 0 keeps all.
  top_k: int = 0
  # Keep the likeliest tokens that sum to p; 1 keeps all.
  top_p: float = 1.0
  # Keep tokens at least so likely, as a share of the likeliest; 0 keeps all.
  min_p: float = 0.0
  # Longest step, in tokens, its marker included.
  max_step_tokens: int = 64
  # Longest code block where solutions are sampled whole, in tokens.
  max_block_tokens: int = 256
  # Prefix lengths in tokens are padded up to one of these; a longer prefix
  # cannot be expanded (its candidates come back empty, finish "length").
  prefix_buckets: tuple[int, ...] = (128, 256, 384)
  # What of a prefix is not yet on the device is run in pieces of one of these
  # lengths, in tokens.
  tail_buckets: tuple[int, ...] = (16, 64, 256)
  # Where the PPM scores: numbers of candidate steps of a leaf are padded up to
  # one of these.
  score_buckets: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
  # Where the PPM scores: lengths of steps, in tokens, likewise.
  step_buckets: tuple[int, ...] = (32, 64, 128)
  # Numbers of leaves in one device call are padded up to one of these.
  leaf_buckets: tuple[int, ...] = (8, 32)
  # As steps end, the rest is decoded with half as many rows, a half of these,
  # and so on, but not fewer than this. Each halving lengthens the program.
  least_rows: int = 32
  # Whether a stage compiles all its programs before it begins, and not as they
  # come; where one takes a minute, one sees then how many there are.
  ahead: bool = False
  # What computes attention while tokens are sampled: "xla" anywhere, "pallas" a
  # kernel for TPUs; see docs/results/kernel.md.
  attention: Literal["xla", "pallas"] = "xla"
  # On one CPU device: whether few rows are multiplied, and sampled tokens
  # attend, by kernels that a C++ compiler of the machine makes, once; see
  # docs/results/engine.md.
  native: bool = False
  # Whether keys and values of candidates are kept until the next leaf is known,
  # so that its step is not run again.
  commit: bool = True
  # Most tokens of candidates that a device call has room for, leaves times
  # candidates times the longest step, if more than one leaf is in it; and most
  # of a group that are kept for `commit`, slots in the place of leaves. What a
  # token takes is 2 x layers x key/value heads x head width numbers: 57 KB of
  # Qwen2.5-7B in bfloat16.
  most_tokens: int = 1 << 18
  # Where the PPM scores: most candidates in one device call, if more than one
  # leaf is in it; bounds the memory of attention.
  score_rows: int = 256


@dataclasses.dataclass(kw_only=True)
class RemoteConfig:
  """A larger model behind a server, to make the first round's data with.

  Round 1 of the paper: a 236B model, 8 rollouts of 5 candidates at 0.7.
  """

  # Base of an OpenAI-compatible server, e.g. "http://localhost:8000/v1"; what
  # is asked is URL/completions. Empty: the base model makes round 1 too.
  url: str = ""
  # The model's name on that server.
  model: str = ""
  # Name of the environment variable that holds the API key; empty: no key.
  api_key_env: str = ""
  # Samples of one request; 1 where the server gives one only (llama.cpp's and
  # transformers' do).
  samples_per_request: int = 5
  # Most requests that wait for an answer at once.
  in_flight: int = 64
  # A request without an answer for this many seconds is asked again.
  timeout_seconds: float = 600.0
  # A request that keeps failing is asked again for this many seconds.
  patience_seconds: float = 900.0
  # Softmax temperature; 0 is greedy.
  temperature: float = 0.7
  # Keep the likeliest tokens that sum to p; 1 keeps all.
  top_p: float = 1.0
  # Longest step, in the server's tokens.
  max_tokens: int = 512
  # More fields of each request, as a JSON object: what a server can give beyond
  # the text (vLLM: return_token_ids), or wants to be told (transformers takes
  # do_sample from generation_config, a string that is JSON itself).
  extra: str = '{"logprobs": 0}'
