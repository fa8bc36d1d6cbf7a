"""llama.cpp by its C interface: one cell a token, shared by all sequences.

Runs in a Python that has llama-cpp-python, compiled for this machine; see
`protocol`. A prefix is decoded once, and its cells are given to the sequences
of its candidates without a copy. Each tree keeps its sequences until its next
expansion, which takes over the one that has most in common with the new prefix,
so that a candidate that was chosen is not run again. A batch has the next token
of each candidate of all trees, and as much of new prefixes as there is room.
"""

import ctypes
import dataclasses
import os
import time
from collections.abc import Iterator

import llama_cpp as lib
import numpy as np

from benchmarks.peers import protocol, replay

_BATCH = 2048
_FILE_TYPES = {"float32": 0, "bfloat16": 32}
# Of keys and values: llama.cpp's default, whatever the weights are.
_CACHE_TYPE = 1

# Kept alive: the library calls it.
_quiet = lib.llama_log_callback(lambda level, text, data: None)


@dataclasses.dataclass
class _Expansion:
  """Candidates of a prefix, all of one length.

  Attributes:
    tree: its number.
    prefix: ids.
    limit: tokens of a candidate.
    ran: tokens of the prefix that have cells.
    tokens: ids of each candidate so far; empty before the prefix is done.
  """

  tree: int
  prefix: list[int]
  limit: int
  ran: int
  tokens: list[list[int]] = dataclasses.field(default_factory=list)


class LlamaEngine:
  """Expansion by llama.cpp; logits are sampled in numpy, all rows at once."""

  def __init__(self, gguf: str, folder: str, dtype: str, threads: int, **_):
    lib.llama_log_set(_quiet, ctypes.c_void_p())
    lib.llama_backend_init()
    path = os.path.join(folder, f"model-{dtype}.gguf").encode()
    if not os.path.exists(path):
      params = lib.llama_model_quantize_default_params()
      params.ftype, params.allow_requantize = _FILE_TYPES[dtype], True
      params.nthread = threads
      if lib.llama_model_quantize(gguf.encode(), path, params):
        raise RuntimeError(f"llama.cpp cannot write {gguf} as {dtype}")
    self._model = lib.llama_model_load_from_file(
      path, lib.llama_model_default_params()
    )
    self._vocab = lib.llama_vocab_n_tokens(
      lib.llama_model_get_vocab(self._model)
    )
    self._threads, self._context = threads, None
    self._batch = lib.llama_batch_init(_BATCH, 0, 1)

  def prepare(
    self,
    *,
    leaves: int,
    candidates: int,
    prefix: int,
    new: int,
    temperature: float,
    **_,
  ) -> None:
    if self._context is not None:
      lib.llama_free(self._context)
    params = lib.llama_context_default_params()
    # A tree: its path's sequence, and one for each candidate.
    self._width = candidates + 1
    params.n_ctx = leaves * (prefix + candidates * new) + 256
    params.n_seq_max = leaves * self._width
    params.n_batch, params.n_ubatch = _BATCH, 512
    params.n_threads = params.n_threads_batch = self._threads
    params.type_k = params.type_v = _CACHE_TYPE
    params.flash_attn_type = 1
    params.kv_unified = True
    self._context = lib.llama_init_from_model(self._model, params)
    self._memory = lib.llama_get_memory(self._context)
    self._candidates = candidates
    self._greedy = temperature == 0

  def expand(self, prefixes, limits, seed):
    going = replay.Replay(
      prefixes, [[replay.Leaf((), limit, 0)] for limit in limits]
    )
    ended = {each.tree: each.tokens for each in self._run(going, seed)}
    tokens = [ended[tree] for tree in range(len(prefixes))]
    return {"tokens": tokens, "prefilled": self._prefilled}

  def search(self, prompts, trees, seed, think):
    """Replays trees; see `replay`."""
    going = replay.Replay(prompts, replay.of_json(trees), think)
    for _ in self._run(going, seed):
      pass
    return {"prefilled": self._prefilled, "decoded": going.decoded}

  def _run(self, going: replay.Replay, seed: int) -> Iterator[_Expansion]:
    """Yields expansions as they end, until all have."""
    lib.llama_memory_clear(self._memory, True)
    # What each sequence holds, by tree.
    self._held: dict[int, list[list[int]]] = {}
    self._prefilled = 0
    rng = np.random.default_rng(seed)
    open_: list[_Expansion] = []
    while not going.over:
      for tree, prefix, limit in going.ready():
        shared = self._open(tree, prefix)
        self._prefilled += len(prefix) - shared
        open_.append(_Expansion(tree, prefix, limit, shared))
      if not open_:
        time.sleep(going.pause())
        continue
      self._step(open_, rng)
      for each in [each for each in open_ if self._ended(each)]:
        open_.remove(each)
        # The last token of a candidate was never run.
        own = [each.prefix + row[:-1] for row in each.tokens]
        self._held[each.tree] = [each.prefix, *own]
        going.add(each.tree, each.tokens)
        yield each

  def _ended(self, each: _Expansion) -> bool:
    return bool(each.tokens) and len(each.tokens[0]) == each.limit

  def _step(self, open_: list[_Expansion], rng: np.random.Generator) -> None:
    """Runs a batch: a token of each candidate, then of prefixes."""
    sampling = [each for each in open_ if each.tokens]
    entries = [
      (
        row[-1],
        len(each.prefix) + len(row) - 1,
        self._sequence(each.tree, candidate),
        True,
      )
      for each in sampling
      for candidate, row in enumerate(each.tokens)
    ]
    # Draws from each row of logits.
    draws = [1] * len(entries)
    begun = []
    for each in open_:
      if each.tokens:
        continue
      last = len(each.prefix) - 1
      end = min(each.ran + _BATCH - len(entries), last + 1)
      entries += [
        (each.prefix[i], i, self._sequence(each.tree), i == last)
        for i in range(each.ran, end)
      ]
      each.ran = end
      if end > last:
        begun.append(each)
        draws.append(self._candidates)
    picked = iter(self._sample(self._decode(entries, len(draws)), draws, rng))
    for each in sampling:
      for row in each.tokens:
        row.append(next(picked))
    for each in begun:
      path = self._sequence(each.tree)
      for candidate in range(self._candidates):
        target = self._sequence(each.tree, candidate)
        lib.llama_memory_seq_cp(self._memory, path, target, -1, -1)
        each.tokens.append([next(picked)])

  def _sequence(self, tree: int, candidate: int = -1) -> int:
    return tree * self._width + candidate + 1

  def _open(self, tree: int, prefix: list[int]) -> int:
    """Leaves a tree's path with what it has of a prefix; returns how much."""
    held = self._held.pop(tree, [])
    shared = [_common(each, prefix) for each in held]
    best = int(np.argmax(shared)) if shared else 0
    # The last token is always run: its logits are wanted.
    count = min(shared[best], len(prefix) - 1) if shared else 0
    path = self._sequence(tree)
    if best:
      lib.llama_memory_seq_rm(self._memory, path, -1, -1)
      source = self._sequence(tree, best - 1)
      lib.llama_memory_seq_cp(self._memory, source, path, -1, -1)
    for candidate in range(self._candidates):
      sequence = self._sequence(tree, candidate)
      lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)
    lib.llama_memory_seq_rm(self._memory, path, count, -1)
    return count

  def _decode(self, entries, outputs: int) -> np.ndarray:
    """Runs (token, position, sequence, wanted); returns the wanted logits."""
    batch = self._batch
    batch.n_tokens = len(entries)
    for i, (token, position, sequence, wanted) in enumerate(entries):
      batch.token[i], batch.pos[i] = token, position
      batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
      batch.logits[i] = wanted
    if code := lib.llama_decode(self._context, batch):
      raise RuntimeError(f"llama_decode returned {code}")
    if not outputs:
      return np.empty((0, self._vocab), np.float32)
    pointer = lib.llama_get_logits(self._context)
    return np.ctypeslib.as_array(pointer, (outputs, self._vocab))

  def _sample(
    self, logits: np.ndarray, draws: list[int], rng: np.random.Generator
  ) -> list[int]:
    """Returns so many ids from each row of logits, which are overwritten."""
    if self._greedy:
      return np.repeat(logits.argmax(axis=1), draws).tolist()
    logits -= logits.max(axis=1, keepdims=True)
    ends = np.cumsum(np.exp(logits, out=logits), axis=1, out=logits)
    found: list[int] = []
    for row, count in zip(ends, draws, strict=True):
      places = rng.random(count, np.float32) * row[-1]
      found += np.searchsorted(row, places, side="right").tolist()
    return [min(each, self._vocab - 1) for each in found]


def _common(left: list[int], right: list[int]) -> int:
  """Returns how many first ids two lists share."""
  size = min(len(left), len(right))
  differing = np.asarray(left[:size]) != np.asarray(right[:size])
  return int(np.argmax(differing)) if differing.any() else size


if __name__ == "__main__":
  protocol.serve(LlamaEngine)
