"""llama.cpp by its C interface: one cell a token, shared by all sequences.

Runs in a Python that has llama-cpp-python, compiled for this machine; see
`protocol`. A prefix is decoded once, and its cells are given to the sequences
of its candidates without a copy. With reuse, each tree keeps its sequences
until its next expansion, which takes over the one that has most in common with
the new prefix, so that a candidate that was chosen is not run again.
"""

import ctypes
import os

import llama_cpp as lib
import numpy as np

from benchmarks.peers import protocol

_BATCH = 2048
_FILE_TYPES = {"float32": 0, "bfloat16": 32}
# Of keys and values: llama.cpp's default, whatever the weights are.
_CACHE_TYPE = 1

# Kept alive: the library calls it.
_quiet = lib.llama_log_callback(lambda level, text, data: None)


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
    reuse: bool = False,
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
    self._candidates, self._reuse = candidates, reuse
    self._greedy = temperature == 0
    # What each sequence holds, by tree.
    self._held: dict[int, list[list[int]]] = {}

  def expand(self, prefixes, limits, seed, trees):
    if not self._reuse:
      lib.llama_memory_clear(self._memory, True)
      self._held = {}
    rng = np.random.default_rng(seed)
    counts = [
      self._open(tree, prefix)
      for tree, prefix in zip(trees, prefixes, strict=True)
    ]
    logits = [
      self._prefill(self._sequence(tree), prefix, count)
      for tree, prefix, count in zip(trees, prefixes, counts, strict=True)
    ]
    first = np.repeat(np.stack(logits), self._candidates, axis=0)
    rows = [(b, c) for b in range(len(trees)) for c in range(self._candidates)]
    tokens = [[[] for _ in range(self._candidates)] for _ in trees]
    for b, c in rows:
      source, target = self._sequence(trees[b]), self._sequence(trees[b], c)
      lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)
    picked, index = self._sample(first, rng), 0
    while True:
      for (b, c), token in zip(rows, picked, strict=True):
        tokens[b][c].append(int(token))
      index += 1
      rows = [(b, c) for b, c in rows if index < limits[b]]
      if not rows:
        break
      entries = [
        (
          tokens[b][c][-1],
          len(prefixes[b]) + index - 1,
          self._sequence(trees[b], c),
          True,
        )
        for b, c in rows
      ]
      picked = self._sample(self._decode(entries, len(entries)), rng)
    for b, tree in enumerate(trees):
      # The last token of a candidate was never run.
      own = [prefixes[b] + row[:-1] for row in tokens[b]]
      self._held[tree] = [list(prefixes[b]), *own]
    missing = sum(map(len, prefixes)) - sum(counts)
    return {"tokens": tokens, "prefilled": missing}

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

  def _prefill(self, sequence: int, prefix: list[int], start: int):
    """Runs the rest of a prefix; returns the logits of its last token."""
    last = len(prefix) - 1
    for begin in range(start, len(prefix), _BATCH):
      places = range(begin, min(begin + _BATCH, len(prefix)))
      logits = self._decode(
        [(prefix[i], i, sequence, i == last) for i in places],
        int(last in places),
      )
    return logits[0].copy()

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

  def _sample(self, logits: np.ndarray, rng) -> np.ndarray:
    if self._greedy:
      return logits.argmax(axis=1)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    ends = np.cumsum(weights, axis=1)
    draws = rng.random((len(ends), 1), np.float32) * ends[:, -1:]
    return np.minimum((ends <= draws).sum(axis=1), self._vocab - 1)


def _common(left: list[int], right: list[int]) -> int:
  """Returns how many first ids two lists share."""
  size = min(len(left), len(right))
  differing = np.asarray(left[:size]) != np.asarray(right[:size])
  return int(np.argmax(differing)) if differing.any() else size


if __name__ == "__main__":
  protocol.serve(LlamaEngine)
